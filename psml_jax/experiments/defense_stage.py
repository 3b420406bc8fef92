"""The defense stage: what noise honest clients can live with."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from psml_jax import _validate, goodput, metrics
from psml_jax.core import Spec, ZooProfile
from psml_jax.experiments import workdir
from psml_jax.experiments.config import Defense
from psml_jax.experiments.experiment import Experiment


def run(experiment: Experiment) -> None:
  """Writes defense.json: the calibrated scale, and goodput at it and the others.

  Raises:
    InputError: not one of the clients' specs can be met, even without noise.
  """
  config, profile = experiment.config.defense, experiment.profile()
  calibration_key, measure_key = jax.random.split(experiment.key('defense'))
  workload = specs(config)

  def measured(key: jax.Array, scale: jax.Array) -> dict[str, jax.Array]:
    workload_key, route_key = jax.random.split(key)
    router = experiment.defended(profile, scale)
    return goodput.by_class(route_key, profile, router, workload(workload_key, profile))

  keys = jax.random.split(measure_key, experiment.config.seeds)
  measure = jax.jit(jax.vmap(measured, in_axes=(0, None)))
  without = float(jnp.mean(measure(keys, jnp.float32(0.0))['all']))
  if without == 0:
    raise _validate.InputError(no_spec_is_met(config))
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


def specs(config: Defense) -> Callable[[jax.Array, ZooProfile], Spec]:
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
  given = goodput.load_workload(
    config.workload_csv,
    accuracy_column=config.workload_accuracy_column,
    latency_column=config.workload_latency_column,
    accuracy_unit=config.workload_accuracy_unit,
    latency_unit=config.workload_latency_unit,
  )
  return lambda key, zoo: given


def no_spec_is_met(config: Defense) -> str:
  """What to say where no model of the zoo meets any client's spec."""
  return (
    f'config.defense.workload_csv is {config.workload_csv!r}, of whose specs no model '
    'of the zoo meets one; look at config.defense.workload_latency_unit '
    f'({config.workload_latency_unit!r}) and workload_accuracy_unit '
    f'({config.workload_accuracy_unit!r})'
  )


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
