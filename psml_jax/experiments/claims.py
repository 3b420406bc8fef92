"""The paper's claims, each with what was measured and the test that it must pass."""

import collections
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from psml_jax import metrics
from psml_jax.defenses import MECHANISMS
from psml_jax.experiments import plan
from psml_jax.experiments.artifacts import Defenses, Fingerprints, Record
from psml_jax.experiments.config import Config
from psml_jax.experiments.plan import NONE, Cell
from psml_jax.report.schema import METRICS, Claim

COMPARED = ('medium', 'large')
"""The victims by whom attacks are compared; the small one answers naive clients too."""

Runs = Mapping[Cell, Sequence[Record]]


class Difference(dict[str, metrics.Interval]):
  """Interval of the difference of two cells by metric; empty where there is none.

  Attributes:
    left_out: how many pairs are not in it, by the reason.
  """

  def __init__(self, left_out: Mapping[str, int] | None = None) -> None:
    super().__init__()
    self.left_out = dict(left_out or {})

  def __str__(self) -> str:
    points = ', '.join(
      f'{name} {100 * v.mean:+.1f} [{100 * v.low:+.1f}, {100 * v.high:+.1f}]'
      for name, v in self.items()
    )
    why = ', '.join(f'{count} pairs {why}' for why, count in self.left_out.items())
    if not why:
      return points or 'not run'
    return f'{points or "not known"} ({why})'

  def above(self, bound: float) -> bool:
    """Whether the interval of every metric is above a bound, and no pair left out."""
    return self.sound and all(v.low > bound for v in self.values())

  def within(self, margin: float) -> bool:
    """Whether the interval of every metric is inside +- a margin, likewise."""
    return self.above(-margin) and self.below(margin)

  def below(self, bound: float, of: Sequence[str] = METRICS) -> bool:
    """Whether the interval of every such metric is below a bound, no pair left out."""
    return self.sound and all(self[name].high < bound for name in of)

  @property
  def sound(self) -> bool:
    """Whether there is one, and it is of all pairs."""
    return bool(self) and not self.left_out


def difference(runs: Runs, one: Cell, other: Cell) -> Difference:
  """How much better the surrogates of the first cell are, paired by seed.

  Args:
    runs: the records of every cell.
    one: a cell.
    other: the one that it is compared with.

  Returns:
    One minus the other; without the pairs of which a surrogate diverged, or was never
    trained because nothing was served.
  """
  by_seed = {record.seed: record for record in runs.get(other, ())}
  kept, left_out = [], collections.Counter[str]()
  for a in runs.get(one, ()):
    if (b := by_seed.get(a.seed)) is None:
      continue
    if why := _flaw(a) or _flaw(b):
      left_out[why] += 1
    else:
      kept.append((a, b))
  found = Difference(left_out)
  if len(kept) >= 2:
    for name in METRICS:
      one_minus_other = [getattr(a, name) - getattr(b, name) for a, b in kept]
      found[name] = metrics.interval(one_minus_other)
  return found


def _flaw(record: Record) -> str:
  if record.diverged:
    return 'diverged'
  return '' if record.victim_purity is not None else 'with nothing served'


def fingerprinting(fingerprints: Fingerprints) -> Claim:
  """Claim 1: every corner is found."""
  entries, sweep = fingerprints.victims, fingerprints.frontier
  found = [entry.identified for entry in entries]
  return Claim(
    claim='1. Fingerprinting finds the corner of every Pareto-optimal model',
    paper='every victim',
    measured=f'{sum(found)} of {len(found)}, at most '
    f'{max(entry.probes for entry in entries)} probes each (lower bound '
    f'{max(entry.bound for entry in entries):.1f}); the whole frontier, '
    f'{sweep.corners_found} of {sweep.corners}, in {sweep.probes}',
    holds=all(found),
  )


def extraction(
  runs: Runs,
  config: Config,
  victims: Mapping[str, str],
  calibrated: Mapping[str, float],
) -> list[Claim]:
  """Claims 2 and 3, on records of the extraction stage.

  Args:
    runs: the records of every cell.
    config: of the experiment: its attacks and mechanisms.
    victims: size -> name of the model.
    calibrated: mechanism -> the value at which it keeps the goodput target.

  Returns:
    For each attack of the config, 2a against each reference and query budget: it holds
    if the interval of every victim and metric is inside +- `config.claims.margin`; 2b
    against each baseline, for the medium and the large victim: it holds if the gain's
    interval is above 0. For each mechanism and both victims, 3a: it costs the attack;
    against each control 3b: the best of all attackers that were tried on the mechanism
    gets less than the best of those tried on the control at the same goodput; and
    against each baseline 3c: the best of the other attackers gets, by its interval,
    less than the margin more than the baseline on the same server. The best is that of
    each metric.
  """
  budgets = sorted({cell.query_budget for cell in runs})
  assert config.extraction is not None
  victims = {size: victims[size] for size in config.extraction.victims}
  compared = [size for size in COMPARED if size in victims]
  made = _Made(runs, config, victims, calibrated, budgets[-1])
  controls, found = plan.controls(calibrated), []
  for attack in plan.names(config, 'attack'):
    for reference in plan.names(config, 'reference'):
      found += [_as_reference(made, attack, reference, budget) for budget in budgets]
    for baseline in plan.names(config, 'baseline'):
      found += [_beyond_baseline(made, attack, baseline, size) for size in compared]
    for mechanism in calibrated:
      if mechanism not in controls:
        for size in compared:
          found += _protection(made, attack, mechanism, controls, size)
  return found


