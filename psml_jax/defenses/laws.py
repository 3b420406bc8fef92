"""Laws of selection: from the logits of the models to their probabilities."""

import jax
import jax.numpy as jnp
import numpy as np


class Law:
  """What a mechanism makes of logits, of which the highest is 0."""

  def weights(self, logits: jax.Array) -> jax.Array:
    """Numbers that each model's probability is proportional to.

    Args:
      logits: f32[M, ...].

    Returns:
      f32[M, ...], 0 where the logit is -inf.
    """
    raise NotImplementedError

  def ceiling(self, least: jax.Array, most: jax.Array) -> jax.Array:
    """Upper bounds of the probabilities over all logits between two.

    Args:
      least: f32[M, ...], of which the highest is 0.
      most: f32[M, ...].

    Returns:
      f32[M, ...].
    """
    raise NotImplementedError


class _Exponential(Law):
  def weights(self, logits: jax.Array) -> jax.Array:
    return jnp.exp(logits)

  def ceiling(self, least: jax.Array, most: jax.Array) -> jax.Array:
    weights = jnp.exp(least)
    others = jnp.sum(weights, 0, keepdims=True) - weights
    odds = most - jnp.log(jnp.maximum(others, jnp.finfo(jnp.float32).tiny))
    return jnp.where(others > 0, jax.nn.sigmoid(odds), 1.0)


class _PermuteAndFlip(Law):
  """An integral over the largest noisy logit, with `p = exp(logits)`.

    P(m) = p_m integral_0^1 prod_{j != m} (1 - p_j y) dy.

  The integrand is a polynomial of degree M - 1, in [0, 1], so Gauss-Legendre with
  M / 2 nodes is exact, and with the number that `_num_nodes` gives within 5e-7.
  """

  def weights(self, logits: jax.Array) -> jax.Array:
    p = jnp.exp(logits)
    return p * self._others(p)

  def ceiling(self, least: jax.Array, most: jax.Array) -> jax.Array:
    p, ratio = jnp.exp(least), jnp.exp(most)
    rate = (jnp.sum(p, 0, keepdims=True) - p) / jnp.maximum(ratio, 1e-30)
    # prod (1 - p_j y) <= exp(-y sum p_j), integrated as far as the highest score lets.
    tail = jnp.where(rate > 1e-6, -jnp.expm1(-rate) / jnp.maximum(rate, 1e-6), 1.0)
    return jnp.minimum(ratio * self._others(p), tail)

  def _others(self, p: jax.Array) -> jax.Array:
    """f32[M, ...], the integral for each model."""
    nodes, shares = np.polynomial.legendre.leggauss(_num_nodes(len(p)))
    more = (0, len(nodes) % 2)  # a node of no weight, for they go in pairs
    nodes = np.pad((nodes + 1) / 2, more).astype(np.float32)
    shares = np.pad(shares / 2, more).astype(np.float32)
    total = jnp.zeros_like(p)
    for i in range(0, len(nodes), 2):
      one, other = 1 - p * nodes[i], 1 - p * nodes[i + 1]
      first = shares[i] * jnp.prod(one, 0, keepdims=True)
      second = shares[i + 1] * jnp.prod(other, 0, keepdims=True)
      total += (first * other + second * one) / (one * other)  # divisions are slow
    return total


def _num_nodes(num_models: int) -> int:
  """How many nodes give the integral of `_PermuteAndFlip`: O(sqrt(M)).

  On the ellipse around [0, 1] of parameter r, the polynomial is at most
  `(1 + d)^(M - 1)` with `d = (r + 1/r - 2) / 4`, so that n nodes err by at most
  `32/15 (1 + d)^(M - 1) r^(-2n) / (1 - r^-2)` (Trefethen 2008, theorem 4.5).
  """
  r = 1 + np.geomspace(1e-3, 1e3, 2_000)
  grown = (num_models - 1) * np.log1p((r + 1 / r - 2) / 4) - np.log1p(-(r**-2))
  wanted = (np.log(32 / 15) + grown - np.log(5e-7)) / (2 * np.log(r))
  return int(min((num_models + 1) // 2, np.ceil(wanted.min())))


EXPONENTIAL, PERMUTE_AND_FLIP = _Exponential(), _PermuteAndFlip()
