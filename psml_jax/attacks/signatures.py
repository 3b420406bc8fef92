"""Signatures: models told apart by what they answer to the same images.

Where nothing is refused, a refusal tells nothing; the answers do. A few images, the
canaries, are sent with specs over the whole plane, and equal answers are one model's.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from psml_jax import _validate, struct
from psml_jax.attacks.base import ATTACKS, Entry, Phases, Resources
from psml_jax.attacks.extraction import choose_inputs, replay
from psml_jax.attacks.leaders import Leaders
from psml_jax.core import Knowledge, Observation, Query, Spec

__all__ = ['Map', 'signatures']

RULES = ('slowest', 'strictest')
TELLS = ('labels', 'probabilities')
_CLUSTERS = 32
_PURE = 0.9


@struct.dataclass(eq=False)
class Map:
  """The plane of specs as its answers show it: S specs, C canaries.

  Attributes:
    spec: the one with the highest rate, of shape []; of equal ones the strictest.
    grid: Spec of shape [S], from the strictest accuracy and loosest latency on.
    responder: i32[S], which model answers there, numbered as they were met; -1 where
      several do, or none.
    count: i32[], how many models have a cell of their own.
    told_apart: i32[C], how many models each canary tells apart.
    purity: f32[S], the share of queries that the most frequent responder answered, in
      the mean over canaries.
    rate: f32[S], the share that the target answered, likewise.
    probes: i32[], queries sent.
  """

  spec: Spec
  grid: Spec
  responder: jax.Array
  count: jax.Array
  told_apart: jax.Array
  purity: jax.Array
  rate: jax.Array
  probes: jax.Array


@struct.dataclass(eq=False)
class _State:
  canaries: jax.Array
  grid: Spec
  budget: jax.Array
  observation: Observation
  sent: jax.Array
  asked: jax.Array


@struct.dataclass(eq=False)
class Signatures:
  """See `signatures`; all but the tolerance are static."""

  tolerance: jax.Array
  steps: tuple[int, int] = struct.field(pytree_node=False)
  canaries: int = struct.field(pytree_node=False)
  repeats: int = struct.field(pytree_node=False)
  tell_by: str = struct.field(pytree_node=False)
  target: str = struct.field(pytree_node=False)

  def init(self, key: jax.Array, knowledge: Knowledge) -> _State:
    budget = jnp.asarray(knowledge.latency_budget_ms, jnp.float32)
    accuracies, latencies = self.steps
    size = self.repeats * accuracies * latencies * self.canaries
    limits = budget * (jnp.arange(latencies, 0, -1, dtype=jnp.float32) / latencies)
    return _State(
      canaries=choose_inputs(key, knowledge.pool_size, self.canaries),
      grid=Spec(
        jnp.repeat(jnp.linspace(1.0, 0.0, accuracies), latencies),
        jnp.tile(limits, accuracies),
      ),
      budget=budget,
      observation=Observation(
        jnp.zeros(size, bool),
        jnp.zeros((size, knowledge.num_classes), jnp.float32),
        jnp.zeros(size, jnp.float32),
      ),
      sent=jnp.zeros(size, bool),
      asked=jnp.bool_(False),
    )

  def ask(self, state: _State) -> Query:
    specs = len(state.grid.min_accuracy)
    spec = jax.tree.map(
      lambda x: jnp.tile(jnp.repeat(x, self.canaries), self.repeats), state.grid
    )
    inputs = jnp.tile(state.canaries, self.repeats * specs)
    return Query.of(inputs, spec, sent=~state.asked)

  def tell(self, state: _State, query: Query, observation: Observation) -> _State:
    return dataclasses.replace(
      state, observation=observation, sent=query.sent, asked=jnp.bool_(True)
    )

  def harvest(self, state: _State) -> Map:
    cluster, told_apart = self._clusters(state)
    answered = jax.nn.one_hot(cluster, _CLUSTERS)  # f32[R, S, C, G]
    sent = jnp.sum(self._cells(state.sent), axis=0)  # i32[S, C]
    share = (
      jnp.sum(answered, axis=0) / jnp.maximum(sent, 1).astype(jnp.float32)[..., None]
    )
    modal = jnp.argmax(share, axis=-1)
    purity = jnp.mean(jnp.max(share, axis=-1), axis=-1)

    def place(
      leaders: Leaders, cell: tuple[jax.Array, ...]
    ) -> tuple[Leaders, jax.Array]:
      return leaders.place(cell[0], jnp.float32(0.5), cell[1])

    leaders, responder = jax.lax.scan(
      place,
      Leaders.none(_CLUSTERS, self.canaries),
      (modal.astype(jnp.float32), purity >= _PURE),
    )
    target = self._target(state, answered)
    rate = jnp.mean(jnp.sum(share * target[None], axis=-1), axis=-1)
    best = jnp.argmax(rate)
    return Map(
      spec=jax.tree.map(lambda field: field[best], state.grid),
      grid=state.grid,
      responder=jnp.where(responder < _CLUSTERS, responder, -1),
      count=leaders.count,
      told_apart=told_apart,
      purity=purity,
      rate=rate,
      probes=jnp.sum(state.sent, dtype=jnp.int32),
    )

  def _cells(self, field: jax.Array) -> jax.Array:
    """A field of the queries as [R, S, C, ...]."""
    return field.reshape(self.repeats, -1, self.canaries, *field.shape[1:])

  def _clusters(self, state: _State) -> tuple[jax.Array, jax.Array]:
    """i32[R, S, C] of answers, `_CLUSTERS` where there is none, and i32[C] counts."""
    outputs = state.observation.outputs
    if self.tell_by == 'labels':
      outputs = jax.nn.one_hot(jnp.argmax(outputs, -1), outputs.shape[-1])
    served = state.observation.served

    def of_canary(points: jax.Array, exist: jax.Array) -> tuple[jax.Array, jax.Array]:
      leaders, which = jax.lax.scan(
        lambda leaders, one: leaders.place(one[0], self.tolerance, one[1]),
        Leaders.none(_CLUSTERS, outputs.shape[-1]),
        (points, exist),
      )
      return which, leaders.count

    by_canary = jax.vmap(of_canary, in_axes=(1, 1), out_axes=(1, 0))
    which, count = by_canary(
      outputs.reshape(-1, self.canaries, outputs.shape[-1]),
      served.reshape(-1, self.canaries),
    )
    return self._cells(which.reshape(-1)), count

  def _target(self, state: _State, answered: jax.Array) -> jax.Array:
    """f32[C, G], one for each canary's cluster of the model that is sought."""
    if self.target == 'strictest':
      count = jnp.sum(answered, axis=0)
      at_budget = (state.grid.max_latency_ms >= state.budget)[:, None]
      first = jnp.argmax(at_budget & (jnp.sum(count, axis=-1) > 0), axis=0)
      score = count[first, jnp.arange(self.canaries)]
    else:
      latency = self._cells(state.observation.latency_ms)[..., None]
      within = jnp.where(latency <= state.budget * (1 + 1e-3), answered, 0.0)
      total = jnp.sum(within * latency, axis=(0, 1))
      score = total / jnp.maximum(jnp.sum(within, axis=(0, 1)), 1)
    chosen = jax.nn.one_hot(jnp.argmax(score, axis=-1), _CLUSTERS)
    return jnp.where(jnp.max(score, axis=-1, keepdims=True) > 0, chosen, 0.0)


