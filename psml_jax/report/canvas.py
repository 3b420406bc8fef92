"""What all pictures share: figures without global state, axes, lines, legends."""

from collections.abc import Iterable, Sequence

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import (
  FixedLocator,
  FuncFormatter,
  LogLocator,
  MaxNLocator,
  NullLocator,
)

from psml_jax.report.summary import Estimate

FONT = 12
BLUE, GREEN, ORANGE = '#0072B2', '#009E73', '#E69F00'
RED, PURPLE = '#D55E00', '#AA3377'
_ATTACKS = {
  'explicit': ('#999999', 'o'),
  'fingerprint': (BLUE, 's'),
  'corner': (PURPLE, 'D'),
  'naive': (RED, '^'),
}


def subplots(rows: int, columns: int, size: tuple[float, float]) -> tuple:
  """A figure of that size in inches and its axes, an array [rows, columns]."""
  layout = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.08)
  figure = Figure(figsize=size, dpi=150, layout=layout)
  FigureCanvasAgg(figure)
  grid = figure.subplots(rows, columns, squeeze=False)
  for axes in grid.flat:
    axes.grid(color='#dddddd', lw=0.7)
    axes.set_axisbelow(True)
    axes.spines[['top', 'right']].set_visible(False)
    axes.tick_params(labelsize=FONT - 1)
  return figure, grid


def attack_style(attack: str) -> tuple[str, str]:
  """The colour and the marker of an attack."""
  return _ATTACKS.get(attack, (GREEN, 'v'))


def error_line(
  axes: Axes,
  x: Sequence[Estimate],
  y: Sequence[Estimate],
  color: str,
  marker: str,
  *,
  label: str,
  dashes: str = '-',
  width: float = 1.8,
) -> None:
  """A line through means with their intervals: bars, and a band where x is exact."""
  at, mean = np.asarray(x), np.asarray(y)
  if np.all(at[:, 1] == at[:, 2]):
    axes.fill_between(at[:, 0], mean[:, 1], mean[:, 2], color=color, alpha=0.15, lw=0)
  axes.errorbar(
    at[:, 0],
    mean[:, 0],
    xerr=np.abs(at[:, 1:] - at[:, :1]).T,
    yerr=np.abs(mean[:, 1:] - mean[:, :1]).T,
    color=color,
    marker=marker,
    ls=dashes,
    lw=width,
    elinewidth=1.2,
    capsize=2.5,
    ms=6.5,
    mfc='white' if dashes != '-' else color,
    label=label,
  )


def latency_ticks(axes: Axes, limits: tuple[float, float]) -> None:
  """Plain numbers on a logarithmic latency axis, three to ten of them."""
  ratio = limits[1] / limits[0]
  if ratio < 8:
    axes.xaxis.set_major_locator(MaxNLocator(6))
  else:
    axes.xaxis.set_major_locator(
      LogLocator(subs=(1.0, 2.0, 5.0) if ratio < 1e3 else (1.0,), numticks=12)
    )
  axes.xaxis.set_minor_locator(NullLocator())
  axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f'{value:g}'))


def query_ticks(axes: Axes, budgets: Sequence[int], billed: Sequence[float]) -> None:
  """At most five of the query budgets, on a logarithmic axis."""
  axes.set_xscale('log')
  axes.set_xlim(min(*budgets, *billed) / 1.15, max(*budgets, *billed) * 1.15)
  step = -(-len(budgets) // 5)
  axes.xaxis.set_major_locator(FixedLocator(budgets[::-1][::step]))
  axes.xaxis.set_minor_locator(NullLocator())
  axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f'{value:,.0f}'))


def legend(figure: Figure, panels: Iterable[Axes], columns: int) -> None:
  """One legend for all panels, below them."""
  entries: dict[str, Artist] = {}
  for axes in panels:
    for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
      entries.setdefault(label, handle)
  figure.legend(
    list(entries.values()),
    list(entries),
    loc='outside lower center',
    ncols=columns,
    fontsize=FONT - 1,
    frameon=False,
  )


def freeze(figure: Figure) -> None:
  """Lays the figure out for good, so that texts can be placed by the pixel."""
  figure.draw_without_rendering()
  figure.set_layout_engine('none')
