"""Attackers and accounts of a leakage study."""

import functools
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from psml_jax import (
  accounts,
  attacks,
  defenses,
  leakage,
  pareto,
  routers,
  servers,
  session,
  workloads,
)
from psml_jax.attacks import Phases, sybils
from psml_jax.core import Knowledge, Spec, ZooProfile
from psml_jax.experiments.experiment import latency_budget
from psml_jax.experiments.plane.config import Attackers, Config, Memory
from psml_jax.report.plane_records import Accounts, Attacked, Defense

_IMAGES, _CLASSES = 64, 10
_FAILURE = 1e-3

_Defense = tuple[str, float, Mapping[str, Any]]
"""Name, value of the knob, own fields."""


def jobs(
  config: Config, profile: ZooProfile, key: jax.Array, measured: Sequence[Defense]
) -> dict[str, Callable[[], list[Attacked]]]:
  """Every attack of the config against every defense of its list, to be run.

  Args:
    config: of the study.
    profile: the zoo; concrete values.
    key: of the study.
    measured: the defenses, calibrated.

  Returns:
    What makes the records, by a name.
  """
  given = config.attackers
  found: dict[str, Callable[[], list[Attacked]]] = {}
  if given is None:
    return {}
  by_name = {defense.defense: defense for defense in measured}
  for i, name in enumerate(sorted(given.defenses)):
    rows = [
      row
      for row in by_name[name].rows
      if (row.workload, row.target_goodput) == (config.workload, given.target)
    ]
    if not rows:
      continue
    defense = (name, _value(rows[0].value), config.defenses[name])
    best = functools.cache(functools.partial(_best_rate, profile, defense))
    for attack in given.defenses[name]:
      found[f'{attack} against {name}'] = functools.partial(
        _attacked,
        given,
        profile,
        jax.random.fold_in(jax.random.fold_in(key, 1), i),
        defense,
        attack,
        best,
      )
  return found


def _value(written: float | None) -> float:
  return math.inf if written is None else written


def _best_rate(profile: ZooProfile, defense: _Defense) -> float:
  """What the best-informed attacker gets of the medium victim."""
  name, value, fields = defense
  victim = pareto.victims(profile)['medium']
  router = defenses.defended(profile, name, value, **fields)
  return float(leakage.worst(profile, router, victims=[victim]).rate[0])


def _attacked(
  given: Attackers,
  profile: ZooProfile,
  key: jax.Array,
  defense: _Defense,
  attack: str,
  best: Callable[[], float],
) -> list[Attacked]:
  name, value, fields = defense
  parts = defenses.deploy(name, profile, value, **fields)
  victim = pareto.victims(profile)['medium']
  output_key, server_key, attack_key = jax.random.split(key, 3)
  shape = (len(profile), _IMAGES, _CLASSES)
  server = servers.table(
    parts.router or routers.uniform(profile),
    profile.latency_ms,
    jax.nn.softmax(3 * jax.random.normal(output_key, shape)),
    defense=parts.defense,
    reply=parts.reply,
  )
  known = isinstance(parts.defense, defenses.Fieldwise)
  knowledge = Knowledge(
    jnp.float32(latency_budget(profile, victim)),
    pool_size=_IMAGES,
    num_classes=_CLASSES,
    defense=parts.defense if known else None,
  )
  router = defenses.defended(profile, name, value, **fields)
  records = []
  registered, _ = attacks.configured(given.attacks, attack)
  entry = attacks.ATTACKS[registered]
  for probes in given.probes:
    made_for = max(given.probes) if entry.anytime else probes
    spec = _chosen(
      jax.random.split(attack_key, given.seeds),
      jax.random.split(server_key, given.seeds),
      _probing(given, attack, made_for),
      server,
      knowledge,
      jnp.int32(probes),
    )
    rate = np.asarray(leakage.kernel(router, spec)[:, victim], float)
    records.append(
      Attacked(
        name,
        attack,
        entry.knows,
        probes,
        profile.names[victim],
        rate.tolist(),
        best(),
      )
    )
  return records


def _probing(given: Attackers, attack: str, probes: int) -> Phases:
  """The attack's phases before its last one, which replays what they have found."""
  registered, own = attacks.configured(given.attacks, attack)
  if 'probes' in inspect.signature(attacks.ATTACKS[registered].make).parameters:
    own.setdefault('probes', probes)
  made = attacks.make(registered, attacks.Resources(1, 2e-4, 1e-3), **own)
  if not isinstance(made, Phases) or len(made.attacks) < 2:
    raise ValueError(f'attack is {attack!r}; it must probe before it replays a spec')
  return Phases(made.attacks[:-1])


