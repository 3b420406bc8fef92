"""Clients of a few kinds of service, as an operator sells them."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from psml_jax import _validate
from psml_jax.core import Spec, ZooProfile
from psml_jax.workloads import base


class Service(NamedTuple):
  """A class of service: where on the frontier the demands of its clients lie.

  Attributes:
    weight: its share of the clients.
    latency: the middle of their limits, a quantile in [0, 1] of the latencies of the
      frontier's corners, linear between them.
    accuracy: the middle of what they ask for, a quantile of the corners' accuracies.
  """

  weight: float
  latency: float
  accuracy: float


SERVICES = {
  'interactive': Service(0.5, latency=0.2, accuracy=0.05),
  'standard': Service(0.3, latency=0.5, accuracy=0.3),
  'batch': Service(0.2, latency=1.0, accuracy=0.7),
}
JITTER = 0.1
"""How far a client's quantiles lie from its class's, at most."""


def classes(size: int) -> base.Workload:
  """Clients of the classes of service in `SERVICES`.

  For an operator who sells a few kinds of service. The two demands of a client are
  quantiles of the frontier's corners, uniform within `JITTER` around those of its
  class, and clipped to [0, 1]: a quarter of the interactive clients (an eighth of all)
  take every model of the frontier that is fast enough, also the fastest, and half of
  the batch clients wait for the slowest of the frontier. Where a client asks for more
  than can be had within its limit, the accuracy gives way. Nobody asks for what lies
  between the classes, and on a long frontier nobody needs the most accurate model.

  Args:
    size: how many specs.

  Returns:
    The workload.

  Raises:
    ValueError: `size` is not a whole number >= 1.

  >>> zoo = ZooProfile([0.5, 0.6, 0.9], [1.0, 2.0, 9.0], ('a', 'b', 'c'))
  >>> spec = classes(2000)(jax.random.key(0), zoo)
  >>> round(float(jnp.mean(spec.max_latency_ms < 1.7)), 1)  # interactive
  0.5
  """
  _validate.positive_int('size', size)
  weight, at_latency, at_accuracy = np.array(list(SERVICES.values()), np.float32).T

  def workload(key: jax.Array, profile: ZooProfile) -> Spec:
    _validate.key('key', key)
    class_key, latency_key, accuracy_key = jax.random.split(key, 3)
    ends = jnp.asarray(np.cumsum(weight[:-1]))
    share = jax.random.uniform(class_key, (size,))
    service = jnp.searchsorted(ends, share, side='right')

    def demands(key: jax.Array, middles: np.ndarray, of: jax.Array) -> jax.Array:
      jitter = jax.random.uniform(key, (size,), minval=-JITTER, maxval=JITTER)
      levels = jnp.clip(jnp.asarray(middles)[service] + jitter, 0, 1)
      return jnp.clip(
        jnp.interp(levels, jnp.linspace(0, 1, len(of)), of), of[0], of[-1]
      )

    accuracy, latency = base.corners(profile)
    limit = demands(latency_key, at_latency, latency)
    return base.within(profile, demands(accuracy_key, at_accuracy, accuracy), limit)

  return workload


base.WORKLOADS.register('classes', classes)
