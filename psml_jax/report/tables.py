"""The numbers of a report as tables."""

from collections.abc import Callable, Iterable
from typing import Any, TypeAlias, TypeVar

from psml_jax.report import columns, schema
from psml_jax.report.columns import Column, Table
from psml_jax.report.schema import Attack, Summary

T = TypeVar('T')
_Filled: TypeAlias = tuple[Column, Callable[[Any], Any]]

_ALL_LISTED = 40


def build(summary: Summary) -> dict[str, Table]:
  """All tables of a report by name, in the order of the Markdown report.

  Returns:
    Tables `setting`, `claims`, `zoo`, `fingerprint`, `extraction`, `protection`,
    `goodput` and `provenance`; one without rows says in its note why it is left out.
  """
  made = {
    'setting': _setting(summary),
    'claims': _claims(summary),
    'zoo': _zoo(summary),
    'fingerprint': _fingerprint(summary),
    'extraction': _extraction(summary),
    'protection': _protection(summary),
    'goodput': _goodput(summary),
    'provenance': _facts('Provenance', summary.provenance.items()),
  }
  return {
    name: table
    if table.rows
    else table._replace(note=f'Left out: this run has no {name} results.')
    for name, table in made.items()
  }


def title(summary: Summary) -> str:
  """One line that says what was run."""
  return f'{summary.dataset}, {len(summary.zoo)} models'


def _table(title: str, rows: Iterable[T], *filled: _Filled, note: str = '') -> Table:
  """A table of columns, each with what it says of a row."""
  cells = [[value(row) for _, value in filled] for row in rows]
  return Table(title, [column for column, _ in filled], cells, note)


def _facts(title: str, rows: Iterable[tuple[str, str]]) -> Table:
  return Table(title, (Column('what'), Column('value')), list(rows))


def _setting(summary: Summary) -> Table:
  seconds = summary.wall_seconds
  sizes = {summary.victims[size]: size for size in reversed(schema.SIZES)}
  rows = [
    ('dataset', summary.dataset),
    ('seeds', str(summary.seeds)),
    ('device', summary.device),
    ('goodput target', f'{100 * summary.target_goodput:g} %'),
    *((f'{size} victim', name) for name, size in reversed(sizes.items())),
    *((f'seconds, {stage}', f'{value:,.1f}') for stage, value in seconds.items()),
  ]
  if seconds:
    rows.append(('seconds, total', f'{sum(seconds.values()):,.1f}'))
  return _facts('Setting', rows)


def _claims(summary: Summary) -> Table:
  return _table(
    'Claims',
    summary.claims,
    (Column('claim', columns.parts), lambda row: row.claim),
    (Column('paper', columns.parts), lambda row: row.paper),
    (Column('measured', columns.parts), lambda row: row.measured),
    (Column('holds', columns.yes), lambda row: row.holds),
    note='"no" says that it was not shown, which may be for want of seeds. In 3a each '
    'attacker behind the defense stands against the undefended attack.',
  )


def _zoo(summary: Summary) -> Table:
  models = sorted(summary.zoo, key=lambda model: (model.latency_ms, -model.accuracy))
  optimal = [model for model in models if model.pareto]
  notes = [f'{len(models)} models, {len(optimal)} on the Pareto frontier.']
  if len(models) > _ALL_LISTED:
    models = optimal
    notes.append('Only the frontier is listed.')
  if summary.twins:
    groups = '; '.join(' = '.join(group) for group in summary.twins)
    notes.append(f'Equal in both numbers, so that they share one corner: {groups}.')
  return _table(
    'Zoo',
    models,
    (Column('model'), lambda row: row.name),
    (Column('accuracy (%)', columns.percent, True), lambda row: 100 * row.accuracy),
    (Column('latency (ms)', columns.milliseconds, True), lambda row: row.latency_ms),
    (Column('Pareto-optimal', columns.yes), lambda row: row.pareto),
    note=' '.join(notes),
  )


