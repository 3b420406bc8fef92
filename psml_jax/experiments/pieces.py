"""Surrogates whose trainings are cut into pieces; what is under way lies on disk."""

import pathlib
import time
import zipfile
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from tqdm import tqdm

from psml_jax import _compile, struct, train
from psml_jax.core import Harvest
from psml_jax.experiments import harness, processes, workdir
from psml_jax.experiments.config import Extraction
from psml_jax.experiments.harness import Score, Tables

STATE = 'extraction.state.npz'
"""The file of a work directory that holds the surrogates under way."""


@struct.dataclass
class Under:
  """Surrogates under way; every leaf has a leading axis of rows, [R, ...].

  Attributes:
    state: of their trainings.
    loss: f32[R], of the last minibatch; NaN once one was not finite.
  """

  state: train.TrainState
  loss: jax.Array


def begin(
  keys: jax.Array,
  training: train.Training,
  image_shape: tuple[int, ...],
  num_queries: int,
  mesh: Mesh,
) -> Under:
  """The surrogates before their first step, as `harness.scores` begins them.

  Args:
    keys: the rows' pairing keys, [R].
    training: of the surrogates (static).
    image_shape: (H, W, C) (static).
    num_queries: rows of a harvest (static).
    mesh: of one axis (static).

  Returns:
    The surrogates. Traceable.
  """

  def row(key: jax.Array) -> Under:
    start_key, _ = _halves(key)
    state = train.start(start_key, training, image_shape, num_queries)
    return Under(state, jnp.float32(0))

  return train.over_population(row, keys, mesh=mesh)


_begin = _compile.jit('once', static_argnums=(1, 2, 3, 4))(begin)


@_compile.jit('training', static_argnames=('training', 'epochs', 'width', 'mesh'))
def advance(
  under: Under,
  training: train.Training,
  tables: Tables,
  keys: jax.Array,
  harvests: Harvest,
  epochs: int,
  width: int,
  mesh: Mesh,
) -> Under:
  """The surrogates some epochs later; one program for all pieces of all calls."""

  def row(each: tuple[Under, jax.Array, Harvest]) -> Under:
    before, key, harvest = each
    _, steps_key = _halves(key)
    state, metrics = train.epoch(
      steps_key, before.state, training, tables.pool, harvest, epochs
    )
    answered = harvest.count > 0
    state = jax.tree.map(
      lambda new, old: jnp.where(answered, new, old), state, before.state
    )
    finite = jnp.isfinite(before.loss) & jnp.isfinite(metrics.loss).all()
    return Under(state, jnp.where(finite, metrics.loss[-1], jnp.nan))

  return train.over_population(row, (under, keys, harvests), width=width, mesh=mesh)


@_compile.jit('surrogates', static_argnames=('training', 'test_batch', 'width', 'mesh'))
def examine(
  under: Under,
  training: train.Training,
  tables: Tables,
  victims: jax.Array,
  test_batch: int,
  width: int,
  mesh: Mesh,
) -> Score:
  """The scores of surrogates, each field of shape [R]."""

  def row(each: tuple[Under, jax.Array]) -> Score:
    after, victim = each
    return harness.examine(
      training, tables, after.state.result, after.loss, victim, test_batch
    )

  return train.over_population(row, (under, victims), width=width, mesh=mesh)


def scores(
  path: pathlib.Path,
  names: Sequence[str],
  config: Extraction,
  training: train.Training,
  tables: Tables,
  keys: jax.Array,
  victims: jax.Array,
  harvests: Harvest,
  mesh: Mesh,
) -> tuple[Score, float]:
  """What `harness.scores` gives, saved after each of `config.pieces` pieces.

  A call for the same rows continues after the last piece that lies on disk, and ends
  with the same bits.

  Args:
    path: the file of what is under way; that of other rows is replaced.
    names: of the R rows, which tell them from others.
    config: pieces, width and test batch.
    training: of the surrogates.
    tables: the experiment's images and the zoo's answers.
    keys: the rows' pairing keys, [R].
    victims: i32[R], indices into the zoo.
    harvests: the surrogates' training data, leaves [R, ...].
    mesh: of one axis.

  Returns:
    The scores, each field a NumPy array of shape [R], and the seconds that earlier
    calls spent on the pieces that lay on disk.

  Raises:
    InputError: a file that is damaged.
  """
  began, epochs = time.perf_counter(), training.recipe.epochs // config.pieces
  label = '\n'.join(names)
  begun = training, tables.pool.shape[1:], harvests.inputs.shape[1], mesh
  shapes = jax.eval_shape(lambda keys: begin(keys, *begun), keys)
  done, earlier, under = _read(path, label, shapes)
  if not done:
    under = train.gather(_begin(keys, *begun))
  pieces = tqdm(
    range(done, config.pieces),
    initial=done,
    total=config.pieces,
    desc='pieces of these runs',
    leave=False,
    disable=not processes.is_first(),
  )
  for piece in pieces:
    # On the host in between, where every process has all rows.
    under = train.gather(
      advance(under, training, tables, keys, harvests, epochs, config.width, mesh)
    )
    if processes.is_first():
      spent = earlier + time.perf_counter() - began
      _write(path, label, piece + 1, spent, under)
  result = train.gather(
    examine(under, training, tables, victims, config.test_batch, config.width, mesh)
  )
  return result, earlier


def _halves(key: jax.Array) -> tuple[jax.Array, jax.Array]:
  """The keys that `train.pure_fit` makes of that of a surrogate."""
  _, surrogate_key = jax.random.split(key)
  start_key, steps_key = jax.random.split(surrogate_key)
  return start_key, steps_key


def _write(
  path: pathlib.Path, label: str, done: int, seconds: float, under: Under
) -> None:
  leaves = jax.tree.leaves(under)
  named = {f'leaf{i}': leaf for i, leaf in enumerate(leaves)}
  workdir.write(
    path,
    lambda temporary: np.savez(
      temporary, label=label, done=done, seconds=seconds, **named
    ),
  )


def _read(path: pathlib.Path, label: str, shapes: Under) -> tuple[int, float, Under]:
  """The pieces that are done, their seconds and what they left; 0 of other rows."""
  leaves, structure = jax.tree.flatten(shapes)
  try:
    with path.open('rb') as file, np.load(file) as stored:
      if str(stored['label']) != label:
        return 0, 0.0, shapes
      found = [stored[f'leaf{i}'] for i in range(len(leaves))]
      done, seconds = int(stored['done']), float(stored['seconds'])
  except FileNotFoundError:
    return 0, 0.0, shapes
  except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
    raise workdir.damaged(path, error) from error
  for leaf, wanted in zip(found, leaves, strict=True):
    if (leaf.shape, leaf.dtype) != (wanted.shape, wanted.dtype):
      raise workdir.damaged(
        path, f'{leaf.dtype}{leaf.shape} stands for {wanted.dtype}{wanted.shape}'
      )
  return done, seconds, jax.tree.unflatten(structure, found)