def signatures(
  *,
  accuracies: int = 8,
  latencies: int = 4,
  canaries: int = 2,
  repeats: int = 2,
  tell_by: str = 'probabilities',
  target: str = 'strictest',
  tolerance: ArrayLike = 1e-3,
) -> Signatures:
  """Maps the plane of specs by who answers the same images, the canaries.

  Answers to one canary that are nearly equal are one model's (leader clustering, 32
  clusters at most). A spec whose answers are of one cluster for each canary has one
  responder. All specs, canaries and repeats are one batch, every query of it billed.

  Args:
    accuracies: rows of the grid, from 1 down to 0 (static).
    latencies: columns of it, from the latency budget down (static).
    canaries: images (static).
    repeats: how often each is sent with each spec (static).
    tell_by: 'probabilities', or 'labels' for servers that give nothing else: then one
      canary tells no more models apart than there are classes (static).
    target: which model is sought: 'strictest', who answers most at the highest accuracy
      that is answered at the latency budget; 'slowest', whose answers take longest
      within it (static).
    tolerance: f32[], the largest difference of a probability within a cluster.

  Returns:
    The attack; it harvests a `Map`.

  Raises:
    ValueError: no whole number >= 1, an unknown word, or a concrete tolerance that is
      not finite and > 0; from `init`, a pool smaller than the canaries.

  >>> from psml_jax import ZooProfile, routers, servers, session
  >>> zoo = ZooProfile([0.7, 0.9], [1.0, 5.0], ('small', 'large'))
  >>> router = routers.uniform(zoo, infeasible='best_effort')
  >>> outputs = jnp.stack([jnp.full((4, 2), 0.5), jnp.full((4, 2), 0.4)])
  >>> server = servers.table(router, zoo.latency_ms, outputs)
  >>> key, server_key = jax.random.split(jax.random.key(0))
  >>> found = session.run(key, signatures(), server, server.init(server_key),
  ...                     Knowledge(8.0, pool_size=4, num_classes=2), budget=200)
  >>> int(found.harvest.count), float(found.harvest.spec.min_accuracy)
  (2, 1.0)
  """
  sizes = {'accuracies': accuracies, 'latencies': latencies}
  for name, value in {**sizes, 'canaries': canaries, 'repeats': repeats}.items():
    _validate.positive_int(name, value)
  _validate.one_of('tell_by', tell_by, TELLS)
  _validate.one_of('target', target, RULES)
  if _validate.is_concrete(tolerance):
    _validate.positive('tolerance', float(jnp.asarray(tolerance)))
  steps = (accuracies, latencies)
  limit = jnp.asarray(tolerance, jnp.float32)
  return Signatures(limit, steps, canaries, repeats, tell_by, target)


def _then_replay(resources: Resources, probes: int = 128, **fields: Any) -> Phases:
  """Of the default sizes, with as many accuracies as the probes pay for."""
  fields = {'accuracies': max(1, probes // 16)} | fields
  return Phases((signatures(**fields), replay('found', resources.num_queries)))


ATTACKS.register('signatures', Entry(_then_replay))
