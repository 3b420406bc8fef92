"""Runs a study of threats: zoo by zoo, attack by attack, then the report."""

import functools
import os
import pathlib
import time

import jax

from psml_jax import _device
from psml_jax.experiments import ladder, workdir
from psml_jax.experiments.ladder.rungs import Place, places
from psml_jax.experiments.ladder.zoo import opened
from psml_jax.experiments.threats.config import Config
from psml_jax.experiments.threats.membership import Inference
from psml_jax.experiments.threats.transfer import Fooling
from psml_jax.report import threats as report
from psml_jax.report.threats_records import Fooled, Inferred, Leak, Threats


def run(
  config: Config,
  directory: str | os.PathLike[str],
  *,
  until: str = 'report',
  data_dir: str | os.PathLike[str] | None = None,
) -> pathlib.Path:
  """Runs a study, continuing where an earlier run stopped.

  Args:
    config: from `parse`.
    directory: the work directory: new, empty, or of the same config. Each zoo has one
      of its own in it, `zoo-SEED`.
    until: 'report'; a study has no other stage to end at.
    data_dir: where image files are, for data sets that need them.

  Returns:
    The work directory: threats.jsonl (all records), study.json (everything),
    results.md, threats.png and report.html.

  Raises:
    ValueError: what an experiment of one of the zoos raises, or a work directory of
      another config or in use.
  """
  del until
  path = workdir.study(directory, config, lambda path: _work(config, path, data_dir))
  print(report.summary(workdir.read_json(path / 'study.json', Threats)))
  return path


def _work(
  config: Config, path: pathlib.Path, data_dir: str | os.PathLike[str] | None
) -> None:
  began = time.perf_counter()
  spent = workdir.read_jsonl(path / 'seconds.jsonl', float)
  ladders = config.ladder
  listed = _places(ladders)
  candidates = 0
  models: list[Leak] = []
  membership: list[Inferred] = []
  transfer: list[Fooled] = []
  for seed in config.zoos:
    zoo = opened(ladders, seed, path, data_dir)
    offers = functools.cache(zoo.behind)
    if seed == config.zoos[0]:
      inference = Inference(zoo, config.membership, offers, path / 'replicates')
      candidates = inference.size
      models = workdir.job_by_job(
        path / 'models.jsonl', Leak, {'every model, named': inference.leaks}
      )
      membership = workdir.job_by_job(
        path / 'membership.jsonl',
        Inferred,
        {_name(place): functools.partial(inference.run, place) for place in listed},
      )
    fooling = Fooling(zoo, config.transfer, offers)
    transfer += workdir.job_by_job(
      path / f'transfer-{seed}.jsonl',
      Fooled,
      {_name(place): functools.partial(fooling.run, place) for place in listed},
    )
    jax.clear_caches()  # Its programs hold the profile; the next zoo's are others.
  spent.append(time.perf_counter() - began)
  workdir.write_jsonl(path / 'seconds.jsonl', spent)
  kept = {(one.zoo, one.defense, one.target) for one in transfer}
  study = Threats(
    name=config.name,
    zoos=list(config.zoos),
    seeds=config.seeds,
    queries=listed[0].queries,
    replicates=config.membership.replicates,
    candidates=candidates,
    epsilon=config.transfer.epsilon,
    steps=config.transfer.steps,
    models=models,
    membership=membership,
    transfer=transfer,
    missing=[
      f'{defense} at {100 * target:g} %, zoo {seed}'
      for seed in config.zoos
      for defense in config.defenses
      for target in config.targets
      if (seed, defense, target) not in kept
    ],
    seconds=sum(spent),
    device=_device.name(),
  )
  workdir.write_json(path / 'study.json', study)
  workdir.write_jsonl(path / 'threats.jsonl', [*membership, *transfer])
  report.write(study, path)


def _places(ladders: ladder.Config) -> list[Place]:
  """Every attack on every victim behind every defense, at the largest budget."""
  listed = places(ladders)
  most = max(place.queries for place in listed)
  return [place for place in listed if place.queries == most]


def _name(place: Place) -> str:
  return ' '.join(map(str, place))
