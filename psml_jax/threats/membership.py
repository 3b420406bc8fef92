"""Membership inference by likelihood ratios (LiRA, Carlini et al. 2022)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from psml_jax import _validate, train
from psml_jax.core import Harvest

_LEAST_DEVIATION = 0.05


class Shadows(NamedTuple):
  """Models trained on random halves of the candidates.

  Attributes:
    confidence: f32[S, N], of each model in the true class of each candidate, see
      `confidences`.
    member: bool[S, N], which candidates it was trained on.
  """

  confidence: jax.Array
  member: jax.Array


def confidences(outputs: ArrayLike, labels: ArrayLike) -> jax.Array:
  """`log p_y - log (1 - p_y)` of the true class y, f32[...] (section 4.C there).

  Args:
    outputs: f32[..., K], probabilities.
    labels: i32[...], or of trailing axes of it.

  >>> [f'{x:.2f}' for x in confidences([[0.5, 0.5], [0.9, 0.1]], [0, 0])]
  ['0.00', '2.20']
  """
  outputs = jnp.asarray(outputs, jnp.float32)
  labels = jnp.broadcast_to(jnp.asarray(labels), outputs.shape[:-1])
  right = jnp.take_along_axis(outputs, labels[..., None], axis=-1)[..., 0]
  others = jnp.sum(outputs, axis=-1) - right
  return jnp.log(jnp.maximum(right, 1e-7)) - jnp.log(jnp.maximum(others, 1e-7))


def shadows(
  key: jax.Array,
  training: train.Training,
  images: jax.Array,
  labels: jax.Array,
  *,
  count: int,
  width: int = 1,
) -> Shadows:
  """Trains a population of shadow models, each on a random half of the candidates.

  Args:
    key: consumed.
    training: of a shadow, as the victim's is thought to be (static).
    images: f32[N, H, W, C], the candidates.
    labels: i32[N].
    count: S, how many (static).
    width: rows under one vmap, see `train.over_population` (static).

  Returns:
    What they say of every candidate. Traceable.

  Raises:
    ValueError: fewer than four shadows, of which half could not be fitted.
  """
  _validate.number('count', count, lambda n: n >= 4, 'a whole number >= 4')
  half = len(images) // 2

  def row(key: jax.Array) -> tuple[jax.Array, jax.Array]:
    draw_key, fit_key = jax.random.split(key)
    own = jax.random.permutation(draw_key, len(images))[:half]
    harvest = Harvest(own, jnp.asarray(labels)[own], jnp.int32(half))
    variables, _ = train.pure_fit(fit_key, training, images, harvest)
    logits = training.module.apply(variables, images)
    assert isinstance(logits, jax.Array)
    member = jnp.zeros(len(images), bool).at[own].set(True)
    return confidences(jax.nn.softmax(logits), labels), member

  keys = jax.random.split(key, count)
  return Shadows(*train.over_population(row, keys, width=width))


def likelihood_ratios(
  observed: ArrayLike, known: Shadows, *, shared: bool = False
) -> jax.Array:
  """How much more likely each answer is of a model that was trained on the candidate.

  The confidences of the shadows that were trained on it are taken to be normal, those
  of the others too; of each candidate its own (the online attack, algorithm 1 there).

  Args:
    observed: f32[..., N], confidences that came back from the server; NaN where nothing
      did, which tells nothing.
    known: the shadows, some with and some without each candidate.
    shared: whether all candidates have one deviation of members and one of others; of
      few shadows (there: below 64) each candidate's own is too noisy.

  Returns:
    f32[..., N], logarithms; 0 where nothing came back, and of candidates that all
    shadows were trained on, or none.

  >>> known = Shadows(
  ...   jnp.array([[2.0], [3.0], [-1.0], [0.0]]),
  ...   jnp.array([[True], [True], [False], [False]]))
  >>> ratios = likelihood_ratios(jnp.array([[2.5], [-0.5]]), known)
  >>> bool(ratios[0, 0] > 0), bool(ratios[1, 0] < 0)
  (True, True)
  """
  observed = jnp.asarray(observed, jnp.float32)
  ratio = _log_density(observed, known, known.member, shared) - _log_density(
    observed, known, ~known.member, shared
  )
  return jnp.where(_tells(observed, known), ratio, 0.0)


def mixed_ratios(
  observed: ArrayLike, known: Shadows, responder: ArrayLike, *, shared: bool = False
) -> jax.Array:
  """`likelihood_ratios` of answers that may be of several architectures.

  All models of a zoo were trained on the same images, so the answer of any of them
  tells of its members. Each density is the mixture, by who probably answered, of the
  densities of all architectures.

  Args:
    observed: f32[..., N], as in `likelihood_ratios`.
    known: shadows of M architectures, confidence f32[M, S, N] and member bool[S, N].
    responder: f32[M, ..., N], how probably each gave each answer, such as
      `demix.responders` says.
    shared: as in `likelihood_ratios`, of each architecture.

  Returns:
    f32[..., N], logarithms; 0 where nothing came back.

  >>> one = Shadows(jnp.array([[2.0], [3.0], [-1.0], [0.0]]),
  ...               jnp.array([[True], [True], [False], [False]]))
  >>> two = Shadows(jnp.stack([one.confidence, 9 + one.confidence]), one.member)
  >>> seen = jnp.array([2.5])
  >>> mixed_ratios(seen, two, jnp.array([[1.0], [0.0]])) == likelihood_ratios(seen, one)
  Array([ True], dtype=bool)
  """
  observed = jnp.asarray(observed, jnp.float32)
  weight = jnp.log(jnp.asarray(responder, jnp.float32))

  def mixture(which: jax.Array) -> jax.Array:
    each = [
      _log_density(observed, Shadows(confidence, known.member), which, shared)
      for confidence in known.confidence
    ]
    return jax.nn.logsumexp(weight + jnp.stack(each), axis=0)

  ratio = mixture(known.member) - mixture(~known.member)
  return jnp.where(_tells(observed, known), ratio, 0.0)


def _tells(observed: jax.Array, known: Shadows) -> jax.Array:
  """Where an answer came back, and shadows of both kinds say what it means."""
  both = known.member.any(axis=0) & ~known.member.all(axis=0)
  return ~jnp.isnan(observed) & jnp.broadcast_to(both, observed.shape)


def _log_density(
  observed: jax.Array, known: Shadows, which: jax.Array, shared: bool
) -> jax.Array:
  """Of the normal distribution of some shadows' confidences, up to a constant."""
  found = jnp.sum(which, axis=0, dtype=jnp.float32)
  count = jnp.maximum(found, 1)
  mean = jnp.sum(jnp.where(which, known.confidence, 0), axis=0) / count
  away = jnp.where(which, known.confidence - mean[None], 0)
  spread = jnp.sum(away**2, axis=0)
  if shared:
    free = jnp.sum(found) - jnp.sum(found > 0, dtype=jnp.float32)
    variance = jnp.full_like(spread, jnp.sum(spread) / jnp.maximum(free, 1))
  else:
    variance = spread / count
  deviation = jnp.maximum(jnp.sqrt(variance), _LEAST_DEVIATION)
  shape = (1,) * (observed.ndim - 1) + (-1,)
  mean, deviation = (each.reshape(shape) for each in (mean, deviation))
  return -0.5 * ((observed - mean) / deviation) ** 2 - jnp.log(deviation)


def of_distinct(ratios: jax.Array, observed: jax.Array) -> jax.Array:
  """What several answers to one candidate tell together: each other one once.

  A model that answers twice says the same twice, which tells no more.

  Args:
    ratios: f32[T, N], of the answers.
    observed: f32[T, N], their confidences; NaN where nothing came back.

  Returns:
    f32[T, N]: the sums over the first, the first two, ... of all T answers.

  >>> seen = jnp.array([[1.0, 2.0], [1.0, jnp.nan], [3.0, 4.0]])
  >>> of_distinct(seen, seen).tolist()
  [[1.0, 2.0], [1.0, 2.0], [4.0, 6.0]]
  """
  earlier = jnp.tril(jnp.ones((len(ratios), len(ratios)), bool), -1)
  same = (observed[:, None] == observed[None]) & earlier[:, :, None]
  new = ~jnp.any(same, axis=1) & ~jnp.isnan(observed)
  return jnp.cumsum(jnp.where(new, ratios, 0.0), axis=0)
