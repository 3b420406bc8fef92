"""Queries, and transforms of them, as tests write them."""

import dataclasses
from collections.abc import Callable

import jax.numpy as jnp

from psml_jax import struct
from psml_jax.core import Query


def of(spec):
  """The spec as queries of any shape, of image 0 and client 0."""
  shape = spec.min_accuracy.shape
  zeros = jnp.zeros(shape, jnp.int32)
  return Query(zeros, spec, zeros, jnp.ones(shape, bool))


def apply(transform, key, spec, state=None):
  """The spec behind a transform, and its new state."""
  if state is None:
    state = transform.init(key)
  query, state = transform.apply(key, of(spec), state)
  return query.spec, state


@struct.dataclass(eq=False)
class OnSpecs:
  """A transform of the test's own: `(key, spec, state) -> (spec, state)`."""

  function: Callable = struct.field(pytree_node=False)
  start: Callable = struct.field(pytree_node=False, default=lambda: ())

  def init(self, key):
    del key
    return self.start()

  def apply(self, key, query, state):
    spec, state = self.function(key, query.spec, state)
    return dataclasses.replace(query, spec=spec), state
