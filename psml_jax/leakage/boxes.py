"""Branch and bound over boxes of specs, in product grids."""

from typing import NamedTuple, Protocol

import numpy as np

_MOST_ROUNDS, _MOST_BOXES = 48, 1 << 20


class Search(Protocol):
  """Rates over specs, of one victim after the other."""

  certified: bool

  def ceilings(self) -> np.ndarray:
    """f64[V], what no spec exceeds for each victim, at a glance."""

  def start(self, place: int) -> tuple[np.ndarray, np.ndarray]:
    """Ascending cuts of accuracy and latency, f64[A + 1] and f64[L + 1].

    Between them lie all specs worth a look, for the victim of that place.
    """

  def evaluate(
    self, place: int, accuracy: np.ndarray, latency: np.ndarray
  ) -> tuple[np.ndarray, np.ndarray]:
    """Rates of A x L boxes.

    Args:
      place: of the victim.
      accuracy: f64[2, A], the lowest and highest minimum accuracy.
      latency: f64[2, L], the lowest and highest maximum latency in ms.

    Returns:
      f64[A, L] at each box's middle, and f64[A, L] what no spec inside exceeds.
    """


class Found(NamedTuple):
  """The best spec found, its rate, and what no spec exceeds."""

  rate: float
  ceiling: float
  accuracy: float
  latency: float


def branch_and_bound(
  search: Search, place: int, gap: float, *, floor: float = 0.0
) -> Found:
  """Halves the rows and columns that could hold a better spec, until none could.

  Args:
    search: the rates.
    place: of the victim.
    gap: the ceiling's distance from the rate to end at.
    floor: a rate that is known to be had elsewhere; what does not exceed it is not
      looked for any further.

  Returns:
    What was found; where a million boxes are not enough, with a wider gap; of a search
    that proves nothing, with a ceiling of 1.
  """
  accuracy, latency = (_between(axis) for axis in search.start(place))
  best = Found(-1.0, 1.0, 0.0, 0.0)
  for _ in range(_MOST_ROUNDS):
    rate, ceiling = search.evaluate(place, accuracy, latency)
    row, column = np.unravel_index(np.argmax(rate), rate.shape)
    if rate[row, column] > best.rate:
      spec = accuracy[:, row].mean(), latency[:, column].mean()
      best = Found(float(rate[row, column]), 1.0, *map(float, spec))
    if not search.certified:
      if 4 * rate.size > _MOST_TRIED:
        return best
      could = rate >= np.sort(rate, axis=None)[-min(rate.size, _FINALISTS)]
    else:
      could = ceiling > max(best.rate, floor) + gap
      if not could.any():
        return best._replace(ceiling=min(1.0, max(best.rate, floor) + gap))
    accuracy = _halved(accuracy[:, could.any(1)])
    latency = _halved(latency[:, could.any(0)])
    if accuracy.shape[1] * latency.shape[1] > _MOST_BOXES:
      break
  return best._replace(ceiling=float(ceiling.max()))


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
  everything = [around - steps, around + steps, np.array([low, high, around])]
  if more is not None:
    everything.append(np.ravel(more))
  return np.unique(np.clip(np.concatenate(everything), low, high))


def strict(
  accuracy: np.ndarray, latency: np.ndarray, doublings: int
) -> tuple[np.ndarray, np.ndarray]:
  """Cuts of a zoo's range, and those of specs that ask for more than any model gives.

  Args:
    accuracy: f64[A], ascending, from the zoo's lowest to its highest.
    latency: f64[L], likewise.
    doublings: how far to go, in powers of two of the range.

  Returns:
    f64[A'] and f64[L'], as far as infinity; the range's strict end is a box by itself.
  """
  steps = 2.0 ** np.arange(-14, doublings + 1)
  up, down = (steps * (np.ptp(axis) or 1.0) for axis in (accuracy, latency))
  return (
    np.concatenate([accuracy, accuracy[-1:], accuracy[-1] + up, [np.inf]]),
    np.concatenate([[-np.inf], latency[0] - down[::-1], latency[:1], latency]),
  )


def padded_size(count: int, least: int) -> int:
  """The size of few that is at least a count, so that few programs are compiled."""
  while least < count:
    least *= 4
  return least


def _between(axis: np.ndarray) -> np.ndarray:
  """f64[2, K]: what lies between two cuts, and both ends by themselves."""
  return np.stack([np.append(axis[0], axis), np.append(axis, axis[-1])])


def _halved(axis: np.ndarray) -> np.ndarray:
  low, high = axis
  middle = (low + high) / 2
  return np.stack([np.append(low, middle), np.append(middle, high)])


_FINALISTS, _MOST_TRIED = 16, 1 << 16
