"""What the numbers of a study of threats come to."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

from psml_jax.metrics import Interval
from psml_jax.report.ladder_numbers import over_zoos
from psml_jax.report.threats_records import Fooled, Inferred, Share, Threats

REFERENCE = 'explicit'
"""The attack on a server that lets its clients name the model."""


class Behind(NamedTuple):
  """What an attack faces; `target` is None without a defense."""

  size: str
  defense: str
  target: float | None

  @property
  def label(self) -> str:
    """The defense and its goodput."""
    at = '' if self.target is None else f'\n{100 * self.target:g} %'
    return self.defense + at


def behind(record: Inferred | Fooled) -> Behind:
  """What the attack of a record faced."""
  return Behind(record.size, record.defense, record.target)


def sizes(study: Threats) -> list[str]:
  """The victims, in their order."""
  return list(dict.fromkeys(one.size for one in study.membership))


def sides(study: Threats, size: str) -> list[Behind]:
  """What is faced by attacks on one victim, in the order of the study."""
  own = [one for one in study.membership if one.size == size]
  return list(dict.fromkeys(behind(one) for one in own))


def fooled(
  study: Threats, place: Behind, attack: str, of: Callable[[Fooled], list[float | None]]
) -> Interval:
  """A number of one attack behind one defense, over zoos; of one zoo, over seeds.

  Args:
    study: the study.
    place: what is faced.
    attack: by whom.
    of: the number, a seed each; None where there is none.
  """
  own = [one for one in study.transfer if one.attack == attack and behind(one) == place]
  return over_zoos(own, lambda one: known(of(one)))


def more(
  one: Iterable[float | None], other: Iterable[float | None]
) -> list[float | None]:
  """How much more, seed by seed."""
  return [
    None if a is None or b is None else a - b for a, b in zip(one, other, strict=True)
  ]


def known(values: Iterable[float | None]) -> list[float]:
  """Those that there are."""
  return [value for value in values if value is not None]


def worst(study: Threats, place: Behind, repeats: int) -> Inferred:
  """The attack that finds most members at the last rate; of equal ones the cheapest."""
  own = [
    one
    for one in study.membership
    if behind(one) == place and one.repeats == repeats and one.attack != REFERENCE
  ]
  return max(own, key=lambda one: (last(one).mean, -one.queries))


def last(record: Inferred) -> Share:
  """The true-positive rate at the last of the false-positive rates."""
  return record.found.true_positive_rate[-1]
