"""Beliefs about a zoo's frontier: particles, each a frontier of at most K steps.

Behind noise of known distribution functions, the probability that a spec is served is
a sum over the frontier's steps, so that a particle costs O(K) a probe. Particles are
drawn anew by their weights and moved by Metropolis steps that leave the posterior as it
is (Chopin 2002, "A sequential particle filter method for static models", section 3).
"""

import dataclasses
import functools
import operator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import gammaln

from psml_jax import struct
from psml_jax.core import Spec

_LATENCY_SPREAD = 0.4  # of log latencies on each side of the budget: Gamma's scale
_SCALE_SPREAD = 1.5  # of log factors on noise of unknown scale: a standard deviation
_LEAST = 1e-6  # probability of an answer: none is impossible


@struct.dataclass(eq=False)
class Frontiers:
  """P frontiers of at most K steps each, in no order.

  A priori all numbers of steps up to K are as probable, and accuracies are uniform on
  [0, 1]. The logarithm of a latency lies to either side of the budget's by a draw of
  Gamma(2): a budget is chosen to lie between models. One step at least is within it.

  Attributes:
    accuracy: f32[P, K], fractions.
    log_latency: f32[P, K], logarithms of latencies as shares of the budget.
    real: bool[P, K], which steps there are.
    log_scale: f32[P, 2], logarithms of factors on the noise's scale in accuracy and in
      latency; 0 where the scale is known.
  """

  accuracy: jax.Array
  log_latency: jax.Array
  real: jax.Array
  log_scale: jax.Array


class Steps(NamedTuple):
  """P frontiers in order.

  Attributes:
    accuracy: f32[P, K], ascending.
    latency_ms: f32[P, K], ascending; infinite where there is no step.
    victim: i32[P], the most accurate step within the latency budget.
    scale: f32[P, 2], factors on the noise's scale.
  """

  accuracy: jax.Array
  latency_ms: jax.Array
  victim: jax.Array
  scale: jax.Array


@struct.dataclass(eq=False)
class Answers:
  """The probes so far, T at most.

  Attributes:
    spec: Spec of shape [T].
    served: bool[T].
    count: i32[], how many there are.
  """

  spec: Spec
  served: jax.Array
  count: jax.Array

  @classmethod
  def none(cls, size: int) -> 'Answers':
    empty = jnp.zeros(size, jnp.float32)
    return cls(Spec(empty, empty), jnp.zeros(size, bool), jnp.int32(0))

  def with_one(self, spec: Spec, served: jax.Array) -> 'Answers':
    """The answers and one more."""

    def put(column: jax.Array, value: jax.Array) -> jax.Array:
      return column.at[self.count].set(value, mode='drop')

    return Answers(
      jax.tree.map(put, self.spec, spec), put(self.served, served), self.count + 1
    )


@functools.partial(jax.jit, static_argnames=('size', 'num_steps', 'scale_known'))
def draw(key: jax.Array, size: int, num_steps: int, *, scale_known: bool) -> Frontiers:
  """Frontiers from the prior, but for the step within the budget, see `log_prior`.

  One program also where nothing around it is traced: drawn operation by operation they
  differ in their last bits, which moves then make large.
  """
  keys = jax.random.split(key, 5)
  shape = (size, num_steps)
  count = jax.random.randint(keys[0], (size, 1), 1, num_steps + 1)
  place = jnp.argsort(jax.random.uniform(keys[1], shape), axis=-1)
  scale = _SCALE_SPREAD * jax.random.normal(keys[2], (size, 2))
  return Frontiers(
    accuracy=jax.random.uniform(keys[3], shape),
    log_latency=_LATENCY_SPREAD * _two_sided(keys[4], shape),
    real=place < count,
    log_scale=jnp.zeros_like(scale) if scale_known else scale,
  )


