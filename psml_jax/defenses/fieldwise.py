"""Transforms that draw both fields of a spec independently, by known laws."""

from typing import Any

import jax
import jax.numpy as jnp

from psml_jax.core import Spec
from psml_jax.defenses.transform import Stateless


class Fieldwise(Stateless):
  """A transform of which the distribution of each new field is known.

  A subclass gives `apply` and the two distribution functions; the exact law of the
  router behind it follows (`kernel`), and so do certified rates.
  """

  def accurate(self, min_accuracy: jax.Array, accuracy: jax.Array) -> jax.Array:
    """The probability that the new minimum accuracy is at most an accuracy.

    Args:
      min_accuracy: f32[...], as the client asks for it, a fraction.
      accuracy: f32[...], of a model, a fraction; the shapes broadcast.

    Returns:
      f32[...], rising in `accuracy` and falling in `min_accuracy`.
    """
    raise NotImplementedError

  def fast(self, max_latency_ms: jax.Array, latency_ms: jax.Array) -> jax.Array:
    """The probability that the new maximum latency is at least a latency.

    Args:
      max_latency_ms: f32[...], as the client asks for it.
      latency_ms: f32[...], of a model; the shapes broadcast.

    Returns:
      f32[...], falling in `latency_ms` and rising in `max_latency_ms`.
    """
    raise NotImplementedError

  def cuts(self) -> Spec | None:
    """Values of each field where the laws jump; None where they do nowhere."""
    return None

  def accurate_between(
    self, low: jax.Array, high: jax.Array, accuracy: jax.Array
  ) -> tuple[jax.Array, jax.Array]:
    """The least and the most of `accurate` for minimum accuracies between two.

    Args:
      low: f32[...].
      high: f32[...]; no cut lies between the two.
      accuracy: f32[...], as in `accurate`.
    """
    return self.accurate(high, accuracy), self.accurate(low, accuracy)

  def fast_between(
    self, low: jax.Array, high: jax.Array, latency_ms: jax.Array
  ) -> tuple[jax.Array, jax.Array]:
    """The least and the most of `fast` for maximum latencies between two."""
    return self.fast(low, latency_ms), self.fast(high, latency_ms)

  def kernel(self, router: Any, spec: Spec) -> jax.Array | None:
    """The law of a router behind this transform, see `psml_jax.leakage.kernel`.

    Args:
      router: the router; one of `psml_jax.routers` has a law behind noise.
      spec: as it reaches the transform, any leading axes.

    Returns:
      f32[..., M + 1]; None for a router of which only draws are known.
    """
    if not hasattr(router, 'mixed'):
      return None

    def one(spec: Spec) -> jax.Array:
      accurate = self.accurate(spec.min_accuracy, router.zoo.accuracy)
      fast = self.fast(spec.max_latency_ms, router.zoo.latency_ms)
      zero, one = jnp.zeros(1), jnp.ones(1)
      law: jax.Array = router.mixed(
        jnp.diff(jnp.concatenate([zero, accurate, one])),
        -jnp.diff(jnp.concatenate([one, fast, zero])),
      )
      return law

    flat = jax.tree.map(jnp.ravel, spec)
    width = max(1, _CELLS_AT_ONCE // (len(router.zoo.accuracy) + 1) ** 2)
    laws = jax.lax.map(one, flat, batch_size=width)
    return laws.reshape(*jnp.shape(spec.min_accuracy), -1)


_CELLS_AT_ONCE = 1 << 22
