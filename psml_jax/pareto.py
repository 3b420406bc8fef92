"""The Pareto frontier of a zoo: accuracy against latency (paper, section 2)."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from psml_jax import _validate
from psml_jax.core import Spec, ZooProfile


@jax.jit
def pareto_mask(profile: ZooProfile) -> jax.Array:
  """Which models no other model beats.

  Model i is Pareto-optimal iff there is no j with
  `accuracy[j] >= accuracy[i]` and `latency_ms[j] <= latency_ms[i]`, one of the
  two strictly. Models equal in both beat neither each other, so all of them are
  marked; they share one corner.

  Args:
    profile: the zoo, M models; may be traced.

  Returns:
    bool[M], in O(M log M) time and O(M) memory.

  >>> zoo = ZooProfile([0.7, 0.6, 0.9], [1.0, 2.0, 5.0], ('a', 'b', 'c'))
  >>> pareto_mask(zoo).tolist()
  [True, False, True]
  """
  accuracy, latency = profile.accuracy, profile.latency_ms
  order = jnp.lexsort((-accuracy, latency))
  accuracy, latency = accuracy[order], latency[order]
  best_before = jnp.concatenate(
    [jnp.full((1,), -jnp.inf), jax.lax.cummax(accuracy)[:-1]]
  )
  strictly_faster = jnp.searchsorted(latency, latency, side='left')
  best_faster = jnp.where(
    strictly_faster > 0,
    jax.lax.cummax(accuracy)[jnp.maximum(strictly_faster - 1, 0)],
    -jnp.inf,
  )
  beaten = (best_faster >= accuracy) | (best_before > accuracy)
  return jnp.zeros(accuracy.shape, bool).at[order].set(~beaten)


def frontier(profile: ZooProfile) -> np.ndarray:
  """The Pareto-optimal models from the fastest to the most accurate.

  Args:
    profile: the zoo; concrete values.

  Returns:
    i64[F], indices into the zoo; models equal in both numbers in zoo order.

  >>> zoo = ZooProfile([0.9, 0.6, 0.7], [5.0, 2.0, 1.0], ('a', 'b', 'c'))
  >>> frontier(zoo).tolist()
  [2, 0]
  """
  with jax.ensure_compile_time_eval():
    (optimal,) = np.nonzero(np.asarray(pareto_mask(profile)))
  return optimal[np.argsort(np.asarray(profile.latency_ms)[optimal], kind='stable')]


def corners(profile: ZooProfile) -> np.ndarray:
  """One model for every corner of the frontier, from the fastest to the most accurate.

  Models equal in both numbers share a corner and cannot be told apart by a spec; the
  first of them stands for all.

  Args:
    profile: the zoo; concrete values.

  Returns:
    i64[F], indices into the zoo.

  >>> zoo = ZooProfile([0.9, 0.7, 0.7], [5.0, 1.0, 1.0], ('a', 'b', 'c'))
  >>> corners(zoo).tolist()
  [1, 0]
  """
  models = frontier(profile)
  accuracy = np.asarray(profile.accuracy)[models]
  return models[np.append(True, accuracy[1:] != accuracy[:-1])]


def twins(profile: ZooProfile) -> list[list[int]]:
  """Groups of models that are equal in accuracy and latency.

  Args:
    profile: the zoo; concrete values.

  Returns:
    Indices into the zoo, two or more a group.

  >>> zoo = ZooProfile([0.9, 0.7, 0.7], [5.0, 1.0, 1.0], ('a', 'b', 'c'))
  >>> twins(zoo)
  [[1, 2]]
  """
  groups: dict[tuple[float, float], list[int]] = {}
  numbers = zip(
    np.asarray(profile.accuracy).tolist(), np.asarray(profile.latency_ms).tolist()
  )
  for model, pair in enumerate(numbers):
    groups.setdefault(pair, []).append(model)
  return [group for group in groups.values() if len(group) > 1]


def corner(profile: ZooProfile, model: int) -> Spec:
  """The spec that only one Pareto-optimal model meets: its own two numbers.

  Args:
    profile: the zoo; concrete values.
    model: index of a Pareto-optimal model.

  Returns:
    The spec, two f32[] scalars.

  Raises:
    ValueError: no such model, or it is dominated and so has no corner.
  """
  require_optimal(profile, model)
  return Spec(profile.accuracy[model], profile.latency_ms[model])


def require_optimal(profile: ZooProfile, model: int) -> None:
  """Raises a ValueError unless the model can be a victim.

  Args:
    profile: the zoo; concrete values.
    model: index into the zoo.
  """
  if not 0 <= model < len(profile):
    raise ValueError(f'model is {model}; it must be in [0, {len(profile) - 1}]')
  optimal = frontier(profile)
  if model not in optimal:
    names = [profile.names[i] for i in optimal]
    shown = ', '.join(names[:20]) + (', ...' if len(names) > 20 else '')
    raise ValueError(
      f'victim is {profile.names[model]!r}, which is not Pareto-optimal: another model '
      'is at least as accurate and as fast, so no spec makes the server answer with '
      f'it alone; allowed are {shown}'
    )


SIZES = ('small', 'medium', 'large')
"""The paper's victims."""


def victims(profile: ZooProfile) -> dict[str, int]:
  """The paper's small, medium and large victims (section 5).

  Args:
    profile: the zoo; concrete values.

  Returns:
    The models of the frontier's first, middle and last corner by latency, as indices.

  >>> zoo = ZooProfile([0.5, 0.7, 0.9], [1.0, 2.0, 3.0], ('a', 'b', 'c'))
  >>> victims(zoo)
  {'small': 0, 'medium': 1, 'large': 2}
  """
  models = corners(profile)
  chosen = (models[0], models[(len(models) - 1) // 2], models[-1])
  return {size: int(model) for size, model in zip(SIZES, chosen, strict=True)}


def hypervolume(profile: ZooProfile, max_latency_ms: ArrayLike) -> jax.Array:
  """The area of specs that the zoo can serve.

  The measure of the set of specs with `0 <= min_accuracy` and
  `max_latency_ms <= limit` whose feasible set is not empty: the integral over
  latency, up to the limit, of the best accuracy at that latency.

  Args:
    profile: the zoo; may be traced.
    max_latency_ms: f32[], the limit in milliseconds; a traced NaN gives NaN.

  Returns:
    f32[], accuracy times milliseconds.

  Raises:
    ValueError: a concrete limit that is negative, infinite or NaN.

  >>> zoo = ZooProfile([0.5, 1.0], [1.0, 2.0], ('a', 'b'))
  >>> float(hypervolume(zoo, 4.0))
  2.5
  """
  _validate.scale('max_latency_ms', max_latency_ms)
  order = jnp.argsort(profile.latency_ms)
  best = jax.lax.cummax(profile.accuracy[order])
  limit = jnp.asarray(max_latency_ms, jnp.float32)
  start = jnp.minimum(profile.latency_ms[order], limit)
  end = jnp.concatenate([start[1:], limit[None]])
  return jnp.sum(best * (end - start))
