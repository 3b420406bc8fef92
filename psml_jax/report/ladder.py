"""The report of a ladder: the worst thief of every defense, and the law of 1 / t."""

import pathlib

import matplotlib.style
import numpy as np

from psml_jax.metrics import Interval
from psml_jax.report import ladder_plot, page
from psml_jax.report.columns import Column, Table, number
from psml_jax.report.ladder_numbers import (
  explicit,
  fidelity,
  gain,
  grouped,
  over_zoos,
  predicted,
  worst,
)
from psml_jax.report.ladder_records import Ladder, Rung

_CAPTIONS = {
  'worst': (
    "Goodput against what the worst thief gets: on the left its surrogate's fidelity, "
    'with 95 % intervals over zoos, on the right the exact rate of the best-informed '
    'client. Dashed: extraction from the named model.'
  )
}


def write(study: Ladder, directory: pathlib.Path) -> list[pathlib.Path]:
  """Writes results.md, ladder.png, the tables and report.html (the last)."""
  with matplotlib.style.context('default'):
    image = ladder_plot.draw(study)
  contents = tables(study)
  title = f'{study.name}: thieves against defenses'
  note = (
    f'{len(study.zoos)} zoos, {study.seeds} seeds each, {study.queries} queries. '
    f'{study.device}, {study.seconds:,.0f} s in all.'
  )
  images, files = {'worst': image}, {'ladder.png': image}
  return page.write_study(directory, title, note, contents, images, _CAPTIONS, files)


def summary(study: Ladder) -> str:
  """The least fidelity that a defense leaves to its worst thief, a line a victim."""
  found = worst(study)
  sentences = []
  for size in dict.fromkeys(place.size for place in found):
    own = [place for place in found if place.size == size and place.target is not None]
    if not own:
      continue
    last = min(place.target for place in own if place.target is not None)
    place = min((p for p in own if p.target == last), key=lambda p: found[p][1].mean)
    thief, value = found[place]
    sentences.append(
      f'{study.name}, {size} victim, goodput {100 * last:.0f} %: at best, '
      f'{place.defense} leaves the worst thief ({thief.attack}, de-mixing '
      f'{thief.demix}, {thief.surrogate}) {100 * value.mean:.1f} % fidelity.'
    )
  return '\n'.join(sentences)


def tables(study: Ladder) -> dict[str, Table]:
  """The tables of a ladder by name, in their order."""
  found = {'worst': _worst(study), 'law': _law(study), 'gain': _gain(study)}
  found['explicit'] = _explicit(study)
  for size in dict.fromkeys(rung.size for rung in study.rungs):
    found[f'matrix_{size}'] = _matrix(study, size)
  if study.missing:
    found['missing'] = Table('What could not be had', (), (), '; '.join(study.missing))
  found['channels'] = _channels(study)
  if list(study.roles.values()).count('informed') > 1:
    found['informed'] = _informed(study)
  found['neighbours'] = _neighbours(study)
  return found


def _worst(study: Ladder) -> Table:
  columns = (
    Column('victim'),
    Column('target (%)', _target, True),
    Column('defense'),
    Column('worst thief'),
    Column('fidelity (%)', _points, True),
    Column('accuracy (%)', _points, True),
    Column('its rate', _rate, True),
    Column('best rate', _rate, True),
  )
  found = grouped(study.rungs)
  rows = []
  for place, (thief, value) in worst(study).items():
    rungs = found[place, thief]
    rows.append(
      (
        place.size,
        place.target,
        place.defense,
        f'{thief.attack}, {thief.demix}, {thief.surrogate}',
        value,
        over_zoos(rungs, lambda r: [x for x in r.accuracy if x is not None]),
        np.mean([np.mean(rung.rate) for rung in rungs]),
        np.mean([rung.best_rate for rung in rungs]),
      )
    )
  rows.sort(key=lambda row: (row[0], -(row[1] or 2), row[4].mean))
  return Table(
    'The worst thief of every defense',
    columns,
    rows,
    'Attack, de-mixing and surrogate with the highest mean fidelity, chosen on the '
    'numbers shown. Intervals are over zoos. Rate: victim answers a billed query.',
  )


def _law(study: Ladder) -> Table:
  columns = (
    Column('victim'),
    Column('target (%)', _target, True),
    Column('defense'),
    Column('attack'),
    Column('de-mixing'),
    Column('surrogate'),
    Column('best rate', _rate, True),
    Column('fidelity (%)', _points, True),
    Column('explicit at rate x queries (%)', _percent, True),
    Column('difference (points)', _points, True),
  )
  rows = []
  for (place, thief), rungs in grouped(study.rungs).items():
    if place.target is None or study.roles.get(thief.attack) != 'informed':
      continue
    wanted = [predicted(study, rung) for rung in rungs]
    if not np.isfinite(wanted).all():
      continue
    by_zoo = dict(zip([rung.zoo for rung in rungs], wanted, strict=True))

    def less(rung: Rung, wanted: dict[int, float] = by_zoo) -> list[float]:
      return [value - wanted[rung.zoo] for value in fidelity(rung)]

    rows.append(
      (
        *(place.size, place.target, place.defense),
        *thief,
        np.mean([rung.best_rate for rung in rungs]),
        over_zoos(rungs, fidelity),
        100 * float(np.mean(wanted)),
        over_zoos(rungs, less),
      )
    )
  return Table(
    'A thief who recognises the victim pays 1 / t',
    columns,
    rows,
    'Whoever knows everything, against extraction from the named model with as many '
    'queries as the best rate gives answers.',
  )


