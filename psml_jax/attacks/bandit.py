"""A bandit that learns from recognised answers: no law of the noise is needed."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from psml_jax import _validate, struct
from psml_jax.attacks.base import ATTACKS, Entry, Phases, Resources
from psml_jax.attacks.extraction import choose_inputs, replay
from psml_jax.attacks.fingerprint import bisection
from psml_jax.attacks.leaders import Leaders
from psml_jax.core import Harvest, Knowledge, Observation, Query, Spec

__all__ = ['Recognised', 'bandit']

_STEPS = (-0.016, -0.004, 0.0, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128)
_LATENCIES, _CLUSTERS = 2, 32
_TO_RECOGNISE = 3
_CLOSE = 0.004


@struct.dataclass(eq=False)
class Recognised:
  """What a bandit has learned.

  Attributes:
    spec: the arm with the most of the victim's answers, of shape [].
    latency_ms: f32[], the latency that the victim is recognised by.
    rate: f32[], the share of the arm's queries that the victim answered.
    answers: the answers recognised as the victim's, a `Harvest`.
    probes: i32[], queries sent.
  """

  spec: Spec
  latency_ms: jax.Array
  rate: jax.Array
  answers: Harvest
  probes: jax.Array


@struct.dataclass(eq=False)
class _State:
  arms: Spec
  budget: jax.Array
  inputs: jax.Array
  leaders: Leaders
  answered: jax.Array  # f32[_CLUSTERS, arms]
  sent: jax.Array  # f32[arms]
  outputs: jax.Array
  cluster: jax.Array
  probes: jax.Array


@struct.dataclass(eq=False)
class Bandit:
  """See `bandit`; the number of probes is static."""

  tolerance: jax.Array
  probes: int = struct.field(pytree_node=False)

  def init(self, key: jax.Array, knowledge: Knowledge) -> _State:
    corner: Any = getattr(knowledge.found, 'spec', None)
    if corner is None:
      raise ValueError('knowledge.found has no spec; a phase before must find one')
    budget = jnp.asarray(knowledge.latency_budget_ms, jnp.float32)
    accuracy = corner.min_accuracy - jnp.array(_STEPS, jnp.float32)
    limits = jnp.stack([budget, (corner.max_latency_ms + budget) / 2])
    different = min(self.probes, knowledge.pool_size)
    inputs = choose_inputs(key, knowledge.pool_size, different)
    arms = len(_STEPS) * _LATENCIES
    return _State(
      arms=Spec(jnp.tile(accuracy, _LATENCIES), jnp.repeat(limits, len(_STEPS))),
      budget=budget,
      inputs=inputs[jnp.arange(self.probes) % different],
      leaders=Leaders.none(_CLUSTERS, 1),
      answered=jnp.zeros((_CLUSTERS, arms)),
      sent=jnp.zeros(arms),
      outputs=jnp.zeros((self.probes, knowledge.num_classes), jnp.float32),
      cluster=jnp.full(self.probes, _CLUSTERS, jnp.int32),
      probes=jnp.int32(0),
    )

  def ask(self, state: _State) -> Query:
    arm = self._arm(state)
    image = state.inputs[jnp.minimum(state.probes, self.probes - 1)]
    spec = jax.tree.map(lambda field: field[arm], state.arms)
    return Query.of(image[None], spec, sent=state.probes < self.probes)

  def tell(self, state: _State, query: Query, observation: Observation) -> _State:
    arm, sent = self._arm(state), query.sent[0]
    latency = jnp.log(jnp.maximum(observation.latency_ms, 1e-6))
    leaders, cluster = state.leaders.place(
      latency, self.tolerance, observation.served[0]
    )
    slot = jnp.where(sent, state.probes, self.probes)
    return dataclasses.replace(
      state,
      leaders=leaders,
      answered=state.answered.at[cluster, arm].add(1, mode='drop'),
      sent=state.sent.at[arm].add(sent.astype(jnp.float32)),
      outputs=state.outputs.at[slot].set(observation.outputs[0], mode='drop'),
      cluster=state.cluster.at[slot].set(cluster, mode='drop'),
      probes=state.probes + sent.astype(jnp.int32),
    )

  def harvest(self, state: _State) -> Recognised:
    victim = _victim(state)
    mean, _ = _rates(state, victim)
    arm = jnp.argmax(mean)
    known = (state.cluster == victim) & (state.cluster < _CLUSTERS)
    order = jnp.argsort(~known, stable=True)
    return Recognised(
      spec=jax.tree.map(lambda field: field[arm], state.arms),
      latency_ms=jnp.exp(state.leaders.points[victim, 0]),
      rate=state.answered[victim, arm] / jnp.maximum(state.sent[arm], 1),
      answers=Harvest(
        inputs=state.inputs[order],
        targets=jnp.where(known[order, None], state.outputs[order], 0),
        count=jnp.sum(known, dtype=jnp.int32),
      ),
      probes=state.probes,
    )

  def _arm(self, state: _State) -> jax.Array:
    """The row at the budget in turn; then what may be best, by its upper bound."""
    mean, deviation = _rates(state, _victim(state))
    in_turn = state.probes % len(_STEPS)
    first = _TO_RECOGNISE * state.probes < self.probes
    return jnp.where(first, in_turn, jnp.argmax(mean + deviation))


def bandit(*, probes: int, tolerance: ArrayLike = 0.02) -> Bandit:
  """Learns by which spec the victim answers most, and knows it by its latency.

  Arms are specs with accuracies up to 0.128 below what the phase before has found and
  a little above it, at the latency budget and half-way to it from the latency found.
  Answers are clustered by their latency. The victim's cluster is the one, of those
  within the budget, that answers most at it, strict arms counting more: behind noise
  too the most accurate model within the budget meets every spec that a slower and less
  accurate one meets. A third of the probes go to the arms at the budget in turn. After
  that the next one is the arm with the highest upper confidence bound, each arm's rate
  being estimated with its neighbours'.

  Args:
    probes: how many queries (static).
    tolerance: f32[], a share: latencies that differ by less are of one model.

  Returns:
    The attack, a phase after one that finds a spec; it reads all of an observation, and
    harvests `Recognised`.

  Raises:
    ValueError: no whole number of probes >= 1, or a concrete tolerance that is not
      finite and > 0; from `init`, no spec that a phase before has found.
  """
  _validate.positive_int('probes', probes)
  if _validate.is_concrete(tolerance):
    _validate.positive('tolerance', float(jnp.asarray(tolerance)))
  return Bandit(jnp.asarray(tolerance, jnp.float32), probes)


def _victim(state: _State) -> jax.Array:
  """i32[]: the cluster that the attacker takes for the victim's."""
  slowest = state.budget * (1 + 1e-3)
  within = jnp.exp(state.leaders.points[:, 0]) <= slowest
  within &= jnp.arange(_CLUSTERS) < state.leaders.count
  at_budget = state.arms.max_latency_ms >= state.budget
  strict = 1 / (1 + jnp.maximum(jnp.tile(jnp.array(_STEPS), _LATENCIES), 0) / _CLOSE)
  votes = state.answered @ jnp.where(at_budget, strict, 0)
  return jnp.argmax(jnp.where(within, votes, -1)).astype(jnp.int32)


def _rates(state: _State, victim: jax.Array) -> tuple[jax.Array, jax.Array]:
  """The victim's rate at each arm and its deviation, f32[arms] each."""

  def smooth(count: jax.Array) -> jax.Array:
    rows = jnp.pad(count.reshape(_LATENCIES, -1), ((0, 0), (1, 1)))
    return (rows[:, 1:-1] + (rows[:, 2:] + rows[:, :-2]) / 2).ravel()

  sent = smooth(state.sent) + 2
  mean = (smooth(state.answered[victim]) + 0.5) / sent
  return mean, jnp.sqrt(mean * (1 - mean) / sent)


def _then_replay(resources: Resources, probes: int = 50) -> Phases:
  finding = bisection(
    accuracy_resolution=resources.accuracy_resolution,
    latency_resolution=resources.latency_resolution,
  )
  then = replay('found', resources.num_queries)
  return Phases((finding, bandit(probes=probes), then))


ATTACKS.register('bandit', Entry(_then_replay))
