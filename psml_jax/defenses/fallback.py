"""Routers that answer a share of the queries with any model of the zoo, at random.

| input | what happens |
|---|---|
| share 0 (off) | the router behind, where something is feasible |
| share outside [0, 1] or NaN, concrete | ValueError |
| share below 0 or above 1, traced | as 0 or 1; NaN as 1, the most private reading |
| nothing feasible, NaN spec | any model of the zoo at random, at off too |
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from psml_jax import _validate, feasible, routers, struct
from psml_jax.core import Route, Spec, ZooProfile
from psml_jax.defenses.mechanisms import MECHANISMS, Deployment, Knob, Mechanism
from psml_jax.defenses.scores import meets_between


@struct.dataclass(eq=False)
class FallBack:
  """A router of feasible models, and any model at random for a share of the queries.

  Attributes:
    profile: the zoo, M models.
    router: it refuses where nothing is feasible; then any model answers.
    share: f32[], of the queries.
    prefer: which policy the router has (static).
  """

  profile: ZooProfile
  router: routers.ZooRouter
  share: jax.Array
  prefer: str = struct.field(pytree_node=False)

  own_is_best = True  # docs/theory.md, section 3; not so behind other transforms

  @property
  def loosest(self) -> Spec:
    """The zoo's lowest accuracy and highest latency, f32[] each."""
    return self.router.loosest

  def __call__(self, key: jax.Array, spec: Spec) -> Route:
    _validate.routing(key, spec.min_accuracy, spec.max_latency_ms)
    return _route(self, key, spec)

  @property
  def random_share(self) -> jax.Array:
    """f32[], the share in [0, 1]."""
    return jnp.where(jnp.isnan(self.share), 1.0, jnp.clip(self.share, 0.0, 1.0))

  def kernel(self, spec: Spec) -> jax.Array:
    """The probability that each model answers a spec; none is refused (the last).

    Args:
      spec: any leading axes, each field f32[...].

    Returns:
      f32[..., M + 1], exact.
    """
    spec = Spec.of(spec.min_accuracy, spec.max_latency_ms)
    share, size = self.random_share, len(self.profile)
    met = self.profile.meets(spec)
    count = jnp.sum(met, -1, keepdims=True, dtype=jnp.float32)
    if self.prefer == 'uniform':
      chosen = met.astype(jnp.float32) / jnp.maximum(count, 1)
    else:
      chosen = jax.nn.one_hot(self.router(jax.random.key(0), spec).model, size)
    law = jnp.where(count > 0, (1 - share) * chosen + share / size, 1 / size)
    return jnp.concatenate([law, jnp.zeros_like(law[..., :1])], -1)

  def ceiling(self, low: Spec, high: Spec) -> jax.Array:
    """An upper bound of `kernel` over all specs between two, field by field.

    Args:
      low: the lower end of both fields, f32[...].
      high: the upper end.

    Returns:
      f32[..., M + 1]; the law itself where both have one feasible set.
    """
    always, sometimes = (
      jnp.moveaxis(met, 0, -1) for met in meets_between(self.profile, low, high)
    )
    count = jnp.sum(always, -1, keepdims=True, dtype=jnp.float32)
    if self.prefer == 'uniform':
      more = (~always).astype(jnp.float32)
      most = jnp.where(sometimes, 1 / (count + more), 0.0)
    else:
      strict = Spec(high.min_accuracy, low.max_latency_ms)
      best = self.router(jax.random.key(0), strict).model[..., None]
      place = _places(self.router.zoo, self.prefer)
      place = place.reshape((1,) * (best.ndim - 1) + (-1,))
      beaten = (count > 0) & (place < jnp.take(place, best))
      most = (sometimes & ~beaten).astype(jnp.float32)
    share, size = self.random_share, len(self.profile)
    bound = (1 - share) * most + share / size
    bound = jnp.where(count > 0, bound, jnp.maximum(bound, 1 / size))
    return jnp.concatenate([bound, jnp.zeros_like(bound[..., :1])], -1)


def _places(zoo: feasible.FeasibleIndex, prefer: str) -> jax.Array:
  """i32[M], the higher, the sooner a policy takes a model."""
  rank, place = feasible.places(zoo)
  if prefer == 'most_accurate':
    return rank
  index = jnp.arange(len(rank), dtype=jnp.int32)
  order = jnp.lexsort((-index, zoo.accuracy[rank], -zoo.latency_ms[place]))
  return jnp.zeros_like(index).at[order].set(index)


def fall_back(
  profile: ZooProfile, share: ArrayLike, *, prefer: str = 'uniform'
) -> FallBack:
  """Answers a share of the queries, and those that nothing meets, with any model.

  Args:
    profile: the zoo; concrete values.
    share: f32[], in [0, 1]; may be traced.
    prefer: which feasible model answers the others: 'uniform' draws it,
      'most_accurate' and 'fastest' are as in `psml_jax.routers`.

  Returns:
    `(key, spec) -> Route`; no query is refused. The key is consumed; query i of a batch
    depends on the key and i alone.

  Raises:
    ValueError: a concrete share outside [0, 1], an unknown preference; from the
      router, as `routers.uniform`.

  >>> zoo = ZooProfile([0.7, 0.9], [1.0, 5.0], ('small', 'large'))
  >>> fall_back(zoo, 0.5).kernel(Spec.of(0.8, 9.0)).tolist()
  [0.25, 0.75, 0.0]
  """
  _validate.one_of('prefer', prefer, _POLICIES)
  if _validate.is_concrete(share):
    _validate.fractions('share', share)
  router = _POLICIES[prefer](profile)
  return FallBack(profile, router, jnp.asarray(share, jnp.float32), prefer)


_POLICIES: dict[str, Callable[[ZooProfile], routers.ZooRouter]] = {
  'uniform': routers.uniform,
  'most_accurate': routers.most_accurate,
  'fastest': routers.fastest,
}


@jax.jit
def _route(router: FallBack, key: jax.Array, spec: Spec) -> Route:
  route_key, share_key, model_key = jax.random.split(key, 3)
  route = router.router(route_key, spec)
  shape = route.model.shape
  anyone = jax.random.randint(model_key, shape, 0, len(router.profile), jnp.int32)
  drawn = jax.random.uniform(share_key, shape, jnp.float32) < router.random_share
  model = jnp.where(drawn | (route.model < 0), anyone, route.model)
  return Route(model, route.num_feasible)


_SHARE = Knob('share', 'share of queries', 0.0, 2.0**-20, 1.0)


def _mechanism(prefer: str) -> Mechanism:
  def deployed(profile: ZooProfile, share: ArrayLike) -> Deployment:
    return Deployment(router=fall_back(profile, share, prefer=prefer))

  return Mechanism(_SHARE, deployed, answers_all=True)


MECHANISMS.register('epsilon_random', _mechanism('uniform'))
MECHANISMS.register('most_accurate_random', _mechanism('most_accurate'))
MECHANISMS.register('fastest_random', _mechanism('fastest'))
