"""The picture of a study of threats: members found, and images that fool."""

import io
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from psml_jax.report import canvas, styles
from psml_jax.report.threats_numbers import (
  REFERENCE,
  Behind,
  behind,
  fooled,
  last,
  sides,
  sizes,
)
from psml_jax.report.threats_records import Inferred, Threats

_WIDTH = 0.6


class _Series(NamedTuple):
  attack: str
  shadows: str
  style: styles.Attack

  @property
  def label(self) -> str:
    return self.attack if self.shadows == 'victim' else f'{self.attack}, all shadows'


def draw(study: Threats) -> bytes:
  """A row a victim: members found on the left, transfer on the right; a PNG file."""
  rows = sizes(study)
  figure, grid = canvas.subplots(len(rows), 2, (12.5, 4.7 * len(rows)))
  names = dict.fromkeys(one.attack for one in study.membership)
  looks = styles.attacks({REFERENCE: 'reference'}, names)
  for (left, right), size in zip(grid, rows, strict=True):
    places = sides(study, size)
    _members(left, study, size, places, looks)
    _transfers(right, study, size, places, looks)
    for axes in (left, right):
      axes.set_xticks(range(len(places)), [place.label for place in places])
      axes.set_xlim(-0.5, len(places) - 0.5)
      axes.set_xlabel('defense, and the goodput that it keeps', fontsize=canvas.FONT)
  canvas.legend(figure, canvas.labelled(grid.flat), 5)
  file = io.BytesIO()
  figure.savefig(file, format='png')
  return file.getvalue()


def _members(
  axes: Axes,
  study: Threats,
  size: str,
  places: list[Behind],
  looks: dict[str, styles.Attack],
) -> None:
  own = [one for one in study.membership if one.size == size and one.repeats == 1]
  listed = list(
    dict.fromkeys(
      _Series(one.attack, one.shadows, looks[one.attack])
      for one in own
      if one.attack != REFERENCE
    )
  )
  for series, offset in zip(listed, _offsets(len(listed)), strict=True):
    chosen = [one for one in own if (one.attack, one.shadows) == series[:2]]
    at = [places.index(behind(one)) + offset for one in chosen]
    _dots(axes, at, chosen, series)
  rate = own[0].found.at[-1]
  for one in own:
    if one.attack == REFERENCE:
      axes.axhline(last(one).mean, color='black', ls='--', lw=1.2, label='named victim')
  axes.axhline(rate, color='#777777', ls=':', lw=1.4, label='chance')
  axes.set_yscale('log')
  axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=12))
  axes.yaxis.set_minor_locator(NullLocator())
  axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f'{value:g}'))
  axes.set_ylabel(f'members found at {100 * rate:g} % false positives', fontsize=11)
  axes.set_title(f'membership, {size} victim ({own[0].victim})', fontsize=canvas.FONT)


def _dots(axes: Axes, at: list[float], chosen: list[Inferred], series: _Series) -> None:
  ends = np.array(
    [
      (one.mean, one.low or one.mean, one.high or one.mean)
      for one in (last(each) for each in chosen)
    ]
  )
  axes.errorbar(
    at,
    np.maximum(ends[:, 0], 1e-4),
    yerr=np.abs(ends[:, 1:] - ends[:, :1]).T,
    color=series.style.color,
    marker=series.style.marker,
    ls='none',
    capsize=2.5,
    ms=7,
    mfc=series.style.color if series.shadows == 'zoo' else 'white',
    label=series.label,
  )


def _transfers(
  axes: Axes,
  study: Threats,
  size: str,
  places: list[Behind],
  looks: dict[str, styles.Attack],
) -> None:
  listed = [name for name in looks if name != REFERENCE]
  for attack, offset in zip(listed, _offsets(len(listed)), strict=True):
    look, at = looks[attack], np.arange(len(places)) + offset
    surrogate, box, noise = (
      np.array([fooled(study, place, attack, of) for place in places])
      for of in (lambda r: r.transfer, lambda r: r.white_box, lambda r: r.noise)
    )
    axes.errorbar(
      at,
      surrogate[:, 0],
      yerr=np.abs(surrogate[:, 1:] - surrogate[:, :1]).T,
      color=look.color,
      marker=look.marker,
      ls='none',
      capsize=2.5,
      ms=7,
      mfc='white',
      label=attack,
    )
    axes.plot(at, box[:, 0], 'k_', ms=15, mew=2, label='white box')
    axes.plot(at, noise[:, 0], 'x', color='#777777', ms=7, mew=2, label='noise')
  place = Behind(size, 'none', None)
  named = fooled(study, place, REFERENCE, lambda r: r.transfer).mean
  axes.axhline(named, color='black', ls='--', lw=1.2, label='named victim')
  axes.set_ylim(-0.02, 1.02)
  axes.set_ylabel('images that fool, of those answered rightly', fontsize=11)
  axes.set_title(
    f'transfer, {size} victim, pixels moved by {study.epsilon:g}', fontsize=canvas.FONT
  )


def _offsets(count: int) -> np.ndarray:
  return (np.arange(count) - (count - 1) / 2) * _WIDTH / max(count, 1)
