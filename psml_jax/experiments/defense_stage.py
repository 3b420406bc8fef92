"""The defense stage: what noise honest clients can live with."""

import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from psml_jax import _validate, goodput, metrics, routers
from psml_jax.core import Spec, ZooProfile
from psml_jax.experiments import workdir
from psml_jax.experiments.config import Defense
from psml_jax.experiments.experiment import Experiment

Workload = Callable[[jax.Array, ZooProfile], Spec]


def run(experiment: Experiment) -> None:
  """Writes defense.json: the calibrated scale, and goodput at it and the others.

  Raises:
    InputError: not one of the clients' specs can be met, even without noise.
  """
  config, profile = experiment.config.defense, experiment.profile()
  workload = specs(config)
  experiment.check_inputs()
  if experiment.config.published is None:  # a published zoo's were checked at once
    check_clients(config, workload, profile)
  calibration_key, measure_key = jax.random.split(experiment.key('defense'))

  def measured(key: jax.Array, scale: jax.Array) -> dict[str, jax.Array]:
    workload_key, route_key = jax.random.split(key)
    router = experiment.defended(profile, scale)
    return goodput.by_class(route_key, profile, router, workload(workload_key, profile))

  keys = jax.random.split(measure_key, experiment.config.seeds)
  measure = jax.jit(jax.vmap(measured, in_axes=(0, None)))
  without = float(jnp.mean(measure(keys, jnp.float32(0.0))['all']))
  calibrated, monotone = 0.0, True  # where clients miss the target without any noise
  if without > config.target_goodput:
    calibrated, _, monotone = goodput.calibrate(
      calibration_key,
      lambda key, scale: measured(key, scale)['all'],
      target=config.target_goodput,
    )
  rows = []
  for scale in sorted({0.0, *config.scales, calibrated}):
    shares = {
      name: estimate(np.asarray(values))
      for name, values in measure(keys, jnp.float32(scale)).items()
    }
    rows.append({'scale': scale, 'goodput': shares.pop('all'), 'classes': shares})
  workdir.write_json(
    experiment.directory / 'defense.json',
    {'calibrated_scale': calibrated, 'monotone': monotone, 'goodput': rows},
  )


def specs(config: Defense) -> Workload:
  """The specs that honest clients send: the user's file, or uniform ones.

  Args:
    config: of the defense; its file is read here, once.

  Returns:
    `(key, profile) -> Spec`; the key is consumed.

  Raises:
    ValueError: a file that cannot be read as specs.
  """
  if not config.workload_csv:
    return lambda key, zoo: goodput.uniform_workload(key, zoo, config.workload_size)
  try:
    given = goodput.load_workload(
      config.workload_csv,
      accuracy_column=config.workload_accuracy_column,
      latency_column=config.workload_latency_column,
      accuracy_unit=config.workload_accuracy_unit,
      latency_unit=config.workload_latency_unit,
    )
  except ValueError as error:
    raise ValueError(f'config.defense.workload_csv: {error}') from error
  return lambda key, zoo: given


def check_clients(config: Defense, workload: Workload, profile: ZooProfile) -> None:
  """Checks that client specs and zoo are of one unit, as far as numbers show it.

  Args:
    config: of the defense.
    workload: its `specs`.
    profile: the zoo; concrete values.

  Warns:
    UserWarning: every client waits longer than the slowest model takes.

  Raises:
    InputError: no model of the zoo meets any client's spec.
  """
  if not config.workload_csv:
    return
  spec = workload(jax.random.key(0), profile)
  route = routers.most_accurate(profile)(jax.random.key(0), spec)
  latency = np.asarray(profile.latency_ms)
  waits = np.asarray(spec.max_latency_ms)
  units = (
    f'the clients of {config.workload_csv} wait {waits.min():.3g} to {waits.max():.3g} '
    f'ms and the models take {latency.min():.3g} to {latency.max():.3g} ms; look at '
    f'config.defense.workload_latency_unit ({config.workload_latency_unit!r}) and the '
    'unit of the zoo'
  )
  if not bool(jnp.any(goodput.met(profile, spec, route))):
    raise _validate.InputError(
      f'no model meets the spec of any client: {units}, or at '
      f'config.defense.workload_accuracy_unit ({config.workload_accuracy_unit!r})'
    )
  if waits.min() > latency.max():
    warnings.warn(f'latency limits exclude no model: {units}', stacklevel=2)


def estimate(values: Any) -> dict[str, Any]:
  """Mean and 95 % interval of shares, as the summary writes them.

  Values that are not finite count in neither; of none the mean is None, of one the
  interval.
  """
  finite = np.asarray(values, np.float64)
  finite = finite[np.isfinite(finite)]
  if finite.size < 2:
    return {'mean': float(finite[0]) if finite.size else None, 'ci95': None}
  mean, low, high = metrics.interval(finite).within(0.0, 1.0)
  return {'mean': mean, 'ci95': [low, high]}
