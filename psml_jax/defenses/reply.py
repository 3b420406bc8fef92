"""Transforms of the answer, between the model and the client."""

import dataclasses
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from flax import struct

from psml_jax.core import Observation, Query
from psml_jax.defenses.transform import Stateless


class ReplyTransform(Protocol):
  """A keyed map of what a client gets back."""

  def init(self, key: jax.Array) -> Any:
    """The state before the first query; `()` where the transform keeps none."""

  def apply(
    self, key: jax.Array, query: Query, observation: Observation, state: Any
  ) -> tuple[Observation, Any]:
    """The observation as the client gets it, and the state after it.

    Args:
      key: consumed.
      query: one query of shape [], as the client sent it.
      observation: its answer.
      state: as `init` or the last `apply` left it.
    """


@struct.dataclass(eq=False)
class _Untouched(Stateless):
  def apply(
    self, key: jax.Array, query: Query, observation: Observation, state: tuple[()]
  ) -> tuple[Observation, tuple[()]]:
    del key, query
    return observation, state


@struct.dataclass(eq=False)
class _LabelsOnly(_Untouched):
  def apply(
    self, key: jax.Array, query: Query, observation: Observation, state: tuple[()]
  ) -> tuple[Observation, tuple[()]]:
    del key, query
    outputs = observation.outputs
    label = jax.nn.one_hot(
      jnp.argmax(outputs, -1), outputs.shape[-1], dtype=outputs.dtype
    )
    hidden = jnp.where(observation.served[..., None], label, 0)
    return dataclasses.replace(observation, outputs=hidden), state


def untouched() -> ReplyTransform:
  """Every answer as the model gave it."""
  return _Untouched()


def labels_only() -> ReplyTransform:
  """Answers name a class and hide its probability.

  >>> answer = Observation(jnp.bool_(True), jnp.array([0.3, 0.7]), jnp.float32(1))
  >>> labels_only().apply(jax.random.key(0), None, answer, ())[0].outputs.tolist()
  [0.0, 1.0]
  """
  return _LabelsOnly()
