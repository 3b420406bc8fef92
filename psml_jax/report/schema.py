"""What a report is made from: the summary of one experiment."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeAlias

from psml_jax import _validate

Summary: TypeAlias = Mapping[str, Any]
"""A JSON object that says what an experiment found.

- `dataset`, `device`: texts; `seeds`: how many runs a cell has; `wall_seconds`: stage
  to seconds.
- `target_goodput`: the fraction in (0, 1] that the defense has to keep.
- `provenance`: text to text, where the numbers are from (seed, revision, versions).
- `victims`: small, medium and large to a model's name.
- `roles`: attack to 'reference', 'attack', 'informed' or 'baseline'.
- `knobs`: mechanism to `name`, `unit`, `weakest` and `strongest` of its knob, and
  whether it is a `control`.
- `twins`: lists of models equal in accuracy and latency, which share one corner.
- the lists of rows in `ROWS`. An estimate is `{'mean': float, 'ci95': [low, high]}`,
  both null where no run gave a number. `defense` is the name of a mechanism ('none'
  without one), `value` that of its knob and `label` what to print for both. `seeds` of
  a row counts all its runs, `diverged` those of them that are in no mean and
  `unserved` those whose queries were all refused. `classes` maps classes of clients
  to estimates.
"""

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
    'value',
    'label',
    'query_budget',
    'queries_billed',
    'queries_served',
    'victim_purity',
    'accuracy',
    'fidelity',
    'seeds',
    'diverged',
    'unserved',
  ),
  'protection': (
    'victim',
    'attack',
    'defense',
    'value',
    'label',
    'goodput',
    'accuracy',
    'fidelity',
    'victim_purity',
    'queries_served',
  ),
  'goodput': ('defense', 'value', 'label', 'goodput', 'classes'),
  'claims': ('claim', 'paper', 'measured', 'holds'),
}

_KEYS = (
  'dataset',
  'seeds',
  'device',
  'wall_seconds',
  'victims',
  'target_goodput',
  'provenance',
  'twins',
  'roles',
  'knobs',
)
_ESTIMATES = {'queries_served', 'victim_purity', 'goodput'}
_SCORES = {'accuracy', 'fidelity'}
_ROLES = ('reference', 'attack', 'informed', 'baseline')


class Estimate(NamedTuple):
  """A mean with its 95 % interval; an unknown interval is the mean."""

  mean: float
  low: float
  high: float


def check(summary: Summary) -> None:
  """Raises a ValueError that names the first thing missing from a summary."""
  for key in (*_KEYS, *ROWS):
    if key not in summary:
      raise ValueError(f'summary has no {key!r}; it has {sorted(summary)}')
  for section, fields in ROWS.items():
    for i, row in enumerate(summary[section]):
      _check_row(f'summary[{section!r}][{i}]', section, row, fields)
  target = summary['target_goodput']
  if not isinstance(target, int | float) or not 0 < target <= 1:
    raise ValueError(
      f"summary['target_goodput'] is {target!r}; it must be a fraction in (0, 1]"
    )
  if not summary['zoo']:
    raise ValueError("summary['zoo'] is empty; it must hold at least one model")
  for i, model in enumerate(summary['zoo']):
    _validate.fractions(f"summary['zoo'][{i}]['accuracy']", model['accuracy'])
    _validate.non_negative(f"summary['zoo'][{i}]['latency_ms']", model['latency_ms'])
  _check_names(summary)


def _check_row(
  path: str, section: str, row: Mapping[str, Any], fields: tuple[str, ...]
) -> None:
  if missing := [field for field in fields if field not in row]:
    raise ValueError(f'{path} lacks {missing}; it must have {list(fields)}')
  names = _ESTIMATES & set(fields)
  if section in ('extraction', 'protection'):
    names |= _SCORES
  estimates = {f'[{name!r}]': row[name] for name in sorted(names)}
  if section == 'goodput':
    classes = row['classes']
    estimates |= {f"['classes'][{name!r}]": classes[name] for name in classes}
  for where, value in estimates.items():
    if not isinstance(value, Mapping) or not {'mean', 'ci95'} <= value.keys():
      raise ValueError(
        f"{path}{where} is {value!r}; it must be {{'mean': ..., 'ci95': [low, high]}}"
      )


def _check_names(summary: Summary) -> None:
  models = {model['name']: model for model in summary['zoo']}
  for group in summary['twins']:
    points = [models.get(name) and place(models[name]) for name in group]
    if len(group) < 2 or None in points or len(set(points)) > 1:
      raise ValueError(
        f"summary['twins'] has {list(group)}; each must name two or more models of the "
        'zoo with equal accuracy and latency'
      )
  optimal = {name for name, model in models.items() if model['pareto']}
  for size in SIZES:
    if (name := summary['victims'].get(size)) not in optimal:
      raise ValueError(
        f"summary['victims'][{size!r}] is {name!r}; it must be the name of a "
        'Pareto-optimal model of the zoo'
      )


def place(model: Mapping[str, Any]) -> tuple[float, float]:
  """Where a model lies: latency in ms and accuracy in percent."""
  return model['latency_ms'], 100 * model['accuracy']


def estimate(value: Mapping[str, Any], unit: float = 100.0) -> Estimate:
  """The estimate times the unit, in percent by default; NaN where it is unknown."""
  mean = number(value['mean'])
  low, high = (number(v) for v in value['ci95'] or (None, None))
  if not (math.isfinite(low) and math.isfinite(high)):
    low = high = mean
  return Estimate(unit * mean, unit * low, unit * high)


def known(*estimates: Mapping[str, Any]) -> bool:
  """Whether all of the means are numbers."""
  return all(math.isfinite(number(value['mean'])) for value in estimates)


def number(value: float | None) -> float:
  """The value, NaN for JSON's null."""
  return math.nan if value is None else float(value)


