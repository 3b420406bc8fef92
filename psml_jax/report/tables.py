"""The numbers of a report as tables."""

from collections.abc import Mapping
from typing import Any

from psml_jax.report import columns, schema
from psml_jax.report.columns import Column, Table
from psml_jax.report.schema import Summary

_ALL_LISTED = 40
_SCORES = ('victim_purity', 'accuracy', 'fidelity')


def build(summary: Summary) -> dict[str, Table]:
  """All tables of a report by name, in the order of the Markdown report.

  Args:
    summary: the experiment, see `psml_jax.report.Summary`.

  Returns:
    Tables `setting`, `claims`, `zoo`, `fingerprint`, `extraction`, `protection`,
    `goodput` and `provenance`; one without rows says in its note why it is left out.

  Raises:
    ValueError: the summary lacks a key or names an impossible victim.
  """
  schema.check(summary)
  made = {
    'setting': _setting(summary),
    'claims': _claims(summary),
    'zoo': _zoo(summary),
    'fingerprint': _fingerprint(summary),
    'extraction': _extraction(summary),
    'protection': _protection(summary),
    'goodput': _goodput(summary),
    'provenance': _provenance(summary),
  }
  return {
    name: table
    if table.rows
    else table._replace(note=f'Left out: this run has no {name} results.')
    for name, table in made.items()
  }


def title(summary: Summary) -> str:
  """One line that says what was run."""
  return f'{summary["dataset"]}, {len(summary["zoo"])} models'


def _setting(summary: Summary) -> Table:
  seconds = summary['wall_seconds']
  sizes = {summary['victims'][size]: size for size in reversed(schema.SIZES)}
  rows = [
    ('dataset', summary['dataset']),
    ('seeds', str(summary['seeds'])),
    ('device', summary['device']),
    ('goodput target', f'{100 * summary["target_goodput"]:g} %'),
    *((f'{size} victim', name) for name, size in reversed(sizes.items())),
    *((f'seconds, {stage}', f'{value:,.1f}') for stage, value in seconds.items()),
  ]
  if seconds:
    rows.append(('seconds, total', f'{sum(seconds.values()):,.1f}'))
  return Table('Setting', (Column('what'), Column('value')), rows)


def _provenance(summary: Summary) -> Table:
  rows = list(summary['provenance'].items())
  return Table('Provenance', (Column('what'), Column('value')), rows)


def _claims(summary: Summary) -> Table:
  rows = [
    (row['claim'], row['paper'], row['measured'], row['holds'])
    for row in summary['claims']
  ]
  header = (
    Column('claim', columns.parts),
    Column('paper', columns.parts),
    Column('measured', columns.parts),
    Column('holds', columns.yes),
  )
  return Table('Claims', header, rows)


def _zoo(summary: Summary) -> Table:
  models = sorted(summary['zoo'], key=lambda m: (m['latency_ms'], -m['accuracy']))
  optimal = [m for m in models if m['pareto']]
  notes = [f'{len(models)} models, {len(optimal)} on the Pareto frontier.']
  if len(models) > _ALL_LISTED:
    models = optimal
    notes.append('Only the frontier is listed.')
  if summary['twins']:
    groups = '; '.join(' = '.join(group) for group in summary['twins'])
    notes.append(f'Equal in both numbers, so that they share one corner: {groups}.')
  rows = [
    (m['name'], 100 * m['accuracy'], m['latency_ms'], m['pareto']) for m in models
  ]
  header = (
    Column('model'),
    Column('accuracy (%)', columns.percent, True),
    Column('latency (ms)', columns.milliseconds, True),
    Column('Pareto-optimal', columns.yes),
  )
  return Table('Zoo', header, rows, ' '.join(notes))


def _fingerprint(summary: Summary) -> Table:
  rows = [
    (
      row['victim'],
      row['probes'],
      schema.number(row['bound']),
      100 * schema.number(row['min_accuracy']),
      schema.number(row['max_latency_ms']),
      row['identified'],
    )
    for row in summary['fingerprint']
  ]
  header = (
    Column('victim'),
    Column('probes', columns.count, True),
    Column('lower bound (probes)', lambda value: columns.number(value, '.1f'), True),
    Column('min. accuracy found (%)', columns.percent, True),
    Column('max. latency found (ms)', columns.milliseconds, True),
    Column('identified', columns.yes),
  )
  note = (
    'A probe tells one bit, so no fingerprint by refusals needs fewer than the bound.'
  )
  return Table('Fingerprint', header, rows, note)


