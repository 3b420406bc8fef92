"""The spec with which a client gets most answers of one model, with a certificate."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from psml_jax import _validate, pareto
from psml_jax.core import Router, Spec, ZooProfile
from psml_jax.leakage import kernels
from psml_jax.leakage.boxes import Search, branch_and_bound, cuts, padded_size
from psml_jax.leakage.noisy import NoisySearch


class Worst(NamedTuple):
  """The best-informed attacker's spec for each of V victims.

  Attributes:
    victims: i64[V], indices into the zoo.
    rate: f64[V], victim answers a billed query at `spec`.
    ceiling: f64[V], what no spec exceeds; the rate itself where it is exact.
    purity: f64[V], the victim's share of what is answered there.
    spec: of shape [V].
    certified: whether `ceiling` is a proven one; else only specs of a grid were looked
      at, and it is infinite.
  """

  victims: np.ndarray
  rate: np.ndarray
  ceiling: np.ndarray
  purity: np.ndarray
  spec: Spec
  certified: bool

  @property
  def most(self) -> int:
    """The place of the worst victim among `victims`."""
    return int(np.argmax(self.rate))


def worst(
  profile: ZooProfile,
  router: Router,
  *,
  victims: Sequence[int] | None = None,
  gap: float = 1e-3,
) -> Worst:
  """The highest rate of each victim over all specs, and a spec that has it.

  A router that depends on the feasible set alone has as many laws as there are sets,
  and all are looked at. Behind noise, and for selection mechanisms, boxes of specs are
  split as long as their ceiling is more than `gap` above the best rate found:
  distribution functions at a box's ends bound what any spec inside can get
  (docs/theory.md, section 3).

  Args:
    profile: the zoo, M models; concrete values.
    router: one with a law (see `leakage.kernel`).
    victims: indices into the zoo; one model for each corner of the frontier unless
      given. Any model may be asked for.
    gap: how far the ceiling may lie above the rate.

  Returns:
    The rates. Specs are looked for within the zoo's range, outside of which no spec
    does better (docs/theory.md, section 3).

  Raises:
    ValueError: a victim that the zoo does not have, a gap that is not > 0, or a router
      without a law.

  >>> from psml_jax import defenses
  >>> zoo = ZooProfile([0.7, 0.9], [1.0, 5.0], ('small', 'large'))
  >>> found = worst(zoo, defenses.defended(zoo, 'laplace', 0.1))
  >>> found.rate.round(2).tolist(), bool((found.ceiling - found.rate <= 1e-3).all())
  ([0.82, 0.82], True)
  """
  _validate.positive('gap', gap)
  chosen = np.asarray(pareto.corners(profile) if victims is None else victims, int)
  outside = (chosen < 0) | (chosen >= len(profile))
  _validate.reject('victims', chosen, outside, f'in [0, {len(profile) - 1}]')
  if getattr(router, 'by_set', False):
    rate, spec = _over_sets(profile, router, chosen)
    ceiling, certified = rate, True
  else:
    search = _search(profile, router, chosen)
    found = [branch_and_bound(search, i, gap) for i in range(len(chosen))]
    rate = np.array([one.rate for one in found])
    ceiling = np.array([one.ceiling for one in found])
    spec = Spec.of(
      np.array([one.accuracy for one in found]),
      np.array([one.latency for one in found]),
    )
    certified = search.certified
  laws = kernels.kernel(router, spec)
  purity = jax.vmap(kernels.purity)(laws, jnp.asarray(chosen))
  return Worst(chosen, rate, ceiling, np.asarray(purity, float), spec, certified)


class Frontier(NamedTuple):
  """What a client may choose between for one victim, from pure to many; K specs.

  Attributes:
    rate: f64[K], ascending.
    purity: f64[K], descending.
    spec: of shape [K].
  """

  rate: np.ndarray
  purity: np.ndarray
  spec: Spec


def frontier(profile: ZooProfile, router: Router, victim: int) -> Frontier:
  """The specs that no other beats in both rate and purity, for one victim.

  Args:
    profile: the zoo; concrete values.
    router: one with a law.
    victim: index into the zoo.

  Returns:
    The frontier over 65 x 65 specs, spaced geometrically around the victim's numbers.

  Raises:
    ValueError: as in `worst`.

  >>> from psml_jax import defenses
  >>> zoo = ZooProfile([0.7, 0.9], [1.0, 5.0], ('small', 'large'))
  >>> found = frontier(zoo, defenses.defended(zoo, 'laplace', 0.1), 1)
  >>> bool(found.rate[-1] > 0.8 > found.rate[0])
  True
  >>> bool(found.purity[0] > found.purity[-1])
  True
  """
  if not 0 <= victim < len(profile):
    raise ValueError(f'victim is {victim}; it must be in [0, {len(profile) - 1}]')
  accuracy, latency = (
    cuts(np.asarray(field, float), float(field[victim]), halvings=31)
    for field in (profile.accuracy, profile.latency_ms)
  )
  grid = [axis.ravel() for axis in np.meshgrid(accuracy, latency)]
  spec = Spec.of(*grid)
  laws = kernels.kernel(router, spec)
  rate = np.asarray(laws[..., victim], float)
  purity = np.asarray(kernels.purity(laws, jnp.int32(victim)), float)
  order = np.lexsort((-purity, -rate))
  best = np.maximum.accumulate(purity[order])
  kept = order[np.append(True, purity[order][1:] > best[:-1])][::-1]
  return Frontier(
    rate[kept], purity[kept], jax.tree.map(lambda field: field[kept], spec)
  )


def _search(profile: ZooProfile, router: Any, chosen: np.ndarray) -> Search:
  behind, transform = getattr(router, 'router', None), getattr(router, 'transform', 0)
  if hasattr(transform, 'accurate_between') and NoisySearch.knows(behind):
    return NoisySearch(profile, behind, transform, chosen)
  return _KernelSearch(profile, router, chosen)


class _KernelSearch:
  """Of a router with a `ceiling`, or with a kernel alone: then nothing is proven."""

  def __init__(self, profile: ZooProfile, router: Any, chosen: np.ndarray) -> None:
    self._profile, self._router, self._chosen = profile, router, chosen
    self.certified = hasattr(router, 'ceiling')

  def start(self, place: int) -> tuple[np.ndarray, np.ndarray]:
    victim = self._chosen[place]
    accuracy, latency = (
      cuts(np.asarray(field, float), float(field[victim]), more=_some(field))
      for field in (self._profile.accuracy, self._profile.latency_ms)
    )
    return accuracy, latency

  def evaluate(
    self, place: int, accuracy: np.ndarray, latency: np.ndarray
  ) -> tuple[np.ndarray, np.ndarray]:
    victim, shape = int(self._chosen[place]), (accuracy.shape[1], latency.shape[1])
    low, high, middle = (
      _padded(np.meshgrid(*axes, indexing='ij'))
      for axes in (
        (accuracy[0], latency[0]),
        (accuracy[1], latency[1]),
        (accuracy.mean(0), latency.mean(0)),
      )
    )

    def boxes(values: jax.Array) -> np.ndarray:
      return np.asarray(values, float)[: shape[0] * shape[1]].reshape(shape)

    rate = boxes(_column(self._router, middle, victim))
    if not self.certified:
      return rate, np.full(shape, np.inf)
    return rate, np.maximum(boxes(_ceiling(self._router, low, high, victim)), rate)


def _some(field: jax.Array) -> np.ndarray:
  """The models' values, or 64 of them, as further cuts: scores have kinks there."""
  values = np.unique(np.asarray(field, float))
  return values[np.unique(np.linspace(0, len(values) - 1, 64).astype(int))]


