"""Runs an experiment stage by stage, each skipped where its artifact lies."""

import json
import pathlib
import time
from collections.abc import Callable

from psml_jax.experiments import (
  defense_stage,
  extraction_stage,
  fingerprint_stage,
  preflight,
  report_stage,
  workdir,
  zoo_stage,
)
from psml_jax.experiments.config import Config
from psml_jax.experiments.experiment import STAGES, Experiment

_STAGES: dict[str, tuple[str, Callable[[Experiment], None]]] = {
  'zoo': ('zoo.json', zoo_stage.train),
  'profile': ('profile.csv', zoo_stage.profile),
  'predictions': ('predictions.npz', zoo_stage.predict),
  'fingerprint': ('fingerprint.json', fingerprint_stage.run),
  'defense': ('defense.json', defense_stage.run),
  'extraction': ('extraction.jsonl', extraction_stage.run),
  'report': ('report.html', report_stage.run),
}
_PUBLISHED_STAGES = ('profile', 'fingerprint', 'defense', 'report')


def run(
  config: Config,
  directory: str | pathlib.Path,
  *,
  until: str = 'report',
  data_dir: str | None = None,
) -> pathlib.Path:
  """Runs an experiment up to a stage, continuing where an earlier run stopped.

  Args:
    config: from `config.parse`.
    directory: the work directory: new, empty, or of the same config.
    until: the last stage to run, one of `STAGES`.
    data_dir: where image files lie, for data sets that need them.

  Returns:
    The work directory.

  Raises:
    ValueError: a work directory of another config, a stage that the experiment does
      not have, or what `preflight.check` rejects; nothing has been written then.
  """
  stages = _PUBLISHED_STAGES if config.published else STAGES
  if until not in stages:
    raise ValueError(
      f'until is {until!r}; this experiment has the stages {", ".join(stages)}'
    )
  wanted = stages[: stages.index(until) + 1]
  directory = pathlib.Path(directory)
  if not all((directory / _STAGES[name][0]).exists() for name in wanted):
    preflight.check(Experiment(config, directory, data_dir))
  experiment = Experiment(config, workdir.open_workdir(directory, config), data_dir)
  for name in wanted:
    artifact, make = _STAGES[name]
    if not (experiment.directory / artifact).exists():
      began = time.perf_counter()
      try:
        make(experiment)
      finally:
        _add_seconds(experiment, name, time.perf_counter() - began)
  return experiment.directory


def _add_seconds(experiment: Experiment, stage: str, seconds: float) -> None:
  path = experiment.directory / 'seconds.json'
  spent = json.loads(path.read_text('utf-8')) if path.exists() else {}
  spent[stage] = spent.get(stage, 0.0) + seconds
  workdir.write_json(path, spent)
