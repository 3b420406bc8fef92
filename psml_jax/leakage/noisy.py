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

from psml_jax import feasible, pareto, routers
from psml_jax.core import ZooProfile
from psml_jax.leakage import cells
from psml_jax.leakage.boxes import cuts, padded_size, strict

_FARTHEST = 13  # 64 ranges is the largest scale of the registry, 88 of it are e^-88


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
    self._victims, self._profile = victims, profile
    self._ranks, self._places = (np.asarray(x)[victims] for x in feasible.places(zoo))
    self._zoo = zoo
    counts = np.asarray(cells.counts(zoo), np.float32)
    self._share = np.divide(1, counts, out=np.zeros_like(counts), where=counts > 0)
    by_place = np.asarray(feasible.places(zoo)[0])[np.asarray(zoo.by_latency)]
    self._best_so_far = np.maximum.accumulate(by_place)

  @staticmethod
  def knows(router: Any) -> bool:
    """Whether a router is a uniform one of the library."""
    return isinstance(router, routers.ZooRouter) and router.is_uniform

  def start(self, place: int) -> tuple[np.ndarray, np.ndarray]:
    victim = self._victims[place]
    jumps = self._transform.cuts()
    more = (None, None) if jumps is None else (jumps.min_accuracy, jumps.max_latency_ms)
    accuracy, latency = (
      cuts(
        values,
        float(values[victim]),
        more=None if jump is None else np.asarray(jump, float),
      )
      for values, jump in zip((self._accuracy, self._latency), more, strict=True)
    )
    if self._best_effort:
      return strict(accuracy, latency, _FARTHEST)
    return accuracy, latency

  def ceilings(self) -> np.ndarray:
    """f64[M], 1 for the models of the frontier and 0 for others.

    Whatever serves a dominated model serves the one that dominates it as often.
    """
    above = np.zeros(len(self._accuracy))
    above[pareto.corners(self._profile)] = 1.0
    return above

  def evaluate(
    self, place: int, accuracy: np.ndarray, latency: np.ndarray
  ) -> tuple[np.ndarray, np.ndarray]:
    up, up_low, up_high = self._laws(_accurate, accuracy, self._zoo.accuracy)
    down, down_low, down_high = self._laws(_fast, latency, self._zoo.latency_ms)
    rank, at = self._ranks[place], self._places[place]
    share = self._share[: rank + 1, at:]

    def summed(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
      if len(rows) < len(columns):
        return np.asarray(rows @ share @ columns.T, float)
      return np.asarray(rows @ (share @ columns.T), float)

    zero = np.zeros((len(up), 1), np.float32)
    rows = np.diff(up[:, : rank + 1], axis=1, prepend=zero)
    above = up_high[:, rank, None] - np.hstack([zero, up_low[:, :rank]])
    above = np.minimum.accumulate(np.clip(above, 0.0, 1.0), axis=1)
    most_rows = -np.diff(above, axis=1, append=zero)
    zero = np.zeros((len(down), 1), np.float32)
    columns = -np.diff(down[:, at:], axis=1, append=zero)
    beyond = down_high[:, at, None] - np.hstack([down_low[:, at + 1 :], zero])
    beyond = np.minimum.accumulate(np.clip(beyond, 0.0, 1.0)[:, ::-1], axis=1)[:, ::-1]
    most_columns = np.diff(beyond, axis=1, prepend=zero)
    rate, ceiling = summed(rows, columns), summed(most_rows, most_columns)
    if self._best_effort:
      rate = rate + self._instead(rank, at, up, down, down)
      ceiling = ceiling + self._instead(rank, at, up_low, down_low, down_high)
    return rate, np.clip(ceiling, rate, 1.0)

  def _laws(self, law: Any, axis: np.ndarray, values: jax.Array) -> list[np.ndarray]:
    """f32[K, M] each: at the middle of each interval, the least and the most in it."""
    count = axis.shape[1]
    size = padded_size(count, 256)
    low, high = jnp.asarray(np.pad(axis, ((0, 0), (0, size - count)), mode='edge'))
    return [np.asarray(one)[:count] for one in law(self._transform, values, low, high)]

  def _instead(
    self,
    rank: int,
    at: int,
    up_low: np.ndarray,
    down_low: np.ndarray,
    down_high: np.ndarray,
  ) -> np.ndarray:
    """f[A, L], the most that a model answers of specs that no model meets.

    It does where it is the most accurate of those that are fast enough, and the fastest
    model where none is. Exact where low is high.
    """
    answers = np.zeros((len(up_low), len(down_low)))
    if self._best_so_far[at] == rank:
      end = int(np.searchsorted(self._best_so_far, rank, side='right'))
      slower = down_low[:, end] if end < len(self._latency) else 0.0
      quick = np.clip(down_high[:, at] - slower, 0.0, 1.0)
      answers = np.outer(1 - up_low[:, rank], quick)
    first = np.searchsorted(np.sort(self._latency), self._latency.min(), side='right')
    if at < first and self._best_so_far[first - 1] == rank:
      answers = answers + (1 - down_low[:, 0])
    return answers


@jax.jit
def _accurate(
  transform: Any, accuracy: jax.Array, low: jax.Array, high: jax.Array
) -> tuple[jax.Array, ...]:
  low, high, accuracy = low[:, None], high[:, None], accuracy[None]
  middle = transform.accurate((low + high) / 2, accuracy)
  return (middle, *transform.accurate_between(low, high, accuracy))


@jax.jit
def _fast(
  transform: Any, latency_ms: jax.Array, low: jax.Array, high: jax.Array
) -> tuple[jax.Array, ...]:
  low, high, latency_ms = low[:, None], high[:, None], latency_ms[None]
  middle = transform.fast((low + high) / 2, latency_ms)
  return (middle, *transform.fast_between(low, high, latency_ms))
