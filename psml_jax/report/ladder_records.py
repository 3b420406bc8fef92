"""What a ladder finds, as its files hold it."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Rung:
  """One attack on one victim behind one defense, a number a seed in every list.

  Attributes:
    zoo: seed of the zoo.
    size: 'small', 'medium' or 'large'.
    victim: name of the model.
    defense: 'none', or a mechanism.
    target: the goodput that it is calibrated to; None without a defense.
    value: of its knob; None where it is infinite, or without a defense.
    goodput: of honest clients, a fraction.
    attack: of the config.
    demix: of `demix.METHODS`.
    surrogate: of the config.
    queries: billed at most, probes included.
    best_rate: victim answers a query of the best-informed client; None where the
      server lets the client name the model.
    accuracy: of the surrogate, a fraction; None where it diverged.
    fidelity: likewise.
    rate: victim answers a billed query, probes included.
    kept: the victim's share of what was trained on.
    auc: of telling the victim's answers from others; None where there is one kind.
    probes: queries before the last phase.
  """

  zoo: int
  size: str
  victim: str
  defense: str
  target: float | None
  value: float | None
  goodput: float
  attack: str
  demix: str
  surrogate: str
  queries: int
  best_rate: float | None
  accuracy: list[float | None]
  fidelity: list[float | None]
  rate: list[float]
  kept: list[float]
  auc: list[float | None]
  probes: list[int]


@dataclasses.dataclass(frozen=True)
class Neighbours:
  """Two models next to each other in latency.

  Attributes:
    zoo: seed of the zoo.
    faster: its name.
    slower: its name.
    ratio: of their profile latencies.
    auc: how well one measured latency tells them apart.
  """

  zoo: int
  faster: str
  slower: str
  ratio: float
  auc: float


@dataclasses.dataclass(frozen=True)
class Ladder:
  """A ladder, in study.json.

  Attributes:
    name: of the config.
    zoos: seeds of the zoos.
    seeds: runs of each rung and zoo.
    queries: the largest budget.
    rungs: all of them.
    missing: which defense keeps which goodput of which zoo at no value, in words.
    neighbours: of every zoo.
    roles: what each attack is, see `attacks.Entry`.
    seconds: of wall-clock time.
    device: where.
  """

  name: str
  zoos: list[int]
  seeds: int
  queries: int
  rungs: list[Rung]
  missing: list[str]
  neighbours: list[Neighbours]
  roles: dict[str, str]
  seconds: float
  device: str
