"""Extraction: collecting a surrogate's training data by queries (paper, section 5).

All attacks send images of one unlabelled pool and train on the answers; they differ
in the spec they send them with. `anything_within` is the naive attack's, a
fingerprint's corner the paper's.
"""

import jax
import jax.numpy as jnp
from flax import struct
from jax.typing import ArrayLike

from psml_jax import _validate
from psml_jax.core import Observation, Spec


@struct.dataclass
class Harvest:
  """A surrogate's training data: the answered queries first, then padding.

  Attributes:
    inputs: i32[B], indices into the attacker's pool.
    targets: f32[B, K], class probabilities that came back; zeros in the padding.
    count: i32[], how many rows were answered.
  """

  inputs: jax.Array
  targets: jax.Array
  count: jax.Array


def anything_within(latency_budget_ms: ArrayLike) -> Spec:
  """The naive attack's spec: any model within the budget will do.

  It is all that a client can ask for who knows no model of the zoo.

  Args:
    latency_budget_ms: f32[], milliseconds; may be traced.

  Returns:
    A spec of shape [] with minimum accuracy 0.

  Raises:
    ValueError: a concrete budget that is NaN.

  >>> float(anything_within(5.0).min_accuracy)
  0.0
  """
  return Spec.of(0.0, latency_budget_ms)


def choose_inputs(key: jax.Array, pool_size: int, num_queries: int) -> jax.Array:
  """Draws the images to send, each at most once.

  Args:
    key: consumed; a longer draw starts with the same images.
    pool_size: images in the attacker's pool.
    num_queries: how many to draw, at most `pool_size`.

  Returns:
    i32[num_queries], indices into the pool.

  Raises:
    ValueError: the pool is smaller than the number of queries.

  >>> choose_inputs(jax.random.key(0), 10, 4).shape
  (4,)
  """
  _validate.positive_int('num_queries', num_queries)
  if pool_size < num_queries:
    raise ValueError(
      f'pool_size is {pool_size}; it must be at least the {num_queries} queries '
      'to send, one image each'
    )
  return jax.random.permutation(key, pool_size)[:num_queries].astype(jnp.int32)


def harvest(inputs: jax.Array, observation: Observation) -> Harvest:
  """Keeps the answered queries, in the order they were sent.

  Args:
    inputs: i32[B], the images sent.
    observation: what came back, batched [B]; a query that was not sent counts as
      refused.

  Returns:
    The training data.
  """
  order = jnp.argsort(~observation.served, stable=True)
  return Harvest(
    inputs=inputs[order],
    targets=observation.outputs[order],
    count=jnp.sum(observation.served, dtype=jnp.int32),
  )
