"""Mixtures on a line, fitted by expectation-maximisation.

A component is a normal distribution; with tails a share of every component, the same of
all, lies above its mean and is exponentially distributed, as latencies are.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

_ROUNDS = 64
_WIDTHS = (0.01, 0.15)
_TAILS = (1e-3, 0.4)
_DECAYS = (0.05, 2.0)


class Mixture(NamedTuple):
  """Components, f32[G] each, of which those with a share of 0 are none; and tails.

  Attributes:
    mean: of the normal part.
    width: its standard deviation.
    share: of all points, with the tail.
    tail: f32[], the share of a component that is its tail.
    decay: f32[], a tail's mean distance from the component's mean.
  """

  mean: jax.Array
  width: jax.Array
  share: jax.Array
  tail: jax.Array
  decay: jax.Array


def fit(
  x: jax.Array, count: jax.Array, sizes: tuple[int, ...], *, tails: bool
) -> Mixture:
  """The mixture that Schwarz's criterion prefers.

  Each is begun at even quantiles and at even steps.

  Args:
    x: f32[B].
    count: i32[], how many leading entries count.
    sizes: numbers of components to try (static).
    tails: whether components have tails (static).

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
      jnp.float32(0.1 if tails else 0.0),
      jnp.float32(0.5),
    )

  def fitted(size: jax.Array, by_range: jax.Array) -> tuple[jax.Array, Mixture]:
    found = jax.lax.fori_loop(
      0,
      _ROUNDS,
      lambda _, old: _improved(x, answered, old, tails),
      begun(size, by_range),
    )
    likelihood = jax.nn.logsumexp(_scores(x, found), axis=(1, 2))
    numbers = (3 * size - 1 + 2 * tails).astype(jnp.float32)
    criterion = 2 * jnp.sum(jnp.where(answered, likelihood, 0.0))
    return criterion - numbers * jnp.log(total), found

  tried = jnp.tile(jnp.array(sizes), 2)
  by_range = jnp.arange(2 * len(sizes)) < len(sizes)
  criterion, mixtures = jax.vmap(fitted)(tried, by_range)
  best = jnp.argmax(criterion)
  return jax.tree.map(lambda leaf: leaf[best], mixtures)


def responsibilities(x: jax.Array, mixture: Mixture) -> jax.Array:
  """How probably each point is of each component, f32[B, G]."""
  return jnp.sum(_parts(x, mixture), axis=-1)


def _parts(x: jax.Array, mixture: Mixture) -> jax.Array:
  """How probably each is of a component's normal part and of its tail, f32[B, G, 2]."""
  scores = _scores(x, mixture)
  return jax.nn.softmax(scores.reshape(len(x), -1), axis=-1).reshape(scores.shape)


def _scores(x: jax.Array, mixture: Mixture) -> jax.Array:
  """The logarithm of each part's share of the density at each point, f32[B, G, 2]."""
  beyond = x[:, None] - mixture.mean[None]
  level = jnp.log(mixture.share)[None]  # -inf where there is none
  away = beyond / mixture.width[None]
  normal = -0.5 * away**2 - jnp.log(mixture.width)[None] - 0.5 * math.log(2 * math.pi)
  tail = jnp.where(beyond > 0, -beyond / mixture.decay, -jnp.inf)
  parts = (
    level + jnp.log1p(-mixture.tail) + normal,
    level + jnp.log(mixture.tail) - jnp.log(mixture.decay) + tail,
  )
  return jnp.stack(parts, axis=-1)


def _improved(x: jax.Array, answered: jax.Array, old: Mixture, tails: bool) -> Mixture:
  each = jnp.where(answered[:, None, None], _parts(x, old), 0.0)
  normal = each[..., 0]
  weight = jnp.sum(normal, axis=0)
  some = jnp.maximum(weight, 1e-6)
  mean = jnp.where(weight > 1e-3, normal.T @ x / some, old.mean)
  beyond = x[:, None] - mean[None]
  least, most = _WIDTHS if tails else (_WIDTHS[0], math.inf)
  variance = jnp.sum(normal * beyond**2, axis=0) / some
  width = jnp.sqrt(jnp.clip(variance, least**2, most**2))
  total = jnp.maximum(jnp.sum(each), 1e-6)
  share = jnp.sum(each, axis=(0, 2)) / total
  if not tails:
    return Mixture(mean, width, share, old.tail, old.decay)
  in_tails = jnp.sum(each[..., 1])
  distance = jnp.sum(each[..., 1] * jnp.maximum(beyond, 0.0))
  return Mixture(
    mean,
    width,
    share,
    jnp.clip(in_tails / total, *_TAILS),
    jnp.clip(distance / jnp.maximum(in_tails, 1e-6), *_DECAYS),
  )
