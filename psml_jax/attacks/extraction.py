"""Replays: one spec, sent with the images of a pool (paper, section 5).

The attacks of the paper differ in that spec. `anything` is the naive attack's, `found`
the corner that a fingerprint has found, `told` one that the attacker knows already.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from psml_jax import _validate, struct
from psml_jax.attacks.base import ATTACKS, Entry, Resources
from psml_jax.core import Harvest, Knowledge, Observation, Query, Spec

SPECS = ('anything', 'found', 'told')


@struct.dataclass(eq=False)
class Sent:
  """A batch that is sent once.

  Attributes:
    inputs: i32[B], indices into the pool.
    spec: Spec of shape [], of all of them.
    observation: what came back.
    asked: bool[], whether they were sent.
  """

  inputs: jax.Array
  spec: Spec
  observation: Observation
  asked: jax.Array


@struct.dataclass(eq=False)
class Replay:
  """See `replay`; all but the accuracy are static."""

  min_accuracy: jax.Array
  spec: str = struct.field(pytree_node=False)
  num_queries: int = struct.field(pytree_node=False)

  def init(self, key: jax.Array, knowledge: Knowledge) -> Sent:
    return Sent(
      inputs=choose_inputs(key, knowledge.pool_size, self.num_queries),
      spec=spec_of(self.spec, knowledge, self.min_accuracy),
      observation=unanswered(self.num_queries, knowledge.num_classes),
      asked=jnp.bool_(False),
    )

  def ask(self, state: Sent) -> Query:
    return Query.of(state.inputs, state.spec, sent=~state.asked)

  def tell(self, state: Sent, query: Query, observation: Observation) -> Sent:
    del query
    return dataclasses.replace(state, observation=observation, asked=jnp.bool_(True))

  def harvest(self, state: Sent) -> Harvest:
    return harvested(state)


def replay(spec: str, num_queries: int, *, min_accuracy: ArrayLike = 0.0) -> Replay:
  """Sends one spec with image after image.

  Args:
    spec: 'anything' asks for any model within the latency budget, all that a client
      can ask for who knows no model of the zoo; 'found' for what the phase before this
      one found; 'told' for the spec that the attacker knows.
    num_queries: how many images at most, each once.
    min_accuracy: f32[], a fraction, of 'anything'.

  Returns:
    The attack; it harvests a `Harvest` with `num_queries` rows.

  Raises:
    ValueError: another word, no whole number >= 1, or an accuracy that is no fraction;
      from `init`, a pool that is smaller, or a spec that is not known.
  """
  _validate.one_of('spec', spec, SPECS)
  _validate.positive_int('num_queries', num_queries)
  if _validate.is_concrete(min_accuracy):
    _validate.fractions('min_accuracy', min_accuracy)
  return Replay(jnp.asarray(min_accuracy, jnp.float32), spec, num_queries)


def unanswered(size: int, num_classes: int) -> Observation:
  """An observation of `size` queries none of which was served."""
  return Observation(
    served=jnp.zeros(size, bool),
    outputs=jnp.zeros((size, num_classes), jnp.float32),
    latency_ms=jnp.zeros(size, jnp.float32),
  )


def harvested(sent: Sent) -> Harvest:
  """What was answered of a batch, in its order."""
  seen = sent.observation
  order = jnp.argsort(~seen.served, stable=True)
  return Harvest(
    inputs=sent.inputs[order],
    targets=seen.outputs[order],
    count=jnp.sum(seen.served, dtype=jnp.int32),
    latency_ms=seen.latency_ms[order],
  )


def choose_inputs(key: jax.Array, pool_size: int, num_queries: int) -> jax.Array:
  """The images to send, in a random order, each at most once.

  Args:
    key: of the attack; a longer draw starts with the same images.
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


def spec_of(which: str, knowledge: Knowledge, min_accuracy: ArrayLike = 0.0) -> Spec:
  """The spec that one of `SPECS` means to an attacker, of shape []."""
  if which == 'anything':
    return Spec.of(min_accuracy, knowledge.latency_budget_ms)
  known: Any = knowledge.spec
  if which == 'found':
    known = getattr(knowledge.found, 'spec', None)
  if known is None:
    raise ValueError(f'spec is {which!r}, but the attacker knows no such spec')
  return Spec.of(known.min_accuracy, known.max_latency_ms)


def _naive(resources: Resources, *, min_accuracy: float = 0.0) -> Replay:
  return replay('anything', resources.num_queries, min_accuracy=min_accuracy)


def _entry(spec: str, **fields: Any) -> Entry:
  def make(resources: Resources) -> Replay:
    return replay(spec, resources.num_queries)

  return Entry(make, **fields)


ATTACKS.register(
  'explicit', _entry('anything', knows="its victim's name", role='reference')
)
ATTACKS.register(
  'informed',
  _entry('told', knows='the best spec under the defense', role='informed'),
)
ATTACKS.register('naive', Entry(_naive, role='baseline'))