@jax.jit
def _chosen(
  keys: jax.Array,
  secrets: jax.Array,
  attack: Phases,
  server: Any,
  knowledge: Knowledge,
  probes: jax.Array,
) -> Spec:
  """The spec that each seed's attack has found, of shape [seeds].

  One seed after the other: under vmap all would do the work of every branch at every
  probe.
  """

  def one(keys: tuple[jax.Array, jax.Array]) -> Spec:
    key, secret = keys
    found = session.run(
      key, attack, server, server.init(secret), knowledge, budget=probes
    )
    spec: Spec = found.harvest.spec
    return Spec.of(spec.min_accuracy, spec.max_latency_ms)

  return jax.lax.map(one, (keys, secrets))


def counted(
  config: Config, profile: ZooProfile, key: jax.Array
) -> dict[str, Callable[[], list[Accounts]]]:
  """The defenses with memory against a thief with several accounts, to be run.

  Args:
    config: of the study.
    profile: the zoo; concrete values.
    key: of the study.

  Returns:
    What makes the records, by the defense's name.
  """
  given = config.memory
  if given is None:
    return {}
  return {
    name: functools.partial(
      _counted, given, profile, jax.random.fold_in(key, 2), name, given.defenses[name]
    )
    for name in given.defenses
  }


def _counted(
  given: Memory,
  profile: ZooProfile,
  key: jax.Array,
  name: str,
  fields: Mapping[str, Any],
) -> list[Accounts]:
  own = {field: value for field, value in fields.items() if field != 'value'}
  value = float(fields['value'])
  parts = defenses.deploy(name, profile, value, **own)
  server = servers.table(
    parts.router or routers.uniform(profile),
    profile.latency_ms,
    jnp.ones((len(profile), given.queries, 1)),
    defense=parts.defense,
    reply=parts.reply,
  )
  victim = pareto.victims(profile)['medium']
  spec, attacks_by_accounts, bounds = _thief(given, profile, victim, parts)
  thief_key, workload_key, honest_key = jax.random.split(key, 3)
  answers = accounts.victim_answers(
    thief_key,
    attacks_by_accounts,
    server,
    victim,
    Knowledge(spec.max_latency_ms, pool_size=given.queries, spec=spec),
    num_queries=given.queries,
    seeds=given.seeds,
  )
  shape = (given.clients, given.each)
  specs = workloads.make('uniform', size=math.prod(shape))(workload_key, profile)
  specs = jax.tree.map(lambda field: field.reshape(shape), specs)
  kept = accounts.client_goodput(honest_key, profile, server, specs)
  honest = accounts.spread(kept)
  return [
    Accounts(name, value, row.accounts, given.queries, *row.answers, row.bound, *honest)
    for row in accounts.table(given.accounts, answers, bounds)
  ]


def _thief(
  given: Memory, profile: ZooProfile, victim: int, parts: defenses.Deployment
) -> tuple[Spec, list[Any], list[float]]:
  """What it asks for, its attack with each number of accounts, and their bounds."""
  size = given.queries
  if isinstance(parts.router, defenses.Budget):
    limit, cap = float(parts.router.budget), float(parts.router.cap)
    return (
      pareto.corner(profile, victim),
      [sybils.spread('told', size, k) for k in given.accounts],
      [
        defenses.most_answers(size, k, limit, cap, failure=_FAILURE)
        for k in given.accounts
      ],
    )
  if not isinstance(parts.defense, defenses.Sticky):
    raise ValueError(f'{parts} is of no defense whose memory has a bound')
  fresh = defenses.defend(routers.uniform(profile), parts.defense.noise)
  best = leakage.worst(profile, fresh, victims=[victim])
  cells = given.cells
  return (
    jax.tree.map(lambda field: field[0], best.spec),
    [
      sybils.luckiest(
        'told',
        size,
        k,
        cells=cells,
        probes=4,
        accuracy_step=parts.defense.cell * parts.defense.noise.accuracy_scale,
        latency_step_ms=parts.defense.cell * parts.defense.noise.latency_scale_ms,
        latency_resolution=1e-3,
      )
      for k in given.accounts
    ],
    [
      size * float(defenses.luckiest_rate(best.ceiling[0], k, cells))
      for k in given.accounts
    ],
  )
