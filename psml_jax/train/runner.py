"""Runs a training: one compiled program an epoch, checkpoints, metrics, resume."""

import contextlib
import dataclasses
import hashlib
import os
import re
import time
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from tqdm import tqdm

from psml_jax import _compile, _files, _validate
from psml_jax._validate import InputError
from psml_jax.train import contract, feeding
from psml_jax.train.log import Log
from psml_jax.train.loop import Training, check_loss, check_pool
from psml_jax.train.model import Model, predict
from psml_jax.train.objectives import CROSS_ENTROPY, Objective
from psml_jax.train.population import check_mesh
from psml_jax.train.recipes import Epochs, Steps


class Trained(NamedTuple):
  """What a training leaves.

  Attributes:
    variables: Flax variables; with a leading axis where a population was trained.
    records: one of every epoch: `epoch` (from 1), `loss`, `accuracy` (on the augmented
      images), `held_out_accuracy` where images were held out, `seconds` and
      `images_per_second` (in the first epoch of a call with compilation); lists of one
      entry a member for a population.
  """

  variables: Any
  records: list[dict[str, Any]]


def fit(
  key: jax.Array,
  module: nn.Module,
  images: np.ndarray,
  labels: np.ndarray,
  *,
  num_classes: int,
  recipe: Steps | Epochs,
  objective: Objective = CROSS_ENTROPY,
  directory: str | os.PathLike[str] | None = None,
  keep: int = 2,
  held_out: tuple[np.ndarray, np.ndarray] | None = None,
  resident_bytes: int | None = None,
  mesh: Mesh | None = None,
  name: str = 'train',
) -> Trained:
  """Trains a model, or a population of one architecture, by a recipe.

  The images stay on the device where they fit; otherwise they are sent to it in pieces
  while it trains, with the same draws. With a directory, every epoch's state is saved
  while the next one runs, and a training that was killed continues from the last whole
  checkpoint: on the same device it ends with the same bits (on a GPU where
  `XLA_FLAGS=--xla_gpu_deterministic_ops=true` makes programs repeatable). Metrics go to
  `metrics.jsonl` and to TensorBoard's event files there.

  Args:
    key: consumed. Several keys, shape [P], train P members from their own
      initialisations in one program, spread over all devices.
    module: the architecture, called as `zoo.register` says.
    images: f32[N, H, W, C].
    labels: i32[N], classes.
    num_classes: K.
    recipe: how it is trained.
    objective: what is minimised.
    directory: of checkpoints and metrics; made where it does not exist. None keeps
      nothing.
    keep: how many checkpoints to keep.
    held_out: images and labels to measure after every epoch; nothing is chosen by it.
    resident_bytes: of images that may lie on the device; None takes half of the
      memory that it has free.
    mesh: devices of a population, in one axis; all of this process unless given.
    name: shown beside the progress.

  Returns:
    The variables, and the epochs' records.

  Raises:
    ValueError: no keys, a module, recipe or objective that cannot be trained, images,
      labels or classes that do not fit each other or the module, fewer images than a
      minibatch, a loss that is no longer finite, a population whose images do not fit
      on the device, or a directory that is damaged or another training's.
    OSError: a checkpoint could not be written; the ones before it stay.

  Warns:
    UserWarning: the module holds Flax's own convolutions, and the device is a CPU.
  """
  _validate.key('key', key, ndim=None)
  if key.ndim > 1 or not key.size:
    raise ValueError(f'key has shape {key.shape}; it must be one key or keys [P]')
  num_classes = _validate.positive_int('num_classes', num_classes)
  training = Training(module, recipe, objective)
  _check(training, images, labels, num_classes, held_out)
  if mesh is not None:
    check_mesh(mesh)
  images = np.asarray(images, np.float32)
  _validate.positive_int('keep', keep)
  budget = feeding.budget(resident_bytes)
  if images.nbytes > budget and (key.ndim or objective.unlabelled):
    raise ValueError(
      f'images holds {images.nbytes} bytes, too many to stay on the device; a '
      'population, and an objective of unlabelled images, needs them there'
    )
  if directory is not None:
    directory = _files.local('directory', directory).absolute()
  contract.warn_of_slow_layers(module, images.shape[1:])
  start_key, epochs_key = _halves(key)
  begun = (start_key, training, tuple(images.shape[1:]), len(images), mesh)
  settings = {
    'recipe': {type(recipe).__name__: dataclasses.asdict(recipe)},
    'objective': _described(objective),
    'key': jax.random.key_data(key).tolist(),
    'num_classes': num_classes,
    'module': _described(module),
    'images': list(images.shape),
    'content': _digest(images, np.asarray(labels, np.int32)),
  }
  abstract = jax.eval_shape(lambda key: feeding.begin(key, *begun[1:]), start_key)
  log = Log(directory, keep, abstract, settings)
  first = log.epoch
  # From the host, so that a population's state is spread over the devices anew.
  state = jax.tree.map(np.asarray, log.state) if first else _begin(*begun)
  if images.nbytes <= budget:
    advance = feeding.resident(epochs_key, training, images, labels, mesh)
  else:
    advance = feeding.streamed(epochs_key, training, images, labels, budget / 2)
  images_per_epoch = recipe.epoch_steps(len(images)) * recipe.batch_size
  bar = tqdm(
    total=recipe.epochs * images_per_epoch,
    initial=first * images_per_epoch,
    desc=name,
    unit='image',
    unit_scale=True,
  )
  with contextlib.closing(log), bar:
    for epoch in range(first + 1, recipe.epochs + 1):
      began = time.perf_counter()
      state, metrics = jax.block_until_ready(advance(state))
      seconds = time.perf_counter() - began
      if not np.isfinite(metrics.loss).all():
        raise InputError(
          f'the loss of {name} is {np.asarray(metrics.loss)} in epoch {epoch}; lower '
          f'the learning_rate of its {type(recipe).__name__}, {recipe.learning_rate}'
        )
      record = {
        'epoch': epoch,
        'loss': np.asarray(metrics.loss).tolist(),
        'accuracy': np.asarray(metrics.accuracy).tolist(),
        'seconds': seconds,
        'images_per_second': key.size * images_per_epoch / seconds,
      }
      if held_out is not None:
        record['held_out_accuracy'] = _accuracy(module, state.result, *held_out, key)
      log.write(record, state)
      bar.update(images_per_epoch)
      shown = np.mean(record['loss']), np.mean(record['accuracy'])
      bar.set_postfix_str('loss {:.3f}, accuracy {:.3f}'.format(*shown))
  return Trained(state.result, log.records)


