"""Refusing queries at random: what every defense should be compared with."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from psml_jax import _validate, struct
from psml_jax.core import Query, Spec, ZooProfile
from psml_jax.defenses.mechanisms import MECHANISMS, Deployment, Knob, Mechanism
from psml_jax.defenses.transform import Stateless, kernel_of


@struct.dataclass(eq=False)
class Refusal(Stateless):
  """Random refusals.

  Attributes:
    share: f32[], the probability of each.
  """

  share: jax.Array

  monotone = True

  def apply(
    self, key: jax.Array, query: Query, state: tuple[()]
  ) -> tuple[Query, tuple[()]]:
    _validate.key('key', key)
    drawn = jax.random.uniform(key, query.spec.min_accuracy.shape, jnp.float32)
    refused = drawn < self.share
    spec = Spec(
      jnp.where(refused, jnp.float32(jnp.inf), query.spec.min_accuracy),
      jnp.where(refused, jnp.float32(-jnp.inf), query.spec.max_latency_ms),
    )
    return dataclasses.replace(query, spec=spec), state

  def kernel(self, router: Any, spec: Spec) -> jax.Array | None:
    law = kernel_of(router, spec)
    nothing = jnp.full_like(spec.min_accuracy, jnp.inf)
    refused = kernel_of(router, Spec(nothing, -nothing))
    if law is None or refused is None:
      return None
    share = jnp.clip(self.share, 0.0, 1.0)
    return (1 - share) * law + share * refused


def refusal(share: ArrayLike) -> Refusal:
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

  >>> query = Query.of([0], Spec.of(0.8, 20.0))
  >>> query, _ = refusal(1.0).apply(jax.random.key(0), query, ())
  >>> query.spec.min_accuracy.tolist()
  [inf]
  """
  if _validate.is_concrete(share):
    _validate.fractions('share', share)
  return Refusal(jnp.asarray(share, jnp.float32))


def _deployed(profile: ZooProfile, share: ArrayLike) -> Deployment:
  del profile
  return Deployment(defense=refusal(share))


MECHANISMS.register(
  'refusal',
  Mechanism(
    Knob('share', 'share of queries', 0.0, 2.0**-20, 1.0), _deployed, control=True
  ),
)