def attack_order(summary: Summary, attack: str) -> tuple[int, str]:
  """Sorts attacks: references first, baselines last."""
  role = summary['roles'].get(attack)
  return (_ROLES.index(role) if role in _ROLES else len(_ROLES), attack)


def defense_order(summary: Summary, defense: str) -> tuple[int, str]:
  """Sorts defenses: none first, controls last."""
  knob = summary['knobs'].get(defense)
  return (2 if knob and knob['control'] else int(knob is not None), defense)


def strength(summary: Summary, row: Mapping[str, Any]) -> float:
  """Sorts values of one defense, the weakest first."""
  knob = summary['knobs'].get(row['defense'])
  upward = knob is None or knob['strongest'] > knob['weakest']
  return float(row['value']) if upward else -float(row['value'])


def victim_order(summary: Summary, victim: str) -> int:
  """Sorts victims: small, medium, large, then all others."""
  names = [summary['victims'][size] for size in SIZES]
  return names.index(victim) if victim in names else len(names)


def shown_defenses(summary: Summary) -> dict[str, str]:
  """The defenses of the extraction plot, by name: the strongest useful one of each.

  Of all values of a defense that were attacked, at the most budgets, the strongest
  whose mean goodput is at least the target, or the weakest where none is. A cell is
  here as its label.
  """
  useful = {
    row['label']
    for row in (*summary['goodput'], *summary['protection'])
    if number(row['goodput']['mean']) >= summary['target_goodput']
  }
  budgets: dict[str, set[int]] = {}
  for row in summary['extraction']:
    budgets.setdefault(row['label'], set()).add(row['query_budget'])
  most: dict[str, int] = {}
  for row in summary['extraction']:
    reached = len(budgets[row['label']])
    most[row['defense']] = max(reached, most.get(row['defense'], 0))
  labels: dict[str, dict[float, str]] = {}
  for row in summary['extraction']:
    if row['defense'] != 'none' and len(budgets[row['label']]) == most[row['defense']]:
      values = labels.setdefault(row['defense'], {})
      values[strength(summary, row)] = row['label']
  return {
    name: labels[name][
      max(
        (at for at, label in labels[name].items() if label in useful),
        default=min(labels[name]),
      )
    ]
    for name in sorted(labels, key=lambda name: defense_order(summary, name))
  }
