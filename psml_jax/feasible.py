"""Feasible sets: how many models meet a spec, and which is the k-th best of them.

A spec's feasible set is the models among the `p` fastest whose accuracy rank is
at least `r`. The index is a wavelet tree over the accuracy ranks in order of
latency: counting and selecting both walk its `log2(M)` levels, one table look-up
a level, so that a batch of Q specs needs O(Q) memory at any size of the zoo.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from psml_jax import struct
from psml_jax.core import Spec, ZooProfile

_SMALL_ZOO = 64  # below, comparing with every model is faster than a binary search


@struct.dataclass
class FeasibleIndex:
  """A zoo sorted for feasibility queries; H levels with 2^H > M.

  Attributes:
    accuracy: f32[M], ascending.
    latency_ms: f32[M], ascending.
    low_ranks: i32[H, 2^H]; in each level, the models stand in blocks that share
      the rank bits above it, by latency inside a block. Entry i: how many of the
      block's models up to i, itself included, have a 0 as this level's bit.
    by_accuracy: i32[2^H], the model of each accuracy rank (ranks from M on are
      padding).
    by_latency: i32[M], the models from the fastest to the slowest.
    fastest_from_rank: i32[M], the fastest of the models that have at least each
      accuracy rank; ties go to the more accurate, then to the earlier one.
  """

  accuracy: jax.Array
  latency_ms: jax.Array
  low_ranks: jax.Array
  by_accuracy: jax.Array
  by_latency: jax.Array
  fastest_from_rank: jax.Array


class Found(NamedTuple):
  """A batch of feasible sets, i32[...] each.

  Attributes:
    fast: how many models are fast enough.
    rank: the lowest accuracy rank that is accurate enough.
    num_feasible: how many models are both.
  """

  fast: jax.Array
  rank: jax.Array
  num_feasible: jax.Array


def index(profile: ZooProfile) -> FeasibleIndex:
  """Sorts a zoo for feasibility queries.

  Args:
    profile: the zoo, M models; concrete values.

  Returns:
    The index, O(M log M) memory. Equally accurate models rank by latency, faster
    ones higher, then by zoo order, earlier ones higher.
  """
  accuracy = np.asarray(profile.accuracy)
  latency = np.asarray(profile.latency_ms)
  num_models = len(accuracy)
  levels = num_models.bit_length()
  width = 1 << levels
  position = np.arange(num_models)
  by_accuracy = np.lexsort((-position, -latency, accuracy))
  rank = np.empty(num_models, np.int64)
  rank[by_accuracy] = position
  by_latency = np.argsort(latency, kind='stable')
  ranks = np.concatenate([rank[by_latency], np.arange(num_models, width)])
  tables = []
  for shift in reversed(range(levels)):
    blocks = 1 - ((ranks >> shift) & 1).reshape(-1, 2 << shift)
    tables.append(np.cumsum(blocks, axis=1).reshape(-1))
    ranks = ranks[np.argsort(ranks >> shift, kind='stable')]
  padded = np.zeros(width, np.int32)
  padded[:num_models] = by_accuracy
  return FeasibleIndex(
    accuracy=jnp.asarray(np.sort(accuracy)),
    latency_ms=jnp.asarray(np.sort(latency)),
    low_ranks=jnp.asarray(np.stack(tables), jnp.int32),
    by_accuracy=jnp.asarray(padded),
    by_latency=jnp.asarray(by_latency, jnp.int32),
    fastest_from_rank=jnp.asarray(
      _fastest_from_rank(accuracy, latency, by_accuracy), jnp.int32
    ),
  )


def find(zoo: FeasibleIndex, spec: Spec) -> Found:
  """The feasible sets of a batch of specs.

  Args:
    zoo: the index.
    spec: any leading axes, each field f32[...]; NaN in a field leaves no model.
  """
  fast, rank = bounds(zoo, spec)
  return Found(fast, rank, count(zoo, fast, rank))


def places(zoo: FeasibleIndex) -> tuple[jax.Array, jax.Array]:
  """Where each model stands: i32[M] its accuracy rank, i32[M] its place by latency.

  A model is in the feasible set of `fast` and `rank` where its rank is at least `rank`
  and its place below `fast`.
  """
  order = jnp.arange(len(zoo.by_latency), dtype=jnp.int32)
  empty = jnp.zeros_like(order)
  return (
    empty.at[zoo.by_accuracy[: len(order)]].set(order),
    empty.at[zoo.by_latency].set(order),
  )


def members(zoo: FeasibleIndex, found: Found) -> jax.Array:
  """The models of feasible sets, bool[..., M]."""
  models = (1,) * found.fast.ndim + (-1,)
  rank, place = (of.reshape(models) for of in places(zoo))
  return (rank >= found.rank[..., None]) & (place < found.fast[..., None])


def bounds(zoo: FeasibleIndex, spec: Spec) -> tuple[jax.Array, jax.Array]:
  """The two numbers that fix a spec's feasible set.

  Args:
    zoo: the index.
    spec: any leading axes, each field f32[...].

  Returns:
    i32[...] how many models are fast enough, i32[...] the lowest accuracy rank
    that is accurate enough. NaN in a field leaves no model.
  """
  fast = _count_below(zoo.latency_ms, spec.max_latency_ms, or_equal=True)
  rank = _count_below(zoo.accuracy, spec.min_accuracy, or_equal=False)
  unordered = jnp.isnan(spec.max_latency_ms) | jnp.isnan(spec.min_accuracy)
  return jnp.where(unordered, 0, fast), rank


def count(zoo: FeasibleIndex, fast: jax.Array, rank: jax.Array) -> jax.Array:
  """How many of the `fast` fastest models have at least accuracy rank `rank`.

  Args:
    zoo: the index.
    fast: i32[...], in [0, M].
    rank: i32[...], in [0, M].

  Returns:
    i32[...].
  """
  size, start, total = fast, jnp.zeros_like(fast), jnp.zeros_like(fast)
  for level, shift in enumerate(reversed(range(zoo.low_ranks.shape[0]))):
    low = _low_ranks(zoo, level, start, size)
    up = (rank >> shift) & 1 == 1
    total += jnp.where(up, 0, size - low)
    start += jnp.where(up, 1 << shift, 0)
    size = jnp.where(up, size - low, low)
  return total + size


def select(zoo: FeasibleIndex, fast: jax.Array, k: jax.Array) -> jax.Array:
  """The model of k-th highest accuracy rank among the `fast` fastest.

  Args:
    zoo: the index.
    fast: i32[...], in [1, M].
    k: i32[...], in [0, fast); 0 is the most accurate.

  Returns:
    i32[...], indices into the zoo; meaningless where `fast` is 0.
  """
  size, start = fast, jnp.zeros_like(fast)
  for level, shift in enumerate(reversed(range(zoo.low_ranks.shape[0]))):
    low = _low_ranks(zoo, level, start, size)
    up = k < size - low
    k = jnp.where(up, k, k - (size - low))
    start += jnp.where(up, 1 << shift, 0)
    size = jnp.where(up, size - low, low)
  return zoo.by_accuracy[start]


def _low_ranks(
  zoo: FeasibleIndex, level: int, start: jax.Array, size: jax.Array
) -> jax.Array:
  last = jnp.maximum(start + size - 1, 0)
  return jnp.where(size > 0, zoo.low_ranks[level][last], 0)


def _count_below(ordered: jax.Array, value: jax.Array, *, or_equal: bool) -> jax.Array:
  if len(ordered) > _SMALL_ZOO:
    side = 'right' if or_equal else 'left'
    return jnp.searchsorted(ordered, value, side=side).astype(jnp.int32)
  ordered = ordered.reshape((-1,) + (1,) * value.ndim)
  below = ordered <= value[None] if or_equal else ordered < value[None]
  return jnp.sum(below, axis=0, dtype=jnp.int32)


def _fastest_from_rank(
  accuracy: np.ndarray, latency: np.ndarray, by_accuracy: np.ndarray
) -> np.ndarray:
  """i64[M], see `FeasibleIndex.fastest_from_rank`."""
  num_models = len(accuracy)
  place = np.empty(num_models, np.int64)
  order = np.lexsort((np.arange(num_models), -accuracy, latency))
  place[order] = np.arange(num_models)
  return order[np.minimum.accumulate(place[by_accuracy][::-1])[::-1]]
