"""When the queries of a load come: by the clock alone, whatever the server does.

All are seconds from the start of the load, f64[count], ascending.
"""

import jax
import numpy as np

from psml_jax import _validate


def evenly(count: int, gap_s: float, together: int = 1) -> np.ndarray:
  """Queries at even gaps, `together` at the same moment.

  Args:
    count: how many queries.
    gap_s: seconds between one moment and the next, > 0.
    together: how many share a moment.

  Returns:
    The times.

  Raises:
    ValueError: numbers out of range.

  >>> evenly(4, 0.5, together=2).tolist()
  [0.0, 0.0, 0.5, 0.5]
  """
  _validate.positive_int('count', count)
  _validate.positive('gap_s', gap_s)
  _validate.positive_int('together', together)
  return np.arange(count) // together * gap_s


def poisson(key: jax.Array, count: int, rate: float) -> np.ndarray:
  """A Poisson process: the gaps are exponential and independent.

  Args:
    key: consumed.
    count: how many queries.
    rate: queries a second, > 0.

  Returns:
    The times.

  Raises:
    ValueError: numbers out of range, or a key that is not typed.

  >>> times = poisson(jax.random.key(0), 1000, rate=50.0)
  >>> bool(18 < times[-1] < 22)
  True
  """
  _validate.key('key', key)
  _validate.positive_int('count', count)
  _validate.positive('rate', rate)
  gaps = np.asarray(jax.random.exponential(key, (count,)), np.float64)
  return np.cumsum(gaps) / rate


def bursts(
  key: jax.Array, count: int, rate: float, *, share: float, burst_s: float
) -> np.ndarray:
  """A Poisson process that is switched on and off for exponential times.

  While it is on its rate is `rate / share`, so that `rate` is the mean. With T seconds
  of a burst, the variance of the number of queries in long windows is
  1 + 2 rate T (1 - share)^2 / share times its mean, which is 1 for a Poisson process
  (Fischer and Meier-Hellstern 1993, section 4, of the interrupted Poisson process).

  Args:
    key: consumed.
    count: how many queries.
    rate: queries a second in the long run, > 0.
    share: of the time that it is on, in (0, 1).
    burst_s: how long it is on, seconds in the mean.

  Returns:
    The times; the first burst begins at 0.

  Raises:
    ValueError: numbers out of range, or a key that is not typed.
  """
  _validate.positive('burst_s', burst_s)
  if not 0 < share < 1:
    raise ValueError(f'share is {share}; it must be a fraction in (0, 1)')
  _validate.key('key', key)
  arrival_key, on_key, off_key = jax.random.split(key, 3)
  busy = poisson(arrival_key, count, rate / share)
  # The clock stands still between bursts; more of them than are needed are drawn.
  most = int(busy[-1] / burst_s + 10 * (busy[-1] / burst_s) ** 0.5 + 20)
  ends = np.cumsum(np.asarray(jax.random.exponential(on_key, (most,)), np.float64))
  pauses = np.asarray(jax.random.exponential(off_key, (most,)), np.float64)
  waited = np.append(0.0, np.cumsum(pauses)) * burst_s * (1 - share) / share
  return busy + waited[np.searchsorted(ends * burst_s, busy)]
