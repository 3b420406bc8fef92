"""The interface of a defense, and how defenses combine with each other and a router."""

from collections.abc import Callable
from typing import Any, Protocol, TypeVar, cast

import jax
import jax.numpy as jnp

from psml_jax import _validate, routers, struct
from psml_jax.core import Query, Route, Router, Spec

T = TypeVar('T')


class SpecTransform(Protocol):
  """A keyed map from queries to queries, in front of the router: a defense.

  Implement it as a `psml_jax.struct.dataclass` whose strength is a leaf, so that
  another strength compiles nothing.
  """

  def init(self, key: jax.Array) -> Any:
    """The state before the first query; `()` where the transform keeps none.

    Args:
      key: consumed.
    """

  def apply(self, key: jax.Array, query: Query, state: Any) -> tuple[Query, Any]:
    """The query as the router gets it, and the state after it.

    Args:
      key: consumed.
      query: one query of shape []; without state, any leading axes, where query i
        draws by the key and i alone.
      state: as `init` or the last `apply` left it.
    """


class MemoryRouter(Protocol):
  """A router that remembers what it answered: a pytree, for servers alone.

  A defense, router or reply with memory that tells only so many clients apart has a
  static whole number `clients`: ids are below it.
  """

  def init(self, key: jax.Array) -> Any:
    """The state before the first query.

    Args:
      key: consumed.
    """

  def route(self, key: jax.Array, query: Query, state: Any) -> tuple[jax.Array, Any]:
    """The model that answers one query, and the state after it.

    Args:
      key: consumed.
      query: of shape [], behind the defense.
      state: as `init` or the last `route` left it.

    Returns:
      i32[], -1 for a refusal, and the state.
    """


class Stateless:
  """The `init` of a transform that keeps no state."""

  def init(self, key: jax.Array) -> tuple[()]:
    """No state."""
    del key
    return ()


@struct.dataclass(eq=False)
class _Identity(Stateless):
  monotone = True

  def apply(
    self, key: jax.Array, query: Query, state: tuple[()]
  ) -> tuple[Query, tuple[()]]:
    del key
    return query, state

  def kernel(self, router: Any, spec: Spec) -> jax.Array | None:
    return kernel_of(router, spec)


def kernel_of(router: Any, spec: Spec) -> jax.Array | None:
  """The law of a router, f32[..., M + 1]; None where only its draws are known."""
  known = getattr(router, 'kernel', None)
  return known(spec) if known else None


def identity() -> SpecTransform:
  """No defense: every query stays as it is.

  Returns:
    The transform; it does not use its key.
  """
  return _Identity()


@struct.dataclass(eq=False)
class InTurn:
  """The state of transforms that are applied one after the other.

  It is the tuple of theirs; transform i gets `jax.random.fold_in(key, i)`.
  """

  transforms: tuple[Any, ...]

  @property
  def clients(self) -> int:
    return num_clients(*self.transforms)

  @property
  def constant(self) -> bool:
    return not any(map(learns, self.transforms))

  def init(self, key: jax.Array) -> tuple[Any, ...]:
    """The states before the first query."""
    return tuple(
      transform.init(jax.random.fold_in(key, i))
      for i, transform in enumerate(self.transforms)
    )

  def through(
    self,
    key: jax.Array,
    value: T,
    state: tuple[Any, ...],
    step: Callable[[Any, jax.Array, T, Any], tuple[T, Any]],
  ) -> tuple[T, tuple[Any, ...]]:
    """The value behind all transforms, and their states after it.

    Args:
      key: consumed.
      value: what they transform.
      state: as `init` or the last `through` left it.
      step: applies one of them to its key, the value and its state.
    """
    states = []
    for i, (transform, old) in enumerate(zip(self.transforms, state, strict=True)):
      value, new = step(transform, jax.random.fold_in(key, i), value, old)
      states.append(new)
    return value, tuple(states)


@struct.dataclass(eq=False)
class _Chain(InTurn):
  def apply(
    self, key: jax.Array, query: Query, state: tuple[Any, ...]
  ) -> tuple[Query, tuple[Any, ...]]:
    return self.through(key, query, state, lambda part, *rest: part.apply(*rest))


