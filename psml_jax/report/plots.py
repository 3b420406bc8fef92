"""The pictures of a report: each a matplotlib figure made from a summary."""

import io
from collections.abc import Sequence
from typing import NamedTuple

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from psml_jax.report import canvas, curves, labels
from psml_jax.report.canvas import FONT
from psml_jax.report.labels import Label
from psml_jax.report.schema import SIZES, Summary
from psml_jax.report.styles import BLUE, GREEN, ORANGE, RED

_ALL_NAMED = 24


class _Point(NamedTuple):
  """Models at one place: milliseconds, percent, and their names."""

  x: float
  y: float
  names: Sequence[str]
  pareto: bool


def draw(summary: Summary) -> dict[str, bytes]:
  """All pictures as PNG files, whatever matplotlib settings the user has.

  Args:
    summary: the experiment, see `psml_jax.report.Summary`.

  Returns:
    The files' contents by name, see `figures`.
  """
  with matplotlib.style.context('default'):
    return {name: _png(figure) for name, figure in figures(summary).items()}


def _png(figure: Figure) -> bytes:
  data = io.BytesIO()
  figure.savefig(data, format='png', metadata={'Software': None})
  return data.getvalue()


def figures(summary: Summary) -> dict[str, Figure]:
  """All pictures that the summary has results for.

  Args:
    summary: the experiment, see `psml_jax.report.Summary`.

  Returns:
    Figures by name: `zoo`; `extraction` where surrogates were trained;
    `protection` where a defense was attacked, or else `goodput` where it was
    measured alone.
  """
  made = {'zoo': zoo(summary)}
  if summary.extraction:
    made['extraction'] = curves.extraction(summary)
  if summary.protection:
    made['protection'] = curves.protection(summary)
  elif summary.goodput:
    made['goodput'] = curves.goodput(summary)
  return made


def zoo(summary: Summary) -> Figure:
  """The zoo by latency and accuracy, with the probes for the medium victim."""
  figure, ((axes,),) = canvas.subplots(1, 1, (10, 6.6))
  points = _points(summary)
  optimal = sorted(point for point in points if point.pareto)
  dominated = [point for point in points if not point.pareto]
  wanted = {summary.victims[size] for size in SIZES}
  victims = [point for point in optimal if wanted & set(point.names)]
  few = len(points) <= _ALL_NAMED

  x, y = _xy(points)
  x_range = canvas.latency_axis(axes, x)
  pad = max(max(y) - min(y), 1) * 0.07
  y_range = (min(y) - pad, max(y) + pad)
  axes.set_ylim(y_range)
  axes.set_ylabel('Accuracy (%)', fontsize=FONT)
  best = sum(model.pareto for model in summary.zoo)
  count = f'{len(summary.zoo)} models, {best} on the Pareto frontier'
  axes.set_title(labels.plain(f'{summary.dataset}: {count}'), fontsize=FONT + 1)

  stairs_x, stairs_y = _xy(optimal)
  stairs_x = [stairs_x[0], *stairs_x, x_range[1]]
  stairs_y = [y_range[0], *stairs_y, stairs_y[-1]]
  axes.fill_between(
    stairs_x,
    y_range[0],
    stairs_y,
    step='post',
    color=BLUE,
    alpha=0.08,
    lw=0,
    label='specs that the zoo can serve',
  )
  axes.step(stairs_x, stairs_y, where='post', color=BLUE, lw=1.3)
  size = 6 if few else 3.5
  if dominated:
    axes.plot(
      *_xy(dominated), 'o', ms=size, mfc='white', mec='#777777', label='dominated model'
    )
  axes.plot(*_xy(optimal), 'o', ms=size + 1, color=BLUE, label='Pareto-optimal model')
  axes.plot(
    *_xy(victims),
    '*',
    ms=16,
    color=ORANGE,
    mec='black',
    mew=0.8,
    zorder=5,
    label='victim',
  )
  probes = _draw_probes(axes, summary, x_range, y_range)
  canvas.legend(figure, canvas.labelled([axes]), 3)
  canvas.freeze(figure)

  corners = np.repeat(np.column_stack([stairs_x, stairs_y]), 2, axis=0)
  data = [
    labels.along(axes, corners[1:, 0], corners[:-1, 1]),
    labels.pixels(axes, x, y),
    labels.pixels(axes, *probes),
  ]
  others = [point for point in (*optimal, *dominated) if few and point not in victims]
  texts = [
    Label(point.x, point.y, _name(summary, point), optional=not point.pareto)
    for point in (*victims, *others)
  ]
  labels.place(axes, texts, np.concatenate(data))
  return figure


def _points(summary: Summary) -> list[_Point]:
  """The models, twins together."""
  groups = {name: group for group in summary.twins for name in group}
  points = []
  for model in summary.zoo:
    names = groups.get(model.name, [model.name])
    if model.name == names[0]:
      points.append(_Point(*model.place, tuple(names), model.pareto))
  return points


def _xy(points: Sequence[_Point]) -> tuple[list[float], list[float]]:
  return [point.x for point in points], [point.y for point in points]


def _name(summary: Summary, point: _Point) -> str:
  sizes = [size for size in SIZES if summary.victims[size] in point.names]
  name = labels.short(' = '.join(point.names), 40)
  return name + (f' ({", ".join(sizes)})' if sizes else '')


def _draw_probes(
  axes: Axes,
  summary: Summary,
  x_range: tuple[float, float],
  y_range: tuple[float, float],
) -> tuple[np.ndarray, np.ndarray]:
  """Draws one fingerprint, probes beyond the axes on their edge; their places."""
  victim = summary.victims['medium']
  trail = next((row for row in summary.probes if row.victim == victim), None)
  if trail is None or not trail.served:
    return np.zeros(0), np.zeros(0)
  x = np.clip(np.asarray(trail.max_latency_ms, float), *x_range)
  y = np.clip(100 * np.asarray(trail.min_accuracy, float), *y_range)
  served = np.asarray(trail.served, bool)
  for chosen, marker, color, outcome in (
    (served, '+', GREEN, 'served'),
    (~served, 'x', RED, 'refused'),
  ):
    axes.plot(
      x[chosen],
      y[chosen],
      marker,
      color=color,
      ms=9,
      mew=1.8,
      clip_on=False,
      zorder=4,
      label=f'probe for the medium victim, {outcome}',
    )
  return x, y
