"""What all pictures share: figures without global state, axes, lines, legends."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import (
  FixedLocator,
  FuncFormatter,
  Locator,
  LogLocator,
  MaxNLocator,
  NullLocator,
)

from psml_jax.metrics import Interval
from psml_jax.report.styles import Dashes

FONT = 12


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


def error_line(
  axes: Axes,
  x: Sequence[Interval],
  y: Sequence[Interval],
  color: str,
  marker: str,
  *,
  label: str | None = None,
  dashes: Dashes = '-',
  width: float = 1.8,
  hollow: bool = False,
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
    ms=5 + width,
    mfc='white' if hollow else color,
    label=label,
  )


def latency_axis(axes: Axes, latencies: Sequence[float]) -> tuple[float, float]:
  """Makes x a logarithmic latency axis, linear next to 0 where one is 0; its limits."""
  low = min((value for value in latencies if value > 0), default=1.0)
  high = max(*latencies, low)
  label = 'Latency (ms, log scale)'
  limits = (low / 1.25, high * 1.25)
  ratio = limits[1] / limits[0]
  locator: Locator = LogLocator(
    subs=(1.0, 2.0, 5.0) if ratio < 1e3 else (1.0,), numticks=12
  )
  if min(latencies) > 0:
    axes.set_xscale('log')
    if ratio < 8:
      locator = MaxNLocator(6)
  else:
    axes.set_xscale('symlog', linthresh=low, linscale=0.5)
    ticks = [tick for tick in locator.tick_values(*limits) if low <= tick <= limits[1]]
    locator = FixedLocator([0.0, *(ticks or [low])])
    label = f'Latency (ms, log scale from {low:.3g} on)'
    limits = (-low / 4, limits[1])
  axes.set_xlim(limits)
  axes.set_xlabel(label, fontsize=FONT)
  axes.xaxis.set_major_locator(locator)
  axes.xaxis.set_minor_locator(NullLocator())
  axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f'{value:g}'))
  return limits


def value_axis(axes: Axes, values: Sequence[float]) -> None:
  """Makes x an axis of a knob's values, logarithmic where all are above 0."""
  if not values or min(values) <= 0:
    return
  axes.set_xscale('log')
  wide = max(values) / min(values) > 100
  subs = (1.0,) if wide else (1.0, 2.0, 5.0)
  axes.xaxis.set_major_locator(LogLocator(subs=subs, numticks=8))
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


def name_ticks(axes: Axes, names: Sequence[str]) -> None:
  """Names the places 0, 1, ... of an axis."""
  axes.set_xlim(-0.6, max(len(names), 1) - 0.4)
  axes.set_xticks(range(len(names)), names, rotation=90, multialignment='right')
  axes.tick_params('x', labelsize=FONT - 2)


def labelled(panels: Iterable[Axes]) -> dict[str, Artist]:
  """What the panels draw, by label."""
  entries: dict[str, Artist] = {}
  for axes in panels:
    for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
      entries.setdefault(label, handle)
  return entries


def legend(figure: Figure, entries: Mapping[str, Artist], columns: int) -> None:
  """One legend below all panels, in as many of the columns as there is room for."""
  for count in range(columns, 0, -1):
    made = figure.legend(
      list(entries.values()),
      list(entries),
      loc='outside lower center',
      ncols=count,
      fontsize=FONT - 1,
      frameon=False,
    )
    if count == 1 or made.get_window_extent().width < 0.97 * figure.bbox.width:
      return
    made.remove()


def note_if_empty(axes: Axes) -> None:
  """Says so where nothing was drawn."""
  if not axes.has_data():
    axes.text(
      0.5, 0.5, 'no numbers', transform=axes.transAxes, ha='center', va='center'
    )
    axes.yaxis.set_major_locator(NullLocator())


def freeze(figure: Figure) -> None:
  """Lays the figure out for good, so that texts can be placed by the pixel."""
  figure.draw_without_rendering()
  figure.set_layout_engine('none')
