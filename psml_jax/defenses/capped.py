"""Capped routing: no model answers more than a share of any spec's queries.

For a cap of t each model of a feasible set F answers with probability `min(t, 1/|F|)`.
No client gets more than t victim answers a query, whatever it asks for, and no server
with that property serves honest clients better (docs/theory.md, theorem 1).

| input | `capped` | `capped_corners` |
|---|---|---|
| cap 1 | the uniform router | the spec, bit for bit |
| cap outside (0, 1], concrete | ValueError | ValueError |
| cap below 1/M, rest 'nearest' | ValueError; traced, the last model gets more | |
| infinite spec | allowed | allowed |
| empty feasible set | refused, or the nearest models answer | refused |
| NaN spec, traced | as an empty feasible set | refused |
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from psml_jax import _validate, feasible, pareto, struct
from psml_jax.core import Query, Route, Spec, ZooProfile
from psml_jax.defenses.mechanisms import MECHANISMS, Deployment, Knob, Mechanism
from psml_jax.defenses.transform import Stateless, kernel_of

RESTS = ('refuse', 'nearest')


@struct.dataclass(eq=False)
class Capped:
  """See `capped`.

  Attributes:
    zoo: the zoo, sorted.
    cap: f32[], of every model; or f32[M], of each.
    rest: what becomes of the rest of the mass (static).
  """

  zoo: feasible.FeasibleIndex
  cap: jax.Array
  rest: str = struct.field(pytree_node=False)

  @property
  def monotone(self) -> bool:
    """See `routers.ZooRouter`."""
    return self.rest == 'refuse'

  @property
  def loosest(self) -> Spec:
    return Spec(self.zoo.accuracy[0], self.zoo.latency_ms[-1])

  def __call__(self, key: jax.Array, spec: Spec) -> Route:
    _validate.routing(key, spec.min_accuracy, spec.max_latency_ms)
    return _route(self, key, spec)

  def ceiling(self, low: Spec, high: Spec) -> jax.Array:
    """What no spec between two exceeds, f32[..., M + 1]: the caps."""
    del high
    shape = (*jnp.shape(low.min_accuracy), len(self.zoo.by_latency))
    caps = jnp.broadcast_to(self.cap, shape)
    return jnp.concatenate([caps, jnp.ones_like(caps[..., :1])], -1)

  def kernel(self, spec: Spec) -> jax.Array:
    """The law of what answers, a refusal last: f32[..., M + 1]."""
    zoo = self.zoo
    found = feasible.find(zoo, spec)
    members = feasible.members(zoo, found)
    each = self.cap.reshape((1,) * (members.ndim - self.cap.ndim) + self.cap.shape)
    caps = jnp.where(members, each, 0.0)
    given = caps / jnp.maximum(1.0, jnp.sum(caps, -1, keepdims=True))
    if self.rest == 'nearest':
      order = _nearest(zoo, found)
      waiting = jnp.where(members, 0.0, each)
      waiting = jnp.take_along_axis(waiting, order, -1)
      left = 1 - jnp.sum(given, -1, keepdims=True)
      taken = jnp.clip(left - (jnp.cumsum(waiting, -1) - waiting), 0.0, waiting)
      over = left[..., 0] - jnp.sum(taken, -1)
      taken = taken.at[..., -1].add(jnp.maximum(over, 0.0))
      given = given + jnp.take_along_axis(taken, jnp.argsort(order, -1), -1)
    refused = jnp.maximum(1 - jnp.sum(given, -1, keepdims=True), 0.0)
    return jnp.concatenate([given, refused], -1)


def capped(
  profile: ZooProfile,
  cap: ArrayLike,
  *,
  protect: Sequence[str] = (),
  rest: str = 'refuse',
) -> Capped:
  """Draws from the feasible set, each model with at most a share of the queries.

  Args:
    profile: the zoo, M models; concrete values.
    cap: f32[], the most that a model answers of a spec's queries, a fraction; may be
      traced. Or f32[M], of each model; then a feasible set's models answer in
      proportion to their caps.
    protect: the names of the models that have the cap; all where none is named. The
      others have none.
    rest: 'refuse' refuses what the caps of the feasible set leave; 'nearest' has the
      nearest infeasible models answer it, each up to its cap: first those that are fast
      enough, the most accurate first, then the others, the fastest first. Nothing is
      refused then.

  Returns:
    `(key, spec) -> Route`. The key is consumed; query i of a batch depends on the key
    and i alone.

  Raises:
    ValueError: a concrete cap outside (0, 1]; one below 1/M where nothing is to be
      refused; a name that the zoo does not have; another word for `rest`.

  >>> zoo = ZooProfile([0.7, 0.9], [1.0, 5.0], ('small', 'large'))
  >>> router = capped(zoo, 0.25)
  >>> router.kernel(Spec.of([0.6, 0.8], 9.0)).tolist()
  [[0.25, 0.25, 0.5], [0.0, 0.25, 0.75]]
  """
  _validate.one_of('rest', rest, RESTS)
  unknown = [name for name in protect if name not in profile.names]
  if unknown:
    profile.index(unknown[0])
  protected = np.isin(np.asarray(profile.names), list(protect or profile.names))
  if _validate.is_concrete(cap):
    values = _validate.fractions('cap', cap)
    _validate.reject('cap', values, values <= 0, 'a fraction in (0, 1]')
    if values.ndim and values.shape != (len(profile),):
      raise ValueError(
        f'cap has shape {values.shape}; it must be () or ({len(profile)},), one of '
        'each model'
      )
    total = np.sum(np.where(protected, values, 1.0))
    if rest == 'nearest' and total < 1 - 1e-6:
      raise ValueError(
        f'cap is {cap}; where nothing is refused it must be at least '
        f'1/{len(profile)} = {1 / len(profile):.4g}, for the caps must sum to 1'
      )
  cap = jnp.asarray(cap, jnp.float32)
  if protect:
    cap = jnp.where(protected, cap, 1.0)
  return Capped(feasible.index(profile), cap, rest)


@struct.dataclass(eq=False)
class CappedCorners(Stateless):
  """See `capped_corners`.

  Attributes:
    accuracy: f32[M], of each model.
    latency_ms: f32[M].
    optimal: bool[M], one model for each corner of the frontier.
    cap: f32[].
  """

  accuracy: jax.Array
  latency_ms: jax.Array
  optimal: jax.Array
  cap: jax.Array

  monotone = True

  def apply(
    self, key: jax.Array, query: Query, state: tuple[()]
  ) -> tuple[Query, tuple[()]]:
    _validate.key('key', key)
    members, count = self._members(query.spec)
    share = jax.random.uniform(key, count.shape, jnp.float32)
    each = jnp.minimum(self.cap, 1 / jnp.maximum(count, 1))
    k = jnp.floor(share / each).astype(jnp.int32)
    chosen = jnp.argmax(jnp.cumsum(members, -1) > k[..., None], axis=-1)
    answered = k < count
    spec = Spec(
      jnp.where(answered, self.accuracy[chosen], jnp.inf),
      jnp.where(answered, self.latency_ms[chosen], -jnp.inf),
    )
    off = self.cap >= 1
    spec = jax.tree.map(lambda new, old: jnp.where(off, old, new), spec, query.spec)
    return dataclasses.replace(query, spec=spec), state

  def kernel(self, router: Any, spec: Spec) -> jax.Array | None:
    """The law of a router behind it, where the router has one."""
    corners = kernel_of(router, Spec(self.accuracy, self.latency_ms))
    plain = kernel_of(router, spec)
    if corners is None or plain is None:
      return None
    members, count = self._members(spec)
    each = jnp.minimum(self.cap, 1 / jnp.maximum(count, 1))[..., None]
    law = jnp.where(members, each, 0.0) @ corners
    law = law.at[..., -1].add(1 - jnp.sum(law, -1))
    return jnp.where(self.cap >= 1, plain, law)

  def _members(self, spec: Spec) -> tuple[jax.Array, jax.Array]:
    models = (1,) * jnp.ndim(spec.min_accuracy) + (-1,)
    members = self.optimal.reshape(models)
    members &= self.accuracy.reshape(models) >= spec.min_accuracy[..., None]
    members &= self.latency_ms.reshape(models) <= spec.max_latency_ms[..., None]
    return members, jnp.sum(members, -1, dtype=jnp.int32)


def capped_corners(profile: ZooProfile, cap: ArrayLike) -> CappedCorners:
  """Capped routing as a keyed transform of the spec, onto corners of the frontier.

  A feasible frontier model is drawn under the cap and its own numbers take the spec's
  place, so that any router behind answers with it. Where the zoo is its frontier this
  is `capped`; a zoo with dominated models loses their share of the goodput,
  `E[min(1, t |F|) - min(1, t |F and frontier|)]`, for a dominated model has no spec
  that it meets alone. At cap 1 the spec stays as it is.

  Args:
    profile: the zoo; concrete values.
    cap: f32[], as in `capped`; may be traced.

  Returns:
    The stateless transform; query i's spec depends on the key and i alone.

  Raises:
    ValueError: a concrete cap outside (0, 1].

  >>> zoo = ZooProfile([0.7, 0.9], [1.0, 5.0], ('small', 'large'))
  >>> behind = capped_corners(zoo, 0.25)
  >>> from psml_jax import routers
  >>> behind.kernel(routers.uniform(zoo), Spec.of([0.6, 0.8], 9.0)).tolist()
  [[0.25, 0.25, 0.5], [0.0, 0.25, 0.75]]
  """
  if _validate.is_concrete(cap):
    value = _validate.fractions('cap', cap)
    _validate.reject('cap', value, value <= 0, 'a fraction in (0, 1]')
  optimal = np.zeros(len(profile), bool)
  optimal[pareto.corners(profile)] = True
  return CappedCorners(
    profile.accuracy,
    profile.latency_ms,
    jnp.asarray(optimal),
    jnp.asarray(cap, jnp.float32),
  )


@jax.jit
def _route(router: Capped, key: jax.Array, spec: Spec) -> Route:
  zoo, num_models = router.zoo, len(router.zoo.by_latency)
  found = feasible.find(zoo, spec)
  share = jax.random.uniform(key, found.fast.shape, jnp.float32)
  if router.cap.ndim:
    law = jnp.cumsum(router.kernel(spec), -1)
    model = jnp.sum(law <= share[..., None], -1, dtype=jnp.int32)
    model = jnp.where(model < num_models, model, -1)
    return Route(model, found.num_feasible)
  count = found.num_feasible
  each = jnp.minimum(router.cap, 1 / jnp.maximum(count, 1))
  k = jnp.floor(share / each).astype(jnp.int32)
  k = jnp.where(router.cap * count >= 1, jnp.minimum(k, count - 1), k)
  model = feasible.select(zoo, found.fast, jnp.clip(k, 0, found.fast - 1))
  if router.rest == 'refuse':
    return Route(jnp.where(k < count, model, -1), count)
  k = jnp.minimum(k, num_models - 1)
  return Route(jnp.where(k < found.fast, model, zoo.by_latency[k]), count)


def _nearest(zoo: feasible.FeasibleIndex, found: feasible.Found) -> jax.Array:
  """The models in the order in which they answer for others, i32[..., M]."""
  models = (1,) * found.fast.ndim + (-1,)
  rank, place = (of.reshape(models) for of in feasible.places(zoo))
  fast = place < found.fast[..., None]
  return jnp.argsort(jnp.where(fast, -rank, place + 1), -1)


_CAP = Knob(
  'cap', "most of a spec's queries that one model answers", 1.0, 1.0, 2.0**-10
)


def _capped(profile: ZooProfile, cap: ArrayLike, **fields: Any) -> Deployment:
  return Deployment(router=capped(profile, cap, **fields))


def _corners(profile: ZooProfile, cap: ArrayLike) -> Deployment:
  return Deployment(defense=capped_corners(profile, cap))


MECHANISMS.register('capped', Mechanism(_CAP, _capped))
MECHANISMS.register('capped_corners', Mechanism(_CAP, _corners))
