"""Branch and bound over boxes of specs."""

import dataclasses
from typing import NamedTuple, Protocol

import numpy as np

from psml_jax.core import Spec

_MOST_ROUNDS, _MOST_BOXES = 48, 1 << 15


@dataclasses.dataclass(frozen=True)
class Boxes:
  """B boxes of specs; each bound f64[B].

  Attributes:
    accuracy: f64[2, B], the lowest and highest minimum accuracy.
    latency: f64[2, B], the lowest and highest maximum latency in ms.
  """

  accuracy: np.ndarray
  latency: np.ndarray

  def __len__(self) -> int:
    return self.accuracy.shape[1]

  @classmethod
  def product(cls, accuracy: np.ndarray, latency: np.ndarray) -> 'Boxes':
    """The boxes between neighbouring cuts of each field, each ascending."""
    rows, columns = (
      np.stack([axis[:-1], axis[1:]]) if len(axis) > 1 else np.stack([axis, axis])
      for axis in (accuracy, latency)
    )
    return cls(
      np.repeat(rows, columns.shape[1], axis=1), np.tile(columns, rows.shape[1])
    )

  def __getitem__(self, kept: np.ndarray) -> 'Boxes':
    return Boxes(self.accuracy[:, kept], self.latency[:, kept])

  def split(self) -> 'Boxes':
    """Every box in four."""
    halves = []
    for field in (self.accuracy, self.latency):
      middle = field.mean(0)
      halves.append((np.stack([field[0], middle]), np.stack([middle, field[1]])))
    pairs = [(a, b) for a in halves[0] for b in halves[1]]
    return Boxes(
      np.concatenate([a for a, _ in pairs], 1), np.concatenate([b for _, b in pairs], 1)
    )

  def padded(self, size: int) -> 'Boxes':
    """The boxes, the last one repeated up to a size."""
    more = ((0, 0), (0, size - len(self)))
    return Boxes(
      np.pad(self.accuracy, more, mode='edge'), np.pad(self.latency, more, mode='edge')
    )

  def specs(self) -> tuple[Spec, Spec, Spec]:
    """The low ends, the high ends and the middles."""
    low, high = (Spec.of(a, b) for a, b in zip(self.accuracy, self.latency))
    return low, high, Spec.of(self.accuracy.mean(0), self.latency.mean(0))


class Search(Protocol):
  """Rates over specs, of one victim after the other."""

  certified: bool

  def start(self, place: int) -> Boxes:
    """Boxes that cover all specs worth a look, for the victim of that place."""

  def evaluate(self, place: int, boxes: Boxes) -> tuple[np.ndarray, np.ndarray]:
    """f64[B] the rate at each box's middle, f64[B] what no spec inside exceeds."""


class Found(NamedTuple):
  """The best spec found, its rate, and what no spec exceeds."""

  rate: float
  ceiling: float
  accuracy: float
  latency: float


def branch_and_bound(search: Search, place: int, gap: float) -> Found:
  """Splits the boxes that could hold a better spec, until none could by the gap."""
  boxes = search.start(place)
  best, given_up = (0.0, float('nan'), float('nan')), 0.0
  for turn in range(_MOST_ROUNDS):
    rate, ceiling = search.evaluate(place, boxes)
    top = int(np.argmax(rate))
    if turn == 0 or rate[top] > best[0]:
      best = (
        float(rate[top]),
        float(boxes.accuracy[:, top].mean()),
        float(boxes.latency[:, top].mean()),
      )
    open_boxes = np.nonzero(ceiling > best[0] + gap)[0]
    if not search.certified:
      most = max(8, 64 >> turn) if turn < 12 else 0
      open_boxes = np.argsort(-rate)[:most]
    elif 4 * len(open_boxes) > _MOST_BOXES or turn == _MOST_ROUNDS - 1:
      order = open_boxes[np.argsort(-ceiling[open_boxes])]
      kept = order[: _MOST_BOXES // 8] if turn < _MOST_ROUNDS - 1 else order[:0]
      given_up = max(given_up, *ceiling[order[len(kept) :]], 0.0)
      open_boxes = kept
    if not len(open_boxes):
      break
    boxes = boxes[np.asarray(open_boxes)].split()
  ceiling_of_all = max(best[0] + gap, given_up) if search.certified else np.inf
  return Found(best[0], ceiling_of_all, *best[1:])


def cuts(
  values: np.ndarray,
  around: float,
  *,
  halvings: int = 14,
  more: np.ndarray | None = None,
) -> np.ndarray:
  """Ascending cuts of a field's range, geometrically spaced around a value.

  Args:
    values: f64[M], of the zoo; their range is cut.
    around: the value; the distances from it halve, from the range on.
    halvings: how often.
    more: f64[...], further cuts; those outside the range do not count.

  Returns:
    f64[K].
  """
  low, high = values.min(), values.max()
  steps = (high - low) * 2.0 ** -np.arange(halvings + 1)
  everything = [around - steps, around + steps, [low, high, around]]
  if more is not None:
    everything.append(np.ravel(more))
  return np.unique(np.clip(np.concatenate(everything), low, high))
