"""Responders told apart by how long they took."""

import functools

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from psml_jax import _validate
from psml_jax.demix import mixtures

_LEAST = 0.15
_SLACK = 1.1
_TENTH = 1.28  # widths below the mean lies the fastest tenth


@functools.partial(jax.jit, static_argnames='components')
def by_latency(
  latency_ms: jax.Array,
  count: jax.Array,
  latency_budget_ms: ArrayLike,
  *,
  components: int = 8,
) -> jax.Array:
  """How probably each answer is the victim's, for a client with a clock.

  Mixtures of normal distributions with tails, in the logarithm of the latency, are
  fitted by expectation-maximisation, of 1 to so many components; Schwarz's criterion
  chooses. The victim is the most accurate model within the latency budget, so on a
  frontier the slowest one: of the components whose fastest tenth lies within the
  budget, which profiles state for the fastest requests, and a tenth more, and that
  answer at least 0.15 as often as the commonest, the one with the largest mean, with
  those whose means lie within two widths of it.

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
  mixture = mixtures.fit(x, count, tuple(range(1, components + 1)), tails=True)
  budget = jnp.log(jnp.asarray(latency_budget_ms, jnp.float32))
  fastest = mixture.mean - _TENTH * mixture.width - jnp.log(_SLACK)
  within = (fastest <= budget) & (mixture.share >= _LEAST * jnp.max(mixture.share))
  victim = jnp.argmax(jnp.where(within, mixture.mean, -jnp.inf))
  away = jnp.abs(mixture.mean - mixture.mean[victim])
  own = away <= 2 * jnp.maximum(mixture.width, mixture.width[victim])
  each = mixtures.responsibilities(x, mixture) @ own.astype(jnp.float32)
  return jnp.where(answered, each, 0.0)


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
