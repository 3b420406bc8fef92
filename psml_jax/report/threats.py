"""The report of a study of threats: members found, and images that fool."""

import pathlib

import matplotlib.style
import numpy as np

from psml_jax.metrics import Interval
from psml_jax.report import page, threats_plot
from psml_jax.report.columns import Column, Table, number
from psml_jax.report.threats_numbers import (
  REFERENCE,
  fooled,
  last,
  more,
  sides,
  sizes,
  worst,
)
from psml_jax.report.threats_records import Found, Inferred, Share, Threats

_CAPTIONS = {
  'membership': (
    'Left: members found by one query a candidate while {rate} % of the others are '
    'accused, with 95 % intervals over replicates; hollow with shadows of the '
    'victim alone, filled with shadows of every architecture. Right: images that are '
    'answered wrongly once they are adversarial, with 95 % intervals over {over}; '
    'a bar is the white box, a cross random noise of the same size.'
  )
}


def write(study: Threats, directory: pathlib.Path) -> list[pathlib.Path]:
  """Writes results.md, threats.png, the tables and report.html (the last)."""
  with matplotlib.style.context('default'):
    image = threats_plot.draw(study)
  contents = tables(study)
  title = f"{study.name}: a thief's other goals"
  note = (
    f'{study.replicates} replicates of the first zoo, {study.candidates} candidates; '
    f'{len(study.zoos)} zoos, {study.seeds} surrogates each of {study.queries} '
    f'queries, pixels moved by {study.epsilon:g}. {study.device}, '
    f'{study.seconds:,.0f} s in all.'
  )
  over = 'zoos' if len(study.zoos) > 1 else 'seeds'
  rate = f'{100 * study.membership[0].found.at[-1]:g}'
  captions = {k: v.format(rate=rate, over=over) for k, v in _CAPTIONS.items()}
  images, files = {'membership': image}, {'threats.png': image}
  return page.write_study(directory, title, note, contents, images, captions, files)


def summary(study: Threats) -> str:
  """What each defense leaves to the worst attack of either kind, a line a victim."""
  lines = []
  for size in sizes(study):
    parts = []
    for place in sides(study, size):
      attack = worst(study, place, 1)
      rates = {
        one.attack: fooled(
          study, place, one.attack, lambda r: more(r.transfer, r.noise)
        ).mean
        for one in study.transfer
        if one.attack != REFERENCE and place == (one.size, one.defense, one.target)
      }
      most = max(rates.values(), default=float('nan'))
      parts.append(
        f'{place.defense} {100 * last(attack).mean:.1f} % and {100 * most:.1f} points'
      )
    rate = 100 * study.membership[0].found.at[-1]
    lines.append(
      f'{study.name}, {size} victim: members found at {rate:g} % false positives by '
      'one query a candidate, and by how much more its images fool than noise does: '
      f'{"; ".join(parts)}.'
    )
  return '\n'.join(lines)


def tables(study: Threats) -> dict[str, Table]:
  """The tables of a study by name, in their order."""
  found = {'worst': _worst(study)}
  for size in sizes(study):
    found[f'membership_{size}'] = _membership(study, size)
  for size in sizes(study):
    found[f'transfer_{size}'] = _transfer(study, size)
  found['models'] = _models(study)
  if study.missing:
    found['missing'] = Table('What could not be had', (), (), '; '.join(study.missing))
  # The picture stands above the first table.
  return {'membership': found.pop('worst'), **found}


def _rates(found: Found) -> tuple[Column, ...]:
  each = tuple(
    Column(f'TPR at {100 * at:g} % FPR (%)', _share, True) for at in found.at
  )
  return (*each, Column('AUC', _area, True))


def _values(found: Found) -> tuple[Share, ...]:
  return (*found.true_positive_rate, found.auc)


def _worst(study: Threats) -> Table:
  first = study.membership[0]
  columns = (
    Column('victim'),
    Column('defense'),
    Column('goodput kept (%)', _target, True),
    Column('queries a candidate', _queries, True),
    Column('worst attack'),
    *_rates(first.found),
  )
  rows = []
  for size in sizes(study):
    repeats = dict.fromkeys(
      one.repeats
      for one in study.membership
      if one.size == size and one.attack != REFERENCE
    )
    for place in sides(study, size):
      for times in repeats:
        one = worst(study, place, times)
        rows.append(
          (
            *place,
            one.queries,
            f'{one.attack}, shadows of the {one.shadows}',
            *_values(one.found),
          )
        )
  return Table(
    'Membership: the worst attack of every defense',
    columns,
    rows,
    'The attack that finds most members at the last false-positive rate, chosen on the '
    'numbers shown. Chance finds as many members as it accuses others, and has an AUC '
    'of 0.5. Intervals are over replicates (bootstrap).',
  )


