"""Responders told apart by what they answer."""

import functools

import jax
import jax.numpy as jnp

from psml_jax import _validate, train
from psml_jax.core import Harvest
from psml_jax.demix import mixtures
from psml_jax.demix.use import keep, weigh

_LEAST = 1e-6


@jax.jit
def by_confidence(outputs: jax.Array, count: jax.Array) -> jax.Array:
  """How probably each answer is the victim's, by how sure it is.

  A mixture of two normal distributions in the log-odds of the likeliest class; the
  victim, the most accurate model of those that answer, is taken to be the surer one.

  Args:
    outputs: f32[B, K], probabilities.
    count: i32[], how many leading entries are answers.

  Returns:
    f32[B], 0 for what is no answer. Traceable.

  >>> sure = jnp.array([0.999, 0.6, 0.99, 0.7, 0.998, 0.55, 0.65, 0.995])
  >>> outputs = jnp.stack([sure, 1 - sure], axis=-1)
  >>> by_confidence(outputs, jnp.int32(8)).round(1).tolist()
  [1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 1.0]
  """
  most = jnp.clip(jnp.max(outputs, axis=-1), _LEAST, 1 - _LEAST)
  x = jnp.log(most) - jnp.log1p(-most)
  mixture = mixtures.fit(x, count, (2,), tails=False)
  each = mixtures.responsibilities(x, mixture)[:, jnp.argmax(mixture.mean)]
  return jnp.where(jnp.arange(len(x)) < count, each, 0.0)


@functools.partial(jax.jit, static_argnames=('training', 'rounds'))
def by_surrogates(
  key: jax.Array,
  harvest: Harvest,
  pool: jax.Array,
  training: train.Training,
  start: jax.Array,
  *,
  rounds: int = 2,
) -> jax.Array:
  """How probably each answer is the victim's, by expectation-maximisation.

  Two surrogates, of the victim and of all others. Each round trains them on the answers
  weighed by how probably they are theirs, and weighs each answer anew by the divergence
  `KL(answer || surrogate)`, which is taken to be exponentially distributed with the
  mean that each surrogate has over its own. Answers are judged by surrogates that were
  trained on the other half of them, for a surrogate agrees with what it has seen.

  Args:
    key: consumed.
    harvest: B rows.
    pool: f32[P, H, W, C], the images asked.
    training: of a surrogate (static).
    start: f32[B], what the first round weighs by, such as another channel's belief.
    rounds: how many (static), four trainings each.

  Returns:
    f32[B], 0 for what is no answer. Traceable.

  Raises:
    ValueError: no whole number of rounds >= 1.
  """
  _validate.positive_int('rounds', rounds)
  answered = jnp.arange(len(harvest.inputs)) < harvest.count
  second = jnp.arange(len(harvest.inputs)) % 2 == 1
  images = pool[harvest.inputs]

  def divergence(key: jax.Array, weight: jax.Array) -> jax.Array:
    """Of every answer from the surrogate that did not see it, f32[B]."""
    weighed = weigh(harvest, weight)

    def judged(key: jax.Array, seen: jax.Array) -> jax.Array:
      part = keep(weighed, seen.astype(jnp.float32))
      variables, _ = train.pure_fit(key, training, pool, part)
      logits = training.module.apply(variables, images)
      assert isinstance(logits, jax.Array)
      guessed = jax.nn.log_softmax(logits)
      exact = jnp.log(jnp.maximum(harvest.targets, _LEAST))
      return jnp.sum(harvest.targets * (exact - guessed), axis=-1)

    # A loop and no vmap: convolutions with a kernel a row are slow on CPUs.
    first_seen, second_seen = jax.lax.map(
      lambda each: judged(*each),
      (jax.random.split(key), jnp.stack([~second, second])),
    )
    return jnp.where(second, first_seen, second_seen)

  def score(key: jax.Array, weight: jax.Array) -> jax.Array:
    weight = jnp.where(answered, weight, 0.0)
    away = jnp.maximum(divergence(key, weight), 0.0)
    total = jnp.maximum(jnp.sum(weight), _LEAST)
    mean = jnp.maximum(jnp.sum(weight * away) / total, _LEAST)
    return jnp.log(total) - jnp.log(mean) - away / mean

  def improved(old: jax.Array, key: jax.Array) -> tuple[jax.Array, None]:
    own_key, other_key = jax.random.split(key)
    return jax.nn.sigmoid(score(own_key, old) - score(other_key, 1 - old)), None

  found, _ = jax.lax.scan(improved, start, jax.random.split(key, rounds))
  return jnp.where(answered, found, 0.0)