def chain(*transforms: SpecTransform) -> SpecTransform:
  """Applies transforms one after the other, the first one first.

  Args:
    *transforms: any number; none at all is the identity.

  Returns:
    The transform. Its state is the tuple of theirs; transform i gets
    `jax.random.fold_in(key, i)`.
  """
  return _Chain(transforms)


def keeps_state(part: Any) -> bool:
  """Whether a transform of specs or replies, or a router, has anything in its state."""
  init = getattr(part, 'init', None)
  return bool(init and jax.tree.leaves(jax.eval_shape(init, jax.random.key(0))))


def learns(part: Any) -> bool:
  """Whether queries change its state; not where it says that its state is constant."""
  return keeps_state(part) and not getattr(part, 'constant', False)


def num_clients(*parts: Any) -> int:
  """How many clients all parts tell apart; any id of 32 bits unless one has fewer."""
  return min((getattr(part, 'clients', 2**31) for part in parts), default=2**31)


def within(router: Router, spec: Spec) -> Spec:
  """The spec, moved to the end of the zoo's range where it asks for less than it.

  A router of `psml_jax.routers` knows the range of its zoo; other callables have none.
  The feasible set stays the same, and noise of the zoo's scale matters still: without
  this an infinite latency switches half of it off.
  """
  loosest = getattr(router, 'loosest', None)
  if loosest is None:
    return spec
  return Spec(
    jnp.maximum(spec.min_accuracy, loosest.min_accuracy),
    jnp.minimum(spec.max_latency_ms, loosest.max_latency_ms),
  )


@struct.dataclass(eq=False)
class Defended:
  """A router behind a stateless defense; made by `defend`."""

  router: Any
  transform: Any

  @property
  def loosest(self) -> Spec | None:
    return getattr(self.router, 'loosest', None)

  @property
  def monotone(self) -> bool:
    return all(
      getattr(part, 'monotone', False) for part in (self.router, self.transform)
    )

  def __call__(self, key: jax.Array, spec: Spec) -> Route:
    _validate.routing(key, spec.min_accuracy, spec.max_latency_ms)
    return _route(self, key, spec)

  def kernel(self, spec: Spec) -> jax.Array | None:
    """The law of what answers, f32[..., M + 1]; None where it is not known."""
    spec = within(self.router, Spec.of(spec.min_accuracy, spec.max_latency_ms))
    known = getattr(self.transform, 'kernel', None)
    return known(self.router, spec) if known else None


def defend(router: Router | MemoryRouter, transform: SpecTransform) -> Defended:
  """Puts a defense in front of a router (paper, section 6).

  A spec that asks for less accuracy than the zoo's lowest, or allows more latency than
  its highest, is moved to that end before the transform sees it (see `within`).

  Args:
    router: the router behind.
    transform: a defense without state.

  Returns:
    A router that routes the transformed spec; its `num_feasible` is that of the
    transformed spec. The key is consumed: one half draws the noise, the other the
    route.

  Raises:
    ValueError: the transform or the router behind keeps state, which a router cannot
      carry from one call to the next; or is of a class that `struct.check` refuses.
  """
  struct.check('transform', transform)
  for name, part in (('router', router), ('transform', transform)):
    if not keeps_state(part):
      continue
    raise ValueError(
      f'{name} {part!r} has state; a Router is stateless, so it must be one '
      'whose init holds no arrays. Give it to a server instead: servers.table(router, '
      '..., defense=transform).'
    )
  return Defended(routers.as_pytree(cast('Router', router)), transform)


@jax.jit
def _route(defended: Defended, key: jax.Array, spec: Spec) -> Route:
  noise_key, route_key = jax.random.split(key)
  shape = jnp.shape(spec.min_accuracy)
  query = Query(
    inputs=jnp.zeros(shape, jnp.int32),
    spec=within(defended.router, spec),
    client=jnp.zeros(shape, jnp.int32),
    sent=jnp.ones(shape, bool),
  )
  state = defended.transform.init(noise_key)
  query, _ = defended.transform.apply(noise_key, query, state)
  return defended.router(route_key, query.spec)
