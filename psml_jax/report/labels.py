"""Names beside points: each where it covers neither data nor another name."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke
from matplotlib.text import Text
from matplotlib.transforms import Bbox

_DIRECTIONS = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1))
_DISTANCES = (11.0, 18.0, 28.0, 40.0, 55.0)
_CLEAR = 7.0
_COVERS_NAME, _COVERS_DATA, _PER_POINT = 1000.0, 10.0, 0.1


class Label(NamedTuple):
  """A text at a point in data coordinates; an optional one needs room close by."""

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


def place(axes: Axes, labels: Sequence[Label], data: np.ndarray) -> None:
  """Draws the labels, first ones first, each at its least crowded place.

  Args:
    axes: where to draw, its layout final.
    labels: the texts, most important first.
    data: f64[N, 2], pixels that texts should not cover.
  """
  taken: list[Bbox] = []
  for label in labels:
    text = axes.annotate(
      plain(label.text),
      (label.x, label.y),
      (0, 0),
      textcoords='offset points',
      color=label.color,
      fontsize=10,
      ha='center',
      va='center',
      path_effects=[withStroke(linewidth=2.5, foreground='white')],
      arrowprops={'arrowstyle': '-', 'color': '#777777', 'lw': 0.7, 'shrinkB': 4},
    )
    size = Text.get_window_extent(text)
    cost, distance, offset, box = min(
      _places(axes, label, (size.width, size.height), taken, data),
      key=lambda place: place[0],
      default=(np.inf, 0.0, (0.0, 0.0), size),
    )
    if label.optional and cost >= _COVERS_DATA:
      text.remove()
      continue
    text.set_position(offset)
    if text.arrow_patch is not None:
      text.arrow_patch.set_visible(distance > _DISTANCES[0])
    taken.append(box)


def _places(
  axes: Axes,
  label: Label,
  size: tuple[float, float],
  taken: list[Bbox],
  data: np.ndarray,
) -> Iterator[tuple[float, float, tuple[float, float], Bbox]]:
  """The cost, distance and offset in points, and box in pixels of each place."""
  frame = axes.get_window_extent()
  point = axes.figure.dpi / 72
  distances = _DISTANCES[:2] if label.optional else _DISTANCES
  directions = _DIRECTIONS[:4] if label.optional else _DIRECTIONS
  x, y = pixels(axes, [label.x], [label.y])[0]
  for distance, (right, up) in itertools.product(distances, directions):
    gap = distance * point / np.hypot(right, up)
    dx, dy = right * (gap + size[0] / 2), up * (gap + size[1] / 2)
    box = Bbox.from_bounds(x + dx - size[0] / 2, y + dy - size[1] / 2, *size)
    if (
      frame.x0 < box.x0 and box.x1 < frame.x1 and frame.y0 < box.y0 < box.y1 < frame.y1
    ):
      padded = box.padded((_CLEAR if label.optional else 4) * point)
      cost = _PER_POINT * distance
      cost += _COVERS_NAME * padded.count_overlaps(taken)
      cost += _COVERS_DATA * padded.count_contains(data)
      yield cost, distance, (dx / point, dy / point), box
