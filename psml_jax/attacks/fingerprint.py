"""Fingerprinting: finding the spec that only one model meets (paper, section 4).

A refused query tells that no model meets its spec, a served one that some model
does. Bisection on the minimum accuracy at a latency budget, then on the maximum
latency at the accuracy found, ends at the corner of the most accurate model within
the budget.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.typing import ArrayLike

from psml_jax import _validate
from psml_jax.core import Observation, Spec


class Fingerprinter(NamedTuple):
  """A pure state machine that decides on probes.

  The same machine runs in `lax.while_loop`, under `vmap`, and in a Python loop
  against a live server::

    state = machine.init()
    for i in itertools.count():
      if machine.result(state).done:
        break
      probe_key = jax.random.fold_in(key, i)
      state = machine.tell(state, oracle(probe_key, inputs, machine.ask(state)))

  Attributes:
    init: `() -> state`.
    ask: `state -> Spec`, the next probe, of shape [].
    tell: `(state, Observation) -> state`; reads `served` alone.
    result: `state -> result`, at any time; its `done` is bool[].
  """

  init: Callable[[], Any]
  ask: Callable[[Any], Spec]
  tell: Callable[[Any, Observation], Any]
  result: Callable[[Any], Any]


@struct.dataclass
class Corner:
  """What a fingerprint found.

  Attributes:
    spec: the corner of the model, of shape []: its highest minimum accuracy and,
      at that, its lowest maximum latency that were served.
    done: bool[], whether both are known to the resolution.
    found: bool[], whether any probe was served.
    probes: i32[], queries sent so far.
  """

  spec: Spec
  done: jax.Array
  found: jax.Array
  probes: jax.Array


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


def bisection(
  latency_budget_ms: ArrayLike,
  *,
  accuracy_resolution: ArrayLike,
  latency_resolution_ms: ArrayLike,
) -> Fingerprinter:
  """Finds the corner of the most accurate model within a latency budget.

  Without noise it takes `ceil(log2(1 / accuracy_resolution)) +
  ceil(log2(latency_budget_ms / latency_resolution_ms))` probes, within two of
  `lower_bound`. The resolutions must be finer than the gaps between the models
  around the victim; float32 ends the bisection where they are finer than it.

  Args:
    latency_budget_ms: f32[], milliseconds; may be traced (vmap over victims).
    accuracy_resolution: f32[], width of the accuracy bracket to end at, a fraction;
      may be traced.
    latency_resolution_ms: f32[], width of the latency bracket to end at,
      milliseconds; may be traced.

  Returns:
    The machine; `result` gives a `Corner`.

  Raises:
    ValueError: a resolution that is not finite and > 0, or a concrete budget that
      is not.

  >>> served = lambda spec: spec.min_accuracy <= 0.9 and spec.max_latency_ms >= 5
  >>> machine = bisection(
  ...   8.0, accuracy_resolution=0.01, latency_resolution_ms=0.1)
  >>> state = machine.init()
  >>> while not machine.result(state).done:
  ...   answer = Observation(served(machine.ask(state)), None, None)
  ...   state = machine.tell(state, answer)
  >>> corner = machine.result(state)
  >>> round(float(corner.spec.min_accuracy), 2), int(corner.probes)
  (0.9, 14)
  """
  _check_resolution(latency_budget_ms, accuracy_resolution, latency_resolution_ms)

  def init() -> Brackets:
    return _brackets(latency_budget_ms, jnp.float32(1.0))

  def result(state: Brackets) -> Corner:
    accuracy_open, latency_open = _open(
      state, accuracy_resolution, latency_resolution_ms
    )
    return Corner(
      spec=Spec(state.accuracy_served, state.latency_served),
      done=~(accuracy_open | latency_open),
      found=state.found,
      probes=state.probes,
    )

  def ask(state: Brackets) -> Spec:
    accuracy_open, _ = _open(state, accuracy_resolution, latency_resolution_ms)
    return _probe(state, accuracy_open)

  def tell(state: Brackets, observation: Observation) -> Brackets:
    accuracy_open, _ = _open(state, accuracy_resolution, latency_resolution_ms)
    return _narrow(state, accuracy_open, jnp.asarray(observation.served))

  return Fingerprinter(init, ask, tell, result)


@struct.dataclass
class Corners:
  """What a sweep found.

  Attributes:
    spec: Spec of shape [max_corners], from the most accurate model to the fastest.
    count: i32[], how many of them are filled.
    done: bool[], whether the frontier's end or `max_corners` was reached.
    probes: i32[max_corners], queries each corner cost.
    total_probes: i32[], all queries, the one that found the end included.
  """

  spec: Spec
  count: jax.Array
  done: jax.Array
  probes: jax.Array
  total_probes: jax.Array


@struct.dataclass
class SweepState:
  """State of `sweep`: the bisection under way and the corners so far."""

  brackets: Brackets
  exists: jax.Array
  corners: Corners


def sweep(
  latency_budget_ms: ArrayLike,
  *,
  max_corners: int,
  accuracy_resolution: ArrayLike,
  latency_resolution_ms: ArrayLike,
) -> Fingerprinter:
  """Finds every corner of the frontier, from the most accurate model down.

  After each corner it bisects again below that corner's latency and accuracy, one
  probe first telling whether any model is left.

  Args:
    latency_budget_ms: f32[], where to begin; may be traced.
    max_corners: how many corners at most.
    accuracy_resolution: as in `bisection`.
    latency_resolution_ms: as in `bisection`.

  Returns:
    The machine; `result` gives `Corners`.

  Raises:
    ValueError: as in `bisection`, or `max_corners` is not a whole number >= 1.
  """
  _check_resolution(latency_budget_ms, accuracy_resolution, latency_resolution_ms)
  _validate.positive_int('max_corners', max_corners)

  def init() -> SweepState:
    empty = jnp.zeros((max_corners,), jnp.float32)
    zero = jnp.int32(0)
    corners = Corners(
      Spec(empty, empty),
      zero,
      jnp.bool_(False),
      jnp.zeros((max_corners,), jnp.int32),
      zero,
    )
    brackets = _brackets(latency_budget_ms, jnp.float32(1.0))
    return SweepState(brackets, jnp.bool_(False), corners)

  def ask(state: SweepState) -> Spec:
    brackets = state.brackets
    accuracy_open, _ = _open(brackets, accuracy_resolution, latency_resolution_ms)
    probe = _probe(brackets, accuracy_open)
    anything = Spec(jnp.float32(0.0), brackets.latency_served)
    return jax.tree.map(
      lambda one, other: jnp.where(state.exists, one, other), probe, anything
    )

  def tell(state: SweepState, observation: Observation) -> SweepState:
    served = jnp.asarray(observation.served)
    brackets, corners = state.brackets, state.corners
    accuracy_open, _ = _open(brackets, accuracy_resolution, latency_resolution_ms)
    narrowed = _narrow(brackets, accuracy_open, served)
    first = dataclasses.replace(brackets, probes=brackets.probes + 1)
    brackets = jax.tree.map(
      lambda one, other: jnp.where(state.exists, one, other), narrowed, first
    )
    is_open = jnp.logical_or(
      *_open(brackets, accuracy_resolution, latency_resolution_ms)
    )
    complete = state.exists & ~is_open
    slot = jnp.where(complete, corners.count, max_corners)
    count = corners.count + complete
    corners = Corners(
      spec=Spec(
        corners.spec.min_accuracy.at[slot].set(brackets.accuracy_served, mode='drop'),
        corners.spec.max_latency_ms.at[slot].set(brackets.latency_served, mode='drop'),
      ),
      count=count,
      done=(~state.exists & ~served) | (count >= max_corners),
      probes=corners.probes.at[slot].set(brackets.probes, mode='drop'),
      total_probes=corners.total_probes + 1,
    )
    below = _brackets(brackets.latency_refused, brackets.accuracy_served)
    brackets = jax.tree.map(
      lambda one, other: jnp.where(complete, one, other), below, brackets
    )
    exists = (state.exists | served) & ~complete
    return SweepState(brackets, exists, corners)

  return Fingerprinter(init, ask, tell, lambda state: state.corners)


def lower_bound(
  latency_budget_ms: float,
  *,
  accuracy_resolution: float,
  latency_resolution_ms: float,
) -> float:
  """Probes that any fingerprint by refusals needs: one bit each.

  `log2(1 / accuracy_resolution) + log2(latency_budget_ms / latency_resolution_ms)`.

  Args:
    latency_budget_ms: the latency range in milliseconds.
    accuracy_resolution: a fraction; the accuracy range is [0, 1].
    latency_resolution_ms: milliseconds.

  Returns:
    The bound, not rounded.

  Raises:
    ValueError: an argument that is not finite and > 0.

  >>> lower_bound(8.0, accuracy_resolution=0.25, latency_resolution_ms=1.0)
  5.0
  """
  _check_resolution(latency_budget_ms, accuracy_resolution, latency_resolution_ms)
  return max(0.0, -math.log2(accuracy_resolution)) + max(
    0.0, math.log2(latency_budget_ms / latency_resolution_ms)
  )


def max_probes(
  latency_budget_ms: float,
  *,
  accuracy_resolution: float,
  latency_resolution_ms: float,
) -> int:
  """Probes that `bisection` takes at most, with noise or without.

  Args:
    latency_budget_ms: the latency range in milliseconds.
    accuracy_resolution: a fraction.
    latency_resolution_ms: milliseconds.

  Returns:
    The count.

  Raises:
    ValueError: an argument that is not finite and > 0.
  """
  _check_resolution(latency_budget_ms, accuracy_resolution, latency_resolution_ms)
  return max(0, math.ceil(-math.log2(accuracy_resolution))) + max(
    0, math.ceil(math.log2(latency_budget_ms / latency_resolution_ms))
  )


def _check_resolution(
  budget: ArrayLike, accuracy: ArrayLike, latency: ArrayLike
) -> None:
  for name, value in (
    ('latency_budget_ms', budget),
    ('accuracy_resolution', accuracy),
    ('latency_resolution_ms', latency),
  ):
    if _validate.is_concrete(value):
      _validate.positive(name, float(np.asarray(value)))


def _brackets(latency_budget_ms: ArrayLike, accuracy_refused: jax.Array) -> Brackets:
  return Brackets(
    accuracy_served=jnp.float32(0.0),
    accuracy_refused=accuracy_refused,
    latency_refused=jnp.float32(0.0),
    latency_served=jnp.asarray(latency_budget_ms, jnp.float32),
    found=jnp.bool_(False),
    probes=jnp.int32(0),
  )


def _open(
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


def _probe(state: Brackets, accuracy_open: jax.Array) -> Spec:
  middle_accuracy = (state.accuracy_served + state.accuracy_refused) / 2
  middle_latency = (state.latency_refused + state.latency_served) / 2
  return Spec(
    jnp.where(accuracy_open, middle_accuracy, state.accuracy_served),
    jnp.where(accuracy_open, state.latency_served, middle_latency),
  )


def _narrow(state: Brackets, accuracy_open: jax.Array, served: jax.Array) -> Brackets:
  probe = _probe(state, accuracy_open)
  latency_open = ~accuracy_open

  def moved(when: jax.Array, to: jax.Array, old: jax.Array) -> jax.Array:
    return jnp.where(when, to, old)

  return Brackets(
    accuracy_served=moved(
      accuracy_open & served, probe.min_accuracy, state.accuracy_served
    ),
    accuracy_refused=moved(
      accuracy_open & ~served, probe.min_accuracy, state.accuracy_refused
    ),
    latency_refused=moved(
      latency_open & ~served, probe.max_latency_ms, state.latency_refused
    ),
    latency_served=moved(
      latency_open & served, probe.max_latency_ms, state.latency_served
    ),
    found=state.found | served,
    probes=state.probes + 1,
  )
