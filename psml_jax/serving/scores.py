"""What a load was worth to its clients: goodput over all queries, and delays."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from psml_jax import goodput, metrics
from psml_jax.core import Route, ZooProfile
from psml_jax.metrics import Interval
from psml_jax.servers.http import Ledger
from psml_jax.serving import load
from psml_jax.serving.load import Offered, Seen


class Score(NamedTuple):
  """What a load was worth to its clients; intervals take queries as independent.

  Attributes:
    counts: what became of every query.
    by_profile: goodput as the profile has it: the share of all offered queries that
      were answered, by a model whose profile meets the client's original spec.
    by_clock: goodput as the client has it: answered, by a model that is as accurate as
      asked for, and within the latency of the spec by the client's own clock.
    p50_ms: of the latencies of the answers.
    p99_ms: likewise.
  """

  counts: Ledger
  by_profile: Interval
  by_clock: Interval
  p50_ms: Interval
  p99_ms: Interval


def score(
  profile: ZooProfile, offered: Offered, seen: Seen, model: np.ndarray
) -> Score:
  """What a load was worth to its clients.

  Args:
    profile: the zoo.
    offered: the load, N queries.
    seen: what came of it.
    model: i32[N], from `load.models`.

  Returns:
    The score; percentiles are NaN where nothing was answered.

  Raises:
    ValueError: fewer than two queries, or a status that no well-formed query gets.
  """
  answered = seen.status == 200
  by = np.where(answered, np.maximum(model, -1), -1)
  route = Route(jnp.asarray(by), jnp.full(len(by), -1))
  meets = np.asarray(goodput.met(profile, offered.spec, route))
  accurate = np.asarray(profile.accuracy)[by] >= np.asarray(offered.spec.min_accuracy)
  in_time = seen.latency_ms <= np.asarray(offered.spec.max_latency_ms)
  return Score(
    load.ledger(seen),
    share(meets),
    share((by >= 0) & accurate & in_time),
    percentile(seen.latency_ms[answered], 0.5),
    percentile(seen.latency_ms[answered], 0.99),
  )


def share(of: ArrayLike) -> Interval:
  """The share of what is true and its 95 % interval, within [0, 1]."""
  return metrics.interval(np.asarray(of, np.float64)).within(0.0, 1.0)


def percentile(values: np.ndarray, level: float) -> Interval:
  """A quantile and its 95 % interval, which is free of any law of the values.

  The interval lies between order statistics; where there are too few values for the
  upper one, it ends at the largest value, and holds less often than it says.

  Args:
    values: f[N]; NaN comes of none.
    level: in (0, 1).

  Returns:
    The quantile and its interval.

  >>> percentile(np.arange(1001.0), 0.5)
  Interval(mean=500.0, low=469.0, high=532.0)
  """
  from scipy import stats

  if not len(values):
    return Interval(np.nan, np.nan, np.nan)
  ordered = np.sort(values)
  ranks = stats.binom.ppf([0.025, 0.975], len(values), level).astype(int)
  low, high = ordered[np.clip(ranks + np.array([-1, 1]), 0, len(values) - 1)]
  return Interval(float(np.quantile(ordered, level)), float(low), float(high))