def _two_sided(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
  size_key, sign_key = jax.random.split(key)
  sign = jax.random.rademacher(sign_key, shape, jnp.float32)
  return sign * jax.random.gamma(size_key, 2.0, shape)


def log_prior(frontiers: Frontiers) -> jax.Array:
  """The logarithm of the prior density but for a constant, f32[P]."""
  num_steps = frontiers.real.shape[-1]
  count = jnp.sum(frontiers.real, axis=-1)
  alike = gammaln(count + 1.0) + gammaln(num_steps - count + 1.0)
  away = jnp.abs(frontiers.log_latency) / _LATENCY_SPREAD
  latency = jnp.sum(away - jnp.log(jnp.maximum(away, 1e-6)), axis=-1)
  scale = jnp.sum(frontiers.log_scale**2, axis=-1) / (2 * _SCALE_SPREAD**2)
  possible = jnp.all((frontiers.accuracy >= 0) & (frontiers.accuracy <= 1), axis=-1)
  possible &= jnp.any(frontiers.real & (frontiers.log_latency <= 0), axis=-1)
  return jnp.where(possible, alike - latency - scale, -jnp.inf)


def in_order(frontiers: Frontiers, latency_budget_ms: jax.Array) -> Steps:
  """The frontiers with their accuracies and their latencies sorted, each by itself."""
  log_latency = _sorted(jnp.where(frontiers.real, frontiers.log_latency, jnp.inf))
  within = jnp.sum(log_latency <= 0, axis=-1, dtype=jnp.int32)
  return Steps(
    accuracy=_sorted(jnp.where(frontiers.real, frontiers.accuracy, 1.0)),
    latency_ms=latency_budget_ms * jnp.exp(log_latency),
    victim=jnp.maximum(within - 1, 0),
    scale=jnp.exp(frontiers.log_scale),
  )


def _sorted(values: jax.Array) -> jax.Array:
  """Short rows, sorted by counting; XLA's own sort is slow for them on CPUs."""
  order = jnp.arange(values.shape[-1])
  earlier = (order[None] < order[:, None])[None]
  one, other = values[:, :, None], values[:, None]
  place = jnp.sum((other < one) | ((other == one) & earlier), axis=-1)
  here = place[:, None] == order[None, :, None]
  return jnp.sum(jnp.where(here, other, 0.0), axis=-1)


def fields(
  law: Any, steps: Steps, min_accuracy: jax.Array, max_latency_ms: jax.Array
) -> tuple[list[jax.Array], list[jax.Array]]:
  """What becomes of the two fields of specs behind noise.

  Args:
    law: the noise: `accurate` and `fast`, see `Knowledge.defense`. A spec that is
      looser than the frontier's range is moved to its end before.
    steps: the frontiers.
    min_accuracy: f32[G].
    max_latency_ms: f32[H].

  Returns:
    For each of the K steps, f32[P, G] how probably it is accurate enough, and f32[P, H]
    how probably it is the slowest one that is fast enough.
  """
  real = jnp.isfinite(steps.latency_ms)
  slowest = jnp.max(jnp.where(real, steps.latency_ms, 0.0), axis=-1, keepdims=True)
  accuracy = jnp.maximum(min_accuracy[None], steps.accuracy[:, :1])
  latency = jnp.minimum(max_latency_ms[None], slowest)
  scale = steps.scale[:, :, None]
  accurate, fast = [], []
  for k in range(steps.accuracy.shape[-1]):
    room = (steps.accuracy[:, k, None] - accuracy) / scale[:, 0]
    accurate.append(law.accurate(accuracy, accuracy + room))
    room = (latency - steps.latency_ms[:, k, None]) / scale[:, 1]
    fast.append(law.fast(latency, latency - room))
  none = jnp.zeros_like(fast[0])
  return accurate, [a - b for a, b in zip(fast, [*fast[1:], none], strict=True)]


def served(law: Any, steps: Steps, spec: Spec) -> jax.Array:
  """The probability that each frontier serves specs of shape [T], f32[P, T]."""
  accurate, last = fields(law, steps, spec.min_accuracy, spec.max_latency_ms)
  return functools.reduce(operator.add, map(operator.mul, accurate, last))


def served_and_rate(
  law: Any, steps: Steps, min_accuracy: jax.Array, max_latency_ms: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """The law of a uniform router over the frontier, on a grid of specs.

  Args:
    law: as in `fields`.
    steps: the frontiers.
    min_accuracy: f32[G].
    max_latency_ms: f32[H].

  Returns:
    f32[P, G * H] the probability of an answer, and of one by the victim.
  """
  accurate, last = fields(law, steps, min_accuracy, max_latency_ms)
  lowest = jnp.diff(jnp.stack(accurate, axis=1), axis=1, prepend=0.0)
  place = np.arange(len(last))
  size = (
    place - place[:, None] + 1
  )  # of a feasible set, by its lowest and its last step
  share = jnp.asarray(np.where(size > 0, 1 / np.maximum(size, 1), 0), jnp.float32)
  victim = steps.victim[:, None, None]
  lowest = jnp.where(place[None, :, None] <= victim, lowest, 0.0)
  by_last = jnp.einsum('pig,ij->pjg', lowest, share)
  by_last = jnp.where(place[None, :, None] >= victim, by_last, 0.0)

  def over_steps(one: list[jax.Array]) -> jax.Array:
    grid = sum(a[:, :, None] * b[:, None] for a, b in zip(one, last, strict=True))
    return jnp.reshape(grid, (len(victim), -1))

  return over_steps(accurate), over_steps([by_last[:, k] for k in place])


def log_answer(probability: jax.Array, answer: jax.Array) -> jax.Array:
  """The logarithm of the probability of answers, given that of being served."""
  return jnp.log(jnp.maximum(jnp.where(answer, probability, 1 - probability), _LEAST))


def resampled(
  key: jax.Array, frontiers: Frontiers, log_weight: jax.Array, size: int
) -> Frontiers:
  """Frontiers drawn by their weights, systematically."""
  ends = jnp.cumsum(jax.nn.softmax(log_weight))
  at = (jnp.arange(size) + jax.random.uniform(key)) / size
  chosen = jnp.minimum(jnp.searchsorted(ends, at * ends[-1]), len(ends) - 1)
  return jax.tree.map(lambda leaf: leaf[chosen], frontiers)


def moved(
  key: jax.Array,
  law: Any,
  frontiers: Frontiers,
  answers: Answers,
  latency_budget_ms: jax.Array,
  *,
  num_moves: int,
  scale_known: bool,
) -> Frontiers:
  """The frontiers after Metropolis steps, each with all answers so far.

  Args:
    key: consumed.
    law: as in `fields`.
    frontiers: the particles.
    answers: what the posterior is given.
    latency_budget_ms: f32[].
    num_moves: Metropolis steps of every particle.
    scale_known: whether factors on the noise's scale stay 1.
  """
  sent = jnp.arange(len(answers.served))[None] < answers.count

  def density(frontiers: Frontiers) -> jax.Array:
    chance = served(law, in_order(frontiers, latency_budget_ms), answers.spec)
    each = jnp.where(sent, log_answer(chance, answers.served[None]), 0.0)
    return log_prior(frontiers) + jnp.sum(each, axis=-1)

  def move(i: Any, carry: tuple[Frontiers, jax.Array]) -> tuple[Frontiers, jax.Array]:
    propose_key, accept_key = jax.random.split(jax.random.fold_in(key, i))
    new = _proposal(propose_key, carry[0], scale_known)
    new_density = density(new)
    chance = jnp.log(jax.random.uniform(accept_key, new_density.shape))
    accept = chance < new_density - carry[1]

    def choose(new: jax.Array, old: jax.Array) -> jax.Array:
      return jnp.where(accept.reshape((-1,) + (1,) * (new.ndim - 1)), new, old)

    moved: tuple[Frontiers, jax.Array] = jax.tree.map(choose, (new, new_density), carry)
    return moved

  start = (frontiers, density(frontiers))
  return jax.lax.fori_loop(0, num_moves, move, start)[0]


_ACCURACY, _LATENCY, _BOTH, _SWITCH, _SCALE = range(5)


def _proposal(key: jax.Array, old: Frontiers, scale_known: bool) -> Frontiers:
  """One slot's step moves, by little or by much, or comes or goes; symmetric.

  A slot without a step keeps its numbers, which move by the prior alone.
  """
  keys = jax.random.split(key, 5)
  size, num_steps = old.real.shape
  slot = jax.random.randint(keys[0], (size, 1), 0, num_steps)
  here = jnp.arange(num_steps)[None] == slot
  kind = jax.random.randint(
    keys[1], (size, 1), 0, _SCALE if scale_known else _SCALE + 1
  )
  width = 10.0 ** jax.random.uniform(keys[2], (size, 1), minval=-2.5, maxval=0.0)
  step = width * jax.random.normal(keys[3], (size, 2))

  def along(axis: int, alone: int) -> jax.Array:
    chosen = here & ((kind == alone) | (kind == _BOTH))
    return jnp.where(chosen, step[:, axis, None], 0.0)

  log_scale = old.log_scale
  if not scale_known:
    factors = jax.random.normal(keys[4], log_scale.shape)
    log_scale = log_scale + jnp.where(kind == _SCALE, 3 * width * factors, 0.0)
  accuracy = jnp.abs(old.accuracy + along(0, _ACCURACY))
  return dataclasses.replace(
    old,
    accuracy=1 - jnp.abs(1 - accuracy),
    log_latency=old.log_latency + 3 * along(1, _LATENCY),
    real=old.real ^ (here & (kind == _SWITCH)),
    log_scale=log_scale,
  )