def _membership(study: Threats, size: str) -> Table:
  own = [one for one in study.membership if one.size == size]
  columns = (
    Column('defense'),
    Column('goodput kept (%)', _target, True),
    Column('attack'),
    Column('shadows'),
    Column('queries a candidate', _queries, True),
    Column('answered (%)', _percent, True),
    Column("victim's share", _part, True),
    *_rates(own[0].found),
  )

  def row(one: Inferred) -> tuple:
    return (
      *(one.defense, one.target, one.attack, one.shadows, one.queries),
      *(100 * one.answered, one.own, *_values(one.found)),
    )

  return Table(
    f'Membership, {size} victim ({own[0].victim})',
    columns,
    [row(one) for one in own],
    'Explicit: the server lets the client name the victim. Shadows of the victim take '
    "every answer for its; those of the zoo weigh every architecture's by the law at "
    'the spec and the clock, so whoever has them is told the zoo, its defense and '
    'every clock, also where the spec is the naive one. Of several answers to a '
    'candidate each other one counts.',
  )


def _transfer(study: Threats, size: str) -> Table:
  columns = (
    Column('defense'),
    Column('goodput kept (%)', _target, True),
    Column('attack'),
    Column('surrogate: fidelity (%)', _points, True),
    Column('clean images right (%)', _points, True),
    Column('transfer (%)', _points, True),
    Column('white box (%)', _points, True),
    Column('noise (%)', _points, True),
    Column('sent again (%)', _points, True),
    Column('transfer over noise (points)', _points, True),
  )
  rows = []
  for place in sides(study, size):
    listed = [
      one for one in study.transfer if place == (one.size, one.defense, one.target)
    ]
    for attack in dict.fromkeys(one.attack for one in listed):
      rows.append(
        (
          *(place.defense, place.target, attack),
          *(
            fooled(study, place, attack, of)
            for of in (
              lambda one: one.fidelity,
              lambda one: one.right,
              lambda one: one.transfer,
              lambda one: one.white_box,
              lambda one: one.noise,
              lambda one: one.again,
              lambda one: more(one.transfer, one.noise),
            )
          ),
        )
      )
  victims = ', '.join(
    dict.fromkeys(one.victim for one in study.transfer if one.size == size)
  )
  over = 'zoos' if len(study.zoos) > 1 else 'seeds'
  return Table(
    f'Transfer, {size} victim ({victims})',
    columns,
    rows,
    f'Of test images that are answered rightly, those that are answered wrongly once '
    f'pixels moved by {study.epsilon:g}: by ascent on the surrogate, by ascent on the '
    'victim itself, by random signs, and not at all, which shows what the router '
    f'does by itself when another model answers. Intervals are over {over}; the '
    'white box and the noise are one set of images a zoo.',
  )


def _models(study: Threats) -> Table:
  columns = (
    Column('model'),
    Column('latency (ms)', lambda value: number(value, '.4g'), True),
    Column('accuracy (%)', _percent, True),
    Column('replicates: accuracy (%)', _percent, True),
    Column('on members (%)', _percent, True),
    *_rates(study.models[0].found),
  )
  rows = [
    (
      one.model,
      one.latency_ms,
      *(100 * share for share in (one.accuracy, one.held_out, one.fit)),
      *_values(one.found),
    )
    for one in study.models
  ]
  return Table(
    'Membership, every model of the zoo named',
    columns,
    rows,
    'What each model gives away where clients may name it; accuracies of profile and '
    'replicates are on the same images.',
  )


def _target(value: float | None) -> str:
  return '–' if value is None else f'{100 * value:.0f}'


def _share(value: Share) -> str:
  return _with_ends(value, 100, '.1f')


def _area(value: Share) -> str:
  return _with_ends(value, 1, '.3f')


def _with_ends(value: Share, unit: float, form: str) -> str:
  mean = number(unit * value.mean, form)
  if value.low is None or value.high is None:
    return mean
  return f'{mean} [{unit * value.low:{form}}, {unit * value.high:{form}}]'


def _points(value: Interval) -> str:
  if np.isnan(value.mean):
    return '–'
  return f'{100 * value.mean:.1f} ±{100 * (value.high - value.mean):.1f}'


def _percent(value: float) -> str:
  return number(value, '.1f')


def _part(value: float | None) -> str:
  return '–' if value is None else f'{value:.3f}'


def _queries(value: float) -> str:
  return number(value, '.2f')