def _fingerprint(summary: Summary) -> Table:
  accuracy = Column('min. accuracy found (%)', columns.percent, True)
  latency = Column('max. latency found (ms)', columns.milliseconds, True)
  return _table(
    'Fingerprint',
    summary.fingerprint,
    (Column('victim'), lambda row: row.victim),
    (Column('probes', columns.count, True), lambda row: row.probes),
    (Column('lower bound (probes)', '{:.1f}'.format, True), lambda row: row.bound),
    (accuracy, lambda row: 100 * row.min_accuracy),
    (latency, lambda row: row.max_latency_ms),
    (Column('identified', columns.yes), lambda row: row.identified),
    note='A probe tells one bit, so no fingerprint by refusals needs fewer than the '
    'bound.',
  )


def _extraction(summary: Summary) -> Table:
  rows = sorted(
    summary.extraction,
    key=lambda row: (
      summary.victim_order(row.victim),
      row.query_budget,
      *_order(summary, row),
    ),
  )
  remark = (Column('remark'), _remark)
  return _table(
    'Extraction',
    rows,
    (Column('victim'), lambda row: row.victim),
    (Column('query budget', columns.count, True), lambda row: row.query_budget),
    (Column('attack'), lambda row: row.attack),
    (Column('defense'), lambda row: row.label),
    (Column('billed', columns.count, True), lambda row: row.queries_billed),
    *_scores(),
    *([remark] if any(map(_remark, rows)) else ()),
    note=_spread(summary),
  )


def _protection(summary: Summary) -> Table:
  rows = sorted(
    summary.protection,
    key=lambda row: (summary.victim_order(row.victim), *_order(summary, row)),
  )
  return _table(
    'Protection',
    rows,
    (Column('victim'), lambda row: row.victim),
    (Column('attack'), lambda row: row.attack),
    *_defense(),
    *_scores(),
    note=_spread(summary),
  )


def _goodput(summary: Summary) -> Table:
  classes = dict.fromkeys(name for row in summary.goodput for name in row.classes)
  knobs = '; '.join(
    f'{name}: {knob.name}, {knob.unit}' for name, knob in summary.knobs.items()
  )
  note = (
    f'Mean (95 % interval); seeds: {summary.seeds}. Values are those of each knob '
    f'({knobs}).'
  )
  if 'corner' in classes:
    note += (
      ' Corner clients ask for exactly what a model on the frontier gives; of the '
      "others, fast ones have a latency limit below the medium victim's latency."
    )
  return _table(
    'Goodput',
    summary.goodput,
    *_defense(),
    *map(_class, classes),
    note=note,
  )


def _estimate(what: str, of: Callable[[Any], schema.Estimate | None]) -> _Filled:
  column = Column(f'{what} (%)', columns.estimate, True)
  return column, lambda row: (of(row) or schema.Estimate()).times()


def _class(kind: str) -> _Filled:
  return _estimate(f'{kind} clients', lambda row: row.classes.get(kind))


def _defense() -> list[_Filled]:
  return [
    (Column('defense'), lambda row: row.defense),
    (Column('value', columns.value, True), lambda row: row.value),
    _estimate('goodput', lambda row: row.goodput),
  ]


def _scores() -> list[_Filled]:
  served = Column('served', lambda value: columns.estimate(value, ',.0f'), True)
  return [
    (served, lambda row: row.queries_served.times(1)),
    _estimate("victim's share", lambda row: row.victim_purity),
    _estimate('accuracy', lambda row: row.accuracy),
    _estimate('fidelity', lambda row: row.fidelity),
  ]


def _order(summary: Summary, row: Attack) -> tuple[Any, ...]:
  return (
    schema.attack_order(summary.roles, row.attack),
    schema.defense_order(summary.knobs, row.defense),
    row.value,
  )


def _remark(row: Attack) -> str:
  flaws = {'diverged': row.diverged, 'served nothing': row.unserved}
  return ', '.join(
    f'{count} of {row.seeds} {flaw}' for flaw, count in flaws.items() if count
  )


def _spread(summary: Summary) -> str:
  note = f'Mean (95 % interval); seeds: {summary.seeds}.'
  if lost := sum(row.diverged for row in summary.extraction):
    runs = sum(row.seeds for row in summary.extraction)
    note += (
      f' {lost:,} of all {runs:,} surrogates diverged: the loss of their training was '
      'not finite, and their numbers are in no mean.'
    )
  return note
