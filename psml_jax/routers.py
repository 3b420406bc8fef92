"""Routers: from a spec to one model of its feasible set (paper, section 2)."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from psml_jax import _registry, _validate, feasible, struct
from psml_jax.core import Route, Router, Spec, ZooProfile

INFEASIBLE = ('refuse', 'best_effort')


Policy = Callable[[jax.Array, feasible.FeasibleIndex, Spec, feasible.Found], jax.Array]
"""`(key, zoo, spec, found) -> model` of a feasible set that is not empty: i32[...]."""


@struct.dataclass(eq=False)
class ZooRouter:
  """A `Router` of a zoo: routers of zoos of one size share their compiled program.

  Attributes:
    zoo: the zoo, sorted.
    policy: how it chooses (static).
    infeasible: what it does where nothing is feasible (static).
    monotone: the feasible set alone decides, and a model answers no less often where
      fewer others are feasible; so no spec gives more of it than its own numbers.
  """

  zoo: feasible.FeasibleIndex
  policy: Policy = struct.field(pytree_node=False)
  infeasible: str = struct.field(pytree_node=False)

  monotone = True

  @property
  def is_uniform(self) -> bool:
    """Whether it draws alike from the feasible set."""
    return self.policy is _uniform

  @property
  def loosest(self) -> Spec:
    """The zoo's lowest accuracy and highest latency, f32[] each.

    A spec that asks for less than either has the same feasible set as one that asks
    for it.
    """
    return Spec(self.zoo.accuracy[0], self.zoo.latency_ms[-1])

  def __call__(self, key: jax.Array, spec: Spec) -> Route:
    _validate.routing(key, spec.min_accuracy, spec.max_latency_ms)
    return _route(self, key, spec)

  def kernel(self, spec: Spec) -> jax.Array:
    """The probability that each model, or a refusal (the last), answers a spec.

    Args:
      spec: any leading axes, each field f32[...].

    Returns:
      f32[..., M + 1], exact.
    """
    num_models = len(self.zoo.by_latency)
    found = feasible.find(self.zoo, spec)
    alone = _one_hot(_route(self, jax.random.key(0), spec).model, num_models)
    if self.policy is not _uniform:
      return alone
    members = feasible.members(self.zoo, found)
    count = jnp.maximum(found.num_feasible, 1)[..., None]
    shared = jnp.concatenate([members / count, jnp.zeros_like(alone[..., :1])], -1)
    return jnp.where(found.num_feasible[..., None] > 0, shared, alone)

  def mixed(self, rank: jax.Array, fast: jax.Array) -> jax.Array:
    """The kernel of a spec whose fields are drawn independently.

    A feasible set is known by two numbers (see `feasible.Found`), so each field's
    distribution is one over them.

    Args:
      rank: f32[M + 1], the probability of each lowest rank that is accurate enough.
      fast: f32[M + 1], the probability of each number of models that are fast enough.

    Returns:
      f32[M + 1], exact, in O(M^2) time and memory.
    """
    zoo, num_models, fast = self.zoo, len(self.zoo.by_latency), fast[None]
    end = jnp.full(1, jnp.inf)
    cells = Spec(
      jnp.concatenate([zoo.accuracy, end])[:, None] + jnp.zeros_like(fast),
      jnp.concatenate([-end, zoo.latency_ms])[None] + jnp.zeros_like(rank)[:, None],
    )
    route = _route(self, jax.random.key(0), cells)
    mass = rank[:, None] * fast
    shared = (route.num_feasible > 0) & (self.policy is _uniform)
    place = jnp.where(route.model < 0, num_models, route.model)
    alone = jnp.zeros(num_models + 1).at[place].add(jnp.where(shared, 0.0, mass))
    each = jnp.where(shared, mass / jnp.maximum(route.num_feasible, 1), 0.0)
    below = jnp.cumsum(each, axis=0)
    above = jnp.cumsum(below[:, ::-1], axis=1)[:, ::-1]
    accurate, quick = feasible.places(zoo)
    return alone.at[:num_models].add(above[accurate, quick + 1])


@struct.dataclass(eq=False)
class Named:
  """A server that lets its clients name the model; made by `explicit`."""

  model: jax.Array

  def __call__(self, key: jax.Array, spec: Spec) -> Route:
    del key
    shape = jnp.shape(spec.min_accuracy)
    model_everywhere = jnp.full(shape, self.model, jnp.int32)
    return Route(model_everywhere, jnp.ones_like(model_everywhere))


@struct.dataclass(eq=False)
class _Function:
  function: Router = struct.field(pytree_node=False)

  def __call__(self, key: jax.Array, spec: Spec) -> Route:
    return self.function(key, spec)


def as_pytree(router: Any) -> Any:
  """The router, or, for a plain function, one that programs take as an argument.

  Raises:
    ValueError: a class that `struct.check` refuses.
  """
  struct.check('router', router)
  plain = any(callable(leaf) for leaf in jax.tree.leaves(router))
  return _Function(router) if plain else router


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
    ValueError: an unknown value of `infeasible`; from the router, a
      spec of numbers or NumPy arrays that hold NaN, or a key that is not typed.

  >>> zoo = ZooProfile([0.7, 0.9], [1.0, 5.0], ('small', 'large'))
  >>> route = uniform(zoo)
  >>> route(jax.random.key(0), Spec.of([0.8, 0.95], 9.0)).model.tolist()
  [1, -1]
  """
  return _router(profile, _uniform, infeasible)


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
  return _router(profile, _most_accurate, infeasible)


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
  return _router(profile, _fastest, infeasible)


