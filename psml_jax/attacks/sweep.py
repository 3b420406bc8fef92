"""The sweep: every corner of the frontier, one after the other."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax.typing import ArrayLike

from psml_jax import _validate
from psml_jax.attacks.refusals import (
  Brackets,
  Fingerprinter,
  brackets,
  check_resolution,
  narrow,
  probe,
  still_open,
)
from psml_jax.core import Observation, Spec

_ANY_MODEL, _BISECTION, _CHECK = range(3)


@struct.dataclass
class Corners:
  """What a sweep found.

  Attributes:
    spec: Spec of shape [max_corners], from the most accurate model to the fastest.
    valid: bool[max_corners], whether the corner's own spec was served when it was
      asked for once more. Without noise all are; against noise a corner that no model
      has is refused more often than not.
    count: i32[], how many of them are filled.
    done: bool[], whether the frontier's end or `max_corners` was reached.
    probes: i32[max_corners], queries each corner cost, its check included.
    total_probes: i32[], all queries, the one that found the end included.
  """

  spec: Spec
  valid: jax.Array
  count: jax.Array
  done: jax.Array
  probes: jax.Array
  total_probes: jax.Array


@struct.dataclass
class SweepState:
  """State of `sweep`.

  Attributes:
    brackets: of the bisection under way.
    phase: i32[], what the next probe is for.
    corners: the corners so far.
  """

  brackets: Brackets
  phase: jax.Array
  corners: Corners


def sweep(
  latency_budget_ms: ArrayLike,
  *,
  max_corners: int,
  accuracy_resolution: ArrayLike,
  latency_resolution_ms: ArrayLike,
) -> Fingerprinter:
  """Finds every corner of the frontier, from the most accurate model down.

  Each corner is asked for once more, and then the sweep bisects again below its
  latency and accuracy, one probe first telling whether any model is left. It ends at a
  model that no latency was refused to: nothing is faster.

  Args:
    latency_budget_ms: f32[], where to begin; may be traced.
    max_corners: how many corners at most.
    accuracy_resolution: as in `bisection`.
    latency_resolution_ms: as in `bisection`.

  Returns:
    The machine; `result` gives `Corners`. Against a noisy server read its `valid`, and
    give its driver a cap: a corner takes at most a bisection and two probes more.

  Raises:
    ValueError: as in `bisection`, or `max_corners` is not a whole number >= 1.
  """
  check_resolution(latency_budget_ms, accuracy_resolution, latency_resolution_ms)
  _validate.positive_int('max_corners', max_corners)

  def opened(state: Brackets) -> tuple[jax.Array, jax.Array]:
    return still_open(state, accuracy_resolution, latency_resolution_ms)

  def init() -> SweepState:
    empty = jnp.zeros((max_corners,), jnp.float32)
    zero = jnp.int32(0)
    corners = Corners(
      spec=Spec(empty, empty),
      valid=jnp.zeros((max_corners,), bool),
      count=zero,
      done=jnp.bool_(False),
      probes=jnp.zeros((max_corners,), jnp.int32),
      total_probes=zero,
    )
    first = brackets(latency_budget_ms, jnp.float32(1.0))
    return SweepState(first, jnp.int32(_ANY_MODEL), corners)

  def ask(state: SweepState) -> Spec:
    b = state.brackets
    asked = (
      Spec(jnp.float32(0.0), b.latency_served),
      probe(b, opened(b)[0]),
      Spec(b.accuracy_served, b.latency_served),
    )
    return jax.tree.map(lambda *each: jnp.stack(each)[state.phase], *asked)

  def tell(state: SweepState, observation: Observation) -> SweepState:
    served, phase, old = jnp.asarray(observation.served), state.phase, state.brackets
    counted = dataclasses.replace(old, probes=old.probes + 1)
    now = _choose(phase == _BISECTION, narrow(old, opened(old)[0], served), counted)
    complete = phase == _CHECK
    corners = _record(state.corners, now, served, complete)
    ended = (phase == _ANY_MODEL) & ~served
    ended |= complete & ((now.latency_refused <= 0.0) | (corners.count >= max_corners))
    corners = dataclasses.replace(corners, done=corners.done | ended)
    searching = jnp.where(jnp.logical_or(*opened(now)), _BISECTION, _CHECK)
    below = brackets(now.latency_refused, now.accuracy_served)
    return SweepState(
      brackets=_choose(complete, below, now),
      phase=jnp.where(complete, _ANY_MODEL, searching).astype(jnp.int32),
      corners=corners,
    )

  return Fingerprinter(init, ask, tell, lambda state: state.corners)


def _choose(when: jax.Array, one: Any, other: Any) -> Any:
  return jax.tree.map(lambda a, b: jnp.where(when, a, b), one, other)


def _record(
  corners: Corners, found: Brackets, valid: jax.Array, complete: jax.Array
) -> Corners:
  """The corners with one more query, and with the corner found if it is complete."""
  slot = jnp.where(complete, corners.count, len(corners.valid))

  def put(column: jax.Array, value: jax.Array) -> jax.Array:
    return column.at[slot].set(value, mode='drop')

  return dataclasses.replace(
    corners,
    spec=Spec(
      put(corners.spec.min_accuracy, found.accuracy_served),
      put(corners.spec.max_latency_ms, found.latency_served),
    ),
    valid=put(corners.valid, valid),
    count=corners.count + complete.astype(jnp.int32),
    probes=put(corners.probes, found.probes),
    total_probes=corners.total_probes + 1,
  )
