"""Sybils: one attacker with many accounts, against servers that remember clients."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from psml_jax import _validate, struct
from psml_jax.attacks.base import ATTACKS, Entry, Resources
from psml_jax.attacks.extraction import Replay, replay
from psml_jax.core import Harvest, Knowledge, Observation, Query, Spec


@struct.dataclass(eq=False)
class Spread:
  """See `spread`.

  Attributes:
    replay: what is sent.
    accounts: i32[].
  """

  replay: Replay
  accounts: jax.Array

  def init(self, key: jax.Array, knowledge: Knowledge) -> Any:
    return self.replay.init(key, knowledge)

  def ask(self, state: Any) -> Query:
    query = self.replay.ask(state)
    turns = jnp.arange(len(query.sent), dtype=jnp.int32)
    return dataclasses.replace(query, client=turns % self.accounts)

  def tell(self, state: Any, query: Query, observation: Observation) -> Any:
    return self.replay.tell(state, query, observation)

  def harvest(self, state: Any) -> Harvest:
    return self.replay.harvest(state)


@struct.dataclass(eq=False)
class _State:
  replay: Any
  latency_budget_ms: jax.Array
  client: jax.Array
  spec: Spec
  turn: jax.Array


@struct.dataclass(eq=False)
class Luckiest:
  """See `luckiest`; numbers are of shape []."""

  replay: Replay
  accounts: jax.Array
  cells: jax.Array
  probes: jax.Array
  accuracy_step: jax.Array
  latency_step_ms: jax.Array
  latency_resolution: jax.Array

  def init(self, key: jax.Array, knowledge: Knowledge) -> _State:
    state = self.replay.init(key, knowledge)
    budget = jnp.asarray(knowledge.latency_budget_ms, jnp.float32)
    return _State(state, budget, jnp.int32(0), state.spec, jnp.int32(0))

  def ask(self, state: _State) -> Query:
    order = jnp.arange(self.replay.num_queries, dtype=jnp.int32)
    probing, first = order < self.accounts * self.cells * self.probes, state.turn == 0
    client, spec = self._pair(state, order // self.probes)
    chosen = jax.tree.map(
      lambda probe, best: jnp.where(first, probe, best),
      (client, spec),
      (state.client, state.spec),
    )
    sent = (state.turn < 2) & (probing == first)
    return Query.of(state.replay.inputs, chosen[1], client=chosen[0], sent=sent)

  def tell(self, state: _State, query: Query, observation: Observation) -> _State:
    sent = query.sent

    def newest(new: jax.Array, old: jax.Array) -> jax.Array:
      return jnp.where(sent.reshape((-1,) + (1,) * (new.ndim - 1)), new, old)

    seen = jax.tree.map(newest, observation, state.replay.observation)
    replayed = dataclasses.replace(state.replay, observation=seen)
    size = len(query.sent)
    recognised = _most_common(
      observation.latency_ms,
      query.sent
      & observation.served
      & (observation.latency_ms <= state.latency_budget_ms),
      self.latency_resolution * state.latency_budget_ms,
    )
    pairs = jnp.arange(size, dtype=jnp.int32) // self.probes
    scores = jnp.zeros(size, jnp.int32).at[pairs].add(recognised.astype(jnp.int32))
    best = self._pair(state, jnp.argmax(scores).astype(jnp.int32))
    client, spec = jax.tree.map(
      lambda new, kept: jnp.where(state.turn == 0, new, kept),
      best,
      (state.client, state.spec),
    )
    return dataclasses.replace(
      state, replay=replayed, client=client, spec=spec, turn=state.turn + 1
    )

  def harvest(self, state: _State) -> Harvest:
    return self.replay.harvest(state.replay)

  def _pair(self, state: _State, pair: jax.Array) -> tuple[jax.Array, Spec]:
    """The account and the spec of each pair: 0, 1, -1, 2, -2, ... steps looser."""
    cell = pair // self.accounts
    steps = ((cell + 1) // 2) * jnp.where(cell % 2 == 1, 1, -1)
    steps = steps.astype(jnp.float32)
    told = state.replay.spec
    spec = Spec(
      told.min_accuracy - steps * self.accuracy_step,
      told.max_latency_ms + steps * self.latency_step_ms,
    )
    return (pair % self.accounts).astype(jnp.int32), spec


def spread(spec: str, num_queries: int, accounts: int) -> Spread:
  """A replay whose queries k accounts send in turns.

  Args:
    spec: as in `extraction.replay`.
    num_queries: likewise, of all accounts together.
    accounts: k; they are clients 0 to k - 1.

  Returns:
    The attack; another number of accounts compiles nothing.

  Raises:
    ValueError: as in `extraction.replay`, or no whole number >= 1.

  >>> from psml_jax import Knowledge
  >>> attack = spread('told', 5, 2)
  >>> known = Knowledge(jnp.float32(9), pool_size=5, spec=Spec.of(0.8, 9.0))
  >>> attack.ask(attack.init(jax.random.key(0), known)).client.tolist()
  [0, 1, 0, 1, 0]
  """
  _validate.positive_int('accounts', accounts)
  return Spread(replay(spec, num_queries), jnp.int32(accounts))


def luckiest(
  spec: str,
  num_queries: int,
  accounts: int,
  *,
  cells: int,
  probes: int,
  accuracy_step: ArrayLike,
  latency_step_ms: ArrayLike,
  latency_resolution: ArrayLike,
) -> Luckiest:
  """Tries specs around one with each account, and then stays with the luckiest pair.

  Noise that sticks to an account and a cell of the spec plane answers a pair of both
  with the same models always. A client cannot tell which model answers, but how long it
  takes. A spec that is good for the victim is answered by it more often than by any
  other model, so of all probes' latencies within the budget the most common one is
  taken for the victim's, and the luckiest pair is the one with most answers of it.

  Args:
    spec: as in `extraction.replay`.
    num_queries: of all accounts and both parts together; probes are billed and
      harvested as all others are, and where they cost more there is no second part.
    accounts: k; they are clients 0 to k - 1.
    cells: specs that each account tries: 0, 1, -1, 2, ... steps looser.
    probes: queries that each pair is tried with.
    accuracy_step: a fraction, f32[].
    latency_step_ms: f32[].
    latency_resolution: how near two latencies are those of one model, a share of the
      latency budget, f32[].

  Returns:
    The attack; another number of any compiles nothing but `num_queries`.

  Raises:
    ValueError: as in `extraction.replay`, or a number that is not >= 1, or a step or
      resolution that is negative, infinite or NaN.
  """
  for name, number in (('accounts', accounts), ('cells', cells), ('probes', probes)):
    _validate.positive_int(name, number)
  _validate.scale('accuracy_step', accuracy_step)
  _validate.scale('latency_step_ms', latency_step_ms)
  _validate.scale('latency_resolution', latency_resolution)
  return Luckiest(
    replay(spec, num_queries),
    *(jnp.int32(number) for number in (accounts, cells, probes)),
    *(
      jnp.asarray(number, jnp.float32)
      for number in (accuracy_step, latency_step_ms, latency_resolution)
    ),
  )


def _most_common(latency_ms: jax.Array, valid: jax.Array, near: jax.Array) -> jax.Array:
  """bool[B]: valid latencies near the one that most valid ones are near; f32[B]."""
  latency_ms = jnp.where(valid, latency_ms, jnp.inf)
  ordered = jnp.sort(latency_ms)
  count = jnp.searchsorted(ordered, latency_ms + near, side='right')
  count -= jnp.searchsorted(ordered, latency_ms - near, side='left')
  mode = latency_ms[jnp.argmax(jnp.where(valid, count, 0))]
  return valid & (jnp.abs(latency_ms - mode) <= near)


def _spread(resources: Resources, accounts: int = 10) -> Spread:
  return spread('told', resources.num_queries, accounts)


def _luckiest(
  resources: Resources,
  accounts: int = 10,
  cells: int = 5,
  probes: int = 4,
  accuracy_step: float = 0.01,
  latency_step_ms: float = 1.0,
) -> Luckiest:
  return luckiest(
    'told',
    resources.num_queries,
    accounts,
    cells=cells,
    probes=probes,
    accuracy_step=accuracy_step,
    latency_step_ms=latency_step_ms,
    latency_resolution=resources.latency_resolution,
  )


_KNOWS = 'the best spec under the defense'
ATTACKS.register('sybils', Entry(_spread, f'{_KNOWS}; has accounts', 'informed'))
ATTACKS.register(
  'lucky_sybils',
  Entry(_luckiest, f'{_KNOWS}; has accounts, and keeps the luckiest cell', 'informed'),
)