def _gain(study: Ladder) -> Table:
  columns = (
    Column('victim'),
    Column('surrogate'),
    Column('attack'),
    Column('beyond'),
    Column("the victim's share there", _rate, True),
    Column('accuracy (points)', _points, True),
    Column('fidelity (points)', _points, True),
  )
  found = grouped(study.rungs)
  open_to = {
    (place.size, thief.surrogate, thief.attack): rungs
    for (place, thief), rungs in found.items()
    if place.target is None and thief.demix == 'none'
  }
  rows = []
  for (size, surrogate, attack), rungs in open_to.items():
    if study.roles.get(attack) != 'attack':
      continue
    for baseline in (n for n, role in study.roles.items() if role == 'baseline'):
      others = open_to.get((size, surrogate, baseline), [])
      rows.append(
        (
          *(size, surrogate, attack, baseline),
          float(np.mean([np.mean(rung.kept) for rung in others])),
          gain(rungs, others, lambda rung: rung.accuracy),
          gain(rungs, others, lambda rung: rung.fidelity),
        )
      )
  return Table(
    'What an attack gains over clients who know nothing, without a defense',
    columns,
    rows,
    'Pairs share images and initialisation. The range over surrogates and over what '
    'the client asks for is the answer, not one of its rows.',
  )


def _explicit(study: Ladder) -> Table:
  columns = (
    Column('victim'),
    Column('surrogate'),
    Column('queries', str, True),
    Column('fidelity (%)', _points, True),
  )
  rows = [
    (size, surrogate, budget, value)
    for size in dict.fromkeys(rung.size for rung in study.rungs)
    for surrogate in dict.fromkeys(rung.surrogate for rung in study.rungs)
    for budget, value in explicit(study, size, surrogate).items()
  ]
  return Table('Extraction from the named model', columns, rows)


def _matrix(study: Ladder, size: str) -> Table:
  own = {k: v for k, v in grouped(study.rungs).items() if k[0].size == size}
  thieves = list(dict.fromkeys(thief for _, thief in own))
  behind = list(dict.fromkeys(place for place, _ in own))
  columns = (
    Column('defense'),
    Column('target (%)', _target, True),
    *(Column('\n'.join(thief), _points, True) for thief in thieves),
  )
  nothing = Interval(*[np.nan] * 3)
  rows = [
    (
      place.defense,
      place.target,
      *(
        over_zoos(own[place, thief], fidelity) if (place, thief) in own else nothing
        for thief in thieves
      ),
    )
    for place in behind
  ]
  return Table(f'Fidelity (%) of every thief, {size} victim', columns, rows)


def _channels(study: Ladder) -> Table:
  columns = (
    Column('victim'),
    Column('defense'),
    Column('target (%)', _target, True),
    Column('attack'),
    Column('de-mixing'),
    Column('surrogate'),
    Column('AUC', _rate, True),
    Column("victim's share before", _rate, True),
    Column('after', _rate, True),
    Column('fidelity gained (points)', _points, True),
  )
  found = grouped(study.rungs)
  rows = []
  for (place, thief), rungs in found.items():
    before = found.get((place, thief._replace(demix='none')))
    aucs = [auc for rung in rungs for auc in rung.auc if auc is not None]
    if thief.demix == 'none' or not aucs or before is None:
      continue
    rows.append(
      (
        *(place.size, place.defense, place.target),
        *(thief.attack, thief.demix, thief.surrogate),
        float(np.mean(aucs)),
        float(np.mean([np.mean(rung.kept) for rung in before])),
        float(np.mean([np.mean(rung.kept) for rung in rungs])),
        gain(rungs, before, lambda rung: rung.fidelity),
      )
    )
  return Table(
    'What de-mixing brings, at equal bills',
    columns,
    rows,
    "AUC: of telling the victim's answers from the others; shares are of what is "
    'trained on.',
  )


def _informed(study: Ladder) -> Table:
  columns = (
    Column('victim'),
    Column('defense'),
    Column('target (%)', _target, True),
    Column('attack'),
    Column('surrogate'),
    Column("the victim's share", _rate, True),
    Column('fidelity (%)', _points, True),
    Column('beyond the first (points)', _points, True),
  )
  names = [name for name, role in study.roles.items() if role == 'informed']
  found = grouped(study.rungs)
  rows = []
  for (place, thief), rungs in found.items():
    if thief.attack in names and thief.demix == 'none':
      first = found[place, thief._replace(attack=names[0])]
      rows.append(
        (
          *(place.size, place.defense, place.target),
          *(thief.attack, thief.surrogate),
          float(np.mean([np.mean(rung.kept) for rung in rungs])),
          over_zoos(rungs, fidelity),
          gain(rungs, first, lambda rung: rung.fidelity),
        )
      )
  return Table(
    f'Who is told the best spec, beside {names[0]}, at equal bills',
    columns,
    rows,
    'Nothing is de-mixed; the share is of what is trained on.',
  )


def _neighbours(study: Ladder) -> Table:
  columns = (
    Column('zoo', str, True),
    Column('faster'),
    Column('slower'),
    Column('ratio', _short, True),
    Column('AUC', _rate, True),
  )
  rows = [
    (one.zoo, one.faster, one.slower, one.ratio, one.auc) for one in study.neighbours
  ]
  return Table('One measured latency against the next slower model', columns, rows)


def _target(value: float | None) -> str:
  return '–' if value is None else f'{100 * value:.0f}'


def _points(value: Interval) -> str:
  if np.isnan(value.mean):
    return '–'
  return f'{100 * value.mean:.1f} ±{100 * (value.high - value.mean):.1f}'


def _percent(value: float) -> str:
  return number(value, '.1f')


def _rate(value: float) -> str:
  return number(value, '.3f')


def _short(value: float) -> str:
  return number(value, '.3g')
