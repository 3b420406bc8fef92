"""Responders told apart by how long they took."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from psml_jax import _validate

_LEAST_WIDTH = 0.01  # of a component, in logarithms: one per cent
_ROUNDS = 64
_LEAST_SHARE = 0.03


class _Mixture(NamedTuple):
  """Normal distributions in the logarithm of the latency, f32[G] each."""

  mean: jax.Array
  width: jax.Array
  share: jax.Array


@functools.partial(jax.jit, static_argnames='components')
def by_latency(
  latency_ms: jax.Array,
  count: jax.Array,
  latency_budget_ms: ArrayLike,
  *,
  components: int = 8,
) -> jax.Array:
  """How probably each answer is the victim's, for a client with a clock.

  Mixtures of normal distributions in the logarithm of the latency are fitted by
  expectation-maximisation, of 1 to so many components, begun at even quantiles and at
  even steps; Schwarz's criterion chooses. The victim is the most accurate model within
  the latency budget, so on a frontier the slowest one: of the components with a mean
  within it and 3 % of the answers, that with the largest mean, with those whose means
  lie within two of their widths of it.

  Args:
    latency_ms: f32[B], of each answer.
    count: i32[], how many leading entries are answers.
    latency_budget_ms: f32[], the attacker's.
    components: of the largest mixture (static).

  Returns:
    f32[B], 0 for what is no answer. Traceable.

  >>> took = jnp.array([1.0, 1.02, 0.98, 3.0, 3.1, 2.9, 9.0, 9.1, 8.9, 9.0])
  >>> by_latency(took, jnp.int32(10), 5.0, components=3).round(2).tolist()
  [0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0]
  """
  answered = jnp.arange(len(latency_ms)) < count
  x = jnp.log(jnp.maximum(latency_ms, 1e-9))
  total = jnp.maximum(count, 1).astype(jnp.float32)
  ordered = jnp.sort(jnp.where(answered, x, jnp.inf))
  last = ordered[jnp.maximum(count - 1, 0)]

  def begun(size: jax.Array, by_range: jax.Array) -> _Mixture:
    place = jnp.arange(components, dtype=jnp.float32) + 0.5
    share = jnp.minimum(place / size.astype(jnp.float32), 1.0)
    quantile = ordered[jnp.minimum((share * total).astype(jnp.int32), count - 1)]
    even = ordered[0] + share * (last - ordered[0])
    mean = jnp.where(by_range, even, quantile)
    return _Mixture(
      jnp.where(jnp.isfinite(mean), mean, 0.0),
      jnp.full(components, 0.1),
      jnp.where(place < size, 1 / size, 0.0),
    )

  def fitted(size: jax.Array, by_range: jax.Array) -> tuple[jax.Array, _Mixture]:
    found = jax.lax.fori_loop(
      0, _ROUNDS, lambda _, old: _improved(x, answered, old), begun(size, by_range)
    )
    likelihood = jax.nn.logsumexp(_scores(x, found), axis=-1)
    numbers = (3 * size - 1).astype(jnp.float32)
    fit = 2 * jnp.sum(jnp.where(answered, likelihood, 0.0))
    return fit - numbers * jnp.log(total), found

  sizes = jnp.tile(jnp.arange(1, components + 1), 2)
  by_range = jnp.arange(2 * components) < components
  criterion, mixtures = jax.vmap(fitted)(sizes, by_range)
  best = jnp.argmax(criterion)
  mixture = jax.tree.map(lambda leaf: leaf[best], mixtures)
  budget = jnp.log(jnp.asarray(latency_budget_ms, jnp.float32))
  within = (mixture.mean <= budget) & (mixture.share >= _LEAST_SHARE)
  victim = jnp.argmax(jnp.where(within, mixture.mean, -jnp.inf))
  away = jnp.abs(mixture.mean - mixture.mean[victim])
  own = within & (away <= 2 * jnp.maximum(mixture.width, mixture.width[victim]))
  each = jax.nn.softmax(_scores(x, mixture), axis=-1) @ own.astype(jnp.float32)
  return jnp.where(answered, each, 0.0)


def _scores(x: jax.Array, mixture: _Mixture) -> jax.Array:
  """The logarithm of each component's part of the density at each point, f32[B, G]."""
  away = (x[:, None] - mixture.mean[None]) / mixture.width[None]
  level = jnp.log(mixture.share) - jnp.log(mixture.width)  # -inf where there is none
  return level[None] - 0.5 * away**2


def _improved(x: jax.Array, answered: jax.Array, old: _Mixture) -> _Mixture:
  each = jax.nn.softmax(_scores(x, old), axis=-1)
  each = jnp.where(answered[:, None], each, 0.0)
  weight = jnp.sum(each, axis=0)
  some = jnp.maximum(weight, 1e-6)
  mean = jnp.where(weight > 1e-3, each.T @ x / some, old.mean)
  variance = jnp.sum(each * (x[:, None] - mean[None]) ** 2, axis=0) / some
  width = jnp.sqrt(jnp.maximum(variance, _LEAST_WIDTH**2))
  return _Mixture(mean, width, weight / jnp.maximum(jnp.sum(weight), 1e-6))


def by_known_latency(
  latency_ms: jax.Array,
  samples_ms: jax.Array,
  prior: jax.Array,
  victim: ArrayLike,
  *,
  bandwidth: float = 0.01,
) -> jax.Array:
  """How probably each answer is the victim's, for who knows every model's latency.

  Bayes' rule with densities that are estimated from samples, in the logarithm of the
  latency, by a normal kernel.

  Args:
    latency_ms: f32[B], of each answer.
    samples_ms: f32[M, S], of each model.
    prior: f32[M], how often each answers, such as `leakage.kernel` at the spec.
    victim: i32[], index of the victim.
    bandwidth: of the kernel, a share of the latency.

  Returns:
    f32[B]. Traceable.

  Raises:
    ValueError: a bandwidth that is not finite and > 0.

  >>> samples = jnp.array([[1.0, 1.1], [3.0, 3.2]])
  >>> prior = jnp.array([0.5, 0.5])
  >>> by_known_latency(jnp.array([1.05, 3.1]), samples, prior, 1).tolist()
  [0.0, 1.0]
  """
  each = responders(latency_ms, samples_ms, prior, bandwidth=bandwidth)
  return each[victim]


def responders(
  latency_ms: jax.Array,
  samples_ms: jax.Array,
  prior: jax.Array,
  *,
  bandwidth: float = 0.01,
) -> jax.Array:
  """How probably each model gave each answer, for who knows every model's latency.

  Args:
    latency_ms: as in `by_known_latency`.
    samples_ms: likewise.
    prior: likewise.
    bandwidth: likewise.

  Returns:
    f32[M, B], columns that sum to 1. Traceable.

  Raises:
    ValueError: a bandwidth that is not finite and > 0.
  """
  _validate.positive('bandwidth', bandwidth)
  x = jnp.log(jnp.maximum(latency_ms, 1e-9))
  centre = jnp.log(jnp.maximum(samples_ms, 1e-9))

  def density(centre: jax.Array) -> jax.Array:
    away = (x[:, None] - centre[None]) / bandwidth
    return jax.nn.logsumexp(-0.5 * away**2, axis=-1) - jnp.log(len(centre))

  score = jax.lax.map(density, centre) + jnp.log(prior + 1e-9)[:, None]
  return jax.nn.softmax(score, axis=0)
