"""A session: an attack's queries carried to a server, and what both sides count.

`run` is pure; `run_live` does the same in a Python loop, for servers that measure a
clock or sit at the other end of a wire.
"""

import dataclasses
import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from psml_jax import _validate, struct
from psml_jax.attacks.base import Attack, Phases
from psml_jax.core import Bill, Knowledge, Observation, Query
from psml_jax.servers.base import Server, State


@struct.dataclass(eq=False)
class Session:
  """What a session of an attack against a server came to.

  Attributes:
    harvest: of the attack's last phase.
    bills: the attacker's count, phase by phase.
    log: the server's count; None from `run_live`, whose server keeps its own.
    answers: for the operator's eyes: i32[M] a phase, how often each model answered;
      empty from `run_live`.
    state: the server's state at the end; None from `run_live`.
  """

  harvest: Any
  bills: tuple[Bill, ...]
  log: Bill | None = None
  answers: tuple[jax.Array, ...] = ()
  state: State | None = None

  @property
  def bill(self) -> Bill:
    """The attacker's count of all phases."""
    return functools.reduce(functools.partial(jax.tree.map, operator.add), self.bills)


def run(
  key: jax.Array,
  attack: Attack | Phases,
  server: Server,
  state: State,
  knowledge: Knowledge,
  *,
  budget: ArrayLike,
) -> Session:
  """Runs an attack against a server to its end, or to the end of its budget.

  Pure: it works under jit and vmap (over keys, states, budgets, servers of a zoo), and
  equal shapes share one compiled program.

  Args:
    key: of the attack; the server draws with its own, which its state holds.
    attack: the attack, or its phases.
    server: a server whose `serve` is pure, a pytree, as `servers.table` makes it.
    state: of the server, as `server.init` or an earlier session left it.
    knowledge: what the attacker knows beforehand.
    budget: i32[], queries to be billed at most, all phases together; may be traced.

  Returns:
    The session.

  Raises:
    ValueError: a concrete budget below 0, a key that is not typed, or an attack or
      server of a class that `struct.check` refuses.

  >>> from psml_jax import Spec, ZooProfile, attacks, routers, servers
  >>> zoo = ZooProfile([0.7, 0.9], [1.0, 5.0], ('small', 'large'))
  >>> server = servers.table(
  ...   routers.uniform(zoo), zoo.latency_ms, jnp.full((2, 8, 10), 0.1))
  >>> knowledge = Knowledge(
  ...   jnp.float32(9), pool_size=8, num_classes=10, spec=Spec.of(0.8, 9.0))
  >>> key, server_key = jax.random.split(jax.random.key(0))
  >>> found = run(key, attacks.extraction.replay('told', 8), server,
  ...             server.init(server_key), knowledge, budget=6)
  >>> int(found.bill.queries), int(found.harvest.count), found.answers[0].tolist()
  (6, 6, [0, 6])
  """
  _validate.key('key', key)
  for name, part in (('attack', attack), ('server', server)):
    struct.check(name, part)
  return _run(key, attack, server, state, knowledge, _budget(budget))


def run_live(
  key: jax.Array,
  attack: Attack | Phases,
  client: Callable[[Query], Observation],
  knowledge: Knowledge,
  *,
  budget: int,
  pool: Sequence[Any] | np.ndarray | jax.Array | None = None,
) -> Session:
  """`run` in a Python loop, against whatever answers queries.

  Args:
    key: of the attack.
    attack: the attack, or its phases.
    client: the way to the server, such as `servers.Client`.
    knowledge: what the attacker knows beforehand.
    budget: queries to be billed at most.
    pool: f32[P, H, W, C], the attacker's images, sent in place of their indices;
      None for a client that takes indices.

  Returns:
    The session as the attacker sees it.

  Raises:
    ValueError: a budget below 0, or a key that is not typed.
  """
  _validate.key('key', key)
  left = _budget(budget)
  bills = []
  for phase in _phases(attack):
    state, bill = phase.init(key, knowledge), Bill.zero()
    while bool((query := _affordable(phase.ask(state), left)).sent.any()):
      asked = query
      if pool is not None:
        images = jnp.asarray(np.asarray(pool)[np.asarray(query.inputs)])
        asked = dataclasses.replace(query, inputs=images)
      observation = client(asked)
      state = phase.tell(state, query, observation)
      bill = bill.charge(query.sent, observation.served)
      left = left - jnp.sum(query.sent, dtype=jnp.int32)
    knowledge = dataclasses.replace(knowledge, found=phase.harvest(state))
    bills.append(bill)
  return Session(knowledge.found, tuple(bills))


@jax.jit
def _run(
  key: jax.Array,
  attack: Attack | Phases,
  server: Server,
  state: State,
  knowledge: Knowledge,
  budget: jax.Array,
) -> Session:
  before, bills, answers = state.log, [], []
  for phase in _phases(attack):
    attacker, state, bill, counts = _phase(
      phase, phase.init(key, knowledge), server, state, budget
    )
    budget = budget - bill.queries
    knowledge = dataclasses.replace(knowledge, found=phase.harvest(attacker))
    bills.append(bill)
    answers.append(counts)
  log = jax.tree.map(operator.sub, state.log, before)
  return Session(knowledge.found, tuple(bills), log, tuple(answers), state)


def _phase(
  attack: Attack, attacker: Any, server: Server, state: State, budget: jax.Array
) -> tuple[Any, State, Bill, jax.Array]:
  """One phase: both states at its end, its bill, and i32[M] answers by model."""

  def ask(carry: Any) -> Query:
    attacker, _, bill, _ = carry
    return _affordable(attack.ask(attacker), budget - bill.queries)

  def turn(carry: Any) -> Any:
    attacker, state, bill, counts = carry
    query = ask(carry)
    state, observation, transcript = server.serve(state, query)
    place = jnp.where(transcript.model < 0, server.num_models, transcript.model)
    return (
      attack.tell(attacker, query, observation),
      state,
      bill.charge(query.sent, observation.served),
      counts.at[place].add(1, mode='drop'),
    )

  counts = jnp.zeros(server.num_models, jnp.int32)
  start = (attacker, state, Bill.zero(), counts)
  ended: tuple[Any, State, Bill, jax.Array] = jax.lax.while_loop(
    lambda carry: jnp.any(ask(carry).sent), turn, start
  )
  return ended


def _phases(attack: Attack | Phases) -> tuple[Attack, ...]:
  return attack.attacks if isinstance(attack, Phases) else (attack,)


def _affordable(query: Query, left: jax.Array) -> Query:
  """The batch without the queries that the budget does not pay for.

  An attack that names no identity has client 0's: servers that remember want one.
  """
  sent = query.sent & (jnp.cumsum(query.sent, dtype=jnp.int32) <= left)
  return dataclasses.replace(query, client=jnp.maximum(query.client, 0), sent=sent)


def _budget(budget: ArrayLike) -> jax.Array:
  if _validate.is_concrete(budget):
    _validate.non_negative('budget', budget)
  return jnp.asarray(budget, jnp.int32)
