"""Bisection by refusals: what all fingerprints that read `served` alone share."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from psml_jax import _validate, struct
from psml_jax.core import Spec


@struct.dataclass
class Brackets:
  """State of `bisection`: the highest value served and the lowest refused, each f32[].

  Attributes:
    accuracy_served: minimum accuracy that is served at the budget.
    accuracy_refused: minimum accuracy that is refused at the budget.
    latency_refused: maximum latency in ms refused at `accuracy_served`.
    latency_served: maximum latency in ms served at `accuracy_served`.
    found: bool[], whether any probe was served.
    probes: i32[], probes sent.
  """

  accuracy_served: jax.Array
  accuracy_refused: jax.Array
  latency_refused: jax.Array
  latency_served: jax.Array
  found: jax.Array
  probes: jax.Array


def check_resolution(accuracy: ArrayLike, latency: ArrayLike) -> None:
  """Raises a ValueError for the first concrete one that is not finite and > 0."""
  for name, value in (
    ('accuracy_resolution', accuracy),
    ('latency_resolution', latency),
  ):
    if _validate.is_concrete(value):
      _validate.positive(name, float(np.asarray(value)))


def brackets(latency_budget_ms: ArrayLike, accuracy_refused: jax.Array) -> Brackets:
  """The state before the first probe."""
  return Brackets(
    accuracy_served=jnp.float32(0.0),
    accuracy_refused=accuracy_refused,
    latency_refused=jnp.float32(0.0),
    latency_served=jnp.asarray(latency_budget_ms, jnp.float32),
    found=jnp.bool_(False),
    probes=jnp.int32(0),
  )


def still_open(
  state: Brackets, accuracy_resolution: ArrayLike, latency_resolution_ms: ArrayLike
) -> tuple[jax.Array, jax.Array]:
  """Whether each bracket is wider than its resolution and float32 can halve it."""

  def wide(low: jax.Array, high: jax.Array, resolution: ArrayLike) -> jax.Array:
    middle = (low + high) / 2
    return (high - low > resolution) & (low < middle) & (middle < high)

  return (
    wide(state.accuracy_served, state.accuracy_refused, accuracy_resolution),
    wide(state.latency_refused, state.latency_served, latency_resolution_ms),
  )


def probe(state: Brackets, accuracy_open: jax.Array) -> Spec:
  """The spec that halves the bracket under way."""
  middle_accuracy = (state.accuracy_served + state.accuracy_refused) / 2
  middle_latency = (state.latency_refused + state.latency_served) / 2
  return Spec(
    jnp.where(accuracy_open, middle_accuracy, state.accuracy_served),
    jnp.where(accuracy_open, state.latency_served, middle_latency),
  )


def narrow(state: Brackets, accuracy_open: jax.Array, served: jax.Array) -> Brackets:
  """The state after the answer to `probe`."""
  asked = probe(state, accuracy_open)
  latency_open = ~accuracy_open

  def moved(when: jax.Array, to: jax.Array, old: jax.Array) -> jax.Array:
    return jnp.where(when, to, old)

  return Brackets(
    accuracy_served=moved(
      accuracy_open & served, asked.min_accuracy, state.accuracy_served
    ),
    accuracy_refused=moved(
      accuracy_open & ~served, asked.min_accuracy, state.accuracy_refused
    ),
    latency_refused=moved(
      latency_open & ~served, asked.max_latency_ms, state.latency_refused
    ),
    latency_served=moved(
      latency_open & served, asked.max_latency_ms, state.latency_served
    ),
    found=state.found | served,
    probes=state.probes + 1,
  )
