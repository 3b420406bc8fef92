"""Refusing queries at random: what every defense should be compared with."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from psml_jax import _validate
from psml_jax.core import Spec
from psml_jax.defenses.transform import SpecTransform


def refusal(share: ArrayLike) -> SpecTransform:
  """Refuses a share of all queries, whatever they ask for.

  A refused query's spec becomes one that no model meets. It costs honest clients that
  share of their goodput and tells an attacker nothing but less, so a defense that
  protects no better at equal goodput is not worth its noise.

  Args:
    share: probability of a refusal, f32[]; may be traced.

  Returns:
    The stateless transform. The key is consumed; query i's fate depends on the key and
    i alone.

  Raises:
    ValueError: a concrete share outside [0, 1], or a key that is not typed.

  >>> spec, _ = refusal(1.0).apply(jax.random.key(0), Spec.of(0.8, 20.0), ())
  >>> float(spec.min_accuracy)
  inf
  """
  if _validate.is_concrete(share):
    _validate.fractions('share', share)

  def apply(key: jax.Array, spec: Spec, state: tuple[()]) -> tuple[Spec, tuple[()]]:
    _validate.key('key', key)
    drawn = jax.random.uniform(key, spec.min_accuracy.shape, jnp.float32)
    refused = drawn < jnp.asarray(share, jnp.float32)
    return Spec(
      jnp.where(refused, jnp.float32(jnp.inf), spec.min_accuracy),
      jnp.where(refused, jnp.float32(-jnp.inf), spec.max_latency_ms),
    ), state

  return SpecTransform(lambda: (), apply)
