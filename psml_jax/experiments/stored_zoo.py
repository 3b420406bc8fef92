"""A zoo that another experiment trained, profiled and asked."""

import json
import pathlib
import shutil

from psml_jax import _files
from psml_jax.experiments import workdir
from psml_jax.experiments.artifacts import PROFILE
from psml_jax.experiments.experiment import Experiment

_SAME = ('seed', 'data', 'zoo', 'profiling')


def check(experiment: Experiment) -> None:
  """Checks that a stored zoo is the one that the experiment would train.

  Raises:
    ValueError: a directory that holds no answers of a zoo, or whose config has another
      seed, data, zoo or profiling.
  """
  source = _source(experiment)
  if not (source / 'predictions.npz').is_file():
    raise ValueError(
      f'config.zoo.stored is {str(source)!r}; it must be the work directory of an '
      'experiment that has made predictions.npz'
    )
  found = workdir.read_config(source).config
  wanted = json.loads(workdir.to_json(experiment.config))['config']
  for each in (found, wanted):
    each['zoo'] = {**(each['zoo'] or {}), 'stored': ''}
  for name in _SAME:
    if found[name] != wanted[name]:
      raise ValueError(
        f'config.zoo.stored is {str(source)!r}, whose '
        f'{workdir.difference(found[name], wanted[name], f"config.{name}")}; they must '
        'be equal'
      )


def train(experiment: Experiment) -> None:
  """Takes the checkpoints under zoo/, and zoo_metrics.jsonl; then zoo.json."""
  source = _source(experiment)
  shutil.copytree(source / 'zoo', experiment.directory / 'zoo', dirs_exist_ok=True)
  _take(experiment, 'zoo_metrics.jsonl')
  _take(experiment, 'zoo.json')


def profile(experiment: Experiment) -> None:
  """Takes profile.json, then profile.csv."""
  _take(experiment, PROFILE.name)
  _take(experiment, 'profile.csv')


def predict(experiment: Experiment) -> None:
  """Takes predictions.npz."""
  _take(experiment, 'predictions.npz')
  experiment.check_inputs()


def _take(experiment: Experiment, name: str) -> None:
  source = _source(experiment) / name
  workdir.write(
    experiment.directory / name, lambda temporary: shutil.copyfile(source, temporary)
  )


def _source(experiment: Experiment) -> pathlib.Path:
  assert experiment.config.zoo is not None
  return _files.local('config.zoo.stored', experiment.config.zoo.stored)
