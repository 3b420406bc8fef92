"""The registry of workloads, and what its entries share."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from psml_jax import _registry, pareto
from psml_jax.core import Spec, ZooProfile

Workload = Callable[[jax.Array, ZooProfile], Spec]
"""`(key, profile) -> Spec` of shape [Q]; the key is consumed, the profile concrete."""

WORKLOADS: _registry.Registry[Callable[..., Workload]] = _registry.Registry('workload')
"""`(**fields) -> Workload` by name."""


def make(name: str, **fields: Any) -> Workload:
  """The workload of a name.

  Args:
    name: one of `WORKLOADS`.
    **fields: the workload's own.

  Returns:
    `(key, profile) -> Spec`.

  Raises:
    ValueError: an unknown name or field, or what the workload refuses.

  >>> zoo = ZooProfile([0.7, 0.9], [1.0, 5.0], ('small', 'large'))
  >>> make('uniform', size=3)(jax.random.key(0), zoo).min_accuracy.shape
  (3,)
  """
  entry = WORKLOADS.find(name)
  _registry.check_fields(f'workload {name!r}', entry, 0, fields)
  return entry(**fields)


def check(spec: Spec, profile: ZooProfile) -> None:
  """Checks that a workload has a feasible spec.

  Args:
    spec: f32[Q] each; concrete values.
    profile: the zoo; concrete values.

  Raises:
    ValueError: no model meets any of the specs.

  >>> zoo = ZooProfile([0.7, 0.9], [1.0, 5.0], ('small', 'large'))
  >>> check(Spec.of([0.8, 0.8], [9.0, 2.0]), zoo)
  >>> check(Spec.of([0.8, 0.8], [3.0, 2.0]), zoo)  # doctest: +ELLIPSIS
  Traceback (most recent call last):
  ...
  ValueError: spec is a workload with no feasible spec: of its 2 none is met by ...
  """
  asked, limit = np.asarray(spec.min_accuracy), np.asarray(spec.max_latency_ms)
  accuracy, latency = (np.asarray(x) for x in corners(profile))
  best = np.append(-np.inf, accuracy)[np.searchsorted(latency, limit, side='right')]
  if not np.any((asked <= best) & ~np.isnan(limit)):
    raise ValueError(
      f'spec is a workload with no feasible spec: of its {asked.size} none is met by '
      f'a model; they have accuracies {_range(asked)} and limits {_range(limit)}, '
      f'the zoo has accuracies {_range(profile.accuracy)} and latencies '
      f'{_range(profile.latency_ms)}'
    )


def _range(values: jax.typing.ArrayLike) -> str:
  values = np.asarray(values)
  return f'{values.min():.3g} to {values.max():.3g}' if values.size else '(none)'


def corners(profile: ZooProfile) -> tuple[jax.Array, jax.Array]:
  """Accuracies and latencies of the frontier's corners, f32[F] each, ascending."""
  models = pareto.corners(profile)
  return profile.accuracy[models], profile.latency_ms[models]


def within(profile: ZooProfile, accuracy: jax.Array, limit: jax.Array) -> Spec:
  """The specs moved to where they can be met.

  Args:
    profile: the zoo; concrete values.
    accuracy: f32[Q], lowered to the best within the limit.
    limit: f32[Q], clipped to the latencies from the frontier's fastest to the slowest.
  """
  best, latency = corners(profile)
  limit = jnp.clip(limit, latency[0], jnp.max(profile.latency_ms))
  fast = jnp.searchsorted(latency, limit, side='right') - 1
  return Spec(jnp.minimum(accuracy, best[fast]), limit)
