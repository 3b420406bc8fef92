"""Names beside points: each where it covers neither data nor another name."""

import itertools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke

_DIRECTIONS = (
  *((1, 0), (-1, 0), (0, 1), (0, -1)),
  *((1, 1), (-1, 1), (1, -1), (-1, -1)),
)
_DISTANCES = (9.0, 18.0, 32.0, 48.0)
_COVERS_NAME, _COVERS_DATA, _DISTANCE = 1000.0, 10.0, 0.1


class Label(NamedTuple):
  """A text at a point in data coordinates; optional ones may be left out."""

  x: float
  y: float
  text: str
  color: str = '#222222'
  optional: bool = False


def plain(text: str) -> str:
  """The text with no part of it read as mathematics by matplotlib."""
  return text.replace('$', r'\$')


def short(text: str, length: int) -> str:
  """The text, its middle left out where it is longer than that."""
  if len(text) <= length:
    return text
  return f'{text[: length // 2]}…{text[-(length - length // 2 - 1) :]}'


def along(axes: Axes, x: Iterable[float], y: Iterable[float]) -> np.ndarray:
  """Points in pixels on the line through data points, to keep names off it."""
  corners = pixels(axes, x, y)
  parts = [corners]
  for start, end in itertools.pairwise(corners):
    steps = max(2, int(np.hypot(*(end - start)) / 6))
    parts.append(np.linspace(start, end, steps))
  return np.concatenate(parts)


def pixels(axes: Axes, x: Iterable[float], y: Iterable[float]) -> np.ndarray:
  """Data points in pixels, f64[N, 2]."""
  return np.asarray(axes.transData.transform(np.column_stack([list(x), list(y)])))


def place(
  axes: Axes, labels: Sequence[Label], data: np.ndarray, size: float = 10.0
) -> None:
  """Draws the labels, first ones first, each at its least crowded place.

  Ends the figure's automatic layout, so call it when all else is drawn.

  Args:
    axes: where to draw.
    labels: the texts, most important first.
    data: f64[N, 2], pixels that texts should not cover.
    size: font size in points.
  """
  figure = axes.figure
  frame = axes.get_window_extent()
  scale = figure.dpi / 72
  taken: list[tuple[float, float, float, float]] = []
  for label in labels:
    text = axes.annotate(
      plain(label.text),
      (label.x, label.y),
      (0, 0),
      textcoords='offset points',
      color=label.color,
      fontsize=size,
      ha='center',
      va='center',
      path_effects=[withStroke(linewidth=2.5, foreground='white')],
      annotation_clip=False,
    )
    box = text.get_window_extent()
    anchor = pixels(axes, [label.x], [label.y])[0]
    best = (np.inf, (0.0, 0.0), (0.0, 0.0, 0.0, 0.0))
    for distance in _DISTANCES:
      for right, up in _DIRECTIONS:
        dx = right * (distance * scale / (1.4 if up else 1) + box.width / 2)
        dy = up * (distance * scale / (1.4 if right else 1) + box.height / 2)
        x0, y0 = anchor[0] + dx - box.width / 2, anchor[1] + dy - box.height / 2
        place_ = (x0, y0, x0 + box.width, y0 + box.height)
        if x0 < frame.x0 + 4 or y0 < frame.y0 + 4:
          continue
        if place_[2] > frame.x1 - 4 or place_[3] > frame.y1 - 4:
          continue
        cost = _DISTANCE * distance
        cost += _COVERS_NAME * sum(_overlap(place_, other) for other in taken)
        cost += _COVERS_DATA * _inside(place_, data, 3 * scale)
        if cost < best[0]:
          best = (cost, (dx / scale, dy / scale), place_)
    if label.optional and best[0] >= _COVERS_DATA:
      text.remove()
      continue
    text.set_position(best[1])
    taken.append(best[2])


def _overlap(
  a: tuple[float, float, float, float], b: tuple[float, float, float, float]
) -> bool:
  return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _inside(
  box: tuple[float, float, float, float], points: np.ndarray, margin: float
) -> int:
  x, y = points[:, 0], points[:, 1]
  inside = (x > box[0] - margin) & (x < box[2] + margin)
  return int(np.sum(inside & (y > box[1] - margin) & (y < box[3] + margin)))
