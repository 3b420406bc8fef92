"""Clients of whom nothing is known: specs spread over the area under the frontier."""

import jax
import jax.numpy as jnp
import numpy as np

from psml_jax import _validate, goodput
from psml_jax.core import Spec, ZooProfile
from psml_jax.workloads import base


def uniform(size: int) -> base.Workload:
  """Specs uniform over accuracy and latency, where a model of the zoo meets them.

  For clients of whom nothing is known, and for exact figures, which are areas. A step
  of the frontier weighs as its area, so where latencies differ by factors nearly all
  clients are slow. The fastest model gets no weight where it is also the least
  accurate, for no spec asks for less than the zoo's range.

  Args:
    size: how many specs.

  Returns:
    The workload, `goodput.uniform_workload`.

  Raises:
    ValueError: `size` is not a whole number >= 1.
  """
  _validate.positive_int('size', size)
  return lambda key, profile: goodput.uniform_workload(key, profile, size)


def log_latency(size: int) -> base.Workload:
  """Specs uniform over accuracy and log latency, where a model of the zoo meets them.

  For zoos whose latencies differ by factors: where the frontier is as high, as many
  clients wait for 1 to 10 ms as for 10 to 100. The fastest model gets no weight where
  it is also the least accurate, as in `uniform`.

  Args:
    size: how many specs.

  Returns:
    The workload; it raises a ValueError for a zoo with a latency of 0.

  Raises:
    ValueError: `size` is not a whole number >= 1.

  >>> zoo = ZooProfile([0.5, 0.6, 0.61], [1.0, 10.0, 1000.0], ('a', 'b', 'c'))
  >>> spec = log_latency(1000)(jax.random.key(0), zoo)
  >>> round(float(jnp.mean(spec.max_latency_ms < 100)), 1)
  0.5
  """
  _validate.positive_int('size', size)

  def workload(key: jax.Array, profile: ZooProfile) -> Spec:
    latency = np.asarray(profile.latency_ms, np.float64)
    allowed = '> 0 for the workload log_latency'
    _validate.reject('profile.latency_ms', latency, latency == 0, allowed)
    logs = np.log(latency / latency.min()).astype(np.float32)
    with jax.ensure_compile_time_eval():
      in_logs = ZooProfile(profile.accuracy, jnp.asarray(logs), profile.names)
    spec = goodput.uniform_workload(key, in_logs, size)
    limit = jnp.min(profile.latency_ms) * jnp.exp(spec.max_latency_ms)
    return base.within(profile, spec.min_accuracy, limit)

  return workload


base.WORKLOADS.register('log_latency', log_latency)
base.WORKLOADS.register('uniform', uniform)
