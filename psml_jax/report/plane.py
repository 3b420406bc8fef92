"""The report of a leakage study: tables, pictures, and what to choose."""

import pathlib
from collections.abc import Sequence

import matplotlib.style
import numpy as np

from psml_jax.metrics import Interval, interval
from psml_jax.report import page, plane_plots
from psml_jax.report.columns import Column, Table, number
from psml_jax.report.plane_records import Row, Study

_CAPTIONS = {
  'plane': (
    'Goodput of honest clients against the rate that the best-informed attacker gets '
    'of the worst victim, a curve a defense over its knob, a panel a workload. '
    'Protection is to the lower right; no memoryless server lies below the black line.'
  ),
  'attackers': (
    'What attackers who know no more than a client make of the best rate, in the mean '
    'over seeds, behind each defense at its calibrated value.'
  ),
  'accounts': (
    'Victim answers a query behind defenses with memory, against the number of '
    'accounts that a thief makes, and the bound.'
  ),
}


def write(study: Study, directory: pathlib.Path) -> list[pathlib.Path]:
  """Writes results.md, the pictures, the tables and report.html (the last).

  Args:
    study: the study.
    directory: where to.

  Returns:
    The paths written.
  """
  with matplotlib.style.context('default'):
    images = plane_plots.draw(study)
  contents = tables(study)
  title = f'{study.name}: protection against goodput'
  files = {f'{name}.png': image for name, image in images.items()}
  return page.write_study(
    directory, title, _note(study), contents, images, _CAPTIONS, files
  )


def advice(study: Study) -> str:
  """What an operator should choose, in three sentences.

  Args:
    study: the study.

  Returns:
    Text; of the study's workload and its last target.
  """
  rows = _at_last_target(study)
  if not rows:
    return f'{study.name}: no defense reaches a target of the config.'
  best = min(rows, key=lambda row: (row.worst_rate, row.defense != 'capped'))
  others = [row for row in rows if not row.defense.startswith('capped')]
  kept = f'{100 * best.goodput:.1f} % of goodput ({best.workload} clients)'
  sentences = [
    f'{study.name}: choose {best.defense} with {best.knob} {_short(best.value)}: it '
    f'keeps {kept} and gives no client more than {best.worst_rate:.2f} victim answers '
    f'a query, where no memoryless server can promise less than {best.bound_rate:.2f}.'
  ]
  if others:
    other = min(others, key=lambda row: row.worst_rate)
    refusal = [row.worst_rate for row in rows if row.defense == 'refusal']
    beside = f' (random refusal: {refusal[0]:.2f})' if refusal else ''
    sentences.append(
      f'The best of the other defenses there, {other.defense}, gives a thief of '
      f'{other.worst_victim} {other.worst_rate:.2f}{beside}.'
    )
  if best.worst_rate > 0:
    sentences.append(
      f'A thief who tells the responders apart pays {1 / best.worst_rate:.1f} times '
      'the queries for as many victim answers, and no memoryless server makes it pay '
      'more at this goodput; beyond that it takes memory of each account.'
    )
  return ' '.join(sentences)


def tables(study: Study) -> dict[str, Table]:
  """The tables of a study by name, in their order."""
  first = study.workload
  found = {'plane': Table('What to choose', (), (), advice(study))}
  order = sorted(study.bounds, key=lambda name: (name != first, name))
  for workload in order:
    rows = [r for d in study.defenses for r in d.rows if r.workload == workload]
    found[f'defenses_{workload}'] = _defenses(workload, rows)
  notes = [f'{d.defense}: {d.note}' for d in study.defenses if d.note]
  if notes:
    found['notes'] = Table('What could not be had', (), (), '; '.join(notes))
  found['victims'] = _victims(study, first)
  found['clients'] = _clients(study, first)
  if study.attacked:
    found['attackers'] = _attackers(study)
  if study.accounts:
    found['accounts'] = _accounts(study)
  return found


def _defenses(workload: str, rows: Sequence[Row]) -> Table:
  columns = (
    Column('target (%)', _percent, True),
    Column('defense'),
    Column('knob'),
    Column('value', _short, True),
    Column('goodput (%)', _percent, True),
    Column('worst rate', _rate, True),
    Column('bound', _rate, True),
    Column('worst victim'),
    Column('purity', _rate, True),
    Column('certified'),
  )
  ordered = sorted(rows, key=lambda row: (-row.target_goodput, row.worst_rate))
  return Table(
    f'Defenses at equal goodput, clients: {workload}',
    columns,
    [
      (
        100 * row.target_goodput,
        row.defense,
        row.knob,
        row.value,
        100 * row.goodput,
        row.worst_rate,
        row.bound_rate,
        row.worst_victim,
        row.purity,
        'yes' if row.exact else 'no',
      )
      for row in ordered
    ],
    'Worst rate: victim answers a billed query of the best-informed attacker, over all '
    'specs and victims. Bound: the least rate of any memoryless server so good.',
  )


