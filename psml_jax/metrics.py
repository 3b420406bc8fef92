"""What an attack got, and how sure we are of it (paper, section 5)."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from psml_jax import _validate
from psml_jax.core import Transcript


def accuracy(outputs: jax.Array, labels: jax.Array) -> jax.Array:
  """Share of test images whose most probable class is the true one.

  Args:
    outputs: f32[..., N, K], probabilities or logits. A traced row that holds NaN
      names no class.
    labels: i32[N], true classes.

  Returns:
    f32[...], fractions.

  Raises:
    ValueError: shapes that do not fit, no images, or concrete outputs that hold NaN.

  >>> float(accuracy(jnp.eye(2), jnp.array([0, 0])))
  0.5
  """
  predicted = _classes('outputs', outputs)
  if jnp.shape(labels) != predicted.shape[-1:]:
    raise ValueError(
      f'labels has shape {jnp.shape(labels)}; it must be {predicted.shape[-1:]}, one '
      'class for each row of outputs'
    )
  return _agreement(predicted, jnp.broadcast_to(labels, predicted.shape))


def fidelity(outputs: jax.Array, victim_outputs: jax.Array) -> jax.Array:
  """Share of test images on which the surrogate names the victim's class.

  Args:
    outputs: f32[N, K], the surrogate's probabilities or logits. A traced row that
      holds NaN agrees with none.
    victim_outputs: f32[N, K], the victim's, likewise.

  Returns:
    f32[], a fraction.

  Raises:
    ValueError: shapes that differ, no images, or concrete outputs that hold NaN.
  """
  if jnp.shape(victim_outputs) != jnp.shape(outputs):
    raise ValueError(
      f'victim_outputs has shape {jnp.shape(victim_outputs)}; it must be '
      f'{jnp.shape(outputs)}, the shape of outputs'
    )
  return _agreement(
    _classes('outputs', outputs), _classes('victim_outputs', victim_outputs)
  )


def _agreement(named: jax.Array, wanted: jax.Array) -> jax.Array:
  hits = (named == wanted) & (named >= 0)
  return jnp.mean(hits, axis=-1, dtype=jnp.float32)


def _classes(name: str, outputs: jax.Array) -> jax.Array:
  """The most probable class of each row; -1 where it holds NaN."""
  shape = jnp.shape(outputs)
  if len(shape) < 2 or 0 in shape:
    raise ValueError(f'{name} has shape {shape}; it must be [..., N, K], not empty')
  _validate.no_nan(name, outputs)
  nan = jnp.isnan(outputs).any(axis=-1)
  return jnp.where(nan, -1, jnp.argmax(outputs, axis=-1))


def purity(transcript: Transcript, victim: jax.Array) -> jax.Array:
  """Share of the served answers that came from the victim: ground truth.

  Args:
    transcript: the server's record, any shape.
    victim: i32[], index into the zoo.

  Returns:
    f32[], a fraction; NaN where nothing was served.
  """
  served = transcript.sent & (transcript.model >= 0)
  hits = jnp.sum(served & (transcript.model == victim), dtype=jnp.float32)
  return hits / jnp.sum(served, dtype=jnp.float32)


class Interval(NamedTuple):
  """A mean over seeds with its 95 % confidence interval."""

  mean: float
  low: float
  high: float

  def within(self, low: float, high: float) -> 'Interval':
    """The interval cut to the values that the quantity can take."""
    return Interval(self.mean, max(self.low, low), min(self.high, high))


def interval(values: ArrayLike | Sequence[float]) -> Interval:
  """Mean and two-sided 95 % Student t interval over independent seeds.

  Args:
    values: f[S], one number a seed, S >= 2; for a comparison of two attacks, their
      differences on the same seeds.

  Returns:
    The interval `mean -+ t(0.975, S - 1) * std / sqrt(S)`.

  Raises:
    ValueError: fewer than two values, or one that is not finite.

  >>> interval([1.0, 2.0, 3.0]).mean
  2.0
  """
  from scipy import stats

  sample = np.asarray(values, np.float64)
  if sample.ndim != 1 or sample.size < 2:
    raise ValueError(
      f'values has shape {sample.shape}; an interval needs a list of two or more seeds'
    )
  if not np.isfinite(sample).all():
    raise ValueError(
      f'values holds {sample[~np.isfinite(sample)][0]}; all must be finite'
    )
  mean = float(sample.mean())
  error = float(sample.std(ddof=1) / np.sqrt(sample.size))
  half = float(stats.t.ppf(0.975, sample.size - 1)) * error
  return Interval(mean, mean - half, mean + half)
