"""What stages hand on to others, and the files of a work directory that hold it."""

import dataclasses
import pathlib
from typing import Annotated, Generic, TypeAlias, TypeVar

import msgspec

from psml_jax.experiments import workdir
from psml_jax.experiments.plan import Cell
from psml_jax.report import schema

T = TypeVar('T')
Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0)]


@dataclasses.dataclass(frozen=True)
class Artifact(Generic[T]):
  """A JSON file of a work directory.

  Attributes:
    name: of the file.
    kind: the type of what it holds.
    remedy: what mends a damaged one.
  """

  name: str
  kind: type[T]
  remedy: str = workdir.ANEW

  def write(self, directory: pathlib.Path, value: T) -> None:
    """Writes it whole."""
    workdir.write_json(directory / self.name, value, self.kind)

  def read(self, directory: pathlib.Path) -> T:
    """What it holds; InputError where it is damaged."""
    return workdir.read_json(directory / self.name, self.kind, self.remedy)

  def found(self, directory: pathlib.Path) -> T | None:
    """What it holds, None where there is none."""
    return self.read(directory) if (directory / self.name).exists() else None


@dataclasses.dataclass(frozen=True)
class Description:
  """How a profile was measured: device, settings, and the file it was taken from.

  `samples_ms` are what a client measures of each model, by its name.
  """

  device: str
  platform: str | None = None
  versions: dict[str, str] | None = None
  date: str | None = None
  request_images: int | None = None
  batch_size: int | None = None
  rounds: int | None = None
  images: int | None = None
  stored: str | None = None
  samples_ms: dict[str, list[float]] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Fingerprint(schema.Corner):
  """A victim's corner, and the probes that found it."""

  trail: schema.Trail


@dataclasses.dataclass(frozen=True)
class Fingerprints:
  """The corner of every victim, and the sweep of the frontier."""

  victims: list[Fingerprint]
  frontier: schema.Frontier


@dataclasses.dataclass(frozen=True)
class Mechanism:
  """A mechanism's goodput by the values of its knob, ascending.

  `calibrated` is the value that keeps the target, None where none does; `monotone` is
  false where the goodput crosses the target elsewhere too.
  """

  calibrated: float | None
  monotone: bool
  rows: list[schema.Shares]


@dataclasses.dataclass(frozen=True)
class Defenses:
  """The goodput without a defense, and of every mechanism."""

  without: schema.Shares
  mechanisms: dict[str, Mechanism]

  @property
  def calibrated(self) -> dict[str, float]:
    """The values that keep the target, of the mechanisms that have one."""
    return {
      name: found.calibrated
      for name, found in self.mechanisms.items()
      if found.calibrated is not None
    }


@dataclasses.dataclass(frozen=True)
class Record:
  """One run of the extraction: its cell and seed, and what came of it.

  Scores are fractions, None where the surrogate diverged; `victim_purity` is None
  where nothing was served. `queries_billed` is the attacker's count, `queries_logged`
  the server's.
  """

  victim: str
  attack: str
  defense: str
  value: float
  query_budget: Count
  seed: Count
  accuracy: schema.Fraction | None
  fidelity: schema.Fraction | None
  victim_purity: schema.Fraction | None
  loss: float | None
  diverged: bool
  probes: Count
  queries_billed: Count
  queries_served: Count
  queries_logged: Count
  seconds: float

  def __post_init__(self) -> None:
    if not self.diverged and None in (self.accuracy, self.fidelity):
      raise ValueError('it has no accuracy or fidelity, and has not diverged')

  @property
  def cell(self) -> Cell:
    """The cell that it is a run of."""
    return Cell(*(getattr(self, field) for field in Cell._fields))


PROFILE = Artifact('profile.json', Description, workdir.PROFILE_ANEW)
FINGERPRINTS = Artifact('fingerprint.json', Fingerprints)
DEFENSES = Artifact('defense.json', Defenses)
SECONDS = Artifact('seconds.json', dict[str, float])
"""Stage -> seconds spent in it."""
SUMMARY = Artifact(
  'summary.json',
  schema.Summary,
  'remove it and report.html, and the same command makes them anew',
)
EXTRACTION = 'extraction.jsonl'
"""The records, one a line."""
