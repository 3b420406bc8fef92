"""The defense stage: what noise honest clients can live with."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from psml_jax import goodput, metrics
from psml_jax.core import Spec, ZooProfile
from psml_jax.experiments import workdir
from psml_jax.experiments.experiment import Experiment


def run(experiment: Experiment) -> None:
  """Writes defense.json: the calibrated scale, and goodput at it and the others."""
  config, profile = experiment.config.defense, experiment.profile()
  calibration_key, measure_key = jax.random.split(experiment.key('defense'))

  def goodput_at(key: jax.Array, scale: jax.Array) -> jax.Array:
    workload_key, route_key = jax.random.split(key)
    spec = workload(experiment, workload_key, profile)
    route = experiment.defended(profile, scale)(route_key, spec)
    return goodput.goodput(profile, spec, route)

  keys = jax.random.split(measure_key, experiment.config.seeds)
  measure = jax.jit(jax.vmap(goodput_at, in_axes=(0, None)))
  calibrated = 0.0  # where clients' specs miss the target without any noise
  if float(jnp.mean(measure(keys, jnp.float32(0.0)))) > config.target_goodput:
    calibrated = goodput.calibrate(
      calibration_key, goodput_at, target=config.target_goodput
    ).scale
  scales = sorted({0.0, *config.scales, calibrated})
  rows = []
  for scale in scales:
    values = np.asarray(measure(keys, jnp.float32(scale)))
    rows.append({'scale': scale, 'goodput': estimate(values)})
  workdir.write_json(
    experiment.directory / 'defense.json',
    {'calibrated_scale': calibrated, 'goodput': rows},
  )


def workload(
  experiment: Experiment, key: jax.Array, profile: ZooProfile | None
) -> Spec:
  """The specs that honest clients send: the user's file, or uniform ones."""
  config = experiment.config.defense
  if config.workload_csv:
    return goodput.load_workload(
      config.workload_csv,
      accuracy_column=config.workload_accuracy_column,
      latency_column=config.workload_latency_column,
      accuracy_unit=config.workload_accuracy_unit,
    )
  assert profile is not None
  return goodput.uniform_workload(key, profile, config.workload_size)


def estimate(values: Any) -> dict[str, Any]:
  """Mean and 95 % interval of shares, as the summary writes them."""
  found = metrics.interval(values).within(0.0, 1.0)
  return {'mean': found.mean, 'ci95': [found.low, found.high]}
