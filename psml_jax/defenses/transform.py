"""The interface of a defense, and how defenses combine with each other and a router."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from psml_jax.core import Route, Router, Spec
from psml_jax.routers import ZooRouter


class SpecTransform(NamedTuple):
  """A keyed map from specs to specs.

  Attributes:
    init: `() -> state`; `()` where the transform keeps no state.
    apply: `(key, spec, state) -> (spec, state)`: pure, vectorised over the spec's
      leading axes; the key is consumed.
  """

  init: Callable[[], Any]
  apply: Callable[[jax.Array, Spec, Any], tuple[Spec, Any]]


def identity() -> SpecTransform:
  """No defense: every spec stays as it is.

  Returns:
    The transform; it does not use its key.
  """
  return SpecTransform(lambda: (), lambda key, spec, state: (spec, state))


def chain(*transforms: SpecTransform) -> SpecTransform:
  """Applies transforms one after the other, the first one first.

  Args:
    *transforms: any number; none at all is the identity.

  Returns:
    The transform. Its state is the tuple of theirs; transform i gets
    `jax.random.fold_in(key, i)`.
  """

  def init() -> tuple[Any, ...]:
    return tuple(transform.init() for transform in transforms)

  def apply(
    key: jax.Array, spec: Spec, state: tuple[Any, ...]
  ) -> tuple[Spec, tuple[Any, ...]]:
    states = []
    for i, (transform, old) in enumerate(zip(transforms, state, strict=True)):
      spec, new = transform.apply(jax.random.fold_in(key, i), spec, old)
      states.append(new)
    return spec, tuple(states)

  return SpecTransform(init, apply)


def defend(router: Router, transform: SpecTransform) -> Router:
  """Puts a defense in front of a router (paper, section 6).

  A router of `psml_jax.routers` knows the range of its zoo. A spec that asks for less
  accuracy than the zoo's lowest, or allows more latency than its highest, is moved to
  that end before the transform sees it: its feasible set stays the same, and noise of
  the zoo's scale still matters (without this an infinite latency switches off half of
  it). Other callables have no range, and their specs are transformed as they come.

  Args:
    router: the router behind.
    transform: a defense without state.

  Returns:
    A router that routes the transformed spec; its `num_feasible` is that of the
    transformed spec. The key is consumed: one half draws the noise, the other the
    route.

  Raises:
    ValueError: the transform keeps state, which a router cannot carry from one
      call to the next.
  """
  state = transform.init()
  if jax.tree.leaves(state):
    raise ValueError(
      f'transform has state {state!r}; a Router is stateless, so it must be one whose '
      'init() holds no arrays. Thread the state through transform.apply yourself.'
    )

  anything = Spec(jnp.float32(-jnp.inf), jnp.float32(jnp.inf))
  loosest = getattr(router, 'loosest', anything)

  @jax.jit
  def traced(key: jax.Array, spec: Spec) -> Route:
    noise_key, route_key = jax.random.split(key)
    spec = Spec(
      jnp.maximum(spec.min_accuracy, loosest.min_accuracy),
      jnp.minimum(spec.max_latency_ms, loosest.max_latency_ms),
    )
    spec, _ = transform.apply(noise_key, spec, state)
    return router(route_key, spec)

  return ZooRouter(traced, loosest)
