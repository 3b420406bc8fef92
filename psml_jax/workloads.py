"""Workloads: what honest clients ask for, by the names that configs give them."""

from collections.abc import Callable
from typing import Any

import jax

from psml_jax import _registry, _validate, goodput
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


def _uniform(size: int) -> Workload:
  _validate.positive_int('size', size)
  return lambda key, profile: goodput.uniform_workload(key, profile, size)


def _csv(path: str, **columns: str) -> Workload:
  given = goodput.load_workload(path, **columns)
  return lambda key, profile: given


WORKLOADS.register('csv', _csv)
WORKLOADS.register('uniform', _uniform)
