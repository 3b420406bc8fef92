"""The leak inventory: what each thing that a client sees tells of who answered.

The client is granted much: it sends specs that every model meets, so that nothing is
known beforehand, each with another image, so that nothing is learned by heart; it knows
the true class of what it sends, and reads its own clock. A classifier is trained and
judged with the operator's journal, see `threats.told`, which no client has.
"""

import dataclasses

import numpy as np

from psml_jax import threats
from psml_jax.metrics import Interval
from psml_jax.serving.load import Seen

_FEWEST = 10
_TINY = 1e-6


@dataclasses.dataclass(frozen=True)
class Leak:
  """What a channel tells of the model that answered.

  Attributes:
    channel: its name.
    responses: how many were judged.
    bits: see `threats.Told`; None where there was nothing to tell apart.
    auc: likewise.
    chance: how far from 0.5 the AUC of a channel that tells nothing lies, 95 times of
      100 at most.
    entropy: bits of the models' shares.
  """

  channel: str
  responses: int
  bits: Interval | None
  auc: float | None
  chance: float | None
  entropy: float | None


def leak(channel: str, features: np.ndarray, model: np.ndarray) -> Leak:
  """What a channel tells.

  Args:
    channel: its name.
    features: f[N] or f[N, D], finite.
    model: i[N], which of the answers' causes are to be told apart; causes with fewer
      than 10 answers are left out.

  Returns:
    The leak.
  """
  names, at, counts = np.unique(model, return_inverse=True, return_counts=True)
  enough = (counts >= _FEWEST)[at]
  if len(names[counts >= _FEWEST]) < 2:
    return Leak(channel, int(enough.sum()), None, None, None, None)
  told = threats.told(np.asarray(features)[enough], model[enough])
  kept = counts[counts >= _FEWEST]
  return Leak(
    channel, int(enough.sum()), told.bits, told.auc, _chance(kept), told.entropy
  )


def clock(seen: Seen, due_s: np.ndarray) -> np.ndarray:
  """f64[N], milliseconds from when each query really went out to its answer."""
  elapsed: np.ndarray = seen.latency_ms + 1e3 * due_s - seen.sent_ms
  return elapsed


def outputs(seen: Seen, labels: np.ndarray) -> np.ndarray:
  """f64[N, 2 K + 3] of the probabilities: as they are, sorted, and of the true class.

  >>> one = np.array([[0.25, 0.75]])
  >>> seen = Seen(['a'], [200], one, None, None, [''], [''])
  >>> outputs(seen, np.array([0])).shape
  (1, 7)
  """
  given = np.asarray(seen.outputs, np.float64)
  logs = np.log(np.maximum(given, _TINY))
  true = logs[np.arange(len(given)), labels]
  entropy = -(given * logs).sum(1)
  others = [true, entropy, given.sum(1)]
  return np.column_stack([logs, np.sort(logs, 1), *others])


def label(seen: Seen, labels: np.ndarray) -> np.ndarray:
  """f64[N, K + 1] of the class that an answer names alone, and whether it is true."""
  named = seen.outputs.argmax(1)
  return np.column_stack([np.eye(seen.outputs.shape[1])[named], named == labels])


def texts(values: list[str]) -> np.ndarray:
  """f64[N, 2] of texts: which one it is of all that occur, and its length."""
  _, which = np.unique(values, return_inverse=True)
  return np.column_stack([which, [len(value) for value in values]]).astype(float)


def order(seen: Seen, due_s: np.ndarray) -> np.ndarray:
  """f64[N, 4] of answers to queries of one moment: who came when among them.

  Rank, and milliseconds since the first, since the one before and until the next.

  >>> seen = Seen(None, None, None, None, np.array([9.0, 4.0, 5.0]), None, None)
  >>> order(seen, np.zeros(3)).tolist()
  [[2.0, 5.0, 4.0, 0.0], [0.0, 0.0, 0.0, 1.0], [1.0, 1.0, 1.0, 4.0]]
  """
  found = np.zeros((len(due_s), 4))
  for moment in np.unique(due_s):
    group = np.flatnonzero(due_s == moment)
    came = seen.latency_ms[group]
    by = np.argsort(came, kind='stable')
    gaps = np.diff(came[by])
    found[group[by]] = np.column_stack(
      [np.arange(len(by)), came[by] - came[by[0]], np.append(0, gaps), [*gaps, 0]]
    )
  return found


def _chance(counts: np.ndarray) -> float:
  """1.96 standard deviations of a chance AUC, one model against the others, mean."""
  rest = counts.sum() - counts
  variance = (counts + rest + 1) / (12 * counts * rest)
  return float(1.96 * np.mean(np.sqrt(variance)))