def _padded(grid: Sequence[np.ndarray]) -> Spec:
  """A grid as a list of specs, the last one repeated up to one of few sizes."""
  size = padded_size(grid[0].size, 1024)
  return Spec.of(*(np.pad(a.ravel(), (0, size - a.size), mode='edge') for a in grid))


@jax.jit
def _column(router: Any, spec: Spec, victim: jax.Array) -> jax.Array:
  return jnp.asarray(router.kernel(spec)[..., victim])


@jax.jit
def _ceiling(router: Any, low: Spec, high: Spec, victim: jax.Array) -> jax.Array:
  return jnp.asarray(router.ceiling(low, high)[..., victim])


def _over_sets(
  profile: ZooProfile, router: Router, chosen: np.ndarray
) -> tuple[np.ndarray, Spec]:
  """The exact rates f64[V], and their specs, of a router that depends on sets alone."""
  grid = np.meshgrid(np.unique(profile.accuracy), np.unique(profile.latency_ms))
  spec = Spec.of(*(axis.ravel() for axis in grid))
  count = spec.min_accuracy.size
  size = min(count, max(1, _NUMBERS_AT_ONCE // len(profile)))
  more = -count % size
  chunks = jax.tree.map(
    lambda field: jnp.pad(field, (0, more), mode='edge').reshape(-1, size), spec
  )
  rate, place = _most(router, chunks, jnp.asarray(chosen))
  best = jax.tree.map(lambda field: field.ravel()[place], chunks)
  return np.asarray(rate, float), best


@jax.jit
def _most(router: Any, chunks: Spec, chosen: jax.Array) -> tuple[jax.Array, jax.Array]:
  def one(chunk: Spec) -> tuple[jax.Array, jax.Array]:
    laws = router.kernel(chunk)[:, chosen]
    return jnp.max(laws, 0), jnp.argmax(laws, 0)

  rates, places = jax.lax.map(one, chunks)
  which = jnp.argmax(rates, 0)
  each = jnp.arange(len(chosen))
  size = chunks.min_accuracy.shape[1]
  return rates[which, each], which * size + places[which, each]


_NUMBERS_AT_ONCE = 1 << 22
