"""What is done with answers that may be the victim's."""

import dataclasses

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from psml_jax import _validate
from psml_jax.core import Harvest


def keep(harvest: Harvest, probability: jax.Array, *, least: float = 0.5) -> Harvest:
  """The answers that are probably the victim's; where none is, all of them.

  Args:
    harvest: B rows.
    probability: f32[B], of each row to be the victim's; padding is left out whatever it
      says.
    least: what an answer must reach, in [0, 1).

  Returns:
    A harvest of B rows, in their order. Traceable.

  Raises:
    ValueError: `least` outside its range.

  >>> mixed = Harvest(jnp.arange(3), jnp.eye(3), jnp.int32(3))
  >>> own = keep(mixed, jnp.array([0.1, 0.9, 0.8]))
  >>> own.inputs[:2].tolist(), int(own.count)
  ([1, 2], 2)
  """
  _validate.share('least', least)
  answered = jnp.arange(len(harvest.inputs)) < harvest.count
  kept = answered & (probability >= least)
  kept = jnp.where(jnp.any(kept), kept, answered)
  order = jnp.argsort(~kept, stable=True)

  def sort(column: jax.Array) -> jax.Array:
    by = kept[order].reshape((-1,) + (1,) * (column.ndim - 1))
    return jnp.where(by, column[order], 0)

  return Harvest(
    inputs=harvest.inputs[order],
    targets=sort(harvest.targets),
    count=jnp.sum(kept, dtype=jnp.int32),
    latency_ms=None if harvest.latency_ms is None else sort(harvest.latency_ms),
  )


def weigh(harvest: Harvest, probability: ArrayLike) -> Harvest:
  """Every answer, with a loss in proportion to its probability to be the victim's.

  Targets are scaled, so that the cross-entropy of a row is (but for what label
  smoothing adds to it); the mean weight is 1.

  Args:
    harvest: B rows.
    probability: f32[B]; of padding it does not matter.

  Returns:
    The harvest with other targets. Traceable.

  >>> mixed = Harvest(jnp.arange(2), jnp.eye(2), jnp.int32(2))
  >>> weigh(mixed, jnp.array([0.25, 0.75])).targets.tolist()
  [[0.5, 0.0], [0.0, 1.5]]
  """
  answered = jnp.arange(len(harvest.inputs)) < harvest.count
  weight = jnp.where(answered, probability, 0.0)
  total = harvest.count.astype(jnp.float32)
  scale = total / jnp.maximum(jnp.sum(weight), 1e-6)
  targets = harvest.targets * (weight * scale)[:, None]
  return dataclasses.replace(harvest, targets=targets)
