"""How many probes an attack needs against noise, and how many any attack needs."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from psml_jax import _validate
from psml_jax.attacks.base import Attack
from psml_jax.core import Bill, Knowledge, Query, Spec
from psml_jax.servers.base import Server


@struct.dataclass(eq=False)
class Course:
  """What an attack would have chosen after each number of probes.

  Attributes:
    spec: Spec of shape [C], the harvest's at each look.
    bill: of each look.
  """

  spec: Spec
  bill: Bill


def course(
  key: jax.Array,
  attack: Attack,
  server: Server,
  knowledge: Knowledge,
  *,
  looks: int,
  every: int,
) -> Course:
  """An attack of one probe at a time, harvested again and again on its way.

  Pure: it works under vmap (over keys, servers, knowledge).

  Args:
    key: split between attack and server.
    attack: one whose harvest has a `spec`.
    server: the server.
    knowledge: what the attacker knows.
    looks: C, how often it is harvested.
    every: probes between two looks.
  """
  key, server_key = jax.random.split(key)

  def probe(carry: Any, _: None) -> tuple[Any, None]:
    attacker, state, bill = carry
    query: Query = attack.ask(attacker)
    state, observation, _ = server.serve(state, query)
    bill = bill.charge(query.sent, observation.served)
    return (attack.tell(attacker, query, observation), state, bill), None

  def look(carry: Any, _: None) -> tuple[Any, Course]:
    carry, _ = jax.lax.scan(probe, carry, length=every)
    return carry, Course(attack.harvest(carry[0]).spec, carry[2])

  start = attack.init(key, knowledge), server.init(server_key), Bill.zero()
  _, seen = jax.lax.scan(look, start, length=looks)
  return seen


def probes_until(rate: np.ndarray, probes: np.ndarray, *, wanted: float) -> float:
  """Probes until the mean rate over seeds reaches a value, and keeps it.

  Args:
    rate: f[S, C], true rates of what S seeds choose at each look.
    probes: i[C], probes sent by then.
    wanted: the rate.

  Returns:
    The probes of the first look from which on no mean is below; infinite where the
    last one is.
  """
  missed = np.flatnonzero(np.mean(rate, axis=0) < wanted)
  first = missed[-1] + 1 if len(missed) else 0
  return float(probes[first]) if first < len(probes) else math.inf


def capacity(low: float, high: float) -> float:
  """Bits that one answer can carry whose probability lies between two.

  The capacity of the channel with one bit out whose inputs give 1 with probability
  `low` and `high`; inputs between them add nothing.

  Args:
    low: a probability.
    high: likewise.

  >>> capacity(0.0, 1.0), round(capacity(0.11, 0.89), 2)
  (1.0, 0.5)
  """
  for name, value in (('low', low), ('high', high)):
    _validate.fractions(name, value)
  share = np.linspace(0, 1, 1001)
  mixed = _entropy(low + share * (high - low))
  told = mixed - (1 - share) * _entropy(low) - share * _entropy(high)
  return float(np.max(told))


def lower_bound(
  law: Any,
  *,
  latency_budget_ms: float,
  accuracy_resolution: float,
  latency_resolution: float,
) -> float:
  """Probes that any search by refusals needs behind noise.

  `(log2(1 / accuracy_resolution) + log2(1 / latency_resolution)) / capacity`: every
  answer is one use of a binary channel (Burnashev and Zigangirov 1974, "An interval
  estimation problem for controlled observations"; Karp and Kleinberg 2007, "Noisy
  binary search and its applications"). The capacity is that of the probe whose
  chance of being served varies most with where the model is, within [0, 1] and the
  latency budget.

  Args:
    law: of the noise, `accurate` and `fast`.
    latency_budget_ms: the latencies looked at.
    accuracy_resolution: a share of [0, 1], to which the search is to narrow it.
    latency_resolution: likewise, a share of the budget.

  Returns:
    The bound, not rounded.

  Raises:
    ValueError: an argument that is not finite and > 0.
  """
  _validate.positive('latency_budget_ms', latency_budget_ms)
  _validate.positive('accuracy_resolution', accuracy_resolution)
  _validate.positive('latency_resolution', latency_resolution)
  bits = max(0.0, -math.log2(accuracy_resolution))
  bits += max(0.0, -math.log2(latency_resolution))
  asked = jnp.linspace(0.0, 1.0, 65)
  limit = jnp.linspace(0.0, latency_budget_ms, 65)[1:]
  served = (
    law.accurate(asked, jnp.ones_like(asked))[:, None]
    * law.fast(limit, jnp.zeros_like(limit))[None]
  )
  lowest = law.accurate(asked, jnp.zeros_like(asked))[:, None] * law.fast(
    limit, jnp.full_like(limit, latency_budget_ms)
  )
  lowest, served = np.ravel(lowest), np.ravel(served)
  best = max(capacity(low, high) for low, high in zip(lowest, served, strict=True))
  return bits / best if best else math.inf


def _entropy(p: Any) -> np.ndarray:
  p = np.clip(p, 1e-12, 1 - 1e-12)
  return -(p * np.log2(p) + (1 - p) * np.log2(1 - p))