class _Made(NamedTuple):
  """What `extraction` is given, and the largest budget."""

  runs: Runs
  config: Config
  victims: Mapping[str, str]
  calibrated: Mapping[str, float]
  largest: int

  def cell(
    self, attack: str, defense: str = NONE, size: str = 'medium', budget: int = 0
  ) -> Cell:
    """The cell at a defense's calibrated value, by default at the largest budget."""
    value = self.calibrated.get(defense, 0.0)
    return Cell(self.victims[size], attack, defense, value, budget or self.largest)


def goodput(defenses: Defenses, mechanism: str, target: float) -> Claim:
  """Claim 4: the defense can be set to keep goodput, and who pays for it.

  Args:
    defenses: of the defense stage.
    mechanism: of the defense.
    target: the goodput to keep, a fraction.
  """
  found, knob = defenses.mechanisms[mechanism], MECHANISMS[mechanism].knob
  without, value = defenses.without, found.calibrated
  kept = next((row for row in found.rows if row.value == value), without)
  mean, low, high = kept.goodput.times()
  keeps = (kept.goodput.mean or 0.0) >= target
  classes = ', '.join(
    f'{name} {100 * share.mean:.0f} %'
    for name, share in kept.classes.items()
    if share.mean is not None
  )
  most = without.goodput.times().mean
  classes += '' if most == 100 else f'; without a defense {most:.1f} %'
  if not found.monotone:
    classes += f'; goodput is no monotone function of the {knob.name}'
  at = f'a {knob.name} of {value:.3g} ({knob.unit})' if value is not None else 'none'
  return Claim(
    claim=f'4. {mechanism} can be set to keep goodput',
    paper=f'above {100 * target:.0f} %',
    measured=f'{mean:.1f} % [{low:.1f}, {high:.1f}] at {at}; by client: {classes}',
    holds=keeps and value is not None,
  )


def _as_reference(made: _Made, attack: str, reference: str, budget: int) -> Claim:
  by_size, probes = {}, [0]
  for size in made.victims:
    one = made.cell(attack, NONE, size, budget)
    by_size[size] = difference(made.runs, one, made.cell(reference, NONE, size, budget))
    probes += [record.probes for record in made.runs.get(one, ())]
  margin = made.config.claims.margin
  worst = max(
    by_size,
    key=lambda size: max(
      (max(-v.low, v.high) for v in by_size[size].values()), default=np.inf
    ),
  )
  return Claim(
    claim=f'2a. The {attack} attack is as good as the {reference} one, which names '
    f'its victim ({budget} queries, up to {max(probes)} of them probes, in points)',
    paper='within 1',
    measured=f'worst victim, {worst}: {by_size[worst]}',
    holds=all(found.within(margin) for found in by_size.values()),
  )


def _beyond_baseline(made: _Made, attack: str, baseline: str, size: str) -> Claim:
  one, other = made.cell(attack, size=size), made.cell(baseline, size=size)
  gain = difference(made.runs, one, other)
  return Claim(
    claim=f'2b. The {attack} attack is better than the {baseline} one, {size} '
    'victim (points)',
    paper='accuracy up to +14.6, fidelity up to +7.7',
    measured=str(gain),
    holds=gain.above(0.0),
  )


def _protection(
  made: _Made, attack: str, mechanism: str, controls: Sequence[str], size: str
) -> list[Claim]:
  def costs_of(defense: str) -> dict[str, Difference]:
    return {
      name: difference(
        made.runs, made.cell(name, defense, size), made.cell(attack, size=size)
      )
      for name in made.config.attacks
      if made.cell(name, defense, size) in made.runs
    }

  costs = costs_of(mechanism)
  if not costs:
    return []
  claims = [
    Claim(
      claim=f'3a. {mechanism} costs the {attack} attack, {size} victim (points)',
      paper='accuracy up to -9.8, fidelity up to -4.8',
      measured='; '.join(f'{name}: {cost}' for name, cost in costs.items()),
      holds=costs.get(attack, Difference()).below(0.0),
    )
  ]
  sound = all(cost.sound for cost in costs.values())
  for control in controls:
    if alone := costs_of(control):
      pairs = {name: (_best(costs, name), _best(alone, name)) for name in METRICS}
      beyond = {
        (one, other): difference(
          made.runs, made.cell(one, mechanism, size), made.cell(other, control, size)
        )
        for one, other in pairs.values()
      }
      claims.append(
        Claim(
          claim=f'3b. {mechanism} costs the best attacker tried more than {control} '
          f'at the same goodput, {size} victim (points)',
          paper='not tested',
          measured='; '.join(
            f'{one}, against {other} under {control}: {found}; {control} alone costs '
            f'{other}: {alone[other]}'
            for (one, other), found in beyond.items()
          ),
          holds=sound
          and all(beyond[pair].below(0.0, [name]) for name, pair in pairs.items()),
        )
      )
  margin = made.config.claims.margin
  for baseline in plan.names(made.config, 'baseline'):
    others = {name: cost for name, cost in costs.items() if name != baseline}
    if baseline in costs and others:
      there = made.cell(baseline, mechanism, size)
      best = {name: _best(others, name) for name in METRICS}
      more = {
        one: difference(made.runs, made.cell(one, mechanism, size), there)
        for one in best.values()
      }
      claims.append(
        Claim(
          claim=f'3c. Under {mechanism} the best attacker tried gets no more than the '
          f'{baseline} one there, {size} victim (points)',
          paper='not tested',
          measured='; '.join(f'{one}: {found}' for one, found in more.items()),
          holds=sound
          and all(more[one].below(margin, [name]) for name, one in best.items()),
        )
      )
  return claims


def _best(costs: Mapping[str, Difference], metric: str) -> str:
  """The attacker whose mean is the highest."""
  return max(costs, key=lambda one: costs[one][metric].mean if costs[one] else -np.inf)
