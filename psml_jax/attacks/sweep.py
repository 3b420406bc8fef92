"""The sweep: every corner of the frontier, one after the other."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from psml_jax import _validate, struct
from psml_jax.attacks.extraction import choose_inputs
from psml_jax.attacks.refusals import (
  Brackets,
  brackets,
  check_resolution,
  narrow,
  probe,
  still_open,
)
from psml_jax.core import Knowledge, Observation, Query, Spec

_ANY_MODEL, _BISECTION, _CHECK = range(3)


@struct.dataclass(eq=False)
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


@struct.dataclass(eq=False)
class _State:
  brackets: Brackets  # of the bisection under way
  phase: jax.Array  # what the next probe is for
  corners: Corners
  image: jax.Array
  latency_resolution_ms: jax.Array


@struct.dataclass(eq=False)
class Sweep:
  """See `sweep`."""

  accuracy_resolution: jax.Array
  latency_resolution: jax.Array
  max_corners: int = struct.field(pytree_node=False)

  def init(self, key: jax.Array, knowledge: Knowledge) -> _State:
    budget = jnp.asarray(knowledge.latency_budget_ms, jnp.float32)
    if _validate.is_concrete(budget):
      _validate.positive('latency_budget_ms', float(budget))
    empty = jnp.zeros((self.max_corners,), jnp.float32)
    zero = jnp.int32(0)
    corners = Corners(
      spec=Spec(empty, empty),
      valid=jnp.zeros((self.max_corners,), bool),
      count=zero,
      done=jnp.bool_(False),
      probes=jnp.zeros((self.max_corners,), jnp.int32),
      total_probes=zero,
    )
    return _State(
      brackets=brackets(budget, jnp.float32(1.0)),
      phase=jnp.int32(_ANY_MODEL),
      corners=corners,
      image=choose_inputs(key, knowledge.pool_size, 1),
      latency_resolution_ms=self.latency_resolution * budget,
    )

  def ask(self, state: _State) -> Query:
    b = state.brackets
    asked = (
      Spec(jnp.float32(0.0), b.latency_served),
      probe(b, self._open(state, b)[0]),
      Spec(b.accuracy_served, b.latency_served),
    )
    spec = jax.tree.map(lambda *each: jnp.stack(each)[state.phase], *asked)
    return Query.of(state.image, spec, sent=~state.corners.done)

  def tell(self, state: _State, query: Query, observation: Observation) -> _State:
    del query
    served, phase, old = observation.served[0], state.phase, state.brackets
    counted = dataclasses.replace(old, probes=old.probes + 1)
    narrowed = narrow(old, self._open(state, old)[0], served)
    now = _choose(phase == _BISECTION, narrowed, counted)
    complete = phase == _CHECK
    corners = _record(state.corners, now, served, complete)
    ended = (phase == _ANY_MODEL) & ~served
    full = corners.count >= self.max_corners
    ended |= complete & ((now.latency_refused <= 0.0) | full)
    corners = dataclasses.replace(corners, done=corners.done | ended)
    searching = jnp.logical_or(*self._open(state, now))
    phase = jnp.where(searching, _BISECTION, _CHECK)
    below = brackets(now.latency_refused, now.accuracy_served)
    return dataclasses.replace(
      state,
      brackets=_choose(complete, below, now),
      phase=jnp.where(complete, _ANY_MODEL, phase).astype(jnp.int32),
      corners=corners,
    )

  def harvest(self, state: _State) -> Corners:
    return state.corners

  def _open(self, state: _State, of: Brackets) -> tuple[jax.Array, jax.Array]:
    return still_open(of, self.accuracy_resolution, state.latency_resolution_ms)


def sweep(
  *,
  max_corners: int,
  accuracy_resolution: ArrayLike,
  latency_resolution: ArrayLike,
) -> Sweep:
  """Finds every corner of the frontier, from the most accurate model down.

  Each corner is asked for once more, and then the sweep bisects again below its
  latency and accuracy, one probe first telling whether any model is left. It ends at a
  model that no latency was refused to: nothing is faster.

  Args:
    max_corners: how many corners at most.
    accuracy_resolution: as in `bisection`.
    latency_resolution: as in `bisection`.

  Returns:
    The attack; it harvests `Corners`. Against a noisy server read their `valid`; a
    corner takes at most a bisection and two probes more.

  Raises:
    ValueError: as in `bisection`, or `max_corners` is not a whole number >= 1.
  """
  check_resolution(accuracy_resolution, latency_resolution)
  return Sweep(
    jnp.asarray(accuracy_resolution, jnp.float32),
    jnp.asarray(latency_resolution, jnp.float32),
    _validate.positive_int('max_corners', max_corners),
  )


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
