"""How a training's images reach the device: once for all, or in pieces."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from psml_jax import _compile, _validate
from psml_jax.core import Harvest
from psml_jax.train import loop, population
from psml_jax.train.loop import Metrics, Training, TrainState

Epoch = Callable[[TrainState], tuple[TrainState, Metrics]]
"""Trains for one epoch; the state that it is given is consumed."""


def budget(resident_bytes: int | None) -> float:
  """The bytes of images that may lie on the first device.

  Args:
    resident_bytes: at least 1; None takes half of what the device has free, and has no
      limit where the device does not tell (CPUs).

  Returns:
    The bytes.

  Raises:
    ValueError: not a whole number >= 1.
  """
  if resident_bytes is not None:
    return _validate.positive_int('resident_bytes', resident_bytes)
  told = jax.local_devices()[0].memory_stats() or {}
  if 'bytes_limit' not in told:
    return float('inf')
  return (told['bytes_limit'] - told.get('bytes_in_use', 0)) / 2


def begin(
  key: jax.Array,
  training: Training,
  image_shape: tuple[int, ...],
  num_examples: int,
  mesh: Mesh | None,
) -> TrainState:
  """The state before the first step, of one training or a population; traceable."""
  return _over_members(
    lambda key: loop.start(key, training, image_shape, num_examples), key, mesh=mesh
  )


def resident(
  key: jax.Array,
  training: Training,
  images: np.ndarray,
  labels: np.ndarray,
  mesh: Mesh | None,
) -> Epoch:
  """Epochs of images that stay on the device, one call of one program each.

  Args:
    key: the training's, or those of a population, shape [P].
    training: what is trained.
    images: f32[N, H, W, C], pixels in [0, 1].
    labels: i32[N].
    mesh: of a population's devices; all of this process unless given.

  Returns:
    The epoch, of states with a leading axis for a population.
  """
  on_device, examples = jnp.asarray(images), _all_of(labels)
  return lambda state: _resident(state, key, training, on_device, examples, mesh)


@_compile.jit('training', static_argnames=('training', 'mesh'), donate_argnames='state')
def _resident(
  state: TrainState,
  key: jax.Array,
  training: Training,
  images: jax.Array,
  examples: Harvest,
  mesh: Mesh | None,
) -> tuple[TrainState, Metrics]:
  def one(key: jax.Array, state: TrainState) -> tuple[TrainState, Metrics]:
    state, metrics = loop.epoch(key, state, training, images, examples)
    return state, jax.tree.map(jnp.mean, metrics)

  return _over_members(one, key, state, mesh=mesh)


def streamed(
  key: jax.Array,
  training: Training,
  images: np.ndarray,
  labels: np.ndarray,
  piece_bytes: float,
) -> Epoch:
  """Epochs of images that stay on the host, sent in pieces of whole minibatches.

  The next piece is gathered and sent while the device trains on the one before.

  Args:
    key: the training's.
    training: what is trained; its objective takes no unlabelled images.
    images: f32[N, H, W, C], pixels in [0, 1].
    labels: i32[N].
    piece_bytes: of the images in a piece; a minibatch is the least.

  Returns:
    The epoch; it draws what `resident` draws.
  """
  size = len(images)
  steps = training.recipe.epoch_steps(size)
  minibatch = training.recipe.batch_size * images[0].nbytes
  length = max(1, int(min(steps, piece_bytes // minibatch)))

  def epoch(state: TrainState) -> tuple[TrainState, Metrics]:
    drawn, keys = _draw(key, state.step, training, size)
    rows = np.asarray(drawn)
    parts: list[Metrics] = []
    for first in range(0, steps, length):
      chosen = rows[first : first + length].ravel()
      state, metrics = _piece(
        state,
        training,
        images[chosen],
        _all_of(labels[chosen]),
        keys[first : first + length],
        size,
      )
      if parts:
        jax.block_until_ready(parts[-1])  # At most two pieces lie on the device.
      parts.append(metrics)
    return state, jax.tree.map(lambda *each: np.concatenate(each).mean(), *parts)

  return epoch


@_compile.jit(
  'training', static_argnames=('training', 'num_examples'), donate_argnames='state'
)
def _piece(
  state: TrainState,
  training: Training,
  images: jax.Array,
  examples: Harvest,
  keys: jax.Array,
  num_examples: int,
) -> tuple[TrainState, Metrics]:
  rows = examples.inputs.reshape(len(keys), -1)
  return loop.advance(state, training, images, examples, rows, keys, num_examples)


@_compile.jit('training', static_argnames=('training', 'size'))
def _draw(
  key: jax.Array, first: jax.Array, training: Training, size: int
) -> tuple[jax.Array, jax.Array]:
  recipe = training.recipe
  return recipe.draw(key, first, recipe.epoch_steps(size), size, jnp.int32(size))


def _all_of(labels: np.ndarray) -> Harvest:
  """Every image with its label."""
  size = len(labels)
  return Harvest(
    jnp.arange(size, dtype=jnp.int32), jnp.asarray(labels, jnp.int32), jnp.int32(size)
  )


def _over_members(
  function: Callable[..., Any], key: jax.Array, *states: Any, mesh: Mesh | None
) -> Any:
  """A function of one training, of it or of every member of a population."""
  if not key.ndim:
    return function(key, *states)
  return population.over_population(
    lambda row: function(*row),
    (key, *states),
    width=1 if jax.default_backend() == 'cpu' else key.size,
    mesh=mesh,
  )
