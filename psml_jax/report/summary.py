"""What a report is made from: the summary of one experiment."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeAlias

from psml_jax import _validate

Summary: TypeAlias = Mapping[str, Any]
"""A JSON object with `dataset`, `seeds`, `device`, `wall_seconds` (stage to
seconds), `victims` (small, medium and large to a model's name) and the lists of
rows in `ROWS`; an `{estimate}` is `{'mean': float, 'ci95': [low, high]}`."""

GOODPUT_TARGET = 0.8
"""The goodput above which the paper calls a defense useful."""

SIZES = ('small', 'medium', 'large')

ROWS: dict[str, tuple[str, ...]] = {
  'zoo': ('name', 'accuracy', 'latency_ms', 'pareto'),
  'fingerprint': (
    'victim',
    'probes',
    'bound',
    'min_accuracy',
    'max_latency_ms',
    'identified',
  ),
  'probes': ('victim', 'min_accuracy', 'max_latency_ms', 'served'),
  'extraction': (
    'victim',
    'attack',
    'defense',
    'scale',
    'query_budget',
    'queries_billed',
    'queries_served',
    'victim_purity',
    'accuracy',
    'fidelity',
  ),
  'protection': (
    'victim',
    'attack',
    'scale',
    'goodput',
    'accuracy',
    'fidelity',
    'victim_purity',
  ),
  'goodput': ('defense', 'scale', 'goodput'),
  'claims': ('claim', 'paper', 'measured', 'holds'),
}

_ATTACKS = ('explicit', 'fingerprint', 'corner', 'naive')


class Estimate(NamedTuple):
  """A mean with its 95 % interval, in percent; an unknown interval is the mean."""

  mean: float
  low: float
  high: float


def check(summary: Summary) -> None:
  """Raises a ValueError that names the first thing missing from a summary."""
  for key in ('dataset', 'seeds', 'device', 'wall_seconds', 'victims', *ROWS):
    if key not in summary:
      raise ValueError(f'summary has no {key!r}; it has {sorted(summary)}')
  for section, fields in ROWS.items():
    for i, row in enumerate(summary[section]):
      if missing := [field for field in fields if field not in row]:
        raise ValueError(
          f'summary[{section!r}][{i}] lacks {missing}; it must have {list(fields)}'
        )
  if not summary['zoo']:
    raise ValueError("summary['zoo'] is empty; it must hold at least one model")
  for i, model in enumerate(summary['zoo']):
    _validate.fractions(f"summary['zoo'][{i}]['accuracy']", model['accuracy'])
    _validate.positive(f"summary['zoo'][{i}]['latency_ms']", model['latency_ms'])
  names = {model['name'] for model in summary['zoo'] if model['pareto']}
  for size in SIZES:
    if (name := summary['victims'].get(size)) not in names:
      raise ValueError(
        f"summary['victims'][{size!r}] is {name!r}; it must be the name of a "
        'Pareto-optimal model of the zoo'
      )


def percent(estimate: Mapping[str, Any]) -> Estimate:
  """The estimate in percent; NaN where the mean is unknown."""
  mean = number(estimate['mean'])
  low, high = (number(v) for v in estimate['ci95'] or (None, None))
  if not (math.isfinite(low) and math.isfinite(high)):
    low = high = mean
  return Estimate(100 * mean, 100 * low, 100 * high)


def known(*estimates: Mapping[str, Any]) -> bool:
  """Whether all of the means are numbers."""
  return all(math.isfinite(number(estimate['mean'])) for estimate in estimates)


def number(value: float | None) -> float:
  """The value, NaN for JSON's null."""
  return math.nan if value is None else float(value)


def attack_order(attack: str) -> tuple[int, str]:
  """Sorts attacks: the paper's own first, in the order in which they are told."""
  known = attack in _ATTACKS
  return (_ATTACKS.index(attack) if known else len(_ATTACKS), attack)


def victim_order(summary: Summary, victim: str) -> int:
  """Sorts victims: small, medium, large, then all others."""
  names = [summary['victims'][size] for size in SIZES]
  return names.index(victim) if victim in names else len(names)


def shown_defenses(summary: Summary) -> list[str]:
  """The defenses of the extraction plot: strongest that keep the goodput target.

  Of all scales that were attacked, the largest whose mean goodput is at least
  `GOODPUT_TARGET`, or the smallest where none is.
  """
  rows = [row for row in summary['extraction'] if row['scale'] > 0]
  if not rows:
    return []
  useful = {
    round(row['scale'], 6)
    for row in (*summary['goodput'], *summary['protection'])
    if number(row['goodput']['mean']) >= GOODPUT_TARGET
  }
  scales = sorted({round(row['scale'], 6) for row in rows})
  scale = max((s for s in scales if s in useful), default=scales[0])
  return sorted({r['defense'] for r in rows if round(r['scale'], 6) == scale})
