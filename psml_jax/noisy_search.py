"""How many probes an attack needs against noise, and how many any attack needs."""

import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from psml_jax import _validate, routers, servers, struct
from psml_jax.attacks.base import Attack
from psml_jax.core import Bill, Knowledge, Query, Spec, ZooProfile
from psml_jax.defenses import defend, laplace, relative_scale
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
    state, observation, _transcript = server.serve(state, query)
    bill = bill.charge(query.sent, observation.served)
    return (attack.tell(attacker, query, observation), state, bill), None

  def look(carry: Any, _: None) -> tuple[Any, Course]:
    carry, _ = jax.lax.scan(probe, carry, length=every)
    return carry, Course(attack.harvest(carry[0]).spec, carry[2])

  start: Any = (attack.init(key, knowledge), server.init(server_key), Bill.zero())
  _, seen = jax.lax.scan(look, start, length=looks)
  return seen


def probes_against_noise(
  key: jax.Array,
  profile: ZooProfile,
  victim: int,
  latency_budget_ms: float,
  attack: Attack,
  scales: Sequence[float],
  *,
  share: float = 0.9,
  seeds: int = 32,
  looks: int = 20,
  every: int = 5,
) -> list[dict[str, Any]]:
  """Probes until an attack's spec is good, against the scale of Laplace noise.

  Args:
    key: of all seeds, the same ones at every scale.
    profile: the zoo, behind the uniform router.
    victim: index into it.
    latency_budget_ms: the attacker's.
    attack: told the noise; its harvest has a `spec`.
    scales: shares of the zoo's range.
    share: of the best rate, which the mean over seeds is to reach.
    seeds: how many.
    looks: how often each is harvested.
    every: probes between two looks.

  Returns:
    For each scale `scale`, `probes` (infinite where not reached), `bound` (see
    `lower_bound`; resolved is the range of each field that gives the share of the best
    rate), `best_rate` on a grid, and `mean_share`, of the best rate at each look.
  """
  router = routers.uniform(profile)
  keys = jax.random.split(key, seeds)
  top = float(jnp.max(profile.latency_ms))
  accuracy = np.linspace(0.0, 1.0, 201)
  latency = np.append(np.geomspace(top / 1e4, top, 400), latency_budget_ms)
  grid = Spec.of(*np.meshgrid(accuracy, latency, indexing='ij'))
  rows = []
  for scale in scales:
    noise = laplace(*relative_scale(profile, scale))
    outputs = jnp.ones((len(profile), 1, 1))
    server = servers.table(router, profile.latency_ms, outputs, defense=noise)
    knowledge = Knowledge(jnp.float32(latency_budget_ms), defense=noise)
    seen = _courses(keys, attack, server, knowledge, looks, every)
    kernel = defend(router, noise).kernel
    rates = np.asarray(kernel(grid))[..., victim]
    reached = np.asarray(kernel(seen.spec))[..., victim] / rates.max()
    row, column = np.unravel_index(rates.argmax(), rates.shape)
    good = rates >= share * rates.max()
    wide = accuracy[good[:, column]], latency[good[row]]
    rows.append(
      {
        'scale': scale,
        'probes': probes_until(reached, np.asarray(seen.bill.queries)[0], wanted=share),
        'bound': lower_bound(
          noise,
          latency_budget_ms=latency_budget_ms,
          accuracy_resolution=max(float(np.ptp(wide[0])), 0.005),
          latency_resolution=max(float(np.ptp(wide[1])) / latency_budget_ms, 0.005),
        ),
        'best_rate': float(rates.max()),
        'mean_share': reached.mean(axis=0).tolist(),
      }
    )
  return rows


@functools.partial(jax.jit, static_argnames=('looks', 'every'))
def _courses(
  keys: jax.Array,
  attack: Attack,
  server: Server,
  knowledge: Knowledge,
  looks: int,
  every: int,
) -> Course:
  """One seed after the other: under vmap all do the work of every branch."""

  def one(key: jax.Array) -> Course:
    return course(key, attack, server, knowledge, looks=looks, every=every)

  return jax.lax.map(one, keys)


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

  >>> round(capacity(0.0, 1.0), 2), round(capacity(0.11, 0.89), 2)
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
  zero, one = jnp.zeros_like, jnp.ones_like
  lowest = np.multiply.outer(
    law.accurate(asked, zero(asked)), law.fast(limit, latency_budget_ms * one(limit))
  )
  highest = np.multiply.outer(
    law.accurate(asked, one(asked)), law.fast(limit, zero(limit))
  )
  pairs = zip(np.ravel(lowest), np.ravel(highest), strict=True)
  most = max(capacity(low, high) for low, high in pairs)
  return bits / most if most else math.inf


def _entropy(p: Any) -> np.ndarray:
  p = np.clip(np.asarray(p, np.float64), 1e-12, 1 - 1e-12)
  return -(p * np.log2(p) + (1 - p) * np.log2(1 - p))
