"""What a report is made from: the summary of one experiment.

Shares are fractions in [0, 1], latencies milliseconds. `defense` is the name of a
mechanism ('none' without one), `value` that of its knob and `label` what to print for
both.
"""

import dataclasses
import math
import sys
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, TypeAlias

import msgspec
import numpy as np

from psml_jax import metrics
from psml_jax.metrics import Interval

SIZES = ('small', 'medium', 'large')
METRICS = ('accuracy', 'fidelity')
"""How good a surrogate is."""

_ROLES = ('reference', 'attack', 'informed', 'baseline')
Fraction: TypeAlias = Annotated[float, msgspec.Meta(ge=0, le=1)]
_Latency: TypeAlias = Annotated[float, msgspec.Meta(ge=0, le=sys.float_info.max)]


@dataclasses.dataclass(frozen=True)
class Estimate:
  """A mean over runs with its 95 % interval.

  Both are None where no run gave a number, the interval alone where one did.
  """

  mean: float | None = None
  ci95: tuple[float, float] | None = None

  @classmethod
  def of(cls, values: Iterable[float | None], highest: float = 1.0) -> 'Estimate':
    """The estimate of a quantity between 0 and `highest`.

    Args:
      values: one a run; those that are None or not finite count in nothing.
      highest: end of the interval.
    """
    finite = np.array(list(values), np.float64)
    finite = finite[np.isfinite(finite)]
    if finite.size < 2:
      return cls(float(finite[0]) if finite.size else None)
    mean, low, high = metrics.interval(finite).within(0.0, highest)
    return cls(mean, (low, high))

  @property
  def known(self) -> bool:
    """Whether a run gave a number."""
    return self.mean is not None

  def times(self, unit: float = 100.0) -> Interval:
    """The estimate times the unit, in percent by default.

    NaN where it is unknown; an unknown interval is the mean.
    """
    mean = math.nan if self.mean is None else self.mean
    low, high = self.ci95 or (mean, mean)
    return Interval(unit * mean, unit * low, unit * high)


@dataclasses.dataclass(frozen=True)
class Model:
  """A model of the zoo, and whether it is Pareto-optimal."""

  name: str
  accuracy: Fraction
  latency_ms: _Latency
  pareto: bool

  @property
  def place(self) -> tuple[float, float]:
    """Where it lies: latency in ms and accuracy in percent."""
    return self.latency_ms, 100 * self.accuracy


@dataclasses.dataclass(frozen=True)
class Corner:
  """A victim's corner as the fingerprint found it, and the least probes it can take."""

  victim: str
  probes: int
  bound: float
  min_accuracy: float
  max_latency_ms: float
  identified: bool


@dataclasses.dataclass(frozen=True)
class Trail:
  """The probes of a fingerprint in their order."""

  min_accuracy: list[float]
  max_latency_ms: list[float]
  served: list[bool]


@dataclasses.dataclass(frozen=True)
class Probes(Trail):
  """The trail for one victim."""

  victim: str


@dataclasses.dataclass(frozen=True)
class Frontier:
  """How much of the frontier a sweep found, and its probes."""

  corners_found: int
  corners: int
  probes: int


@dataclasses.dataclass(frozen=True)
class Defended:
  """A defense at one value."""

  defense: str
  value: float
  label: str


@dataclasses.dataclass(frozen=True)
class Attack(Defended):
  """Runs that differ in their seed alone.

  `seeds` counts them all, `diverged` those that are in no mean and `unserved` those
  whose queries were all refused. `knows` says what the attacker knew beforehand.
  """

  victim: str
  attack: str
  knows: str
  query_budget: int
  seeds: int
  diverged: int
  unserved: int
  queries_billed: float
  queries_served: Estimate
  victim_purity: Estimate
  accuracy: Estimate
  fidelity: Estimate


@dataclasses.dataclass(frozen=True)
class Protection(Attack):
  """The same beside the goodput that the defense leaves."""

  goodput: Estimate


@dataclasses.dataclass(frozen=True)
class Shares:
  """Goodput at a value, of all clients and of classes of them."""

  value: float
  goodput: Estimate
  classes: dict[str, Estimate]


@dataclasses.dataclass(frozen=True)
class Goodput(Defended, Shares):
  """The goodput that a defense leaves."""


@dataclasses.dataclass(frozen=True)
class Knob:
  """What a mechanism's values mean, and whether others are compared with it."""

  name: str
  unit: str
  weakest: float
  strongest: float
  control: bool


@dataclasses.dataclass(frozen=True)
class Claim:
  """A claim, what the paper says, and what was measured."""

  claim: str
  paper: str
  measured: str
  holds: bool


