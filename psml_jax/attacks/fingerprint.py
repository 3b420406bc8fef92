"""Fingerprinting: finding the spec that only one model meets (paper, section 4).

A refused query tells that no model meets its spec, a served one that some model
does. Bisection on the minimum accuracy at a latency budget, then on the maximum
latency at the accuracy found, ends at the corner of the most accurate model within
the budget.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from psml_jax import _validate, struct
from psml_jax.attacks.base import ATTACKS, Entry, Phases, Resources
from psml_jax.attacks.extraction import choose_inputs, replay
from psml_jax.attacks.refusals import (
  Brackets,
  brackets,
  check_resolution,
  narrow,
  probe,
  still_open,
)
from psml_jax.attacks.sweep import Corners, sweep
from psml_jax.core import Knowledge, Observation, Query, Spec

__all__ = [
  'Corner',
  'Corners',
  'bisection',
  'lower_bound',
  'max_probes',
  'sweep',
]


@struct.dataclass(eq=False)
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


@struct.dataclass(eq=False)
class _State:
  brackets: Brackets
  image: jax.Array
  latency_resolution_ms: jax.Array


@struct.dataclass(eq=False)
class Bisection:
  """See `bisection`."""

  accuracy_resolution: jax.Array
  latency_resolution: jax.Array

  def init(self, key: jax.Array, knowledge: Knowledge) -> _State:
    budget = jnp.asarray(knowledge.latency_budget_ms, jnp.float32)
    if _validate.is_concrete(budget):
      _validate.positive('latency_budget_ms', float(budget))
    return _State(
      brackets=brackets(budget, jnp.float32(1.0)),
      image=choose_inputs(key, knowledge.pool_size, 1),
      latency_resolution_ms=self.latency_resolution * budget,
    )

  def ask(self, state: _State) -> Query:
    accuracy_open, latency_open = self._open(state)
    return Query.of(
      state.image,
      probe(state.brackets, accuracy_open),
      sent=accuracy_open | latency_open,
    )

  def tell(self, state: _State, query: Query, observation: Observation) -> _State:
    del query
    accuracy_open, _ = self._open(state)
    return dataclasses.replace(
      state, brackets=narrow(state.brackets, accuracy_open, observation.served[0])
    )

  def harvest(self, state: _State) -> Corner:
    accuracy_open, latency_open = self._open(state)
    return Corner(
      spec=Spec(state.brackets.accuracy_served, state.brackets.latency_served),
      done=~(accuracy_open | latency_open),
      found=state.brackets.found,
      probes=state.brackets.probes,
    )

  def _open(self, state: _State) -> tuple[jax.Array, jax.Array]:
    return still_open(
      state.brackets, self.accuracy_resolution, state.latency_resolution_ms
    )


def bisection(
  *, accuracy_resolution: ArrayLike, latency_resolution: ArrayLike
) -> Bisection:
  """Finds the corner of the most accurate model within the latency budget.

  Without noise it takes `max_probes`, within two of `lower_bound`. The resolutions
  must be finer than the gaps between the models around the victim; float32 ends the
  bisection where they are finer than it.

  Args:
    accuracy_resolution: f32[], width of the accuracy bracket to end at, a fraction;
      may be traced.
    latency_resolution: f32[], width of the latency bracket to end at, a share of the
      latency budget; may be traced.

  Returns:
    The attack, one query at a time; it reads `served` alone and harvests a `Corner`.

  Raises:
    ValueError: a concrete resolution that is not finite and > 0; from `init`, such a
      budget.

  >>> from psml_jax import ZooProfile, routers, servers, session
  >>> zoo = ZooProfile([0.7, 0.9], [1.0, 5.0], ('small', 'large'))
  >>> server = servers.table(routers.uniform(zoo), zoo.latency_ms, jnp.ones((2, 1, 1)))
  >>> attack = bisection(accuracy_resolution=0.01, latency_resolution=0.01)
  >>> key, server_key = jax.random.split(jax.random.key(0))
  >>> found = session.run(
  ...   key, attack, server, server.init(server_key), Knowledge(8.0), budget=100)
  >>> round(float(found.harvest.spec.min_accuracy), 2), int(found.bill.queries)
  (0.9, 14)
  """
  check_resolution(accuracy_resolution, latency_resolution)
  return Bisection(
    jnp.asarray(accuracy_resolution, jnp.float32),
    jnp.asarray(latency_resolution, jnp.float32),
  )


def lower_bound(*, accuracy_resolution: float, latency_resolution: float) -> float:
  """Probes that any fingerprint by refusals needs: one bit each.

  `log2(1 / accuracy_resolution) + log2(1 / latency_resolution)`.

  Args:
    accuracy_resolution: a fraction; the accuracy range is [0, 1].
    latency_resolution: a share of the latency budget.

  Returns:
    The bound, not rounded.

  Raises:
    ValueError: an argument that is not finite and > 0.

  >>> lower_bound(accuracy_resolution=0.25, latency_resolution=0.125)
  5.0
  """
  check_resolution(accuracy_resolution, latency_resolution)
  return max(0.0, -math.log2(accuracy_resolution)) + max(
    0.0, -math.log2(latency_resolution)
  )


def max_probes(*, accuracy_resolution: float, latency_resolution: float) -> int:
  """Probes that `bisection` takes at most, with noise or without.

  Args:
    accuracy_resolution: a fraction.
    latency_resolution: a share of the latency budget.

  Returns:
    The count.

  Raises:
    ValueError: an argument that is not finite and > 0.
  """
  check_resolution(accuracy_resolution, latency_resolution)
  return max(0, math.ceil(-math.log2(accuracy_resolution))) + max(
    0, math.ceil(-math.log2(latency_resolution))
  )


def _then_replay(resources: Resources) -> Phases:
  probing = bisection(
    accuracy_resolution=resources.accuracy_resolution,
    latency_resolution=resources.latency_resolution,
  )
  return Phases((probing, replay('found', resources.num_queries)))


ATTACKS.register('fingerprint', Entry(_then_replay))
