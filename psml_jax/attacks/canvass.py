"""Canvasses: every image of the pool is sent with one spec, once or several times.

What a client does who wants to know something of each of its images, not to train on
the answers: whether it was trained on, what class it is given.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from psml_jax import _validate, struct
from psml_jax.attacks import extraction
from psml_jax.attacks.base import Attack, Phases
from psml_jax.core import Knowledge, Observation, Query, Spec


@struct.dataclass(eq=False)
class Answers:
  """All answers of a canvass: T rounds over a pool of N images.

  Attributes:
    spec: of shape [], of all queries.
    served: bool[T, N]; False where nothing was sent, too.
    outputs: f32[T, N, K], class probabilities; zeros where not served.
    latency_ms: f32[T, N], likewise.
    rounds: i32[], how many were sent.
  """

  spec: Spec
  served: jax.Array
  outputs: jax.Array
  latency_ms: jax.Array
  rounds: jax.Array


@struct.dataclass(eq=False)
class Canvass:
  """See `canvass`; all but the accuracy are static."""

  min_accuracy: jax.Array
  spec: str = struct.field(pytree_node=False)
  times: int = struct.field(pytree_node=False)

  def init(self, key: jax.Array, knowledge: Knowledge) -> Answers:
    del key  # The pool is sent in its own order.
    shape = (self.times, knowledge.pool_size)
    return Answers(
      spec=extraction.spec_of(self.spec, knowledge, self.min_accuracy),
      served=jnp.zeros(shape, bool),
      outputs=jnp.zeros((*shape, knowledge.num_classes), jnp.float32),
      latency_ms=jnp.zeros(shape, jnp.float32),
      rounds=jnp.int32(0),
    )

  def ask(self, state: Answers) -> Query:
    images = jnp.arange(state.served.shape[1], dtype=jnp.int32)
    return Query.of(images, state.spec, sent=state.rounds < self.times)

  def tell(self, state: Answers, query: Query, observation: Observation) -> Answers:
    del query
    return dataclasses.replace(
      state,
      served=state.served.at[state.rounds].set(observation.served),
      outputs=state.outputs.at[state.rounds].set(observation.outputs),
      latency_ms=state.latency_ms.at[state.rounds].set(observation.latency_ms),
      rounds=state.rounds + 1,
    )

  def harvest(self, state: Answers) -> Answers:
    return state


def canvass(spec: str, *, times: int = 1, min_accuracy: ArrayLike = 0.0) -> Canvass:
  """Sends every image of the pool with one spec, round after round.

  Args:
    spec: as in `extraction.replay`.
    times: how often each image is sent; every query is billed.
    min_accuracy: as in `extraction.replay`.

  Returns:
    The attack; it harvests `Answers`.

  Raises:
    ValueError: another word, or no whole number >= 1; from `init`, a spec that is not
      known.

  >>> from psml_jax import ZooProfile, routers, servers, session
  >>> zoo = ZooProfile([0.7, 0.9], [1.0, 5.0], ('small', 'large'))
  >>> server = servers.table(
  ...   routers.uniform(zoo), zoo.latency_ms, jnp.full((2, 8, 10), 0.1))
  >>> knowledge = Knowledge(jnp.float32(0.5), pool_size=8, num_classes=10)
  >>> key, server_key = jax.random.split(jax.random.key(0))
  >>> found = session.run(key, canvass('anything', times=2), server,
  ...                     server.init(server_key), knowledge, budget=100)
  >>> int(found.bill.queries), bool(found.harvest.served.any())
  (16, False)
  """
  _validate.one_of('spec', spec, extraction.SPECS)
  _validate.positive_int('times', times)
  if _validate.is_concrete(min_accuracy):
    _validate.fractions('min_accuracy', min_accuracy)
  return Canvass(jnp.asarray(min_accuracy, jnp.float32), spec, times)


def parted(attack: Attack | Phases) -> tuple[tuple[Attack, ...], extraction.Replay]:
  """An attack that ends by sending one spec: its phases before that, and the last.

  Args:
    attack: such as `attacks.make` gives it.

  Returns:
    The phases that look for the spec, none of a replay alone, and the replay.

  Raises:
    ValueError: an attack that ends in anything else.

  >>> before, last = parted(extraction.replay('told', 5))
  >>> before, last.spec, last.num_queries
  ((), 'told', 5)
  """
  each = attack.attacks if isinstance(attack, Phases) else (attack,)
  *before, last = each
  if not isinstance(last, extraction.Replay):
    raise ValueError(
      f'attack is {type(last).__name__}; it must end by sending one spec with image '
      'after image (extraction.replay)'
    )
  return tuple[Any, ...](before), last
