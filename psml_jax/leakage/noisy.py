"""Rates of uniform routers behind noise of known laws, over boxes of specs.

For a victim of accuracy rank i and latency place j the rate at a spec is the sum of
`P(rank r) P(place q) / n(r, q)` over the cells r <= i, q >= j of noised specs that it
meets, with n the size of the feasible set. A box's ceiling puts the highest probability
that a field lies between a cell and the victim's own in the place of the true one;
docs/theory.md, section 3, has the proof.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from psml_jax import feasible, routers
from psml_jax.core import ZooProfile
from psml_jax.leakage.boxes import Boxes, cuts


class NoisySearch:
  """A `Search`; `knows` says of which routers."""

  certified = True

  def __init__(
    self, profile: ZooProfile, router: Any, transform: Any, victims: np.ndarray
  ) -> None:
    self._transform, self._best_effort = transform, router.infeasible == 'best_effort'
    zoo = router.zoo
    self._accuracy, self._latency = (
      np.asarray(field, float) for field in (profile.accuracy, profile.latency_ms)
    )
    self._victims = victims
    self._ranks, self._places = (np.asarray(x)[victims] for x in feasible.places(zoo))
    self._zoo = zoo
    size = len(profile)
    counts = np.asarray(_counts(zoo), float)
    self._share = np.divide(1.0, counts, out=np.zeros_like(counts), where=counts > 0)
    by_place = np.asarray(feasible.places(zoo)[0])[np.asarray(zoo.by_latency)]
    self._best_so_far = np.maximum.accumulate(by_place)
    self._size = size

  @staticmethod
  def knows(router: Any) -> bool:
    """Whether a router is a uniform one of the library."""
    uniform = getattr(router, 'policy', None) is routers.uniform_choice
    return isinstance(router, routers.ZooRouter) and uniform

  def start(self, place: int) -> Boxes:
    victim = self._victims[place]
    jumps = self._transform.cuts()
    more = (None, None) if jumps is None else (jumps.min_accuracy, jumps.max_latency_ms)
    axes = []
    for values, jump in zip((self._accuracy, self._latency), more, strict=True):
      jump = None if jump is None else np.asarray(jump, float)
      axes.append(cuts(values, float(values[victim]), more=jump))
    return Boxes.product(*axes)

  def evaluate(self, place: int, boxes: Boxes) -> tuple[np.ndarray, np.ndarray]:
    rate, ceiling = np.empty(len(boxes)), np.empty(len(boxes))
    size = _BOXES_AT_ONCE
    for start in range(0, len(boxes), size):
      part = boxes[np.arange(start, min(start + size, len(boxes)))]
      both = self._evaluate(place, part)
      rate[start : start + size], ceiling[start : start + size] = both
    return rate, ceiling

  def _evaluate(self, place: int, boxes: Boxes) -> tuple[np.ndarray, np.ndarray]:
    laws = _laws(self._transform, self._zoo, *boxes.padded(_BOXES_AT_ONCE).specs())
    count = len(boxes)
    up, down, up_low, up_high, down_low, down_high = (
      np.asarray(law, float)[:count] for law in laws
    )
    rank, at = self._ranks[place], self._places[place]
    share = self._share[: rank + 1, at:]

    def summed(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
      return np.einsum('bq,bq->b', rows @ share, columns)

    zero = np.zeros((count, 1))
    rows = np.diff(up[:, : rank + 1], axis=1, prepend=zero)
    columns = -np.diff(down[:, at:], axis=1, append=zero)
    rate = summed(rows, columns)
    above = up_high[:, rank, None] - np.hstack([zero, up_low[:, :rank]])
    above = np.minimum.accumulate(np.clip(above, 0.0, 1.0), axis=1)
    beyond = down_high[:, at, None] - np.hstack([down_low[:, at + 1 :], zero])
    beyond = np.minimum.accumulate(np.clip(beyond, 0.0, 1.0)[:, ::-1], axis=1)[:, ::-1]
    ceiling = summed(
      -np.diff(above, axis=1, append=zero), np.diff(beyond, axis=1, prepend=zero)
    )
    if self._best_effort:
      rate = rate + self._instead(rank, at, up, up, down, down)
      ceiling = ceiling + self._instead(rank, at, up_low, up_high, down_low, down_high)
    return rate, np.clip(ceiling, rate, 1.0)

  def _instead(
    self,
    rank: int,
    at: int,
    up_low: np.ndarray,
    up_high: np.ndarray,
    down_low: np.ndarray,
    down_high: np.ndarray,
  ) -> np.ndarray:
    """The most that a model answers of specs that no model meets; exact if low is high.

    It does where it is the most accurate of those that are fast enough, and the fastest
    model where none is.
    """
    answers = np.zeros(len(up_low))
    if self._best_so_far[at] == rank:
      end = int(np.searchsorted(self._best_so_far, rank, side='right'))
      slower = down_low[:, end] if end < self._size else 0.0
      quick = np.clip(down_high[:, at] - slower, 0.0, 1.0)
      answers = (1 - up_low[:, rank]) * quick
    equal = np.searchsorted(np.sort(self._latency), self._latency.min(), side='right')
    if at < equal and self._best_so_far[equal - 1] == rank:
      answers = answers + (1 - down_low[:, 0])
    return answers


@jax.jit
def _counts(zoo: feasible.FeasibleIndex) -> jax.Array:
  """i32[M, M], the models of at least rank r among the q + 1 fastest."""
  size = len(zoo.by_latency)
  fast = jnp.broadcast_to(jnp.arange(1, size + 1, dtype=jnp.int32), (size, size))
  return feasible.count(zoo, fast, fast.T - 1)


@jax.jit
def _laws(
  transform: Any, zoo: feasible.FeasibleIndex, low: Any, high: Any, middle: Any
) -> tuple[jax.Array, ...]:
  """f32[B, M] each: P(accurate enough) and P(fast enough) at the middles and bounds."""
  a = (low.min_accuracy[:, None], high.min_accuracy[:, None])
  b = (low.max_latency_ms[:, None], high.max_latency_ms[:, None])
  return (
    transform.accurate(middle.min_accuracy[:, None], zoo.accuracy),
    transform.fast(middle.max_latency_ms[:, None], zoo.latency_ms),
    *transform.accurate_between(*a, zoo.accuracy),
    *transform.fast_between(*b, zoo.latency_ms),
  )


_BOXES_AT_ONCE = 1024