def explicit(model: int | jax.Array) -> Named:
  """Serves one model whatever the spec: a server that lets its clients name it.

  Extraction from it is the paper's upper bound for the attacks.

  Args:
    model: i32[], index of the model; may be traced.

  Returns:
    `(key, spec) -> Route`; the key is not used.

  >>> explicit(1)(jax.random.key(0), Spec.of([0.9, 1.0], 1.0)).model.tolist()
  [1, 1]
  """
  return Named(jnp.asarray(model, jnp.int32))


def _uniform(
  key: jax.Array, zoo: feasible.FeasibleIndex, spec: Spec, found: feasible.Found
) -> jax.Array:
  """The policy of `uniform`."""
  del spec
  share = jax.random.uniform(key, found.fast.shape, jnp.float32)
  k = jnp.floor(share * found.num_feasible.astype(jnp.float32)).astype(jnp.int32)
  return feasible.select(
    zoo, found.fast, jnp.clip(k, 0, jnp.maximum(found.num_feasible - 1, 0))
  )


def _most_accurate(
  key: jax.Array, zoo: feasible.FeasibleIndex, spec: Spec, found: feasible.Found
) -> jax.Array:
  del key, spec
  return feasible.select(zoo, found.fast, jnp.zeros_like(found.fast))


def _fastest(
  key: jax.Array, zoo: feasible.FeasibleIndex, spec: Spec, found: feasible.Found
) -> jax.Array:
  del key, spec
  return zoo.fastest_from_rank[jnp.minimum(found.rank, len(zoo.fastest_from_rank) - 1)]


def _one_hot(model: jax.Array, num_models: int) -> jax.Array:
  """f32[..., M + 1] of routes; a refusal is the last."""
  return jax.nn.one_hot(jnp.where(model < 0, num_models, model), num_models + 1)


def _router(profile: ZooProfile, policy: Policy, infeasible: str) -> ZooRouter:
  _validate.one_of('infeasible', infeasible, INFEASIBLE)
  return ZooRouter(feasible.index(profile), policy, infeasible)


@jax.jit
def _route(router: ZooRouter, key: jax.Array, spec: Spec) -> Route:
  zoo = router.zoo
  spec = Spec.of(spec.min_accuracy, spec.max_latency_ms)
  found = feasible.find(zoo, spec)
  if router.infeasible == 'refuse':
    fallback = jnp.full_like(found.fast, -1)
  else:
    best = feasible.select(zoo, found.fast, jnp.zeros_like(found.fast))
    fastest_model = feasible.select(
      zoo,
      jnp.sum(zoo.latency_ms == zoo.latency_ms[0], dtype=jnp.int32),
      jnp.int32(0),
    )
    fallback = jnp.where(found.fast > 0, best, fastest_model)
  chosen = router.policy(key, zoo, spec, found)
  return Route(jnp.where(found.num_feasible > 0, chosen, fallback), found.num_feasible)


POLICIES: _registry.Registry[Callable[..., Router]] = _registry.Registry('policy')
"""`(profile, **fields) -> Router` by the names that configs give them."""
POLICIES.register('fastest', fastest)
POLICIES.register('most_accurate', most_accurate)
POLICIES.register('uniform', uniform)
