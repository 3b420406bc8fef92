"""The paper's claims, each with what was measured and the test that it must pass."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from psml_jax import metrics
from psml_jax.experiments.extraction_stage import REFUSAL, Cell

METRICS = ('accuracy', 'fidelity')
MARGIN = 0.01
"""What the paper calls as good as: one point."""

Record = Mapping[str, Any]
Runs = Mapping[Cell, Sequence[Record]]
Claim = dict[str, Any]


class Difference(dict[str, metrics.Interval]):
  """Interval of the difference of two cells by metric; empty where there is none.

  Attributes:
    diverged: how many pairs were left out because a surrogate had diverged.
  """

  diverged: int = 0

  def __str__(self) -> str:
    if not self:
      return f'not known ({self.diverged} diverged)' if self.diverged else 'not run'
    points = ', '.join(
      f'{name} {100 * v.mean:+.1f} [{100 * v.low:+.1f}, {100 * v.high:+.1f}]'
      for name, v in self.items()
    )
    return points + (f' ({self.diverged} pairs diverged)' if self.diverged else '')

  def above(self, bound: float) -> bool:
    """Whether the interval of every metric is above a bound, and nothing diverged."""
    return self._sound and all(v.low > bound for v in self.values())

  def below(self, bound: float) -> bool:
    """Whether the interval of every metric is below a bound, and nothing diverged."""
    return self._sound and all(v.high < bound for v in self.values())

  @property
  def _sound(self) -> bool:
    return bool(self) and not self.diverged


def difference(runs: Runs, one: Cell, other: Cell) -> Difference:
  """How much better the surrogates of the first cell are, paired by seed.

  Args:
    runs: the records of every cell.
    one: a cell.
    other: the one that it is compared with.

  Returns:
    One minus the other.
  """
  found = Difference()
  by_seed = {record['seed']: record for record in runs.get(other, ())}
  pairs = [(a, by_seed[a['seed']]) for a in runs.get(one, ()) if a['seed'] in by_seed]
  finite = [(a, b) for a, b in pairs if not (a['diverged'] or b['diverged'])]
  found.diverged = len(pairs) - len(finite)
  if len(finite) >= 2:
    for name in METRICS:
      found[name] = metrics.interval([a[name] - b[name] for a, b in finite])
  return found


def fingerprinting(fingerprints: Mapping[str, Any]) -> Claim:
  """Claim 1: every corner is found."""
  entries, sweep = fingerprints['victims'], fingerprints['frontier']
  found = [entry['identified'] for entry in entries]
  return {
    'claim': '1. Fingerprinting finds the corner of every Pareto-optimal model',
    'paper': 'every victim',
    'measured': f'{sum(found)} of {len(found)}, at most '
    f'{max(entry["probes"] for entry in entries)} probes each (lower bound '
    f'{max(entry["bound"] for entry in entries):.1f}); the whole frontier, '
    f'{sweep["corners_found"]} of {sweep["corners"]}, in {sweep["probes"]}',
    'holds': all(found),
  }


def extraction(
  runs: Runs, victims: Mapping[str, str], mechanism: str, scale: float
) -> list[Claim]:
  """Claims 2 and 3, on records of the extraction stage.

  Args:
    runs: the records of every cell.
    victims: size -> name of the model.
    mechanism: of the defense.
    scale: at which it keeps the goodput target; 0 where none does.

  Returns:
    2a for every query budget: the fingerprint against the server that lets clients name
    the victim holds if the interval of every victim and metric is above minus one
    point. 2b for the medium and the large victim: it holds if the gain's interval is
    above 0. 3a and 3b for the medium victim: the defense costs the fingerprint attack,
    and the best of all attackers that were tried on the defended server gets less than
    from one that refuses as many queries at random.
  """
  budgets = sorted({cell.query_budget for cell in runs})
  claims = [_as_explicit(runs, victims, budget) for budget in budgets]
  claims += [
    _better_than_naive(runs, size, victims[size], budgets[-1])
    for size in ('medium', 'large')
  ]
  if scale:
    claims += _protection(runs, victims['medium'], mechanism, scale, budgets[-1])
  return claims


def goodput(defense: Mapping[str, Any], mechanism: str, target: float) -> Claim:
  """Claim 4: the defense can be set to keep goodput, and who pays for it.

  Args:
    defense: the content of defense.json.
    mechanism: of the defense.
    target: the goodput to keep, a fraction.
  """
  scale = defense['calibrated_scale']
  (kept,) = (row for row in defense['goodput'] if row['scale'] == scale)
  mean = kept['goodput']['mean']
  low, high = kept['goodput']['ci95']
  classes = ', '.join(
    f'{name} {100 * share["mean"]:.0f} %'
    for name, share in kept['classes'].items()
    if share['mean'] is not None
  )
  (without,) = (row for row in defense['goodput'] if row['scale'] == 0)
  most = 100 * without['goodput']['mean']
  classes += '' if most == 100 else f'; without noise {most:.1f} %'
  if not defense['monotone']:
    classes += '; goodput is no monotone function of noise'
  return {
    'claim': '4. The defense can be set to keep goodput',
    'paper': f'above {100 * target:.0f} %',
    'measured': f'{100 * mean:.1f} % [{100 * low:.1f}, {100 * high:.1f}] at '
    f'{mechanism} noise of {scale:.3g} of the range; by client: {classes}',
    'holds': mean >= target and scale > 0,
  }


def _as_explicit(runs: Runs, victims: Mapping[str, str], budget: int) -> Claim:
  by_size = {
    size: difference(
      runs,
      Cell(victim, 'fingerprint', 'none', 0.0, budget),
      Cell(victim, 'explicit', 'none', 0.0, budget),
    )
    for size, victim in victims.items()
  }
  probes = [
    record['probes']
    for victim in victims.values()
    for record in runs.get(Cell(victim, 'fingerprint', 'none', 0.0, budget), ())
  ]
  worst = min(
    by_size,
    key=lambda size: min((v.low for v in by_size[size].values()), default=-np.inf),
  )
  return {
    'claim': f'2a. Fingerprinted extraction is as good as from a named model ({budget} '
    f'queries, up to {max(probes, default=0)} of them probes, in points)',
    'paper': 'within 1',
    'measured': f'worst victim, {worst}: {by_size[worst]}',
    'holds': all(found.above(-MARGIN) for found in by_size.values()),
  }


def _better_than_naive(runs: Runs, size: str, victim: str, budget: int) -> Claim:
  gain = difference(
    runs,
    Cell(victim, 'fingerprint', 'none', 0.0, budget),
    Cell(victim, 'naive', 'none', 0.0, budget),
  )
  return {
    'claim': f'2b. ... and better than the naive attack, {size} victim (points)',
    'paper': 'accuracy up to +14.6, fidelity up to +7.7',
    'measured': str(gain),
    'holds': gain.above(0.0),
  }


def _protection(
  runs: Runs, victim: str, mechanism: str, scale: float, budget: int
) -> list[Claim]:
  undefended = Cell(victim, 'fingerprint', 'none', 0.0, budget)
  attackers = {
    'fingerprint': Cell(victim, 'fingerprint', mechanism, scale, budget),
    'told its corner': Cell(victim, 'corner', mechanism, scale, budget),
    'naive': Cell(victim, 'naive', mechanism, scale, budget),
  }
  refused = [
    cell
    for cell in runs
    if (cell.victim, cell.defense) == (victim, REFUSAL) and cell.query_budget == budget
  ]
  random = refused[0] if refused else Cell(victim, 'corner', REFUSAL, 0.0, budget)
  costs = {name: difference(runs, cell, undefended) for name, cell in attackers.items()}
  best = max(
    costs,
    key=lambda name: costs[name]['fidelity'].mean if costs[name] else -np.inf,
  )
  beyond = difference(runs, attackers[best], random)
  return [
    {
      'claim': '3a. Noise on the spec costs the fingerprint attack, medium victim '
      '(points)',
      'paper': 'accuracy up to -9.8, fidelity up to -4.8',
      'measured': '; '.join(f'{name}: {cost}' for name, cost in costs.items()),
      'holds': costs['fingerprint'].below(0.0),
    },
    {
      'claim': '3b. ... and the best attacker tried more than refusing as many queries '
      'at random (points)',
      'paper': 'not tested',
      'measured': f'{best}, against told its corner and {100 * random.scale:.0f} % '
      f'refused: {beyond}; random refusal alone: '
      f'{difference(runs, random, undefended)}',
      'holds': beyond.below(0.0) and not any(cost.diverged for cost in costs.values()),
    },
  ]
