"""The numbers of a report as tables of texts."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from psml_jax.report import summary as summaries
from psml_jax.report.summary import Summary

_ALL_LISTED = 40


class Table(NamedTuple):
  """A table of texts; the columns in `numbers` are aligned to the right."""

  title: str
  header: tuple[str, ...]
  rows: Sequence[tuple[str, ...]]
  note: str = ''
  numbers: frozenset[int] = frozenset()


def build(summary: Summary) -> dict[str, Table]:
  """All tables of a report by name, in the order of the Markdown report.

  Args:
    summary: the experiment, see `psml_jax.report.Summary`.

  Returns:
    Tables `setting`, `claims`, `zoo`, `fingerprint`, `extraction`, `protection`
    and `goodput`; one without rows says in its note why it is left out.

  Raises:
    ValueError: the summary lacks a key or names an impossible victim.
  """
  summaries.check(summary)
  return {
    'setting': _setting(summary),
    'claims': _claims(summary),
    'zoo': _zoo(summary),
    'fingerprint': _fingerprint(summary),
    'extraction': _extraction(summary),
    'protection': _protection(summary),
    'goodput': _goodput(summary),
  }


def title(summary: Summary) -> str:
  """One line that says what was run."""
  return f'{summary["dataset"]}, {len(summary["zoo"])} models'


def _setting(summary: Summary) -> Table:
  seconds = summary['wall_seconds']
  sizes = {summary['victims'][size]: size for size in reversed(summaries.SIZES)}
  rows = [
    ('dataset', summary['dataset']),
    ('seeds', str(summary['seeds'])),
    ('device', summary['device']),
    *((f'{size} victim', name) for name, size in reversed(sizes.items())),
    *((f'seconds, {stage}', f'{value:,.1f}') for stage, value in seconds.items()),
  ]
  if seconds:
    rows.append(('seconds, total', f'{sum(seconds.values()):,.1f}'))
  return Table('Setting', ('what', 'value'), rows)


def _claims(summary: Summary) -> Table:
  rows = [
    (row['claim'], row['paper'], row['measured'], _yes(row['holds']))
    for row in summary['claims']
  ]
  note = '' if rows else _left_out('claims')
  return Table('Claims', ('claim', 'paper', 'measured', 'holds'), rows, note)


def _zoo(summary: Summary) -> Table:
  models = sorted(summary['zoo'], key=lambda m: (m['latency_ms'], -m['accuracy']))
  optimal = [m for m in models if m['pareto']]
  note = f'{len(models)} models, {len(optimal)} on the Pareto frontier.'
  if len(models) > _ALL_LISTED:
    models = optimal
    note += ' Only the frontier is listed.'
  rows = [
    (
      m['name'],
      _number(100 * m['accuracy'], '.2f'),
      _milliseconds(m['latency_ms']),
      _yes(m['pareto']),
    )
    for m in models
  ]
  header = ('model', 'accuracy (%)', 'latency (ms)', 'Pareto-optimal')
  return Table('Zoo', header, rows, note, frozenset({1, 2}))


def _fingerprint(summary: Summary) -> Table:
  rows = [
    (
      row['victim'],
      f'{row["probes"]:,}',
      _number(row['bound'], '.1f'),
      _number(100 * summaries.number(row['min_accuracy']), '.2f'),
      _milliseconds(row['max_latency_ms']),
      _yes(row['identified']),
    )
    for row in summary['fingerprint']
  ]
  header = (
    'victim',
    'probes',
    'lower bound (probes)',
    'min. accuracy found (%)',
    'max. latency found (ms)',
    'identified',
  )
  note = '' if rows else _left_out('fingerprint')
  return Table('Fingerprint', header, rows, note, frozenset(range(1, 5)))


def _extraction(summary: Summary) -> Table:
  ordered = sorted(
    summary['extraction'],
    key=lambda row: (
      summaries.victim_order(summary, row['victim']),
      row['victim'],
      row['query_budget'],
      summaries.attack_order(row['attack']),
      row['scale'],
      row['defense'],
    ),
  )
  rows = [
    (
      row['victim'],
      f'{row["query_budget"]:,}',
      row['attack'],
      row['defense'],
      _number(row['queries_billed'], ',.0f'),
      _number(row['queries_served'], ',.0f'),
      _share(row['victim_purity']),
      _estimate(row['accuracy']),
      _estimate(row['fidelity']),
    )
    for row in ordered
  ]
  header = (
    'victim',
    'query budget',
    'attack',
    'defense',
    'billed',
    'served',
    "victim's share (%)",
    'accuracy (%)',
    'fidelity (%)',
  )
  note = _spread(summary) if rows else _left_out('extraction')
  return Table('Extraction', header, rows, note, frozenset({1, *range(4, 9)}))


def _protection(summary: Summary) -> Table:
  ordered = sorted(
    summary['protection'],
    key=lambda row: (
      summaries.victim_order(summary, row['victim']),
      row['victim'],
      summaries.attack_order(row['attack']),
      row['scale'],
    ),
  )
  rows = [
    (
      row['victim'],
      row['attack'],
      _number(row['scale'], '.3g'),
      _estimate(row['goodput']),
      _share(row['victim_purity']),
      _estimate(row['accuracy']),
      _estimate(row['fidelity']),
    )
    for row in ordered
  ]
  header = (
    'victim',
    'attack',
    'noise scale',
    'goodput (%)',
    "victim's share (%)",
    'accuracy (%)',
    'fidelity (%)',
  )
  note = _spread(summary) if rows else _left_out('protection')
  return Table('Protection', header, rows, note, frozenset(range(2, 7)))


def _goodput(summary: Summary) -> Table:
  rows = [
    (row['defense'], _number(row['scale'], '.3g'), _estimate(row['goodput']))
    for row in summary['goodput']
  ]
  header = ('defense', 'noise scale', 'goodput (%)')
  note = _spread(summary) if rows else _left_out('goodput')
  return Table('Goodput', header, rows, note, frozenset({1, 2}))


def _spread(summary: Summary) -> str:
  return f'Mean (95 % interval); seeds: {summary["seeds"]}.'


def _left_out(section: str) -> str:
  return f'Left out: this run has no {section} results.'


def _yes(value: bool) -> str:
  return 'yes' if value else 'no'


def _number(value: float | None, form: str) -> str:
  value = summaries.number(value)
  return '–' if math.isnan(value) else f'{value:{form}}'


def _share(value: float | None) -> str:
  return _number(100 * summaries.number(value), '.1f')


def _milliseconds(value: float | None) -> str:
  return _number(value, ',.0f' if summaries.number(value) >= 1000 else '.4g')


def _estimate(estimate: Mapping[str, Any]) -> str:
  mean, low, high = summaries.percent(estimate)
  spread = f' ({low:.1f}–{high:.1f})' if low < high else ''
  return _number(mean, '.1f') + spread
