"""A work directory's zoo as a server runs it: its front and its models."""

import dataclasses
import os
from typing import Any, NamedTuple

import jax

from psml_jax import _files, defenses, zoo
from psml_jax._validate import InputError
from psml_jax.core import ZooProfile
from psml_jax.experiments import config as experiment_config
from psml_jax.experiments import deployment, workdir, zoo_stage
from psml_jax.experiments.artifacts import DEFENSES
from psml_jax.experiments.config import Config
from psml_jax.experiments.experiment import Experiment
from psml_jax.experiments.plan import NONE
from psml_jax.servers.base import Front
from psml_jax.serving.config import Serving
from psml_jax.serving.protocol import Zoo


class Served(NamedTuple):
  """A zoo that can be served.

  Attributes:
    experiment: that trained it.
    profile: of its models, in the order of the router's.
    zoo: what clients may know.
  """

  experiment: Experiment
  profile: ZooProfile
  zoo: Zoo


def read(directory: str | os.PathLike[str], serving: Serving, data_dir: Any) -> Served:
  """Reads the zoo of an experiment's work directory.

  Args:
    directory: where the stages zoo and profile are done.
    serving: the server's config.
    data_dir: where image files lie, for data sets that need them.

  Returns:
    The zoo.

  Raises:
    InputError: a directory without a trained zoo, of another version, or damaged; a
      model that the config names and the zoo has not.
  """
  experiment = stored(directory, data_dir)
  images, profile = experiment.images(), experiment.profile()
  for name in serving.models:
    if name not in profile.names:
      raise InputError(
        f'config.models.{name} is no model; the zoo has {", ".join(profile.names)}'
      )
  height, width, channels = images.test_x.shape[1:]
  shape = (height, width, channels)
  about = Zoo(serving.name, shape, images.num_classes, serving.most_rows)
  return Served(experiment, profile, about)


def stored(directory: str | os.PathLike[str], data_dir: Any) -> Experiment:
  """The experiment of a work directory whose zoo is trained; its images are not read.

  Raises:
    InputError: a directory without a trained zoo, of another version, or damaged.
  """
  path = _files.local('workdir', directory)
  if not (path / 'config.json').is_file():
    raise InputError(
      f'workdir is {str(path)!r}; it must be the work directory of an experiment'
    )
  try:
    config = experiment_config.parse(_given(workdir.read_config(path).config))
  except ValueError as error:
    raise InputError(str(error)) from error
  if config.zoo is None:
    raise InputError(f'workdir is {str(path)!r}, whose zoo has no models to run')
  for name in ('zoo.json', 'profile.csv'):
    if not (path / name).is_file():
      raise InputError(f'{path} has no {name}; run launch/profile_zoo.py there first')
  return Experiment(config, path, data_dir)


def front(
  directory: str | os.PathLike[str],
  config: Config,
  profile: ZooProfile,
  serving: Serving,
) -> Front:
  """Router and defenses of a server, as an experiment deploys them, and its replies.

  Raises:
    InputError: a defense that the zoo does not admit, or without a value where the work
      directory has none.
  """
  found = _front(directory, config, profile, serving)
  replies = serving.replies()
  if not replies:
    return found
  return dataclasses.replace(found, reply=defenses.in_turn(found.reply, *replies))


def _front(
  directory: str | os.PathLike[str],
  config: Config,
  profile: ZooProfile,
  serving: Serving,
) -> Front:
  name, value = serving.defense.name, serving.defense.value
  if not name:
    return deployment.serve(config, profile, NONE, 0.0).front
  if value < 0:
    found = DEFENSES.found(_files.local('workdir', directory))
    calibrated = found.calibrated.get(name) if found else None
    if calibrated is None:
      known = ', '.join(found.calibrated) if found else ''
      raise InputError(
        f'config.defense.value is {value}; it must be >= 0, for the work directory has '
        f'calibrated {known or "nothing"}, and not {name}'
      )
    value = calibrated
  mechanisms = dataclasses.replace(
    config.defense, mechanisms={name: serving.defense.fields}
  )
  try:
    return deployment.serve(
      dataclasses.replace(config, defense=mechanisms), profile, name, value
    ).front
  except ValueError as error:
    raise InputError(f'config.defense: {error}') from error


def model(served: Served, name: str) -> zoo.Model:
  """A model of a zoo from its checkpoint, its variables on the host."""
  about = served.zoo
  found = zoo_stage.model_of(
    served.experiment, name, about.num_classes, about.image_shape
  )
  return zoo.Model(found.module, jax.device_get(found.variables))


def _given(stored: dict[str, Any]) -> dict[str, Any]:
  """The fields of a stored config, as `parse` takes them."""
  fields = {name: value for name, value in stored.items() if value is not None}
  defense = dict(fields['defense'])
  for name in ('mechanism', 'scales'):
    defense.pop(name, None)
  return {**fields, 'defense': defense}
