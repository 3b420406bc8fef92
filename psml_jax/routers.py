"""Routers: from a spec to one model of its feasible set (paper, section 2)."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from psml_jax import _validate, feasible
from psml_jax.core import Route, Router, Spec, ZooProfile

INFEASIBLE = ('refuse', 'best_effort')


@dataclasses.dataclass(frozen=True, eq=False)
class ZooRouter:
  """A `Router` that knows which specs of its zoo are all alike.

  Attributes:
    choose: `(key, spec) -> Route`, compiled.
    loosest: the zoo's lowest accuracy and highest latency, f32[] each: a spec that
      asks for less than either has the same feasible set as one that asks for it.
  """

  choose: Router
  loosest: Spec

  def __call__(self, key: jax.Array, spec: Spec) -> Route:
    _validate.key('key', key)
    _validate.no_nan('min_accuracy', spec.min_accuracy)
    _validate.no_nan('max_latency_ms', spec.max_latency_ms)
    return self.choose(key, spec)


Chooser = Callable[[jax.Array, Spec, jax.Array, jax.Array], jax.Array]


def uniform(profile: ZooProfile, *, infeasible: str = 'refuse') -> ZooRouter:
  """Draws uniformly from the feasible set: the paper's router.

  Args:
    profile: the zoo; concrete values.
    infeasible: 'refuse' answers an empty feasible set with model -1;
      'best_effort' with the most accurate of the models that are fast enough, or
      with the fastest model where none is.

  Returns:
    `(key, spec) -> Route`. The key is consumed; query i of a batch depends on the
    key and i alone, so a longer batch starts with the same routes. NaN in a
    traced spec gives an empty feasible set.

  Raises:
    ValueError: an unknown value of `infeasible`; from the router, a concrete
      spec that holds NaN, or a key that is not typed.

  >>> zoo = ZooProfile([0.7, 0.9], [1.0, 5.0], ('small', 'large'))
  >>> route = uniform(zoo)
  >>> route(jax.random.key(0), Spec.of([0.8, 0.95], 9.0)).model.tolist()
  [1, -1]
  """
  zoo = feasible.index(profile)

  def choose(
    key: jax.Array, spec: Spec, fast: jax.Array, num_feasible: jax.Array
  ) -> jax.Array:
    del spec
    share = jax.random.uniform(key, fast.shape, jnp.float32)
    k = jnp.floor(share * num_feasible.astype(jnp.float32)).astype(jnp.int32)
    return feasible.select(zoo, fast, jnp.clip(k, 0, jnp.maximum(num_feasible - 1, 0)))

  return _router(zoo, choose, infeasible)


def most_accurate(profile: ZooProfile, *, infeasible: str = 'refuse') -> ZooRouter:
  """Takes the most accurate feasible model.

  Ties go to the faster model, then to the earlier one of the zoo.

  Args:
    profile: the zoo; concrete values.
    infeasible: as in `uniform`.

  Returns:
    `(key, spec) -> Route`; the key is not used.

  Raises:
    ValueError: as in `uniform`.
  """
  zoo = feasible.index(profile)

  def choose(
    key: jax.Array, spec: Spec, fast: jax.Array, num_feasible: jax.Array
  ) -> jax.Array:
    del key, spec, num_feasible
    return feasible.select(zoo, fast, jnp.zeros_like(fast))

  return _router(zoo, choose, infeasible)


def fastest(profile: ZooProfile, *, infeasible: str = 'refuse') -> ZooRouter:
  """Takes the feasible model of lowest latency.

  Ties go to the more accurate model, then to the earlier one of the zoo.

  Args:
    profile: the zoo; concrete values.
    infeasible: as in `uniform`.

  Returns:
    `(key, spec) -> Route`; the key is not used.

  Raises:
    ValueError: as in `uniform`.
  """
  zoo = feasible.index(profile)
  fastest_from_rank = jnp.asarray(_fastest_from_rank(profile, zoo), jnp.int32)

  def choose(
    key: jax.Array, spec: Spec, fast: jax.Array, num_feasible: jax.Array
  ) -> jax.Array:
    del key, fast, num_feasible
    _, rank = feasible.bounds(zoo, spec)
    return fastest_from_rank[jnp.minimum(rank, len(profile) - 1)]

  return _router(zoo, choose, infeasible)


def explicit(model: int | jax.Array) -> Router:
  """Serves one model whatever the spec: a server that lets its clients name it.

  Extraction from it is the paper's upper bound for the attacks.

  Args:
    model: i32[], index of the model; may be traced.

  Returns:
    `(key, spec) -> Route`; the key is not used.

  >>> explicit(1)(jax.random.key(0), Spec.of([0.9, 1.0], 1.0)).model.tolist()
  [1, 1]
  """

  def route(key: jax.Array, spec: Spec) -> Route:
    del key
    model_everywhere = jnp.full(spec.min_accuracy.shape, model, jnp.int32)
    return Route(model_everywhere, jnp.ones_like(model_everywhere))

  return route


def _fastest_from_rank(profile: ZooProfile, zoo: feasible.FeasibleIndex) -> np.ndarray:
  """i64[M]: the fastest of the models that have at least each accuracy rank."""
  by_accuracy = np.asarray(zoo.by_accuracy)[: len(profile)]
  accuracy, latency = np.asarray(profile.accuracy), np.asarray(profile.latency_ms)
  place = np.empty(len(profile), np.int64)
  place[np.lexsort((np.arange(len(profile)), -accuracy, latency))] = np.arange(
    len(profile)
  )
  first = np.minimum.accumulate(place[by_accuracy][::-1])[::-1]
  return np.argsort(place)[first]


def _router(zoo: feasible.FeasibleIndex, choose: Chooser, infeasible: str) -> ZooRouter:
  _validate.one_of('infeasible', infeasible, INFEASIBLE)
  fastest_model = feasible.select(
    zoo,
    jnp.sum(zoo.latency_ms == zoo.latency_ms[0], dtype=jnp.int32),
    jnp.int32(0),
  )

  @jax.jit
  def traced(key: jax.Array, spec: Spec) -> Route:
    spec = Spec.of(spec.min_accuracy, spec.max_latency_ms)
    fast, rank = feasible.bounds(zoo, spec)
    num_feasible = feasible.count(zoo, fast, rank)
    if infeasible == 'refuse':
      fallback = jnp.full_like(fast, -1)
    else:
      best = feasible.select(zoo, fast, jnp.zeros_like(fast))
      fallback = jnp.where(fast > 0, best, fastest_model)
    chosen = choose(key, spec, fast, num_feasible)
    return Route(jnp.where(num_feasible > 0, chosen, fallback), num_feasible)

  return ZooRouter(traced, Spec(zoo.accuracy[0], zoo.latency_ms[-1]))
