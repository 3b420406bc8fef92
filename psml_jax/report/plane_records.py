"""What a leakage study finds, as its files hold it."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Point:
  """A defense at one value of its knob.

  Attributes:
    value: of the knob; None where it is infinite.
    goodput: of each workload.
    worst_rate: of the worst victim, with the best spec.
    ceiling: what no spec and no victim exceeds.
    worst_victim: its name.
    purity: its share of what is answered at that spec.
  """

  value: float | None
  goodput: dict[str, float]
  worst_rate: float
  ceiling: float
  worst_victim: str
  purity: float


@dataclasses.dataclass(frozen=True)
class Row:
  """A defense calibrated to a goodput: an entry of leakage.json.

  Attributes:
    defense: of `defenses.MECHANISMS`.
    knob: its name.
    value: the strongest that keeps the target; None where it is infinite.
    workload: of `workloads.WORKLOADS`.
    target_goodput: a fraction.
    goodput: what is kept.
    worst_rate: victim answers a billed query of the best-informed attacker.
    worst_victim: whose.
    purity: its share of what is answered there.
    bound_rate: the least rate of any memoryless server of this goodput.
    exact: whether the rate comes from distribution functions and is certified.
    ceiling: what no spec and no victim exceeds.
    min_accuracy: of the best spec, a fraction; None where it is infinite.
    max_latency_ms: of the best spec; None where it is infinite.
    goodput_exact: whether the goodput is computed, or else drawn.
  """

  defense: str
  knob: str
  value: float | None
  workload: str
  target_goodput: float
  goodput: float
  worst_rate: float
  worst_victim: str
  purity: float
  bound_rate: float
  exact: bool
  ceiling: float
  min_accuracy: float | None
  max_latency_ms: float | None
  goodput_exact: bool


@dataclasses.dataclass(frozen=True)
class Victim:
  """What the best-informed attacker gets of one model.

  Attributes:
    model: its name.
    rate: victim answers a billed query.
    purity: its share of what is answered.
    min_accuracy: of the spec; None where it is infinite.
    max_latency_ms: of the spec; None where it is infinite.
  """

  model: str
  rate: float
  purity: float
  min_accuracy: float | None
  max_latency_ms: float | None


@dataclasses.dataclass(frozen=True)
class Step:
  """Honest clients whose limit lies between two neighbouring frontier models.

  Attributes:
    model: the faster of the two.
    share: of the workload's clients.
    goodput: theirs, a fraction; None where there are none.
  """

  model: str
  share: float
  goodput: float | None


@dataclasses.dataclass(frozen=True)
class Defense:
  """A defense: its curve, its rows, and who bears what at the last target.

  Attributes:
    defense: of `defenses.MECHANISMS`.
    knob: its name.
    unit: of its values, in words.
    points: from off to strong.
    rows: one for each workload and target.
    victims: of the frontier, at the last target on the study's workload.
    steps: of the study's workload, likewise.
    note: what could not be had.
  """

  defense: str
  knob: str
  unit: str
  points: list[Point]
  rows: list[Row]
  victims: list[Victim]
  steps: list[Step]
  note: str = ''


@dataclasses.dataclass(frozen=True)
class Attacked:
  """An attacker who knows what a client knows, against a calibrated defense.

  Attributes:
    defense: which.
    attack: of `attacks.ATTACKS`.
    knows: what it is told.
    probes: queries that it may send before it replays a spec.
    victim: whom it is after.
    rate: f[seeds], the true rate of the spec that it has chosen.
    best: the highest rate of any spec.
  """

  defense: str
  attack: str
  knows: str
  probes: int
  victim: str
  rate: list[float]
  best: float


@dataclasses.dataclass(frozen=True)
class Accounts:
  """A defense with memory against a client with several accounts.

  Attributes:
    defense: which.
    value: of its knob.
    accounts: how many.
    queries: billed in all.
    answers: the victim's among them, in the mean over runs.
    answers_low: lower end of the 95 % interval of that.
    answers_high: its upper end.
    bound: on the answers: for budgets one that a run passes once in a thousand, for
      sticky noise on the mean.
    goodput: of honest clients with one account, in the mean.
    goodput_low: 5 % of the clients have less.
    goodput_high: 5 % of the clients have more.
  """

  defense: str
  value: float
  accounts: int
  queries: int
  answers: float
  answers_low: float
  answers_high: float
  bound: float
  goodput: float
  goodput_low: float
  goodput_high: float


@dataclasses.dataclass(frozen=True)
class Study:
  """A whole study.

  Attributes:
    name: of the config.
    models: in the zoo.
    frontier: the names of the models on its frontier.
    cost: what the latency field is, in words, with its unit.
    workload: that the tables of victims, clients and attackers are of.
    bounds: goodput against rate of each workload, [rate, goodput] pairs.
    defenses: in the config's order.
    attacked: of the config's attackers.
    accounts: of the defenses with memory.
    seconds: of the whole study.
    device: it ran on.
  """

  name: str
  models: int
  frontier: list[str]
  cost: str
  workload: str
  bounds: dict[str, list[tuple[float, float]]]
  defenses: list[Defense]
  attacked: list[Attacked]
  accounts: list[Accounts]
  seconds: float
  device: str