def _halves(key: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Two keys for one, two arrays of keys for an array."""
  halves = jnp.vectorize(jax.random.split, signature='()->(n)')(key)
  return halves[..., 0], halves[..., 1]


_begin = _compile.jit('once', static_argnums=(1, 2, 3, 4))(feeding.begin)


def _accuracy(
  module: nn.Module,
  variables: Any,
  images: np.ndarray,
  labels: np.ndarray,
  key: jax.Array,
) -> Any:
  """The share of right answers, or a list of them for a population's keys."""

  def one(member: Any) -> float:
    answers = predict(Model(module, member), images)
    return float(np.mean(answers.argmax(-1) == labels))

  if not key.ndim:
    return one(variables)
  # On the host, for a member of what lies on a mesh would run on all its devices.
  members = jax.device_get(variables)
  return [
    one(jax.tree.map(lambda leaf, i=i: leaf[i], members)) for i in range(key.size)
  ]


def _described(value: Any) -> str:
  """Its repr without addresses, which differ from run to run."""
  return re.sub(r' at 0x[0-9a-f]+', '', repr(value))


def _digest(*arrays: np.ndarray) -> str:
  content = hashlib.blake2b(digest_size=16)
  for array in arrays:
    content.update(np.ascontiguousarray(array).data)
  return content.hexdigest()


def _check(
  training: Training,
  images: np.ndarray,
  labels: np.ndarray,
  num_classes: int,
  held_out: tuple[np.ndarray, np.ndarray] | None,
) -> None:
  contract.check_data(images, labels, num_classes)
  contract.check_logits(training.module, images.shape[1:], num_classes)
  if not isinstance(training.recipe, (Steps, Epochs)):
    raise ValueError(f'recipe is {training.recipe!r}; it must be Steps or Epochs')
  contract.check_objective('objective', training.objective)
  check_pool(training, len(images))
  check_loss(training, images.shape[1:])
  if held_out is None:
    return
  if not isinstance(held_out, (tuple, list)) or len(held_out) != 2:
    raise ValueError(
      f'held_out is a {type(held_out).__name__}; it must be a pair of images and labels'
    )
  try:
    contract.check_data(*held_out, num_classes)
  except ValueError as error:
    raise ValueError(f'held_out: {error}') from None
  if held_out[0].shape[1:] != images.shape[1:]:
    raise ValueError(
      f'held_out has images of {held_out[0].shape[1:]}; they must be of '
      f'{images.shape[1:]}, as those that are trained on'
    )