def _victims(study: Study, workload: str) -> Table:
  names = study.frontier
  columns = (Column('defense'), *(Column(name, str, True) for name in names[:12]))
  rows = []
  for defense in study.defenses:
    rates = {victim.model: victim for victim in defense.victims}
    cells = [
      f'{rates[name].rate:.3f} ({rates[name].purity:.2f})' if name in rates else '–'
      for name in names[:12]
    ]
    rows.append((defense.defense, *cells))
  more = f' The first 12 of {len(names)} models.' if len(names) > 12 else ''
  return Table(
    'Every victim of the frontier: rate and, in brackets, purity',
    columns,
    rows,
    f'With the best spec for each, at the last target on {workload} clients.{more}',
  )


def _clients(study: Study, workload: str) -> Table:
  names = [step.model for step in study.defenses[0].steps][:12]
  columns = (Column('defense'), *(Column(f'from {name}', str, True) for name in names))
  shares = {step.model: step.share for step in study.defenses[0].steps}
  rows: list[tuple[str, ...]] = [
    ('share of clients (%)', *(f'{100 * shares[name]:.1f}' for name in names))
  ]
  for defense in study.defenses:
    kept = {step.model: step.goodput for step in defense.steps}
    cells = (
      '–' if kept.get(name) is None else f'{100 * kept[name]:.1f}'  # type: ignore[operator]
      for name in names
    )
    rows.append((defense.defense, *cells))
  return Table(
    'Who bears the loss: goodput (%) of clients by their latency limit',
    columns,
    rows,
    'Clients whose limit lies between the latency of a frontier model and that of the '
    f'next; {workload} clients, at the last target.',
  )


def _attackers(study: Study) -> Table:
  columns = (
    Column('defense'),
    Column('attack'),
    Column('is told'),
    Column('victim'),
    Column('probes', str, True),
    Column('rate', _interval, True),
    Column('best rate', _rate, True),
  )
  rows = [
    (
      one.defense,
      one.attack,
      one.knows,
      one.victim,
      one.probes,
      interval(np.array(one.rate)),
      one.best,
    )
    for one in study.attacked
  ]
  return Table(
    'Attackers who know what a client knows',
    columns,
    rows,
    'The true rate of the spec that each has chosen after its probes: mean and 95 % '
    'interval over seeds. Best rate: of the attacker who knows everything.',
  )


def _accounts(study: Study) -> Table:
  columns = (
    Column('defense'),
    Column('value', _short, True),
    Column('accounts', str, True),
    Column('queries', str, True),
    Column('victim answers', _whole, True),
    Column('bound', _plain, True),
    Column('goodput (%)', _percent, True),
    Column('5 % of clients below', _percent, True),
    Column('5 % above', _percent, True),
  )
  rows = [
    (
      one.defense,
      one.value,
      one.accounts,
      one.queries,
      Interval(one.answers, one.answers_low, one.answers_high),
      one.bound,
      100 * one.goodput,
      100 * one.goodput_low,
      100 * one.goodput_high,
    )
    for one in study.accounts
  ]
  return Table(
    'Defenses with memory against many accounts',
    columns,
    rows,
    'Victim answers with 95 % interval over runs. The bound of a budget is one that a '
    'run passes once in a thousand, that of sticky noise is on the mean.',
  )


def _at_last_target(study: Study) -> list[Row]:
  rows = [r for d in study.defenses for r in d.rows if r.workload == study.workload]
  last = min((row.target_goodput for row in rows), default=0.0)
  return [row for row in rows if row.target_goodput == last]


def _note(study: Study) -> str:
  return (
    f'{study.models} models, {len(study.frontier)} on the frontier; '
    f'{study.cost}. {study.device}, {study.seconds:,.0f} s in all.'
  )


def _percent(value: float) -> str:
  return number(value, '.1f')


def _rate(value: float) -> str:
  return number(value, '.3f')


def _short(value: float | None) -> str:
  return '∞' if value is None else number(value, '.4g')


def _plain(value: float) -> str:
  return number(value, ',.0f')


def _whole(value: Interval) -> str:
  return f'{value.mean:,.0f} [{value.low:,.0f}, {value.high:,.0f}]'


def _interval(value: Interval) -> str:
  return f'{value.mean:.3f} [{value.low:.3f}, {value.high:.3f}]'
