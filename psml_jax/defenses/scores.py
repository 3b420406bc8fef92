"""Scores: how well each model suits a spec, for mechanisms that select by it.

`goodput` is 1 for a model that meets the spec and 0 for another. `l1` and `quantile`
say how near a model is as well, each part counting half:

  u = -(unmet + (|x_a(spec) - x_a(model)| + |x_l(spec) - x_l(model)|) / 2) / 2,

where `unmet` is 1 for a model that does not meet the spec, and `x_a` and `x_l` are
places in [0, 1]: of `l1` in the zoo's range, of `quantile` the share of models of less
accuracy, and of at most the latency, so that the distance is the share of models
between. With `unmet`, the best score is that of a model that meets the spec wherever
there is one. Without it, the nearest model often does not: on the published CIFAR-10
zoo no epsilon keeps a goodput above 0.34 (`l1`) or 0.50 (`quantile`).

All scores lie in an interval of length 1, so no two specs, and no change of one model's
numbers within the zoo's range, move a score by more than their sensitivity of 1.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from psml_jax.core import Spec, ZooProfile

Places = Callable[[ZooProfile, Spec], tuple[jax.Array, jax.Array]]


class Score(NamedTuple):
  """A score; models are the first axis of what it gives, which vectorises best.

  Attributes:
    places: of a spec's two fields, f32[...] each in [0, 1], rising with the field; None
      where nearness does not count.
    sensitivity: the most that it differs between two specs, or between two zoos in one
      of which one model's numbers are others.
    moves_others: whether a model's numbers count in the scores of the others.
  """

  places: Places | None
  sensitivity: float = 1.0
  moves_others: bool = False

  def of(self, profile: ZooProfile, spec: Spec) -> jax.Array:
    """Every model's score, f32[M, ...], for specs f32[...] each."""
    return self.between(profile, spec, spec)[0]

  def between(
    self, profile: ZooProfile, low: Spec, high: Spec
  ) -> tuple[jax.Array, jax.Array]:
    """Bounds of every model's score over all specs between two.

    Args:
      profile: the zoo, M models.
      low: the lower end of both fields, f32[...].
      high: the upper end; where it is `low`, both bounds are the score.

    Returns:
      f32[M, ...] the least, f32[M, ...] the most.
    """
    always, sometimes = (
      met.astype(jnp.float32) for met in meets_between(profile, low, high)
    )
    if self.places is None:
      return always, sometimes
    models = self.places(profile, Spec(profile.accuracy, profile.latency_ms))
    near, far = jnp.zeros_like(always), jnp.zeros_like(always)
    for below, above, model in zip(
      self.places(profile, low), self.places(profile, high), models, strict=True
    ):
      model = first(model, below)
      under, over = below[None] - model, model - above[None]
      near += jnp.maximum(jnp.maximum(under, over), 0.0)
      far += jnp.maximum(jnp.abs(under), jnp.abs(over))
    return -(1 - always + far / 2) / 2, -(1 - sometimes + near / 2) / 2


def first(models: jax.Array, like: jax.Array) -> jax.Array:
  """f32[M] with as many axes behind the first as another array has."""
  return models.reshape((-1,) + (1,) * like.ndim)


def meets_between(
  profile: ZooProfile, low: Spec, high: Spec
) -> tuple[jax.Array, jax.Array]:
  """The models that meet all specs between two, and those that meet one of them.

  Args:
    profile: the zoo, M models.
    low: the lower end of both fields, f32[...].
    high: the upper end.

  Returns:
    bool[M, ...] each; False for NaN.
  """
  accuracy = first(profile.accuracy, low.min_accuracy)
  latency = first(profile.latency_ms, low.max_latency_ms)
  return (
    (accuracy >= high.min_accuracy[None]) & (latency <= low.max_latency_ms[None]),
    (accuracy >= low.min_accuracy[None]) & (latency <= high.max_latency_ms[None]),
  )


def _in_range(profile: ZooProfile, spec: Spec) -> tuple[jax.Array, jax.Array]:
  def place(models: jax.Array, value: jax.Array) -> jax.Array:
    low, width = jnp.min(models), jnp.ptp(models)
    share = (jnp.clip(value, low, low + width) - low) / width
    return jnp.where((width > 0) & ~jnp.isnan(value), share, 0.0)

  return (
    place(profile.accuracy, spec.min_accuracy),
    place(profile.latency_ms, spec.max_latency_ms),
  )


def _in_rank(profile: ZooProfile, spec: Spec) -> tuple[jax.Array, jax.Array]:
  accuracy, latency = spec.min_accuracy[None], spec.max_latency_ms[None]
  less_accurate = first(profile.accuracy, spec.min_accuracy) < accuracy
  fast = first(profile.latency_ms, spec.max_latency_ms) <= latency
  return (
    jnp.mean(less_accurate, 0, dtype=jnp.float32),
    jnp.mean(fast, 0, dtype=jnp.float32),
  )


SCORES = {
  'goodput': Score(None),
  'l1': Score(_in_range),
  'quantile': Score(_in_rank, moves_others=True),
}
