"""What a study of threats finds, as its files hold it."""

import dataclasses
from collections.abc import Sequence

from psml_jax.metrics import Interval


@dataclasses.dataclass(frozen=True)
class Share:
  """A share and its 95 % interval, fractions; no interval where None."""

  mean: float
  low: float | None
  high: float | None

  @classmethod
  def of(cls, value: Interval) -> 'Share':
    low, high = (None if end != end else end for end in value[1:])
    return cls(value.mean, low, high)


@dataclasses.dataclass(frozen=True)
class Found:
  """How well members are found.

  Attributes:
    at: the false-positive rates.
    true_positive_rate: the share of members found at each.
    auc: the area under the curve.
  """

  at: Sequence[float]
  true_positive_rate: list[Share]
  auc: Share


@dataclasses.dataclass(frozen=True)
class Inferred:
  """Membership inferred by one attack on one victim behind one defense.

  Attributes:
    size: 'medium', ...
    victim: name of the model.
    defense: 'none', or a mechanism.
    target: the goodput that it is calibrated to; None without a defense.
    value: of its knob; None where it is infinite, or without a defense.
    goodput: of honest clients, a fraction.
    attack: of `attacks.ATTACKS`, which says what spec is sent.
    shadows: 'victim', of its architecture alone; 'zoo', of every architecture, weighed
      by who probably answered.
    repeats: how often each candidate was asked.
    queries: billed for each candidate, probes included.
    answered: the share of candidates that were answered at all.
    own: the victim's share of the answers; None where there was none.
    found: how well members are found.
    kind: of the record.
  """

  size: str
  victim: str
  defense: str
  target: float | None
  value: float | None
  goodput: float
  attack: str
  shadows: str
  repeats: int
  queries: float
  answered: float
  own: float | None
  found: Found
  kind: str = 'membership'


@dataclasses.dataclass(frozen=True)
class Leak:
  """A model of the zoo that clients can name: what its answers give away.

  Attributes:
    model: its name.
    accuracy: of the profile, a fraction.
    latency_ms: of the profile.
    held_out: mean accuracy of the replicates on the same images, which none has seen.
    fit: on their members.
    found: how well members are found.
  """

  model: str
  accuracy: float
  latency_ms: float
  held_out: float
  fit: float
  found: Found


@dataclasses.dataclass(frozen=True)
class Fooled:
  """Adversarial examples for one surrogate and defense, a number a seed in every list.

  Attributes:
    zoo: seed of the zoo.
    size: 'medium', ...
    victim: name of the model.
    defense: 'none', or a mechanism.
    target: the goodput that it is calibrated to; None without a defense.
    value: of its knob; None where it is infinite, or without a defense.
    goodput: of honest clients, a fraction.
    attack: of `attacks.ATTACKS`.
    queries: billed for the surrogate at most, probes included.
    accuracy: of the surrogate, a fraction; None where it diverged.
    fidelity: likewise.
    itself: the share of test images that fool the surrogate itself; likewise.
    right: of the answers to clean images; None where there was none, as below.
    transfer: the share of images, answered and right before, that are not any more.
    white_box: the same of examples made on the victim itself.
    noise: of random signs of the same size.
    again: of the same images sent a second time.
    kind: of the record.
  """

  zoo: int
  size: str
  victim: str
  defense: str
  target: float | None
  value: float | None
  goodput: float
  attack: str
  queries: int
  accuracy: list[float | None]
  fidelity: list[float | None]
  itself: list[float | None]
  right: list[float | None]
  transfer: list[float | None]
  white_box: list[float | None]
  noise: list[float | None]
  again: list[float | None]
  kind: str = 'transfer'


@dataclasses.dataclass(frozen=True)
class Threats:
  """A study of threats, in study.json.

  Attributes:
    name: of the config.
    zoos: seeds of the zoos of the transfer; the first one's is attacked for members.
    seeds: surrogates of each attack and zoo.
    queries: billed for a surrogate.
    replicates: of the zoo.
    candidates: images, half of them members of each replicate.
    epsilon: how far a pixel may move.
    steps: of the ascent.
    models: every model, named.
    membership: all attacks.
    transfer: likewise.
    missing: which defense keeps which goodput at no value, in words.
    seconds: of wall-clock time.
    device: where.
  """

  name: str
  zoos: list[int]
  seeds: int
  queries: int
  replicates: int
  candidates: int
  epsilon: float
  steps: int
  models: list[Leak]
  membership: list[Inferred]
  transfer: list[Fooled]
  missing: list[str]
  seconds: float
  device: str