def _score_columns() -> list[Column]:
  names = ("victim's share (%)", 'accuracy (%)', 'fidelity (%)')
  return [Column(name, columns.estimate, True) for name in names]


def _extraction(summary: Summary) -> Table:
  ordered = sorted(
    summary['extraction'],
    key=lambda row: (
      *_victim(summary, row),
      row['query_budget'],
      schema.attack_order(summary, row['attack']),
      schema.defense_order(summary, row['defense']),
      row['value'],
    ),
  )
  rows = [
    [
      row['victim'],
      row['query_budget'],
      row['attack'],
      row['label'],
      schema.number(row['queries_billed']),
      schema.estimate(row['queries_served'], 1),
      *(schema.estimate(row[name]) for name in _SCORES),
    ]
    for row in ordered
  ]
  header = [
    Column('victim'),
    Column('query budget', columns.count, True),
    Column('attack'),
    Column('defense'),
    Column('billed', columns.count, True),
    Column('served', lambda value: columns.estimate(value, ',.0f'), True),
    *_score_columns(),
  ]
  remarks = [_remark(row) for row in ordered]
  if any(remarks):
    header.append(Column('remark'))
    for remark, cells in zip(remarks, rows, strict=True):
      cells.append(remark)
  return Table('Extraction', header, rows, _spread(summary))


def _remark(row: Mapping[str, Any]) -> str:
  flaws = {'diverged': row['diverged'], 'served nothing': row['unserved']}
  return ', '.join(
    f'{count} of {row["seeds"]} {flaw}' for flaw, count in flaws.items() if count
  )


def _protection(summary: Summary) -> Table:
  ordered = sorted(
    summary['protection'],
    key=lambda row: (
      *_victim(summary, row),
      schema.attack_order(summary, row['attack']),
      schema.defense_order(summary, row['defense']),
      row['value'],
    ),
  )
  rows = [
    (
      row['victim'],
      row['attack'],
      row['defense'],
      row['value'],
      schema.estimate(row['goodput']),
      schema.estimate(row['queries_served'], 1),
      *(schema.estimate(row[name]) for name in _SCORES),
    )
    for row in ordered
  ]
  header = (
    Column('victim'),
    Column('attack'),
    Column('defense'),
    Column('value', columns.value, True),
    Column('goodput (%)', columns.estimate, True),
    Column('served', lambda value: columns.estimate(value, ',.0f'), True),
    *_score_columns(),
  )
  return Table('Protection', header, rows, _spread(summary))


def _goodput(summary: Summary) -> Table:
  classes = dict.fromkeys(name for row in summary['goodput'] for name in row['classes'])
  unknown = {'mean': None, 'ci95': None}
  rows = [
    (
      row['defense'],
      row['value'],
      schema.estimate(row['goodput']),
      *(schema.estimate(row['classes'].get(name, unknown)) for name in classes),
    )
    for row in summary['goodput']
  ]
  header = (
    Column('defense'),
    Column('value', columns.value, True),
    Column('goodput (%)', columns.estimate, True),
    *(Column(f'{name} clients (%)', columns.estimate, True) for name in classes),
  )
  note = f'Mean (95 % interval); seeds: {summary["seeds"]}.'
  knobs = (
    f'{name}: {knob["name"]}, {knob["unit"]}' for name, knob in summary['knobs'].items()
  )
  note += f' Values are those of each knob ({"; ".join(knobs)}).'
  if 'corner' in classes:
    note += (
      ' Corner clients ask for exactly what a model on the frontier gives; of the '
      "others, fast ones have a latency limit below the medium victim's latency."
    )
  return Table('Goodput', header, rows, note)


def _victim(summary: Summary, row: Mapping[str, Any]) -> tuple[int, str]:
  return schema.victim_order(summary, row['victim']), row['victim']


def _spread(summary: Summary) -> str:
  note = f'Mean (95 % interval); seeds: {summary["seeds"]}.'
  lost = sum(row['diverged'] for row in summary['extraction'])
  if lost:
    runs = sum(row['seeds'] for row in summary['extraction'])
    note += (
      f' {lost:,} of all {runs:,} surrogates diverged: the loss of their training was '
      'not finite, and their numbers are in no mean.'
    )
  return note
