"""The defense stage: what defenses honest clients can live with."""

import functools
import warnings
import zlib

import jax
import jax.numpy as jnp
import numpy as np

from psml_jax import _validate, defenses, goodput, routers, workloads
from psml_jax.core import ZooProfile
from psml_jax.experiments import deployment
from psml_jax.experiments.artifacts import DEFENSES, Defenses, Mechanism
from psml_jax.experiments.config import Config
from psml_jax.experiments.experiment import Experiment
from psml_jax.experiments.plan import NONE
from psml_jax.report.schema import Estimate, Shares
from psml_jax.workloads import Workload

_SEEDS_AT_ONCE = 8  # More take more memory and no less time.


def run(experiment: Experiment) -> None:
  """Writes defense.json: for each mechanism the calibrated value, and goodputs.

  Raises:
    InputError: not one of the clients' specs can be met, even without a defense.
  """
  config, profile = experiment.config, experiment.profile()
  workload = specs(config)
  experiment.check_inputs()
  if config.published is None:  # a published zoo's were checked at once
    check_clients(config, workload, profile)
  calibration_key, measure_key = jax.random.split(experiment.key('defense'))
  keys = jax.random.split(measure_key, config.seeds)

  def measured(name: str, key: jax.Array, value: jax.Array) -> dict[str, jax.Array]:
    workload_key, route_key = jax.random.split(key)
    router = deployment.as_router(deployment.serve(config, profile, name, value))
    return goodput.by_class(route_key, profile, router, workload(workload_key, profile))

  @functools.partial(jax.jit, static_argnames='name')
  def measure(name: str, value: jax.Array) -> dict[str, jax.Array]:
    return jax.lax.map(
      lambda key: measured(name, key, value), keys, batch_size=_SEEDS_AT_ONCE
    )

  def shares(name: str, value: float) -> Shares:
    classes = {
      kind: Estimate.of(np.asarray(values))
      for kind, values in measure(name, jnp.float32(value)).items()
    }
    return Shares(value, classes.pop('all'), classes)

  without = shares(NONE, 0.0)
  found: dict[str, Mechanism] = {}
  for name in sorted(config.defense.mechanisms):
    knob = defenses.MECHANISMS[name].knob
    calibrated, monotone = knob.off, True  # where clients miss the target anyway
    if (without.goodput.mean or 0.0) > config.defense.target_goodput:

      def kept(key: jax.Array, value: jax.Array, name: str = name) -> jax.Array:
        return measured(name, key, value)['all']

      calibrated, _, monotone = goodput.calibrate(
        jax.random.fold_in(calibration_key, np.uint32(zlib.crc32(name.encode()))),
        kept,
        knob,
        target=config.defense.target_goodput,
      )
    values = {*config.defense.values(name), calibrated} - {knob.off}
    found[name] = Mechanism(
      calibrated if calibrated != knob.off else None,
      monotone,
      [shares(name, value) for value in sorted(values)],
    )
  DEFENSES.write(experiment.directory, Defenses(without, found))


def specs(config: Config) -> Workload:
  """The specs that honest clients send; a file of theirs is read here, once.

  Raises:
    ValueError: fields that the workload refuses, or a file that cannot be read.
  """
  name, fields = config.defense.clients()
  try:
    return workloads.make(name, **fields)
  except ValueError as error:
    raise ValueError(f'{_place(config)}: {error}') from error


def _place(config: Config) -> str:
  """Where the config says who its clients are."""
  kind = 'workload_csv' if config.defense.workload_csv else 'workload_size'
  return f'config.defense.{"workload" if config.defense.workload else kind}'


def check_clients(config: Config, workload: Workload, profile: ZooProfile) -> None:
  """Checks that client specs and zoo are of one unit, as far as numbers show it.

  Args:
    config: of the experiment.
    workload: its `specs`.
    profile: the zoo; concrete values.

  Warns:
    UserWarning: every client waits longer than the slowest model takes.

  Raises:
    InputError: no model of the zoo meets any client's spec.
  """
  spec = workload(jax.random.key(0), profile)
  route = routers.most_accurate(profile)(jax.random.key(0), spec)
  latency = np.asarray(profile.latency_ms)
  waits = np.asarray(spec.max_latency_ms)
  units = (
    f'the clients of {_place(config)} ({config.defense.clients()[1]}) wait '
    f'{waits.min():.3g} to {waits.max():.3g} ms and the models take '
    f'{latency.min():.3g} to {latency.max():.3g} ms; look at '
    f'config.defense.workload_latency_unit ({config.defense.workload_latency_unit!r}) '
    'and the unit of the zoo'
  )
  if not bool(jnp.any(goodput.met(profile, spec, route))):
    raise _validate.InputError(
      f'no model meets the spec of any client: {units}, or at '
      'config.defense.workload_accuracy_unit '
      f'({config.defense.workload_accuracy_unit!r})'
    )
  if waits.min() > latency.max():
    warnings.warn(f'latency limits exclude no model: {units}', stacklevel=2)
