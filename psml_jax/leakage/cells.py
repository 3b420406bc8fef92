"""Goodput behind noise of known laws, from sums over cells shared by all noises."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from psml_jax import feasible, routers
from psml_jax.core import Spec, ZooProfile


class Kept:
  """What clients of fixed specs keep, behind any noise in front of a uniform router.

  A noised spec of cell (r, q) serves a client of cell (i, j) with the share
  `n(max(r, i), min(q, j)) / n(r, q)` of the models that it meets. The shares depend on
  the zoo alone, the noise on distribution functions at the models' numbers, so that a
  goodput is a product of matrices.

  Args:
    profile: the zoo, M models; concrete values. Memory grows with M^2 for each of the
      client's cells: it is for zoos of up to a hundred models.
    router: the uniform router; refuses or does its best.
    spec: of shape [Q].
  """

  def __init__(self, profile: ZooProfile, router: Any, spec: Spec) -> None:
    self._zoo = router.zoo
    found = jax.jit(feasible.find)(self._zoo, _within(self._zoo, spec))
    self._spec, size = _within(self._zoo, spec), len(profile)
    cell = np.asarray(found.rank, int) * (size + 1) + np.asarray(found.fast, int)
    cells, self._cell = np.unique(cell, return_inverse=True)
    self._order = np.argsort(self._cell, kind='stable')
    self._ends = np.searchsorted(self._cell[self._order], np.arange(len(cells) + 1))
    sizes = np.zeros((size + 1, size + 1))
    sizes[:size, 1:] = np.asarray(counts(self._zoo), float)
    share = np.divide(1.0, sizes, out=np.zeros_like(sizes), where=sizes > 0)
    ranks, places = (np.asarray(x) for x in feasible.places(self._zoo))
    instead = np.full(size + 1, -1)
    if router.infeasible == 'best_effort':
      ends = jnp.append(-jnp.inf, self._zoo.latency_ms)
      nothing = Spec(jnp.full(size + 1, jnp.inf), ends)
      instead = np.asarray(router(jax.random.key(0), nothing).model)
    each = np.arange(size + 1)
    self._tables = []
    for i, j in zip(*divmod(cells, size + 1), strict=True):
      table = sizes[np.maximum(each, i)[:, None], np.minimum(each, j)] * share
      meets = (instead >= 0) & (ranks[instead] >= i) & (places[instead] < j)
      self._tables.append((table + (sizes == 0) * meets).astype(np.float32))

  @staticmethod
  def knows(router: Any) -> bool:
    """Whether a router is a uniform one behind noise of known laws."""
    behind, transform = getattr(router, 'router', None), getattr(router, 'transform', 0)
    uniform = isinstance(behind, routers.ZooRouter) and behind.is_uniform
    return uniform and hasattr(transform, 'accurate_between')

  def __call__(self, router: Any) -> np.ndarray:
    """f64[Q], the probability that each client gets what it asks for."""
    up, down = _laws(router.transform, self._zoo, self._spec)
    rank = np.diff(np.asarray(up), axis=1, prepend=0, append=1)
    fast = -np.diff(np.asarray(down), axis=1, prepend=1, append=0)
    kept = np.empty(len(rank))
    for table, start, end in zip(self._tables, self._ends, self._ends[1:]):
      of = self._order[start:end]
      kept[of] = np.einsum('sp,sp->s', rank[of] @ table, fast[of])
    return kept


def _within(zoo: feasible.FeasibleIndex, spec: Spec) -> Spec:
  return Spec(
    jnp.maximum(spec.min_accuracy, zoo.accuracy[0]),
    jnp.minimum(spec.max_latency_ms, zoo.latency_ms[-1]),
  )


@jax.jit
def counts(zoo: feasible.FeasibleIndex) -> jax.Array:
  """i32[M, M], the models of at least rank r among the q + 1 fastest."""
  size = len(zoo.by_latency)
  fast = jnp.broadcast_to(jnp.arange(1, size + 1, dtype=jnp.int32), (size, size))
  return feasible.count(zoo, fast, fast.T - 1)


@jax.jit
def _laws(
  transform: Any, zoo: feasible.FeasibleIndex, spec: Spec
) -> tuple[jax.Array, jax.Array]:
  return (
    transform.accurate(spec.min_accuracy[:, None], zoo.accuracy[None]),
    transform.fast(spec.max_latency_ms[:, None], zoo.latency_ms[None]),
  )
