"""Members found while few others are accused, the measure of Carlini et al. (2022)."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from psml_jax import _validate
from psml_jax.metrics import Interval


class Detection(NamedTuple):
  """What scores are worth.

  Attributes:
    true_positive_rate: the share of members found at each false-positive rate.
    auc: the area under the curve of one over the other; 0.5 is chance.
  """

  true_positive_rate: tuple[Interval, ...]
  auc: Interval


def detection(
  score: ArrayLike,
  member: ArrayLike,
  false_positive_rates: Sequence[float],
  *,
  resamples: int = 500,
  seed: int = 0,
) -> Detection:
  """True-positive rates at low false-positive rates, over replicates of an attack.

  The candidates of all replicates are judged by one threshold. Equal scores are
  accused together or not at all, so that candidates of whom nothing is known raise no
  rate.

  Args:
    score: f[R, N], higher for members; R replicates of the attack, N candidates.
    member: bool[R, N].
    false_positive_rates: each in (0, 1).
    resamples: of the replicates, with replacement, for the 95 % intervals (percentile
      bootstrap, Efron 1979).
    seed: of the resampling.

  Returns:
    The rates, fractions. Intervals are over replicates; of one alone, NaN.

  Raises:
    ValueError: a rate outside (0, 1), shapes that differ or are not [R, N], scores that
      hold NaN, or members or others missing.

  >>> found = detection([[3.0, 2.0, 1.0, 0.0]], [[True, True, False, False]], [0.1])
  >>> found.true_positive_rate[0].mean, found.auc.mean
  (1.0, 1.0)
  """
  for rate in false_positive_rates:
    _validate.number('false_positive_rates', rate, lambda x: 0 < x < 1, 'in (0, 1)')
  _validate.positive_int('resamples', resamples)
  scores, truth = np.asarray(score, np.float64), np.asarray(member, bool)
  if scores.ndim != 2 or scores.shape != truth.shape:
    raise ValueError(
      f'score has shape {scores.shape} and member {truth.shape}; both must be [R, N]'
    )
  _validate.reject('score', scores, np.isnan(scores), 'a number, not NaN')
  if truth.all() or not truth.any():
    raise ValueError('member has one value alone; there must be members and others')
  count = len(scores)
  ranked = np.argsort(-scores, axis=None, kind='stable')
  ends = np.append(np.diff(scores.ravel()[ranked]) != 0, True)
  replicate, found = ranked // scores.shape[1], truth.ravel()[ranked]

  def measured(weight: np.ndarray) -> np.ndarray:
    each = weight[replicate]
    true, false = (np.cumsum(each * kind)[ends] for kind in (found, ~found))
    true, false = true / true[-1], false / false[-1]
    at = [true[false <= rate].max(initial=0.0) for rate in false_positive_rates]
    return np.array([*at, np.trapezoid(np.append(0, true), np.append(0, false))])

  means = measured(np.ones(count))
  low = high = np.full_like(means, np.nan)
  if count > 1:
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(count, np.full(count, 1 / count), resamples)
    both = truth.any(1).all() and (~truth).any(1).all()
    if not both:
      raise ValueError('member has a replicate without members, or without others')
    low, high = np.quantile([measured(each) for each in drawn], (0.025, 0.975), axis=0)
  *rates, auc = (Interval(*map(float, each)) for each in zip(means, low, high))
  return Detection(tuple(rates), auc)


def true_positive_rate(
  score: ArrayLike, member: ArrayLike, false_positive_rate: float
) -> float:
  """The share of members found while so few others are taken for members.

  Args:
    score: f[N], higher for members; equal ones are accused together or not at all.
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
  one = detection(np.asarray(score)[None], np.asarray(member)[None], [rate])
  return one.true_positive_rate[0].mean
