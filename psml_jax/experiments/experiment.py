"""An experiment under way: its config, its work directory, and what lies there."""

import collections
import dataclasses
import os
import pathlib
import re

import jax
import numpy as np

from psml_jax import _files, _keys, data, pareto, profiles
from psml_jax.core import ZooProfile
from psml_jax.experiments import workdir
from psml_jax.experiments.config import Config

STAGES = (
  'zoo',
  'profile',
  'predictions',
  'fingerprint',
  'defense',
  'extraction',
  'report',
)
"""The stages in their order; a published zoo has no models to train or extract."""


@dataclasses.dataclass(frozen=True)
class Experiment:
  """An experiment under way.

  Attributes:
    config: its config.
    directory: its work directory, made by `workdir.open_workdir`.
    data_dir: where image files lie, if the data set needs any.
    under_way: whether the work directory is open, so that files must stay as they were
      when it was made.
  """

  config: Config
  directory: pathlib.Path
  data_dir: str | None = None
  under_way: bool = False

  def key(self, stage: str) -> jax.Array:
    """The key of one stage: of the config's seed and the stage alone."""
    return _keys.purpose(self.config.seed, stage)

  def inputs(self) -> dict[str, pathlib.Path]:
    """Every file that the experiment reads, by the name that errors give it.

    Raises:
      ValueError: one that is no regular file, such as a pipe.
    """
    config, named = self.config, {}
    if config.published is not None and config.published.csv:
      named['config.published.csv'] = config.published.csv
    if path := config.defense.clients()[1].get('path'):
      named['config.defense.workload_csv'] = path
    if config.profiling is not None and config.profiling.stored:
      named['config.profiling.stored'] = config.profiling.stored
    if config.zoo is not None and config.zoo.stored:
      named['config.zoo.stored'] = f'{config.zoo.stored}/predictions.npz'
    paths = {name: _files.local(name, path) for name, path in named.items()}
    if config.data is not None:
      root = _files.local('data_dir', self.data_dir or '.')
      found = data.files(config.data.name, self.data_dir)
      times = collections.Counter(path.name for path in found)
      for path in found:
        own = path.name if times[path.name] == 1 else os.path.relpath(path, root)
        paths[f'data_dir/{own}'] = path
    for name, path in paths.items():
      if path.exists() and not path.is_file():
        raise ValueError(
          f'{name} is {str(path)!r}, a pipe, device or folder; it must be a regular '
          'file, for it is read more than once'
        )
    return paths

  def check_inputs(self) -> None:
    """Checks, once under way, that no file has changed; call it after each reading.

    Raises:
      InputError: one has; the message names it.
    """
    if self.under_way:
      workdir.check_inputs(self.directory, self.inputs())

  def images(self) -> data.Splits:
    """The images in their splits."""
    config = self.config.data
    assert config is not None
    zoo_size, profile_size = config.zoo_sizes()
    try:
      images = data.load(
        config.name,
        seed=self.config.seed,
        zoo_size=zoo_size,
        pool_size=config.pool_size,
        test_size=config.test_size,
        profile_size=profile_size,
        data_dir=self.data_dir,
        **config.fields,
      )
    except ValueError as error:
      of_sizes = re.search(r'\b(zoo|pool|test|profile)_size\b', str(error))
      if config.profile_size or not of_sizes:
        raise
      raise ValueError(
        f'{error} (config.data.zoo_size {config.zoo_size} is {zoo_size} to train on '
        f'and {profile_size} to profile on, for config.data.profile_size is not given)'
      ) from error
    self.check_inputs()
    return images

  def profile(self) -> ZooProfile:
    """The zoo's profile, as the profile stage left it."""
    path = self.directory / 'profile.csv'
    try:
      return ZooProfile.from_csv(
        path,
        name_column='name',
        accuracy_column='accuracy',
        latency_column='latency_ms',
        accuracy_unit='fraction',
      )
    except ValueError as error:
      raise workdir.damaged(path, error, workdir.PROFILE_ANEW) from error

  def published(self) -> ZooProfile:
    """The zoo without models: the package's, the user's table, or a made-up one."""
    config = self.config.published
    assert config is not None
    if config.synthetic_models:
      return profiles.synthetic(self.key('profile'), config.synthetic_models)
    if config.name:
      return profiles.load(config.name)
    try:
      profile = ZooProfile.from_csv(
        config.csv,
        name_column=config.name_column,
        accuracy_column=config.accuracy_column,
        latency_column=config.latency_column,
        accuracy_unit=config.accuracy_unit,
        latency_unit=config.latency_unit,
      )
    except ValueError as error:
      raise ValueError(f'config.published.csv: {error}') from error
    self.check_inputs()
    return profile


def latency_budget(profile: ZooProfile, victim: int) -> float:
  """What an attacker knows of its victim: a latency that its client can afford.

  Half-way between the victim and the next slower model of the frontier, so that the
  victim is the most accurate model within it; the zoo's largest latency for the
  last model of the frontier.

  Args:
    profile: the zoo; concrete values.
    victim: index of a Pareto-optimal model.

  Returns:
    Milliseconds.

  Raises:
    ValueError: the victim is dominated.
  """
  pareto.require_optimal(profile, victim)
  latency = np.asarray(profile.latency_ms, np.float64)
  slower = latency[pareto.frontier(profile)]
  slower = slower[slower > latency[victim]]
  if not slower.size:
    return float(latency.max())
  return float((latency[victim] + slower[0]) / 2)
