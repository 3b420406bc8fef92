"""Runs a recipe: one compiled program an epoch, checkpoints, metrics, resume."""

import contextlib
import dataclasses
import hashlib
import os
import re
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from psml_jax import _files, _validate
from psml_jax._validate import InputError
from psml_jax.zoo import contract, feeding
from psml_jax.zoo import recipe as recipes
from psml_jax.zoo.log import Log
from psml_jax.zoo.model import check_data, predictor
from psml_jax.zoo.recipe import Recipe


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
  recipe: Recipe,
  directory: str | os.PathLike[str] | None = None,
  keep: int = 2,
  held_out: tuple[np.ndarray, np.ndarray] | None = None,
  resident_bytes: int | None = None,
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
    recipe: the settings.
    directory: of checkpoints and metrics; made where it does not exist. None keeps
      nothing.
    keep: how many checkpoints to keep.
    held_out: images and labels to measure after every epoch; nothing is chosen by it.
    resident_bytes: of images that may lie on the device; None takes half of the
      memory that it has free.
    name: shown beside the progress.

  Returns:
    The variables, and the epochs' records.

  Raises:
    ValueError: no keys, a module that cannot be trained, images, labels or classes that
      do not fit each other or the module, fewer images than a minibatch, a loss that is
      no longer finite, a population whose images do not fit on the device, or a
      directory that is damaged or another training's.
    OSError: a checkpoint could not be written; the ones before it stay.

  Warns:
    UserWarning: the module holds Flax's own convolutions, and the device is a CPU.
  """
  _validate.key('key', key, ndim=None)
  if key.ndim > 1 or not key.size:
    raise ValueError(f'key has shape {key.shape}; it must be one key or keys [P]')
  num_classes = _validate.positive_int('num_classes', num_classes)
  _check(module, images, labels, num_classes, recipe, held_out)
  _validate.positive_int('keep', keep)
  budget = feeding.budget(resident_bytes)
  if key.ndim and images.nbytes > budget:
    raise ValueError(
      f'images holds {images.nbytes} bytes, too many to stay on the device; a '
      'population needs them there, so train its members one by one'
    )
  if directory is not None:
    directory = _files.local('directory', directory).absolute()
  contract.warn_of_slow_layers(module, images.shape[1:])
  steps = len(images) // recipe.batch_size
  start_key, epochs_key = _halves(key)
  shape = tuple(images.shape[1:])
  begin = jax.jit(
    lambda key: recipes.over_members(
      key, lambda key: recipes.start(key, module, shape, recipe, steps)
    )
  )
  abstract = jax.eval_shape(begin, start_key)
  settings = {
    'recipe': dataclasses.asdict(recipe),
    'key': jax.random.key_data(key).tolist(),
    'num_classes': num_classes,
    'module': re.sub(r' at 0x[0-9a-f]+', '', repr(module)),
    'images': list(images.shape),
    'content': _digest(images, labels),
  }
  log = Log(directory, keep, abstract, settings)
  first = log.epoch
  # From the host, so that a population's state is spread over the devices anew.
  state = jax.tree.map(np.asarray, log.state) if first else begin(start_key)
  if images.nbytes <= budget:
    advance = feeding.resident(epochs_key, module, images, labels, recipe)
  else:
    advance = feeding.streamed(epochs_key, module, images, labels, recipe, budget / 2)
  accuracy = _accuracies(module, held_out, key.size if key.ndim else 0)
  images_per_epoch = steps * recipe.batch_size
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
      state, metrics = jax.block_until_ready(advance(state, epoch - 1))
      seconds = time.perf_counter() - began
      if not np.isfinite(metrics.loss).all():
        raise InputError(
          f'the loss of {name} is {np.asarray(metrics.loss)} in epoch {epoch}; lower '
          'recipe.learning_rate or lengthen recipe.warmup_epochs'
        )
      record = {
        'epoch': epoch,
        'loss': np.asarray(metrics.loss).tolist(),
        'accuracy': np.asarray(metrics.accuracy).tolist(),
        'seconds': seconds,
        'images_per_second': key.size * images_per_epoch / seconds,
      }
      if accuracy is not None:
        record['held_out_accuracy'] = accuracy(recipes.result(state, recipe))
      log.write(record, state)
      bar.update(images_per_epoch)
      shown = np.mean(record['loss']), np.mean(record['accuracy'])
      bar.set_postfix_str('loss {:.3f}, accuracy {:.3f}'.format(*shown))
  return Trained(recipes.result(state, recipe), log.records)


def _halves(key: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Two keys for one, two arrays of keys for an array."""
  halves = jnp.vectorize(jax.random.split, signature='()->(n)')(key)
  return halves[..., 0], halves[..., 1]


def _accuracies(
  module: nn.Module, held_out: tuple[np.ndarray, np.ndarray] | None, members: int
) -> Callable[[Any], Any] | None:
  """Measures accuracies on held-out images, compiled once for all epochs."""
  if held_out is None:
    return None
  images, labels = held_out
  answers = predictor(module, images)

  def measure(variables: Any) -> Any:
    if not members:
      return float(np.mean(answers(variables).argmax(-1) == labels))
    each = (jax.tree.map(lambda leaf, i=i: leaf[i], variables) for i in range(members))
    return [float(np.mean(answers(member).argmax(-1) == labels)) for member in each]

  return measure


def _digest(*arrays: np.ndarray) -> str:
  content = hashlib.blake2b(digest_size=16)
  for array in arrays:
    content.update(np.ascontiguousarray(array).data)
  return content.hexdigest()


def _check(
  module: nn.Module,
  images: np.ndarray,
  labels: np.ndarray,
  num_classes: int,
  recipe: Recipe,
  held_out: tuple[np.ndarray, np.ndarray] | None,
) -> None:
  check_data(images, labels, num_classes)
  contract.check_logits(module, images.shape[1:], num_classes)
  if len(images) < recipe.batch_size:
    raise ValueError(
      f'images holds {len(images)}; it must hold at least the {recipe.batch_size} of a '
      'minibatch'
    )
  if held_out is None:
    return
  try:
    check_data(*held_out, num_classes)
  except ValueError as error:
    raise ValueError(f'held_out: {error}') from None
  if held_out[0].shape[1:] != images.shape[1:]:
    raise ValueError(
      f'held_out has images of {held_out[0].shape[1:]}; they must be of '
      f'{images.shape[1:]}, as those that are trained on'
    )
