"""Runs a ladder: zoo by zoo, rung by rung, then the report."""

import functools
import os
import pathlib
import time

import jax

from psml_jax import _device, _files
from psml_jax._validate import InputError
from psml_jax.experiments import plan, preflight, workdir
from psml_jax.experiments.experiment import Experiment
from psml_jax.experiments.ladder.config import Config
from psml_jax.experiments.ladder.rungs import Climb, places
from psml_jax.experiments.ladder.zoo import opened
from psml_jax.report import ladder as report
from psml_jax.report.ladder_records import Ladder, Neighbours, Rung


def run(
  config: Config,
  directory: str | os.PathLike[str],
  *,
  until: str = 'report',
  data_dir: str | os.PathLike[str] | None = None,
) -> pathlib.Path:
  """Runs a ladder, continuing where an earlier run stopped.

  Args:
    config: from `parse`.
    directory: the work directory: new, empty, or of the same config. Each zoo has one
      of its own in it, `zoo-SEED`.
    until: 'report'; a ladder has no other stage to end at.
    data_dir: where image files are, for data sets that need them.

  Returns:
    The work directory: ladder.jsonl (the rungs), study.json (everything), results.md,
    ladder.png and report.html.

  Raises:
    ValueError: what an experiment of one of the zoos raises, a surrogate that does not
      fit the images, or a work directory of another config or in use.
  """
  del until
  _check_surrogates(config, directory, data_dir)
  path = workdir.study(directory, config, lambda path: _work(config, path, data_dir))
  print(report.summary(workdir.read_json(path / 'study.json', Ladder)))
  return path


def _check_surrogates(
  config: Config,
  directory: str | os.PathLike[str],
  data_dir: str | os.PathLike[str] | None,
) -> None:
  """Shapes them for the images, where there is still something to train."""
  first = config.zoos[0]
  try:
    if (_files.local('workdir', directory) / 'report.html').exists():
      return
    folder = None if data_dir is None else str(_files.local('data_dir', data_dir))
    images = Experiment(config.of_zoo(first), pathlib.Path(), folder).images()
    for name in config.surrogates:
      own = config.of_zoo(first, name).extraction
      assert own is not None
      path = f'config.surrogates.{name}.surrogate'
      preflight.fits(path, own.surrogate, images)
  except ValueError as error:
    raise InputError(str(error)) from error


def _work(
  config: Config, path: pathlib.Path, data_dir: str | os.PathLike[str] | None
) -> None:
  began = time.perf_counter()
  spent = workdir.read_jsonl(path / 'seconds.jsonl', float)
  listed = places(config)
  rungs: list[Rung] = []
  neighbours: list[Neighbours] = []
  for seed in config.zoos:
    zoo = opened(config, seed, path, data_dir)
    climb = Climb(zoo)
    rungs += workdir.job_by_job(
      path / f'rungs-{seed}.jsonl',
      Rung,
      {
        ' '.join(map(str, place)): functools.partial(climb.run, place)
        for place in listed
      },
    )
    neighbours += zoo.neighbours()
    jax.clear_caches()  # Its programs hold the profile; the next zoo's are others.
  spent.append(time.perf_counter() - began)
  workdir.write_jsonl(path / 'seconds.jsonl', spent)
  first = config.of_zoo(config.zoos[0])
  assert first.extraction is not None
  study = Ladder(
    name=config.name,
    zoos=list(config.zoos),
    seeds=config.seeds,
    queries=max(first.extraction.query_budgets),
    rungs=rungs,
    missing=[
      f'{defense} at {100 * target:g} %, zoo {seed}'
      for seed in config.zoos
      for defense in config.defenses
      for target in config.targets
      if (seed, defense, target) not in {(r.zoo, r.defense, r.target) for r in rungs}
    ],
    neighbours=neighbours,
    roles={name: plan.entry(first, name).role for name in first.attacks},
    seconds=sum(spent),
    device=_device.name(),
  )
  workdir.write_json(path / 'study.json', study)
  workdir.write_jsonl(path / 'ladder.jsonl', rungs)
  report.write(study, path)
