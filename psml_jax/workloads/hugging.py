"""Clients who hug the frontier: they ask for nearly what a model there gives."""

import jax
import jax.numpy as jnp

from psml_jax import _validate
from psml_jax.core import Spec, ZooProfile
from psml_jax.workloads import base


def frontier(size: int, slack: float = 0.25) -> base.Workload:
  """Specs a little looser than what a model on the frontier gives.

  For clients who know what can be had. They have few feasible models, so defenses cost
  them most. Every corner of the frontier has the same weight, the fastest and the most
  accurate included; specs that many models meet have little. The client of corner i
  asks for

      accuracy[i] - e (accuracy[i] - accuracy[i - 1]),
      latency[i] + e' (latency[i + 1] - latency[i])

  with e and e' exponential of mean `slack`. Below the first corner stands the zoo's
  lowest accuracy, above the last its highest latency, and no spec goes beyond them:
  where the fastest model is the least accurate, its client asks for its accuracy, and
  noise on specs that tightens as often as it loosens loses half of these clients
  however weak it is.

  Args:
    size: how many specs.
    slack: the mean of e and e', shares of a step; 0 asks for the corners themselves.

  Returns:
    The workload.

  Raises:
    ValueError: `size` is not a whole number >= 1, or `slack` not finite and >= 0.

  >>> zoo = ZooProfile([0.5, 0.9], [1.0, 10.0], ('a', 'b'))
  >>> spec = frontier(50, slack=0.0)(jax.random.key(0), zoo)
  >>> sorted(set(spec.max_latency_ms.tolist()))
  [1.0, 10.0]
  """
  _validate.positive_int('size', size)
  _validate.non_negative_number('slack', slack)

  def workload(key: jax.Array, profile: ZooProfile) -> Spec:
    _validate.key('key', key)
    accuracy, latency = base.corners(profile)
    lowest, slowest = jnp.min(profile.accuracy), jnp.max(profile.latency_ms)
    down = jnp.diff(accuracy, prepend=lowest)
    up = jnp.diff(latency, append=slowest)
    corner_key, accuracy_key, latency_key = jax.random.split(key, 3)
    corner = jax.random.randint(corner_key, (size,), 0, len(accuracy))
    less = slack * jax.random.exponential(accuracy_key, (size,))
    more = slack * jax.random.exponential(latency_key, (size,))
    return Spec(
      jnp.maximum(accuracy[corner] - less * down[corner], lowest),
      jnp.minimum(latency[corner] + more * up[corner], slowest),
    )

  return workload


base.WORKLOADS.register('frontier', frontier)
