"""Checks of an experiment against its data, before anything is written or trained."""

import contextlib
import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any

import jax

from psml_jax import _validate, attacks, defenses, zoo
from psml_jax.core import ZooProfile
from psml_jax.data import Splits
from psml_jax.experiments import defense_stage, stored_zoo
from psml_jax.experiments.config import Config
from psml_jax.experiments.experiment import Experiment

_MOST_NUMBERS = 2e9
"""Of a model to train, which takes four times its 8 GB."""


def check(experiment: Experiment) -> None:
  """Loads what the experiment will read, and shapes every model it will train.

  Args:
    experiment: one whose work directory need not exist yet.

  Raises:
    ValueError: images, a published zoo or a workload that cannot be loaded, clients
      none of whom the published zoo can serve, a model that does not fit the images or
      any memory, or a request larger than the profiling split.
  """
  config = experiment.config
  workload = defense_stage.specs(config)
  _make_entries(config)
  if config.published is not None:
    defense_stage.check_clients(config, workload, experiment.published())
    return
  images = experiment.images()
  assert config.zoo is not None
  assert config.profiling is not None
  assert config.extraction is not None
  _validate.positive_int('config.profiling.rounds', config.profiling.rounds)
  batch_size = config.profiling.batch_size
  _validate.positive_int('config.profiling.batch_size', batch_size)
  if batch_size > len(images.profile_x):
    raise ValueError(
      f'config.profiling.batch_size is {batch_size}; it must be at most the '
      f'{len(images.profile_x)} images of the profiling split'
    )
  if config.zoo.stored:
    stored_zoo.check(experiment)
  if config.profiling.stored:
    names = tuple(m for name in config.zoo.models for m in config.zoo.members(name))
    try:
      zoo.stored_profile(config.profiling.stored, names)
    except ValueError as error:
      raise ValueError(f'config.profiling.stored: {error}') from error
  for name in config.zoo.models:
    fits(f'config.zoo.models.{name}', config.zoo.module_fields(name), images)
  fits('config.extraction.surrogate', config.extraction.surrogate, images)


def fits(path: str, fields: Mapping[str, Any], images: Splits) -> None:
  """Shapes a model for the images.

  Args:
    path: of its fields in the config, for the error.
    fields: the architecture's family and fields.
    images: in their splits.

  Raises:
    ValueError: a model that does not fit them, or any memory.
  """
  module = zoo.create(num_classes=images.num_classes, **fields)
  try:
    variables = zoo.abstract_variables(module, images.test_x.shape[1:])
  except (OverflowError, TypeError, ValueError, ZeroDivisionError) as error:
    raise ValueError(f'{path} is {dict(fields)}: {error}') from error
  numbers = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(variables))
  if numbers > _MOST_NUMBERS:
    raise ValueError(
      f'{path} is {dict(fields)}, a model of {numbers:.3g} numbers; it must have at '
      f'most {_MOST_NUMBERS:.3g}'
    )


def _make_entries(config: Config) -> None:
  """Makes what the config names once, so that values that entries refuse are told."""
  two = ZooProfile([0.5, 0.9], [1.0, 2.0], ('a', 'b'))  # type: ignore[arg-type]
  budgets = config.extraction.query_budgets if config.extraction else (1,)
  resolutions = dataclasses.asdict(config.fingerprint)
  for name in config.defense.mechanisms:
    off = defenses.MECHANISMS[name].knob.off
    with _named(f'config.defense.mechanisms.{name}'):
      defenses.deploy(name, two, off, **config.defense.fields(name))
  for name in config.attacks:
    with _named(f'config.attacks.{name}'):
      registered, fields = attacks.configured(config.attacks, name)
      for budget in budgets:
        attacks.make(registered, attacks.Resources(budget, **resolutions), **fields)


@contextlib.contextmanager
def _named(path: str) -> Iterator[None]:
  """Puts a field's place before an error."""
  try:
    yield
  except ValueError as error:
    raise ValueError(f'{path}: {error}') from error
