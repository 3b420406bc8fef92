"""What a leakage study is told: the fields of configs/leakage.py, and their checks."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from psml_jax import _registry, _validate, attacks, profiles, workloads
from psml_jax.core import ZooProfile
from psml_jax.defenses import mechanisms
from psml_jax.experiments.config import Published, build


@dataclasses.dataclass(frozen=True)
class Attackers:
  """Attackers who know no more than a client, against some of the defenses.

  `attacks` is as in an experiment, `defenses` defenses
  to the attacks that each meets, calibrated to `target`, with as many `probes` over
  `seeds`.
  """

  attacks: Mapping[str, Mapping[str, Any]]
  defenses: Mapping[str, tuple[str, ...]]
  target: float = 0.8
  probes: tuple[int, ...] = (100, 400)
  seeds: int = 16


@dataclasses.dataclass(frozen=True)
class Memory:
  """Defenses with memory, against a thief of several accounts.

  `defenses` maps names of `defenses.MECHANISMS` to `value`, of the knob, and their
  fields. A thief with each number of `accounts` sends `queries` over `seeds`, and tries
  `cells` where a defense has such; `clients` honest ones send `each` queries.
  """

  defenses: Mapping[str, Mapping[str, Any]]
  accounts: tuple[int, ...] = (1, 10, 100, 1000)
  queries: int = 2000
  seeds: int = 32
  cells: int = 1
  clients: int = 200
  each: int = 100


@dataclasses.dataclass(frozen=True)
class Config:
  """A leakage study.

  `defenses` maps names of `defenses.MECHANISMS` to fields, `workloads` those of
  `workloads.WORKLOADS`. Every defense is calibrated to every goodput of `targets` on
  every workload; `workload` is the one that the tables of victims, clients and
  attackers are of. `points` is how many values of its knob its curve has, and `gap` how
  far a certified ceiling may lie above the rate.
  """

  published: Published
  defenses: Mapping[str, Mapping[str, Any]]
  workloads: Mapping[str, Mapping[str, Any]]
  name: str = 'leakage'
  workload: str = 'uniform'
  seed: int = 0
  targets: tuple[float, ...] = (0.95, 0.9, 0.8)
  points: int = 12
  gap: float = 2e-3
  attackers: Attackers | None = None
  memory: Memory | None = None


def parse(fields: Mapping[str, Any]) -> Config:
  """Makes a config of a mapping, and checks it.

  Args:
    fields: nested; what is not given keeps its default.

  Returns:
    The config.

  Raises:
    ValueError: a field that is unknown, missing, of another type or not allowed.
  """
  config = build(Config, fields, 'config')
  _check(config)
  return config


def profile(config: Config) -> ZooProfile:
  """The zoo of a study.

  Raises:
    ValueError: a table that cannot be read; see `ZooProfile.from_csv`.
  """
  given = config.published
  if given.name:
    return profiles.load(given.name)
  return ZooProfile.from_csv(
    given.csv,
    name_column=given.name_column,
    accuracy_column=given.accuracy_column,
    latency_column=given.latency_column,
    accuracy_unit=given.accuracy_unit,
    latency_unit=given.latency_unit,
  )


def _check(config: Config) -> None:
  _validate.seed('config.seed', config.seed)
  _validate.at_least_two('config.points', config.points)
  _validate.positive('config.gap', config.gap)
  if bool(config.published.name) == bool(config.published.csv):
    raise ValueError(
      f'config.published has name {config.published.name!r} and csv '
      f'{config.published.csv!r}; give exactly one'
    )
  if config.published.name:
    _validate.one_of('config.published.name', config.published.name, profiles.names())
  for name, its in config.defenses.items():
    _check_mechanism(f'config.defenses.{name}', name, its)
  for name, its in config.workloads.items():
    entry = workloads.WORKLOADS.find(name, 'config.workloads')
    _registry.check_fields(f'config.workloads.{name}', entry, 0, its)
  if not config.defenses or not config.workloads or not config.targets:
    raise ValueError('config has no defenses, workloads or targets; name some of each')
  _validate.one_of('config.workload', config.workload, config.workloads)
  for target in config.targets:
    _validate.number('config.targets', target, lambda x: 0 < x <= 1, 'in (0, 1]')
  if config.memory is not None:
    _check_memory(config.memory)
  if config.attackers is not None:
    _check_attackers(config, config.attackers)


def _check_mechanism(path: str, name: str, fields: Mapping[str, Any]) -> None:
  try:
    mechanisms.check(name, fields)
  except ValueError as error:
    raise ValueError(f'{path}: {error}') from None


def _check_memory(given: Memory) -> None:
  path = 'config.memory'
  for name, its in given.defenses.items():
    if 'value' not in its:
      raise ValueError(f'{path}.defenses.{name} is {its}; it must have a value')
    own = {field: value for field, value in its.items() if field != 'value'}
    _check_mechanism(f'{path}.defenses.{name}', name, own)
  for field in ('queries', 'cells', 'clients', 'each'):
    _validate.positive_int(f'{path}.{field}', getattr(given, field))
  _validate.at_least_two(f'{path}.seeds', given.seeds)
  for count in given.accounts:
    _validate.positive_int(f'{path}.accounts', count)


def _check_attackers(config: Config, given: Attackers) -> None:
  path = 'config.attackers'
  if given.target not in config.targets:
    raise ValueError(
      f'{path}.target is {given.target}; it must be one of {config.targets}'
    )
  _validate.at_least_two(f'{path}.seeds', given.seeds)
  for count in given.probes:
    _validate.positive_int(f'{path}.probes', count)
  for name, met in given.defenses.items():
    _validate.one_of(f'{path}.defenses', name, config.defenses)
    for attack in met:
      _validate.one_of(f'{path}.defenses.{name}', attack, given.attacks)
  for name in given.attacks:
    try:
      attacks.configured(given.attacks, name)
    except ValueError as error:
      raise ValueError(f'{path}.attacks.{name}: {error}') from None
