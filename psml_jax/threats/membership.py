"""Membership inference by likelihood ratios (LiRA, Carlini et al. 2022)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from sklearn.metrics import roc_curve

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
    labels: i32[...].

  >>> [f'{x:.2f}' for x in confidences([[0.5, 0.5], [0.9, 0.1]], [0, 0])]
  ['0.00', '2.20']
  """
  outputs, labels = jnp.asarray(outputs, jnp.float32), jnp.asarray(labels)
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


def likelihood_ratios(observed: ArrayLike, known: Shadows) -> jax.Array:
  """How much more likely each answer is of a model that was trained on the candidate.

  The confidences of the shadows that were trained on it are taken to be normal, those
  of the others too; of each candidate its own (the online attack, algorithm 1 there).

  Args:
    observed: f32[..., N], confidences that came back from the server; NaN where nothing
      did, which tells nothing.
    known: the shadows, some with and some without each candidate.

  Returns:
    f32[..., N], logarithms; 0 where nothing came back.

  >>> known = Shadows(
  ...   jnp.array([[2.0], [3.0], [-1.0], [0.0]]),
  ...   jnp.array([[True], [True], [False], [False]]))
  >>> ratios = likelihood_ratios(jnp.array([[2.5], [-0.5]]), known)
  >>> bool(ratios[0, 0] > 0), bool(ratios[1, 0] < 0)
  (True, True)
  """
  observed = jnp.asarray(observed, jnp.float32)
  shape = (1,) * (observed.ndim - 1) + (-1,)

  def density(which: jax.Array) -> jax.Array:
    count = jnp.maximum(jnp.sum(which, axis=0, dtype=jnp.float32), 1)
    mean = jnp.sum(jnp.where(which, known.confidence, 0), axis=0) / count
    away = jnp.where(which, known.confidence - mean[None], 0)
    deviation = jnp.sqrt(jnp.sum(away**2, axis=0) / count)
    deviation = jnp.maximum(deviation, _LEAST_DEVIATION)
    mean, deviation = (each.reshape(shape) for each in (mean, deviation))
    return -0.5 * ((observed - mean) / deviation) ** 2 - jnp.log(deviation)

  ratio = density(known.member) - density(~known.member)
  return jnp.where(jnp.isnan(observed), 0.0, ratio)


def true_positive_rate(
  score: ArrayLike, member: ArrayLike, false_positive_rate: float
) -> float:
  """The share of members found while so few others are taken for members.

  Args:
    score: f[N], higher for members.
    member: bool[N].
    false_positive_rate: at most this, in (0, 1).

  Returns:
    A fraction.

  Raises:
    ValueError: a rate outside (0, 1), or members or others missing.

  >>> true_positive_rate([3.0, 2.0, 1.0, 0.0], [True, True, False, False], 0.1)
  1.0
  """
  rate = false_positive_rate
  _validate.number('false_positive_rate', rate, lambda x: 0 < x < 1, 'in (0, 1)')
  member = np.asarray(member, bool)
  if member.all() or not member.any():
    raise ValueError('member has one value alone; there must be members and others')
  false, true, _ = roc_curve(member, np.asarray(score), drop_intermediate=False)
  return float(true[false <= rate].max())
