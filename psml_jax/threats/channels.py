"""How many bits a channel tells of the model that answered."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from psml_jax import _validate, metrics
from psml_jax.metrics import Interval

_FOLDS = 5
_SMALLEST_LEAF = 5
_SHARE = 0.99
"""Of the classifier in what is scored; the rest is the guess without the channel."""


class Told(NamedTuple):
  """What a channel tells.

  Attributes:
    bits: of each answer, on average, over responses that the classifier has not seen;
      below 0, it learned chance.
    auc: the chance that it ranks an answer of a model above one of another model, mean
      over models; 0.5 is chance.
    entropy: bits of the models' shares, what a channel can tell at most.
  """

  bits: Interval
  auc: float
  entropy: float


def told(features: ArrayLike, model: ArrayLike, *, seed: int = 0) -> Told:
  """How many bits what a client sees tells of the model that answered.

  A classifier learns the models of some responses and names those of the others, in
  turns. With p its probability of the model that answered and q that model's share, the
  mean of log2(p / q) is what it has learned: a lower bound of the mutual information of
  channel and model, in expectation (Barber and Agakov 2003).

  Args:
    features: f[N] or f[N, D], what a client sees of N responses, such as a latency, a
      status or all probabilities.
    model: i[N], which model gave each; only the operator knows.
    seed: of the folds and the classifier.

  Returns:
    What the channel tells; the interval is over responses, folds taken as independent.

  Raises:
    ValueError: shapes that do not fit, features that are not finite, fewer than two
      models, or a model with fewer than five responses.

  >>> rng = np.random.default_rng(0)
  >>> model = rng.integers(0, 2, 400)
  >>> clock, noise = model + 0.1 * rng.normal(size=400), rng.normal(size=400)
  >>> bool(told(clock, model).bits.low > 0.9), bool(told(noise, model).bits.high < 0.1)
  (True, True)
  """
  from sklearn.ensemble import RandomForestClassifier
  from sklearn.metrics import roc_auc_score
  from sklearn.model_selection import StratifiedKFold

  seen, truth = np.asarray(features, np.float64), np.asarray(model)
  seen = seen[:, None] if seen.ndim == 1 else seen
  if seen.ndim != 2 or truth.shape != (len(seen),):
    raise ValueError(
      f'features has shape {np.shape(features)} and model {truth.shape}; they must be '
      '[N] or [N, D], and [N]'
    )
  _validate.reject('features', seen, ~np.isfinite(seen), 'finite')
  _validate.seed('seed', seed)
  names, truth, counts = np.unique(truth, return_inverse=True, return_counts=True)
  if len(names) < 2 or counts.min() < _FOLDS:
    raise ValueError(
      f'model has {dict(zip(names.tolist(), counts.tolist(), strict=True))} responses '
      f'by model; there must be two models or more, each with {_FOLDS} or more'
    )
  named = np.empty((len(truth), len(names)))
  shares = np.empty(len(truth))
  leaf = max(_SMALLEST_LEAF, round(len(truth) ** 0.5 / 2))
  folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=seed)
  for known, asked in folds.split(seen, truth):
    classifier = RandomForestClassifier(min_samples_leaf=leaf, random_state=seed)
    named[asked] = classifier.fit(seen[known], truth[known]).predict_proba(seen[asked])
    share = np.bincount(truth[known], minlength=len(names)) / len(known)
    named[asked] = _SHARE * named[asked] + (1 - _SHARE) * share
    shares[asked] = share[truth[asked]]
  gained = np.log2(named[np.arange(len(truth)), truth] / shares)
  each = [roc_auc_score(truth == i, named[:, i]) for i in range(len(names))]
  overall = counts / counts.sum()
  return Told(
    metrics.interval(gained),
    float(np.mean(each)),
    float(-(overall * np.log2(overall)).sum()),
  )
