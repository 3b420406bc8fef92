"""Runs an experiment stage by stage, each skipped where its artifact lies."""

import contextlib
import dataclasses
import functools
import os
import pathlib
import time
from collections.abc import Callable, Iterator, Sequence

import jax
import numpy as np

from psml_jax import _device, _files, report
from psml_jax._validate import InputError
from psml_jax.experiments import (
  defense_stage,
  extraction_stage,
  fingerprint_stage,
  lock,
  preflight,
  processes,
  report_stage,
  stored_zoo,
  workdir,
  zoo_stage,
)
from psml_jax.experiments.artifacts import (
  DEFENSES,
  EXTRACTION,
  FINGERPRINTS,
  SECONDS,
  SUMMARY,
)
from psml_jax.experiments.config import Config
from psml_jax.experiments.experiment import STAGES, Experiment

_STAGES: dict[str, tuple[str, Callable[[Experiment], None]]] = {
  'zoo': ('zoo.json', zoo_stage.train),
  'profile': ('profile.csv', zoo_stage.profile),
  'predictions': ('predictions.npz', zoo_stage.predict),
  'fingerprint': (FINGERPRINTS.name, fingerprint_stage.run),
  'defense': (DEFENSES.name, defense_stage.run),
  'extraction': (EXTRACTION, extraction_stage.run),
  'report': ('report.html', report_stage.run),
}
_TAKEN = {
  'zoo': stored_zoo.train,
  'profile': stored_zoo.profile,
  'predictions': stored_zoo.predict,
}
_SHARED = ('extraction',)
_PUBLISHED_STAGES = ('profile', 'fingerprint', 'defense', 'report')


def run(
  config: Config,
  directory: str | os.PathLike[str],
  *,
  until: str = 'report',
  data_dir: str | os.PathLike[str] | None = None,
) -> pathlib.Path:
  """Runs an experiment up to a stage, continuing where an earlier run stopped.

  Uses every CPU core where JAX has not started yet, and prints the table of claims when
  the last stage is done. JAX's compiled programs are dropped once the zoo is trained.

  Args:
    config: from `config.parse`.
    directory: the work directory: new, empty, or of the same config and inputs. While
      there is work to do, no other run may use it.
    until: the last stage to run, one of `STAGES`.
    data_dir: where image files are, for data sets that need them.

  Returns:
    The work directory.

  Raises:
    ValueError: a stage that the experiment does not have, no device of JAX_PLATFORMS,
      what `preflight.check` rejects (nothing has been written then), a work
      directory of another config, of other inputs, or in use, or an input file that
      changes while the run is under way (nothing is made of it).
  """
  if not isinstance(config, Config):
    raise InputError(
      f'config is of type {type(config).__name__}; it must be a Config, which '
      'experiments.parse makes of a mapping'
    )
  stages = _PUBLISHED_STAGES if config.published else STAGES
  if until not in stages:
    raise InputError(
      f'until is {until!r}; this experiment has the stages {", ".join(stages)}'
    )
  wanted = stages[: stages.index(until) + 1]
  with contextlib.ExitStack() as resources:
    try:
      with _memory('the checks before the first stage'):
        experiment = Experiment(
          config,
          _files.local('workdir', directory),
          None if data_dir is None else str(_files.local('data_dir', data_dir)),
        )
        if jax.distributed.is_initialized() or _missing(experiment.directory, wanted):
          _device.start()
        found = processes.on_first(
          'the preparation', lambda: _prepare(experiment, wanted, resources)
        )
        missing = [wanted[i] for i in np.asarray(found)]
        experiment = dataclasses.replace(experiment, under_way=True)
    except ValueError as error:
      raise InputError(str(error)) from error
    for name in missing:
      work = functools.partial(_work, name, experiment)
      if name in _SHARED:
        processes.together(f'the stage {name}', work)
      else:
        processes.on_first(f'the stage {name}', work)
    if until == 'report':
      processes.on_first('the report', functools.partial(_show, experiment.directory))
  return experiment.directory


def _work(name: str, experiment: Experiment) -> None:
  """One stage, and the seconds that it took."""
  experiment.check_inputs()
  # Read before the work, which a damaged file must not cost.
  spent = SECONDS.found(experiment.directory) or {} if processes.is_first() else {}
  began = time.perf_counter()
  try:
    with _memory(f'the stage {name}'):
      _stage(name, experiment.config)(experiment)
  except ValueError:
    experiment.check_inputs()
    raise
  finally:
    if processes.is_first():
      spent[name] = spent.get(name, 0.0) + time.perf_counter() - began
      SECONDS.write(experiment.directory, spent)


def _stage(name: str, config: Config) -> Callable[[Experiment], None]:
  """What a stage does; a zoo that is stored is taken."""
  stored = config.zoo is not None and config.zoo.stored
  return _TAKEN[name] if stored and name in _TAKEN else _STAGES[name][1]


def _show(directory: pathlib.Path) -> None:
  print(report.claims_table(SUMMARY.read(directory)))


def _prepare(
  experiment: Experiment, wanted: Sequence[str], resources: contextlib.ExitStack
) -> np.ndarray:
  """Checks the experiment; its directory is locked where a stage is missing.

  Returns:
    i32[...], which of the wanted stages are missing.
  """
  moved = experiment.inputs()
  if _missing(experiment.directory, wanted):
    preflight.check(experiment)
  workdir.open_workdir(experiment.directory, experiment.config, moved=moved)
  if _missing(experiment.directory, wanted):
    locked = resources.enter_context(lock.hold(experiment.directory))
    if locked:
      workdir.remove_unfinished(experiment.directory)
  dataclasses.replace(experiment, under_way=True).check_inputs()
  missing = _missing(experiment.directory, wanted)
  return np.array([wanted.index(name) for name in missing], np.int32)


@contextlib.contextmanager
def _memory(where: str) -> Iterator[None]:
  """Tells of memory that does not suffice as a mistake, by where it showed."""
  try:
    yield
  except (MemoryError, RuntimeError) as error:
    if not isinstance(error, MemoryError) and 'RESOURCE_EXHAUSTED' not in str(error):
      raise
    raise InputError(
      f'{where} needs more memory than there is ({str(error)[:200]}); ask for smaller '
      'sizes in the config'
    ) from error


def _missing(directory: pathlib.Path, wanted: Sequence[str]) -> list[str]:
  return [name for name in wanted if not (directory / _STAGES[name][0]).exists()]
