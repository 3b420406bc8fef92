"""The plan of an experiment: which attack meets which defense, at which budget."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from psml_jax import pareto
from psml_jax.attacks import ATTACKS, Entry, configured
from psml_jax.core import ZooProfile
from psml_jax.defenses import MECHANISMS
from psml_jax.experiments.config import Config

NONE = 'none'
"""The name of no defense at all."""


class Cell(NamedTuple):
  """All runs that differ in their seed alone.

  `defense` is 'none', or a mechanism whose knob is at `value`.
  """

  victim: str
  attack: str
  defense: str
  value: float
  query_budget: int

  @property
  def label(self) -> str:
    """The defense and its value."""
    return self.defense if self.defense == NONE else f'{self.defense}({self.value:.3g})'


def victims(profile: ZooProfile) -> dict[str, str]:
  """The victims' names by size."""
  return {size: profile.names[i] for size, i in pareto.victims(profile).items()}


def names(config: Config, role: str) -> list[str]:
  """The config's attacks of a role."""
  return [name for name in config.attacks if entry(config, name).role == role]


def entry(config: Config, attack: str) -> Entry:
  """What the registry has of an attack of the config."""
  return ATTACKS[configured(config.attacks, attack)[0]]


def controls(mechanisms: Iterable[str]) -> list[str]:
  """The mechanisms that others are compared with."""
  return [name for name in mechanisms if MECHANISMS[name].control]


def cells(
  config: Config, victims: Mapping[str, str], calibrated: Mapping[str, float]
) -> list[Cell]:
  """What the experiment extracts, cell by cell.

  Of the victims that the config names. Without a defense each victim by each attack at
  each budget, but for the informed ones, whom a defense must be told of. On each
  mechanism at its calibrated value, each victim by the attacks at each budget and by
  baselines and informed ones at the largest; on a control by the informed alone, or by
  baselines and attacks where nobody is informed. At the largest budget, the medium
  victim at each value that the config lists.

  Args:
    config: of the experiment.
    victims: size -> name of the model.
    calibrated: mechanism -> the value that keeps the target, where one does.
  """
  assert config.extraction is not None
  victims = {size: victims[size] for size in config.extraction.victims}
  budgets = config.extraction.query_budgets
  largest = max(budgets)
  attacks, informed = names(config, 'attack'), names(config, 'informed')
  baselines = names(config, 'baseline')
  open_to = [*names(config, 'reference'), *baselines, *attacks]
  listed = [
    Cell(victim, name, NONE, 0.0, budget)
    for victim in victims.values()
    for name in open_to
    for budget in budgets
  ]
  for mechanism, value in calibrated.items():
    control = MECHANISMS[mechanism].control
    for victim in victims.values():
      listed += [
        Cell(victim, name, mechanism, value, budget)
        for name in (() if control else attacks)
        for budget in budgets
      ]
      most = [*baselines, *informed]
      if control:
        most = informed or [*baselines, *attacks]
      listed += [Cell(victim, name, mechanism, value, largest) for name in most]
  listed += [
    Cell(victims['medium'], name, mechanism, value, largest)
    for mechanism in config.defense.mechanisms
    for name in (*attacks, *informed)
    for value in sorted(config.defense.values(mechanism))
    if 'medium' in victims and value != MECHANISMS[mechanism].knob.off
  ]
  return list(dict.fromkeys(listed))
