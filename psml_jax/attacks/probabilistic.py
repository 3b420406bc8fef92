"""Probabilistic bisection: fingerprinting by an attacker who knows of the noise.

Against noise a bisection believes every answer, and ends anywhere. This attacker keeps
a posterior over the victim's accuracy instead, then one over its latency, and asks what
tells most. It replays not the corner, where noise refuses most queries, but the spec
that the victim is most likely to answer.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from psml_jax import _validate, struct
from psml_jax.attacks.base import ATTACKS, Entry, Phases, Resources
from psml_jax.attacks.extraction import choose_inputs, replay
from psml_jax.attacks.margins import Belief, Noise, best_spec, width
from psml_jax.attacks.refusals import check_resolution
from psml_jax.core import Knowledge, Observation, Query, Spec

__all__ = ['Estimate', 'probabilistic']

_GRID, _SCALES = 1024, 7
_OF_LATENCY = 4
_NEIGHBOURS = 0.5
_SHARES = (0.05, 0.25, 0.5, 0.75, 0.95)


@struct.dataclass(eq=False)
class Estimate:
  """What a probabilistic bisection believes in the end.

  Attributes:
    spec: the spec to replay, of shape [].
    corner: the victim's accuracy and latency, the posteriors' medians.
    low: the same of their lower ends: 5 % lie below.
    high: the same of their upper ends: 5 % lie above.
    accuracy_scale: f32[], the mean size of the noise on accuracies as it is known or
      was estimated, a fraction.
    probes: i32[], queries sent.
  """

  spec: Spec
  corner: Spec
  low: Spec
  high: Spec
  accuracy_scale: jax.Array
  probes: jax.Array


@struct.dataclass(eq=False)
class _State:
  accuracy: Belief
  latency: Belief
  noise: Noise
  image: jax.Array
  spec: Spec
  probes: jax.Array


@struct.dataclass(eq=False)
class Probabilistic:
  """See `probabilistic`."""

  probes: jax.Array
  accuracy_resolution: jax.Array
  latency_resolution: jax.Array
  told: bool = struct.field(pytree_node=False)

  def init(self, key: jax.Array, knowledge: Knowledge) -> _State:
    budget = jnp.asarray(knowledge.latency_budget_ms, jnp.float32)
    if _validate.is_concrete(budget):
      _validate.positive('latency_budget_ms', float(budget))
    told = knowledge.defense if self.told else None
    if told is not None and not hasattr(told, 'accurate'):
      raise ValueError(
        f'knowledge.defense is {type(told).__name__}; it must be None or have the '
        'distribution functions accurate and fast, see psml_jax.defenses.Fieldwise'
      )
    shares = 2.0 ** jnp.linspace(-11.0, -2.0, _SCALES if told is None else 1)
    grid = jnp.arange(1, _GRID + 1, dtype=jnp.float32) / _GRID
    return self._next(
      _State(
        accuracy=Belief.flat(grid, len(shares)),
        latency=Belief.flat(grid * budget, len(shares)),
        noise=Noise(told, shares, shares * budget),
        image=choose_inputs(key, knowledge.pool_size, 1),
        spec=Spec(jnp.float32(0), budget),
        probes=jnp.int32(0),
      )
    )

  def ask(self, state: _State) -> Query:
    return Query.of(state.image, state.spec, sent=jnp.logical_or(*self._open(state)))

  def tell(self, state: _State, query: Query, observation: Observation) -> _State:
    accuracy_open, _ = self._open(state)
    belief = _choose(accuracy_open, state.accuracy, state.latency)
    asked = jnp.where(accuracy_open, state.spec.min_accuracy, state.spec.max_latency_ms)
    belief = belief.told(self._law(state, asked), observation.served[0])
    return self._next(
      dataclasses.replace(
        state,
        accuracy=_choose(accuracy_open, belief, state.accuracy),
        latency=_choose(accuracy_open, state.latency, belief),
        probes=state.probes + jnp.sum(query.sent, dtype=jnp.int32),
      )
    )

  def harvest(self, state: _State) -> Estimate:
    accuracy, latency = state.accuracy, state.latency
    low, corner, high = (
      Spec(_at(accuracy, share), _at(latency, share)) for share in (0.05, 0.5, 0.95)
    )
    law = state.noise.accurate(corner.min_accuracy, accuracy.values)
    return Estimate(
      spec=best_spec(accuracy, latency, state.noise, jnp.float32(_NEIGHBOURS)),
      corner=corner,
      low=low,
      high=high,
      accuracy_scale=jnp.dot(
        jnp.sum(accuracy.weight, axis=0), width(accuracy.values, law)
      ),
      probes=state.probes,
    )

  def _next(self, state: _State) -> _State:
    """The state with the spec that is asked for next."""
    accuracy_open, _ = self._open(state)
    belief = _choose(accuracy_open, state.accuracy, state.latency)
    asked = _most_telling(belief, lambda asked: self._law(state, asked))
    spec = Spec(
      jnp.where(accuracy_open, asked, _at(state.accuracy, 0.25)),
      jnp.where(accuracy_open, state.latency.values[-1], asked),
    )
    return dataclasses.replace(state, spec=spec)

  def _law(self, state: _State, asked: jax.Array) -> jax.Array:
    """f32[..., N, S]: of the number under way."""
    asked, noise = asked[..., None], state.noise
    return jnp.where(
      self._open(state)[0],
      noise.accurate(asked, state.accuracy.values),
      noise.fast(asked, state.latency.values),
    )

  def _open(self, state: _State) -> tuple[jax.Array, jax.Array]:
    """Whether each number is to be asked for still."""
    left = state.probes < self.probes
    wide = _wide(state.accuracy, self.accuracy_resolution)
    budget = state.latency.values[-1]
    return (
      wide & (_OF_LATENCY * state.probes < (_OF_LATENCY - 1) * self.probes),
      left & _wide(state.latency, self.latency_resolution * budget),
    )


def probabilistic(
  *,
  probes: ArrayLike,
  accuracy_resolution: ArrayLike,
  latency_resolution: ArrayLike,
  told: bool = True,
) -> Probabilistic:
  """Probabilistic bisection for the most accurate model within the latency budget.

  The chance to be served at minimum accuracy a is taken to be
  `f + (c - f) P(a' <= A)`, with A the victim's accuracy on a grid of 1,024 and the
  floor f (other models answer) and the ceiling c (some are refused whatever they ask)
  unknown too; each probe is, of seven candidates, the one whose answer tells most.
  Three quarters of the probes go to the accuracy at the latency budget, the rest to the
  latency. What to replay is chosen by `margins.best_spec`.

  The attacker is told mechanism and scale by `Knowledge.defense`; where it is not, it
  takes the noise for Laplace noise of an unknown scale, which it estimates with the
  rest.

  Args:
    probes: i32[], queries at most; may be traced.
    accuracy_resolution: f32[], where 90 % of the posterior lie within it, the accuracy
      is known; a fraction, may be traced.
    latency_resolution: f32[], likewise, a share of the latency budget.
    told: whether it reads `Knowledge.defense` (static).

  Returns:
    The attack, one query at a time; it reads `served` alone and harvests an
    `Estimate`.

  Raises:
    ValueError: a concrete number of probes below 1, or resolution that is not finite
      and > 0; from `init`, such a budget, or a defense of which no law is known.

  >>> from psml_jax import ZooProfile, defenses, routers, servers, session
  >>> zoo = ZooProfile([0.7, 0.9], [1.0, 5.0], ('small', 'large'))
  >>> noise = defenses.laplace(*defenses.relative_scale(zoo, 0.05))
  >>> server = servers.table(
  ...   routers.uniform(zoo), zoo.latency_ms, jnp.ones((2, 1, 1)), defense=noise)
  >>> attack = probabilistic(
  ...   probes=60, accuracy_resolution=0.001, latency_resolution=0.001)
  >>> key, server_key = jax.random.split(jax.random.key(0))
  >>> found = session.run(key, attack, server, server.init(server_key),
  ...                     Knowledge(8.0, defense=noise), budget=100)
  >>> zoo.meets(found.harvest.spec).tolist(), int(found.bill.queries)
  ([False, True], 60)
  """
  if _validate.is_concrete(probes):
    _validate.positive_int('probes', int(jnp.asarray(probes)))
  check_resolution(accuracy_resolution, latency_resolution)
  return Probabilistic(
    jnp.asarray(probes, jnp.int32),
    jnp.asarray(accuracy_resolution, jnp.float32),
    jnp.asarray(latency_resolution, jnp.float32),
    told,
  )


def _at(belief: Belief, share: float) -> jax.Array:
  return belief.quantiles(jnp.array([share]))[0]


def _wide(belief: Belief, resolution: jax.Array) -> jax.Array:
  low, high = belief.quantiles(jnp.array([0.05, 0.95]))
  return high - low > resolution


def _most_telling(belief: Belief, law: Callable[..., jax.Array]) -> jax.Array:
  """Of quantiles, and one noise away from the middle, what is best asked for."""
  quantiles = belief.quantiles(jnp.array(_SHARES))
  middle = quantiles[len(_SHARES) // 2]
  by_scale = jnp.sum(belief.weight, axis=0)
  away = jnp.dot(by_scale, width(belief.values, law(middle)))
  asked = jnp.concatenate([quantiles, jnp.stack([middle - away, middle + away])])
  return asked[jnp.argmax(belief.information(law(asked)))]


def _choose(when: jax.Array, one: Any, other: Any) -> Any:
  return jax.tree.map(lambda a, b: jnp.where(when, a, b), one, other)


def _entry(told: bool, **fields: Any) -> Entry:
  def make(resources: Resources, probes: int = 50) -> Phases:
    probing = probabilistic(
      probes=probes,
      accuracy_resolution=resources.accuracy_resolution,
      latency_resolution=resources.latency_resolution,
      told=told,
    )
    return Phases((probing, replay('found', resources.num_queries)))

  return Entry(make, **fields)


ATTACKS.register(
  'probabilistic',
  _entry(True, knows='its latency budget, the mechanism and its scale'),
)
ATTACKS.register(
  'scale_unknown', _entry(False, knows='its latency budget, and that noise is Laplace')
)
