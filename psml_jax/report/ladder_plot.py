"""The picture of a ladder: goodput against what the worst thief gets."""

import io

import numpy as np
from matplotlib.axes import Axes

from psml_jax.metrics import Interval
from psml_jax.report import canvas, ladder_numbers
from psml_jax.report.ladder_records import Ladder

_COLORS = ('#c0392b', '#2471a3', '#7f8c8d', '#229954', '#8e44ad', '#d68910', '#16a085')
_MARKERS = 'osx^Dvp*'
_DASHES = ('--', ':', '-.')


def draw(study: Ladder) -> bytes:
  """A row a victim: fidelity on the left, the exact rate on the right; a PNG file."""
  sizes = list(dict.fromkeys(rung.size for rung in study.rungs))
  figure, grid = canvas.subplots(len(sizes), 2, (11.5, 4.6 * len(sizes)))
  found = ladder_numbers.worst(study)
  defenses = list(dict.fromkeys(p.defense for p in found if p.target is not None))
  for (left, right), size in zip(grid, sizes, strict=True):
    for i, defense in enumerate(defenses):
      style = (_COLORS[i % len(_COLORS)], _MARKERS[i % len(_MARKERS)])
      own = [p for p in found if (p.size, p.defense) == (size, defense)]
      own.sort(key=lambda place: place.target or 0)
      rungs = [
        [r for r in study.rungs if (r.size, r.defense, r.target) == place]
        for place in own
      ]
      at = [float(np.mean([r.goodput for r in each])) for each in rungs]
      x = [Interval(g, g, g) for g in at]
      y = [found[place][1] for place in own]
      canvas.error_line(left, x, y, *style, label=defense)
      best = [
        float(np.mean([r.best_rate for r in each if r.best_rate is not None]))
        for each in rungs
      ]
      right.plot(at, best, color=style[0], marker=style[1])
    _explicit(left, study, size)
    left.set_ylabel('fidelity of the worst thief (fraction)', fontsize=canvas.FONT)
    right.set_ylabel('victim answers a query, exact', fontsize=canvas.FONT)
    right.set_ylim(0, 1.02)
    for axes in (left, right):
      axes.set_title(f'{study.name}, {size} victim', fontsize=canvas.FONT)
      axes.set_xlabel('goodput of honest clients (fraction)', fontsize=canvas.FONT)
  canvas.legend(figure, canvas.labelled(grid.flat), 5)
  file = io.BytesIO()
  figure.savefig(file, format='png')
  return file.getvalue()


def _explicit(axes: Axes, study: Ladder, size: str) -> None:
  names = dict.fromkeys(rung.surrogate for rung in study.rungs)
  for i, surrogate in enumerate(names):
    curve = ladder_numbers.explicit(study, size, surrogate)
    if curve:
      axes.axhline(
        curve[max(curve)].mean,
        color='black',
        ls=_DASHES[i % len(_DASHES)],
        lw=1.2,
        label=f'named model, {surrogate}',
      )
