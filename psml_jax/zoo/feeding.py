"""How a training's images reach the device: once for all, or in pieces."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from psml_jax import _compile, _validate
from psml_jax.zoo import recipe as recipes
from psml_jax.zoo.recipe import Metrics, Recipe, TrainState

Epoch = Callable[[TrainState, int], tuple[TrainState, Metrics]]
"""Trains for one epoch, counted from 0; the state that it is given is consumed."""


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
  told = jax.devices()[0].memory_stats() or {}
  if 'bytes_limit' not in told:
    return float('inf')
  return (told['bytes_limit'] - told.get('bytes_in_use', 0)) / 2


def resident(
  key: jax.Array,
  module: nn.Module,
  images: np.ndarray,
  labels: np.ndarray,
  recipe: Recipe,
) -> Epoch:
  """Epochs of images that stay on the device, one call of one program each.

  Args:
    key: the training's, or those of a population, shape [P].
    module: the model.
    images: f32[N, H, W, C], pixels in [0, 1].
    labels: i32[N].
    recipe: the settings.

  Returns:
    The epoch, of states with a leading axis for a population.
  """
  on_device = jnp.asarray(images), jnp.asarray(labels, jnp.int32)

  def job(state: TrainState, key: jax.Array, x: jax.Array, y: jax.Array) -> Any:
    return recipes.over_members(
      key, lambda key, state: recipes.epoch(key, state, module, x, y, recipe), state
    )

  program = jax.jit(
    job, donate_argnums=0, compiler_options=_compile.options('training')
  )
  return lambda state, _: program(state, key, *on_device)


def streamed(
  key: jax.Array,
  module: nn.Module,
  images: np.ndarray,
  labels: np.ndarray,
  recipe: Recipe,
  piece_bytes: float,
) -> Epoch:
  """Epochs of images that stay on the host, sent in pieces of whole minibatches.

  The next piece is gathered and sent while the device trains on the one before.

  Args:
    key: the training's.
    module: the model.
    images: f32[N, H, W, C], pixels in [0, 1].
    labels: i32[N].
    recipe: the settings.
    piece_bytes: of the images in a piece; a minibatch is the least.

  Returns:
    The epoch; it draws what `resident` draws.
  """
  steps = len(images) // recipe.batch_size
  labels = labels.astype(np.int32)
  minibatch = recipe.batch_size * images[0].nbytes
  length = max(1, int(min(steps, piece_bytes // minibatch)))

  def job(
    state: TrainState, key: jax.Array, images: jax.Array, labels: jax.Array
  ) -> Any:
    rows = jnp.arange(len(images)).reshape(-1, recipe.batch_size)
    return recipes.advance(key, state, module, images, labels, rows, recipe, steps)

  program = jax.jit(
    job, donate_argnums=0, compiler_options=_compile.options('training')
  )
  shuffle = jax.jit(lambda key, epoch: recipes.order(key, epoch, len(images), recipe))

  def epoch(state: TrainState, number: int) -> tuple[TrainState, Metrics]:
    rows = np.asarray(shuffle(key, number))
    parts: list[Metrics] = []
    for begin in range(0, steps, length):
      piece = rows[begin : begin + length].ravel()
      state, metrics = program(state, key, images[piece], labels[piece])
      if parts:
        jax.block_until_ready(parts[-1])  # At most two pieces lie on the device.
      parts.append(metrics)
    weights = np.minimum(length, steps - np.arange(0, steps, length)) / steps
    return state, jax.tree.map(lambda *each: np.dot(weights, np.stack(each)), *parts)

  return epoch
