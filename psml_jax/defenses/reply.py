"""Transforms of the answer, between the model and the client, which shut channels.

What an answer tells of its model beside the label: probabilities (`rounded`,
`labels_only`) and the clock (`padded`). `threats.channels` measures how much.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from psml_jax import _registry, _validate, struct
from psml_jax.core import Observation, Query
from psml_jax.defenses.transform import InTurn, Stateless


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


@struct.dataclass(eq=False)
class _Rounded(_Untouched):
  levels: jax.Array

  def apply(
    self, key: jax.Array, query: Query, observation: Observation, state: tuple[()]
  ) -> tuple[Observation, tuple[()]]:
    del key, query
    outputs = jnp.round(observation.outputs * self.levels) / self.levels
    return dataclasses.replace(observation, outputs=outputs), state


@struct.dataclass(eq=False)
class _Padded(_Untouched):
  least_ms: jax.Array
  margin_ms: jax.Array

  def apply(
    self, key: jax.Array, query: Query, observation: Observation, state: tuple[()]
  ) -> tuple[Observation, tuple[()]]:
    del key
    due = jnp.minimum(self.least_ms, query.spec.max_latency_ms - self.margin_ms)
    held = jnp.maximum(observation.latency_ms, due)
    latency_ms = jnp.where(observation.served, held, observation.latency_ms)
    return dataclasses.replace(observation, latency_ms=latency_ms), state


@struct.dataclass(eq=False)
class _InTurn(InTurn):
  def apply(
    self, key: jax.Array, query: Query, observation: Observation, state: tuple[Any, ...]
  ) -> tuple[Observation, tuple[Any, ...]]:
    return self.through(
      key,
      observation,
      state,
      lambda part, own, seen, old: part.apply(own, query, seen, old),
    )


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


def rounded(decimals: int) -> ReplyTransform:
  """Probabilities are rounded, so that they tell less of who gave them.

  They need not sum to 1 any more, and classes may tie: with 0 decimals all are 0 where
  none has more than a half.

  Args:
    decimals: kept, from 0 to 6.

  Raises:
    ValueError: another number of decimals.

  >>> answer = Observation(jnp.bool_(True), jnp.array([0.28, 0.72]), jnp.float32(1))
  >>> rounded(1).apply(jax.random.key(0), None, answer, ())[0].outputs.tolist()
  [0.30000001192092896, 0.699999988079071]
  """
  _validate.non_negative_int('decimals', decimals)
  if decimals > 6:
    raise ValueError(f'decimals is {decimals}; float32 has no more than 6')
  return _Rounded(jnp.float32(10**decimals))


def padded(least_ms: float, margin_ms: float = 0.0) -> ReplyTransform:
  """Answers come after a fixed time at the earliest, so that fast models look slow.

  An answer that is ready earlier is held until `least_ms`, or until the client's own
  deadline where that comes first: no goodput is lost. What takes longer anyway, such as
  the tail of the slowest model, still tells. Refusals are not held.

  Args:
    least_ms: milliseconds from the query's arrival, > 0; the slowest model's usual
      latency hides them all from who sends a loose deadline.
    margin_ms: how long before the client's deadline an answer goes out, >= 0; on a
      wire it must cover the way back, or held answers come too late.

  Raises:
    ValueError: a time that is not positive and finite, or a margin below 0.

  >>> from psml_jax.core import Spec
  >>> answer = Observation(jnp.bool_(True), jnp.ones(1), jnp.float32(1))
  >>> for deadline in (9.0, 2.0):
  ...   query = Query(None, Spec.of(0.5, deadline), None, None)
  ...   print(padded(5.0).apply(jax.random.key(0), query, answer, ())[0].latency_ms)
  5.0
  2.0
  """
  _validate.positive('least_ms', least_ms)
  _validate.non_negative_number('margin_ms', margin_ms)
  return _Padded(jnp.float32(least_ms), jnp.float32(margin_ms))


def in_turn(*replies: ReplyTransform) -> ReplyTransform:
  """Applies transforms of replies one after the other, the first one first.

  Args:
    *replies: any number; none at all changes nothing.

  Returns:
    The transform. Its state is the tuple of theirs; transform i gets
    `jax.random.fold_in(key, i)`.
  """
  return _InTurn(replies)


REPLIES: _registry.Registry[Callable[..., ReplyTransform]] = _registry.Registry('reply')
"""Transforms of replies by the names that configs give them; they take its fields."""

REPLIES.register('labels_only', labels_only)
REPLIES.register('padded', padded)
REPLIES.register('rounded', rounded)
