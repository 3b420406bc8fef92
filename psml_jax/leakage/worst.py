"""The spec with which a client gets most answers of one model, with a certificate."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from psml_jax import _validate, pareto, routers
from psml_jax.core import Router, Spec, ZooProfile
from psml_jax.defenses import identity
from psml_jax.leakage import kernels
from psml_jax.leakage.boxes import Search, branch_and_bound, cuts, padded_size, strict
from psml_jax.leakage.noisy import NoisySearch


class Worst(NamedTuple):
  """The best-informed attacker's spec for each of V victims.

  Attributes:
    victims: i64[V], indices into the zoo.
    rate: f64[V], victim answers a billed query at `spec`.
    ceiling: f64[V], what no spec exceeds; the rate itself where it is exact.
    purity: f64[V], the victim's share of what is answered there.
    spec: of shape [V].
    certified: whether `ceiling` is near the rate by proof; else only specs of a grid
      were looked at, and it is 1.
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

  A monotone router (`ZooRouter.monotone`), one that selects by score and one that falls
  back on any model are asked for each victim's own numbers, and for what no model
  meets. Behind noise, and for other routers with a `ceiling`, boxes
  of specs are split as long as their ceiling is more than `gap` above the best rate
  found: distribution functions at a box's ends bound what any spec inside can get
  (docs/theory.md, section 3).

  Args:
    profile: the zoo, M models; concrete values.
    router: one with a law (see `leakage.kernel`).
    victims: indices into the zoo; one model for each corner of the frontier unless
      given. Any model may be asked for.
    gap: how far the ceiling may lie above the rate.

  Returns:
    The rates. Specs are looked for within the zoo's range, and beyond its strict ends
    where some do better there: of routers that answer what no model meets
    (docs/theory.md, section 3).

  Raises:
    ValueError: a victim that the zoo does not have, a gap that is not > 0, or a router
      without a law.

  >>> from psml_jax import defenses
  >>> zoo = ZooProfile([0.7, 0.9], [1.0, 5.0], ('small', 'large'))
  >>> found = worst(zoo, defenses.defended(zoo, 'laplace', 0.1))
  >>> found.rate.round(2).tolist(), (found.ceiling - found.rate).round(4).tolist()
  ([0.5, 0.5], [0.001, 0.001])
  """
  _validate.positive('gap', gap)
  chosen = np.asarray(pareto.corners(profile) if victims is None else victims, int)
  outside = (chosen < 0) | (chosen >= len(profile))
  _validate.reject('victims', chosen, outside, f'in [0, {len(profile) - 1}]')
  router = _bare(router)
  if _own_is_best(router):
    own = _own(profile, chosen)
    every = kernels.kernel(router, own)
    rates = np.asarray(every[:, np.arange(len(chosen)), chosen], float)
    best = rates.argmax(0), np.arange(len(chosen))
    spec = jax.tree.map(lambda field: field[best], own)
    rate, laws = rates[best], every[best]
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
    certified, laws = search.certified, kernels.kernel(router, spec)
  purity = jax.vmap(kernels.purity)(laws, jnp.asarray(chosen))
  return Worst(chosen, rate, ceiling, np.asarray(purity, float), spec, certified)


def worst_of_all(profile: ZooProfile, router: Router, *, gap: float = 1e-3) -> Worst:
  """The worst victim alone: as `worst` of every model, and no more work than needed.

  Args:
    profile: the zoo; concrete values.
    router: one with a law.
    gap: as in `worst`.

  Returns:
    The rates of one victim, V = 1; its ceiling holds for every model of the zoo.

  Raises:
    ValueError: as in `worst`.

  >>> from psml_jax import defenses
  >>> zoo = ZooProfile([0.7, 0.9], [1.0, 5.0], ('small', 'large'))
  >>> found = worst_of_all(zoo, defenses.defended(zoo, 'capped', 0.25))
  >>> found.rate.tolist(), found.ceiling.tolist()
  ([0.25], [0.25])
  """
  _validate.positive('gap', gap)
  everyone = np.arange(len(profile))
  router = _bare(router)
  if _own_is_best(router):
    found = worst(profile, router, victims=everyone.tolist())
    place = np.array([found.most])
    return Worst(
      found.victims[place],
      found.rate[place],
      found.ceiling[place],
      found.purity[place],
      jax.tree.map(lambda field: field[place], found.spec),
      found.certified,
    )
  search = _search(profile, router, everyone)
  ceilings = search.ceilings()
  first, *others = (int(victim) for victim in np.argsort(-ceilings))
  chosen, best = first, branch_and_bound(search, first, gap)
  top = best.ceiling
  for victim in others:
    if ceilings[victim] <= best.rate + gap:
      break
    one = branch_and_bound(search, victim, gap, floor=best.rate)
    top = max(top, one.ceiling)
    if one.rate > best.rate:
      chosen, best = victim, one
  spec = Spec.of(np.array([best.accuracy]), np.array([best.latency]))
  purity = kernels.purity(kernels.kernel(router, spec), jnp.int32(chosen))
  return Worst(
    np.array([chosen]),
    np.array([best.rate]),
    np.array([min(1.0, max(top, best.rate + gap)) if search.certified else 1.0]),
    np.asarray(purity, float),
    spec,
    search.certified,
  )


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
    The frontier over 66 x 66 specs, spaced geometrically around the victim's numbers,
    the last of each field infinitely strict.

  Raises:
    ValueError: as in `worst`.

  >>> from psml_jax import defenses
  >>> zoo = ZooProfile([0.7, 0.9], [1.0, 5.0], ('small', 'large'))
  >>> found = frontier(zoo, defenses.defended(zoo, 'laplace', 0.1), 1)
  >>> bool(found.rate[-1] > 0.4 > found.rate[0])
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
  axes = np.append(accuracy, np.inf), np.append(-np.inf, latency)
  grid = [axis.ravel() for axis in np.meshgrid(*axes)]
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


def _bare(router: Any) -> Any:
  """The router as a pytree, without a transform in front that changes nothing."""
  nothing = isinstance(getattr(router, 'transform', None), type(identity()))
  bare, spec = routers.as_pytree(router.router if nothing else router), Spec.of(0, 0)
  if jax.eval_shape(kernels.law_of, bare, spec) is None:
    raise ValueError(
      f'router is {router!r}; it must be one whose kernel is known, for rates are '
      'looked for by it'
    )
  return bare


def _own_is_best(router: Any) -> bool:
  """Whether no spec gives more of a model than one of `_own`."""
  return any(getattr(router, name, False) for name in ('monotone', 'own_is_best'))


def _own(profile: ZooProfile, chosen: np.ndarray) -> Spec:
  """Each victim's own numbers, and specs that no model meets: of shape [3, V].

  The latter are the best ones where such a spec is answered all the same.
  """
  accuracy, latency = profile.accuracy[chosen], profile.latency_ms[chosen]
  endless = jnp.full_like(accuracy, jnp.inf)
  return Spec(
    jnp.stack([accuracy, endless, endless]), jnp.stack([latency, latency, -endless])
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
    return strict(accuracy, latency, 0)

  def ceilings(self) -> np.ndarray:
    """f64[M], what no spec of a coarse grid's boxes exceeds; or rates on that grid."""
    some = _some(self._profile.accuracy), _some(self._profile.latency_ms)
    axes = strict(*some, 0)
    low, high = (
      Spec.of(*(axis.ravel() for axis in np.meshgrid(*ends, indexing='ij')))
      for ends in (
        [a[:-1] if len(a) > 1 else a for a in axes],
        [a[1:] if len(a) > 1 else a for a in axes],
      )
    )
    if self.certified:
      return np.asarray(_most(self._router, low, high), float)
    return np.asarray(jnp.max(kernels.kernel(self._router, high)[..., :-1], 0), float)

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
def _most(router: Any, low: Spec, high: Spec) -> jax.Array:
  """f32[M], the highest ceiling of each model over boxes."""
  above = jax.lax.map(lambda box: router.ceiling(*box)[:-1], (low, high), batch_size=64)
  return jnp.max(above, 0)


@jax.jit
def _ceiling(router: Any, low: Spec, high: Spec, victim: jax.Array) -> jax.Array:
  return jnp.asarray(router.ceiling(low, high)[..., victim])
