"""Kernels: the probability that each model answers a spec."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats

from psml_jax import _validate, routers
from psml_jax.core import Router, Spec


class Kernel(NamedTuple):
  """The law of what answers; the last entry of each is a refusal's.

  Attributes:
    probability: f32[..., M + 1].
    low: f32[..., M + 1], the lower end of the 95 % interval; equal where exact.
    high: f32[..., M + 1], its upper end.
    exact: whether it was computed from distribution functions, not from draws.
  """

  probability: jax.Array
  low: jax.Array
  high: jax.Array
  exact: bool


def kernel(
  router: Router,
  spec: Spec,
  *,
  key: jax.Array | None = None,
  num_models: int | None = None,
) -> jax.Array:
  """The probability that each model, or a refusal, answers a spec.

  Exact for the library's routers, alone and behind defenses of known laws. Additive
  noise: a feasible set is constant on the cells that the models' numbers cut the plane
  of specs into, so a model's probability is a sum over cells of products of
  distribution functions, O(M^2) a spec for all models. Any other router is asked 65,536
  times; `interval` says which, and how sure it is.

  Args:
    router: the router, defended or not (`defenses.defended`).
    spec: any leading axes, each field f32[...].
    key: consumed; for routers without a law alone.
    num_models: M, for routers without a law.

  Returns:
    f32[..., M + 1]; a refusal is the last.

  Raises:
    ValueError: a router without a law and no key or number of models.

  >>> from psml_jax import ZooProfile, defenses
  >>> zoo = ZooProfile([0.7, 0.9], [1.0, 5.0], ('small', 'large'))
  >>> router = defenses.defended(zoo, 'laplace', 0.25)
  >>> [round(p, 3) for p in kernel(router, Spec.of(0.8, 5.0)).tolist()]
  [0.05, 0.449, 0.501]
  """
  return interval(router, spec, key=key, num_models=num_models).probability


def interval(
  router: Router,
  spec: Spec,
  *,
  key: jax.Array | None = None,
  num_models: int | None = None,
) -> Kernel:
  """As `kernel`, with the interval of what was drawn (Clopper and Pearson, 1934).

  Args:
    router: as in `kernel`.
    spec: likewise.
    key: likewise.
    num_models: likewise.

  Returns:
    The kernel.

  Raises:
    ValueError: as in `kernel`.
  """
  law = law_of(
    routers.as_pytree(router), Spec.of(spec.min_accuracy, spec.max_latency_ms)
  )
  if law is not None:
    return Kernel(law, law, law, True)
  if key is None or num_models is None:
    raise ValueError(
      f'key is {key} and num_models {num_models}; the law of '
      f'{type(router).__name__} is not known, so both must be given, to draw from it'
    )
  _validate.key('key', key)
  counts = np.asarray(_drawn(router, key, spec, num_models))
  half = (1 - _LEVEL) / 2
  low = scipy.stats.beta.ppf(half, counts, _DRAWS - counts + 1)
  high = scipy.stats.beta.ppf(1 - half, counts + 1, _DRAWS - counts)
  return Kernel(
    jnp.asarray(counts / _DRAWS, jnp.float32),
    jnp.asarray(np.where(counts == 0, 0.0, low), jnp.float32),
    jnp.asarray(np.where(counts == _DRAWS, 1.0, high), jnp.float32),
    False,
  )


def purity(law: jax.Array, victim: jax.Array) -> jax.Array:
  """The share of the answers, refusals aside, that are one model's.

  Args:
    law: f32[..., M + 1], as `kernel` returns it.
    victim: i32[], index into the zoo.

  Returns:
    f32[...]; 0 where nothing is answered.
  """
  served = 1 - law[..., -1]
  return jnp.where(served > 0, law[..., victim] / jnp.maximum(served, 1e-30), 0.0)


_DRAWS, _LEVEL = 65_536, 0.95


@jax.jit
def law_of(router: Any, spec: Spec) -> jax.Array | None:
  """The exact law of a router, a pytree; None where only draws are known."""
  known = getattr(router, 'kernel', None)
  return known(spec) if known else None


def _drawn(router: Router, key: jax.Array, spec: Spec, num_models: int) -> jax.Array:
  """i32[..., M + 1], how often each answered."""
  flat = jax.tree.map(jnp.ravel, spec)
  keys = jax.random.split(key, flat.min_accuracy.size)

  @jax.jit
  def count(key: jax.Array, one: Spec) -> jax.Array:
    many = jax.tree.map(lambda field: jnp.full(_DRAWS, field), one)
    model = router(key, many).model
    place = jnp.where(model < 0, num_models, model)
    return jnp.zeros(num_models + 1, jnp.int32).at[place].add(1)

  counts = jnp.stack(
    [
      count(keys[i], jax.tree.map(lambda field, i=i: field[i], flat))
      for i in range(len(keys))
    ]
  )
  return counts.reshape(*jnp.shape(spec.min_accuracy), num_models + 1)
