"""Fingerprinting: finding the spec that only one model meets (paper, section 4).

A refused query tells that no model meets its spec, a served one that some model
does. Bisection on the minimum accuracy at a latency budget, then on the maximum
latency at the accuracy found, ends at the corner of the most accurate model within
the budget.
"""

import math

import jax
import jax.numpy as jnp
from flax import struct
from jax.typing import ArrayLike

from psml_jax.attacks.refusals import (
  Brackets,
  Fingerprinter,
  brackets,
  check_resolution,
  narrow,
  probe,
  still_open,
)
from psml_jax.attacks.sweep import Corners, sweep
from psml_jax.core import Observation, Spec

__all__ = [
  'Corner',
  'Corners',
  'Fingerprinter',
  'bisection',
  'lower_bound',
  'max_probes',
  'sweep',
]


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
  check_resolution(latency_budget_ms, accuracy_resolution, latency_resolution_ms)

  def init() -> Brackets:
    return brackets(latency_budget_ms, jnp.float32(1.0))

  def result(state: Brackets) -> Corner:
    accuracy_open, latency_open = still_open(
      state, accuracy_resolution, latency_resolution_ms
    )
    return Corner(
      spec=Spec(state.accuracy_served, state.latency_served),
      done=~(accuracy_open | latency_open),
      found=state.found,
      probes=state.probes,
    )

  def ask(state: Brackets) -> Spec:
    accuracy_open, _ = still_open(state, accuracy_resolution, latency_resolution_ms)
    return probe(state, accuracy_open)

  def tell(state: Brackets, observation: Observation) -> Brackets:
    accuracy_open, _ = still_open(state, accuracy_resolution, latency_resolution_ms)
    return narrow(state, accuracy_open, jnp.asarray(observation.served))

  return Fingerprinter(init, ask, tell, result)


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
  check_resolution(latency_budget_ms, accuracy_resolution, latency_resolution_ms)
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
  check_resolution(latency_budget_ms, accuracy_resolution, latency_resolution_ms)
  return max(0, math.ceil(-math.log2(accuracy_resolution))) + max(
    0, math.ceil(math.log2(latency_budget_ms / latency_resolution_ms))
  )