@dataclasses.dataclass(frozen=True)
class Summary:
  """What an experiment found; summary.json has the same fields.

  Attributes:
    dataset: what was run, for titles.
    seeds: how many runs a cell has.
    target_goodput: the fraction that the defense has to keep.
    device: where latency was measured.
    provenance: where the numbers are from (seed, revision, versions).
    wall_seconds: stage to seconds.
    zoo: the models.
    victims: small, medium and large to a model's name.
    twins: models equal in accuracy and latency, which share one corner.
    fingerprint: the corners found.
    probes: the trails of the fingerprints.
    extraction: the surrogates, cell by cell.
    protection: those of the medium victim at the largest budget.
    goodput: what every defense leaves.
    knobs: mechanism to its knob.
    roles: attack to 'reference', 'attack', 'informed' or 'baseline'.
    claims: the paper's, tested.
    frontier: the sweep.
  """

  dataset: str
  seeds: int
  target_goodput: Annotated[float, msgspec.Meta(gt=0, le=1)]
  device: str
  provenance: dict[str, str]
  wall_seconds: dict[str, float]
  zoo: Annotated[list[Model], msgspec.Meta(min_length=1)]
  victims: dict[str, str]
  twins: list[list[str]]
  fingerprint: list[Corner]
  probes: list[Probes]
  extraction: list[Attack]
  protection: list[Protection]
  goodput: list[Goodput]
  knobs: dict[str, Knob]
  roles: dict[str, str]
  claims: list[Claim]
  frontier: Frontier | None = None

  def __post_init__(self) -> None:
    models = {model.name: model for model in self.zoo}
    for group in self.twins:
      points = {name in models and models[name].place for name in group}
      if len(group) < 2 or False in points or len(points) > 1:
        raise ValueError(
          f'twins has {group}; each must name two or more models of the zoo with equal '
          'accuracy and latency'
        )
    for size in SIZES:
      name = self.victims.get(size, '')
      if name not in models or not models[name].pareto:
        raise ValueError(
          f'victims.{size} is {name!r}; it must be the name of a Pareto-optimal model '
          'of the zoo'
        )

  def victim_order(self, victim: str) -> tuple[int, str]:
    """Sorts victims: small, medium, large, then all others."""
    names = [self.victims[size] for size in SIZES]
    return names.index(victim) if victim in names else len(names), victim


def checked(summary: Summary | Mapping[str, Any]) -> Summary:
  """A summary, or what JSON has of one, as a summary.

  Raises:
    ValueError: a field is missing or of another type, a number out of its range, or a
      name that the zoo does not have; the message says where.
  """
  try:
    return msgspec.convert(summary, Summary)
  except msgspec.ValidationError as error:
    raise ValueError(f'summary is no summary of an experiment: {error}') from None


def attack_order(roles: Mapping[str, str], attack: str) -> tuple[int, str]:
  """Sorts attacks: references first, baselines last."""
  role = roles.get(attack)
  return (_ROLES.index(role) if role in _ROLES else len(_ROLES), attack)


def defense_order(knobs: Mapping[str, Knob], defense: str) -> tuple[int, str]:
  """Sorts defenses: none first, controls last."""
  knob = knobs.get(defense)
  return (2 if knob and knob.control else int(knob is not None), defense)


def strength(knobs: Mapping[str, Knob], row: Defended) -> float:
  """Sorts values of one defense, the weakest first."""
  knob = knobs.get(row.defense)
  upward = knob is None or knob.strongest > knob.weakest
  return row.value if upward else -row.value


def shown_defenses(summary: Summary) -> dict[str, str]:
  """The defenses of the extraction plot, by name: the strongest useful one of each.

  Of all values of a defense that were attacked, at the most budgets, the strongest
  whose mean goodput is at least the target, or the weakest where none is. A cell is
  here as its label.
  """
  left = [(row.label, row.goodput.mean) for row in summary.goodput]
  left += [(row.label, row.goodput.mean) for row in summary.protection]
  useful = {label for label, mean in left if (mean or 0) >= summary.target_goodput}
  attacked: dict[str, dict[str, set[int]]] = {}
  for row in sorted(summary.extraction, key=lambda row: strength(summary.knobs, row)):
    if row.defense != 'none':
      budgets = attacked.setdefault(row.defense, {})
      budgets.setdefault(row.label, set()).add(row.query_budget)
  shown = {}
  for name in sorted(attacked, key=lambda name: defense_order(summary.knobs, name)):
    most = max(map(len, attacked[name].values()))
    labels = [label for label, at in attacked[name].items() if len(at) == most]
    shown[name] = ([label for label in labels if label in useful] or labels[:1])[-1]
  return shown
