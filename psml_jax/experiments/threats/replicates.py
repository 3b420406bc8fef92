"""Replicates: the whole zoo trained again and again, on other halves of the candidates.

The models of one replicate share their half, as those of a served zoo share their
training images. Each architecture's replicates are a population, and each replicate's
shadows are the others of it.
"""

import functools
import pathlib
import time
import zipfile
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from psml_jax import _compile, data, threats, train, zoo
from psml_jax._validate import InputError
from psml_jax.core import Harvest
from psml_jax.experiments import config as experiments
from psml_jax.experiments import workdir
from psml_jax.experiments.experiment import Experiment

_BATCH = 256


class Candidates(NamedTuple):
  """Images of whom half are members.

  Attributes:
    images: f32[N, H, W, C].
    labels: i32[N].
    member: bool[R, N], which each replicate is trained on.
  """

  images: np.ndarray
  labels: np.ndarray
  member: np.ndarray


class Replicates(NamedTuple):
  """What R replicates of M models say of N candidates.

  Attributes:
    outputs: f32[M, R, N, K], probabilities.
    confidence: f32[M, R, N], see `threats.confidences`.
    accuracy: f64[M, R], on the profiling split, of which no candidate is.
    fit: f64[M, R], on the members.
  """

  outputs: np.ndarray
  confidence: np.ndarray
  accuracy: np.ndarray
  fit: np.ndarray


def candidates(images: data.Splits, key: jax.Array, count: int) -> Candidates:
  """The zoo's own training images and as many test images, each half drawn alike.

  Args:
    images: of the experiment; at least as many to test as to train on.
    key: consumed.
    count: R.
  """
  half = len(images.zoo_x)
  drawn = jax.vmap(lambda one: jax.random.permutation(one, 2 * half))(
    jax.random.split(key, count)
  )
  member = np.zeros((count, 2 * half), bool)
  np.put_along_axis(member, np.asarray(drawn)[:, :half], True, axis=1)
  return Candidates(
    np.concatenate([images.zoo_x, images.test_x[:half]]),
    np.concatenate([images.zoo_y, images.test_y[:half]]),
    member,
  )


def make(
  experiment: Experiment, asked: Candidates, key: jax.Array, folder: pathlib.Path
) -> Replicates:
  """Trains all replicates, one architecture after the other; keeps what lies there.

  Args:
    experiment: whose zoo it is.
    asked: the candidates.
    key: consumed.
    folder: a file a model.

  Returns:
    Their answers, models in the order of the profile.
  """
  config, images = experiment.config.zoo, experiment.images()
  assert config is not None
  folder.mkdir(exist_ok=True)
  found = []
  owners = [(name, own) for name in config.models for own in config.members(name)]
  for i, (name, own) in enumerate(owners):
    path = folder / f'{own}.npz'
    if not path.exists():
      began = time.perf_counter()
      fields = config.module_fields(name)
      training = train.Training(
        zoo.create(num_classes=images.num_classes, **fields),
        config.recipe_of(name),
        experiments.objective(config.objective),
      )
      outputs = _trained(training, images, asked, jax.random.fold_in(key, i))
      workdir.write(path, functools.partial(np.savez, outputs=outputs))
      print(f'replicates: {own}, {time.perf_counter() - began:.1f} s', flush=True)
    found.append(_read(path))
  every = np.stack(found)
  said, held = np.split(every, [len(asked.labels)], axis=2)
  right = said.argmax(-1) == asked.labels
  return Replicates(
    outputs=said,
    confidence=np.asarray(threats.confidences(said, asked.labels)),
    accuracy=(held.argmax(-1) == images.profile_y).mean(-1),
    fit=right.mean(-1, where=asked.member),
  )


def _trained(
  training: train.Training, images: data.Splits, asked: Candidates, key: jax.Array
) -> np.ndarray:
  """f32[R, N + Q, K], what the replicates say of candidates and profiling split."""
  halves = np.stack([np.flatnonzero(each) for each in asked.member])
  outputs = _fitted(
    training,
    jnp.asarray(asked.images),
    jnp.asarray(asked.labels),
    jnp.asarray(np.concatenate([asked.images, images.profile_x])),
    jax.random.split(key, len(halves)),
    jnp.asarray(halves, jnp.int32),
    1 if jax.default_backend() == 'cpu' else len(halves),
    train.local_mesh(),
  )
  if not np.isfinite(outputs).all():
    raise InputError(
      'a replicate diverged: its answers are not finite; lower the learning_rate of '
      'config.experiment.zoo'
    )
  return np.asarray(outputs)


@_compile.jit('training', static_argnames=('training', 'width', 'mesh'))
def _fitted(
  training: train.Training,
  images: jax.Array,
  labels: jax.Array,
  shown: jax.Array,
  keys: jax.Array,
  halves: jax.Array,
  width: int,
  mesh: Mesh,
) -> jax.Array:
  def row(each: tuple[jax.Array, jax.Array]) -> jax.Array:
    key, half = each
    harvest = Harvest(half, labels[half], jnp.int32(len(half)))
    variables, _ = train.pure_fit(key, training, images, harvest)
    model = zoo.Model(training.module, variables)
    return train.in_batches(model.probabilities, shown, _BATCH)

  return train.over_population(row, (keys, halves), width=width, mesh=mesh)


def _read(path: pathlib.Path) -> np.ndarray:
  try:
    with path.open('rb') as file, np.load(file) as stored:
      return np.asarray(stored['outputs'])
  except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
    raise workdir.damaged(path, error) from error
