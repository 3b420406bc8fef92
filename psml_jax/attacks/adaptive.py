"""Adaptive queries: images chosen in rounds, by a surrogate of the answers so far."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from psml_jax import _validate, struct, train
from psml_jax.attacks import extraction
from psml_jax.attacks.base import ATTACKS, Attack, Entry, Phases, Resources
from psml_jax.attacks.fingerprint import bisection
from psml_jax.core import Harvest, Knowledge, Observation, Query

BY = ('k_center', 'uncertainty')
_OWN = 7  # No key here is split into as many, so that no draw is used twice.


@struct.dataclass(eq=False)
class _State:
  key: jax.Array
  sent: extraction.Sent
  done: jax.Array


@struct.dataclass(eq=False)
class Adaptive:
  """See `adaptive`; all but the pool is static."""

  pool: jax.Array | None
  spec: str = struct.field(pytree_node=False)
  num_queries: int = struct.field(pytree_node=False)
  by: str = struct.field(pytree_node=False)
  rounds: int = struct.field(pytree_node=False)
  training: train.Training | None = struct.field(pytree_node=False)

  @property
  def _size(self) -> int:
    return self.num_queries // self.rounds

  def init(self, key: jax.Array, knowledge: Knowledge) -> _State:
    if self.pool is None or self.training is None:
      raise ValueError(
        f'pool is {self.pool} and training {self.training}; the attack needs its '
        'images and how it trains a surrogate'
      )
    sent = extraction.replay(self.spec, self.num_queries).init(key, knowledge)
    own = jax.random.fold_in(key, _OWN)
    return _State(own, sent, jnp.int32(0))

  def ask(self, state: _State) -> Query:
    inputs = jax.lax.dynamic_slice_in_dim(
      state.sent.inputs, state.done * self._size, self._size
    )
    return Query.of(inputs, state.sent.spec, sent=state.done < self.rounds)

  def tell(self, state: _State, query: Query, observation: Observation) -> _State:
    del query
    first = state.done * self._size

    def put(whole: jax.Array, part: jax.Array) -> jax.Array:
      return jax.lax.dynamic_update_slice_in_dim(whole, part, first, axis=0)

    sent = dataclasses.replace(
      state.sent,
      observation=jax.tree.map(put, state.sent.observation, observation),
    )
    done = state.done + 1
    key, choose_key = jax.random.split(state.key)
    inputs = jax.lax.cond(
      done < self.rounds,
      lambda: jax.lax.dynamic_update_slice_in_dim(
        sent.inputs,
        self._choose(choose_key, sent, done),
        done * self._size,
        axis=0,
      ),
      lambda: sent.inputs,
    )
    return _State(key, dataclasses.replace(sent, inputs=inputs), done)

  def harvest(self, state: _State) -> Harvest:
    return extraction.harvested(state.sent)

  def _choose(
    self, key: jax.Array, sent: extraction.Sent, done: jax.Array
  ) -> jax.Array:
    """i32[size], images that were not sent yet."""
    assert self.pool is not None
    assert self.training is not None
    variables, _ = train.pure_fit(
      key, self.training, self.pool, extraction.harvested(sent)
    )
    logits = self.training.module.apply(variables, self.pool)
    assert isinstance(logits, jax.Array)
    asked = jnp.arange(self.num_queries) < done * self._size
    place = jnp.where(asked, sent.inputs, len(self.pool))
    free = jnp.ones(len(self.pool), bool).at[place].set(False, mode='drop')
    probabilities = jax.nn.softmax(logits)
    if self.by == 'uncertainty':
      entropy = -jnp.sum(probabilities * jax.nn.log_softmax(logits), axis=-1)
      _, chosen = jax.lax.top_k(jnp.where(free, entropy, -jnp.inf), self._size)
      return chosen.astype(jnp.int32)
    return farthest(probabilities, free, self._size)


def farthest(points: jax.Array, free: jax.Array, count: int) -> jax.Array:
  """Greedy k-center: again and again the free point farthest from all others taken.

  Args:
    points: f32[P, D].
    free: bool[P]; the others are taken already.
    count: how many to take (static), at most as many as are free.

  Returns:
    i32[count], indices. Traceable.

  >>> points = jnp.array([[0.0], [1.0], [5.0], [4.0]])
  >>> farthest(points, jnp.array([False, True, True, True]), 2).tolist()
  [2, 1]
  """

  def away(place: Any) -> jax.Array:
    return jnp.sum((points - points[place][None]) ** 2, axis=-1)

  def nearer(place: Any, nearest: jax.Array) -> jax.Array:
    return jnp.minimum(nearest, jnp.where(free[place], jnp.inf, away(place)))

  nearest = jax.lax.fori_loop(0, len(points), nearer, jnp.full(len(points), jnp.inf))

  def take(
    carry: tuple[jax.Array, jax.Array], _: None
  ) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
    nearest, free = carry
    chosen = jnp.argmax(jnp.where(free, nearest, -1.0)).astype(jnp.int32)
    return (jnp.minimum(nearest, away(chosen)), free.at[chosen].set(False)), chosen

  _, chosen = jax.lax.scan(take, (nearest, free), length=count)
  return chosen


def adaptive(
  spec: str,
  num_queries: int,
  *,
  by: str,
  rounds: int = 5,
  pool: jax.Array | None = None,
  training: train.Training | None = None,
) -> Adaptive:
  """Sends one spec with images that a surrogate chooses, round by round.

  The first round is drawn at random. Before each further one a surrogate is trained on
  all answers so far, and of the images that were not sent it takes those whose class it
  is least sure of (`uncertainty`: the highest entropy), or those farthest from what was
  sent, in the surrogate's probabilities (`k_center`, Sener and Savarese 2018).

  Args:
    spec: as in `extraction.replay`.
    num_queries: how many images at most, each once; where fewer are billed, the last
      round is cut short, and no round is made smaller.
    by: 'k_center' or 'uncertainty'.
    rounds: a divisor of `num_queries`.
    pool: f32[P, H, W, C], the attacker's images.
    training: of its surrogate.

  Returns:
    The attack; it harvests a `Harvest` with `num_queries` rows.

  Raises:
    ValueError: another word, a number of rounds that does not divide the queries; from
      `init`, what `replay` raises, or neither pool nor training.
  """
  _validate.one_of('spec', spec, extraction.SPECS)
  _validate.one_of('by', by, BY)
  _validate.positive_int('num_queries', num_queries)
  _validate.positive_int('rounds', rounds)
  if num_queries % rounds:
    raise ValueError(
      f'rounds is {rounds}; it must divide the {num_queries} queries of num_queries'
    )
  return Adaptive(pool, spec, num_queries, by, rounds, training)


def _entry(by: str, spec: str, **fields: Any) -> Entry:
  def make(resources: Resources, rounds: int = 5) -> Attack | Phases:
    choosing = adaptive(
      spec,
      resources.num_queries,
      by=by,
      rounds=rounds,
      pool=resources.pool,
      training=resources.training,
    )
    if spec == 'told':
      return choosing
    probing = bisection(
      accuracy_resolution=resources.accuracy_resolution,
      latency_resolution=resources.latency_resolution,
    )
    return Phases((probing, choosing))

  return Entry(make, **fields)


for _by in BY:
  ATTACKS.register(f'fingerprint_{_by}', _entry(_by, 'found'))
  ATTACKS.register(
    f'informed_{_by}',
    _entry(_by, 'told', knows='the best spec under the defense', role='informed'),
  )
