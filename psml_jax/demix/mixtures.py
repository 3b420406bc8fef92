"""Mixtures of normal distributions on a line, fitted by expectation-maximisation."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

_ROUNDS = 64
_LEAST_WIDTH = 0.01


class Mixture(NamedTuple):
  """Components, f32[G] each; those with a share of 0 are none."""

  mean: jax.Array
  width: jax.Array
  share: jax.Array


def fit(x: jax.Array, count: jax.Array, sizes: tuple[int, ...]) -> Mixture:
  """The mixture that Schwarz's criterion prefers.

  Each is begun at even quantiles and at even steps.

  Args:
    x: f32[B].
    count: i32[], how many leading entries count.
    sizes: numbers of components to try (static).

  Returns:
    max(sizes) components. Traceable.
  """
  components = max(sizes)
  answered = jnp.arange(len(x)) < count
  total = jnp.maximum(count, 1).astype(jnp.float32)
  ordered = jnp.sort(jnp.where(answered, x, jnp.inf))
  last = ordered[jnp.maximum(count - 1, 0)]

  def begun(size: jax.Array, by_range: jax.Array) -> Mixture:
    place = jnp.arange(components, dtype=jnp.float32) + 0.5
    share = jnp.minimum(place / size.astype(jnp.float32), 1.0)
    quantile = ordered[jnp.minimum((share * total).astype(jnp.int32), count - 1)]
    even = ordered[0] + share * (last - ordered[0])
    mean = jnp.where(by_range, even, quantile)
    return Mixture(
      jnp.where(jnp.isfinite(mean), mean, 0.0),
      jnp.full(components, 0.1),
      jnp.where(place < size, 1 / size, 0.0),
    )

  def fitted(size: jax.Array, by_range: jax.Array) -> tuple[jax.Array, Mixture]:
    found = jax.lax.fori_loop(
      0, _ROUNDS, lambda _, old: _improved(x, answered, old), begun(size, by_range)
    )
    likelihood = jax.nn.logsumexp(_scores(x, found), axis=-1)
    numbers = (3 * size - 1).astype(jnp.float32)
    criterion = 2 * jnp.sum(jnp.where(answered, likelihood, 0.0))
    return criterion - numbers * jnp.log(total), found

  tried = jnp.tile(jnp.array(sizes), 2)
  by_range = jnp.arange(2 * len(sizes)) < len(sizes)
  criterion, mixtures = jax.vmap(fitted)(tried, by_range)
  best = jnp.argmax(criterion)
  return jax.tree.map(lambda leaf: leaf[best], mixtures)


def responsibilities(x: jax.Array, mixture: Mixture) -> jax.Array:
  """How probably each point is of each component, f32[B, G]."""
  return jax.nn.softmax(_scores(x, mixture), axis=-1)


def _scores(x: jax.Array, mixture: Mixture) -> jax.Array:
  """The logarithm of each component's part of the density at each point, f32[B, G]."""
  away = (x[:, None] - mixture.mean[None]) / mixture.width[None]
  level = jnp.log(mixture.share) - jnp.log(mixture.width)  # -inf where there is none
  return level[None] - 0.5 * away**2


def _improved(x: jax.Array, answered: jax.Array, old: Mixture) -> Mixture:
  each = jax.nn.softmax(_scores(x, old), axis=-1)
  each = jnp.where(answered[:, None], each, 0.0)
  weight = jnp.sum(each, axis=0)
  some = jnp.maximum(weight, 1e-6)
  mean = jnp.where(weight > 1e-3, each.T @ x / some, old.mean)
  variance = jnp.sum(each * (x[:, None] - mean[None]) ** 2, axis=0) / some
  width = jnp.sqrt(jnp.maximum(variance, _LEAST_WIDTH**2))
  return Mixture(mean, width, weight / jnp.maximum(jnp.sum(weight), 1e-6))
