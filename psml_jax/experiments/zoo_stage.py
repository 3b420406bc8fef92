"""The zoo's stages: training, profiling, and every model's answers to every image."""

import dataclasses
import functools
import pathlib
import shutil
import time
from typing import Any

import jax
import msgspec
import numpy as np
from tqdm import tqdm

from psml_jax import _files, data, zoo
from psml_jax.core import ZooProfile
from psml_jax.experiments import workdir
from psml_jax.experiments.artifacts import PROFILE, Description
from psml_jax.experiments.config import objective
from psml_jax.experiments.experiment import Experiment
from psml_jax.zoo.repvgg import RepVGG


def train(experiment: Experiment) -> None:
  """Writes a checkpoint a model under zoo/, and zoo_metrics.jsonl; then zoo.json.

  A recipe's own checkpoints and metrics lie under training/ and it resumes there; the
  checkpoints are removed once its models lie under zoo/.
  """
  config, images = experiment.config.zoo, experiment.images()
  assert config is not None
  metrics = experiment.directory / 'zoo_metrics.jsonl'
  records = workdir.read_jsonl(metrics)
  for i, name in enumerate(tqdm(config.models, desc='zoo', unit='model')):
    members = config.members(name)
    if all((experiment.directory / 'zoo' / member).exists() for member in members):
      shutil.rmtree(_training(experiment, name) / 'checkpoints', ignore_errors=True)
      continue
    key = jax.random.fold_in(experiment.key('zoo'), i)
    began = time.perf_counter()
    fitted, summary = _fit(experiment, key, name, images)
    records = [record for record in records if record['model'] != name]
    seconds = time.perf_counter() - began
    records.append({'model': name, **summary, 'seconds': seconds})
    workdir.write_jsonl(metrics, records)
    for member, variables in zip(members, fitted, strict=True):
      path = experiment.directory / 'zoo' / member
      if not path.exists():
        zoo.save(path, variables)
    shutil.rmtree(_training(experiment, name) / 'checkpoints', ignore_errors=True)
  jax.clear_caches()  # Each model's programs hold memory, and serve no more.
  workdir.write_json(
    experiment.directory / 'zoo.json',
    [member for name in config.models for member in config.members(name)],
  )


def _fit(
  experiment: Experiment, key: jax.Array, name: str, images: data.Splits
) -> tuple[list[Any], dict[str, Any]]:
  """The variables of an entry's members, and the last epoch's record."""
  config = experiment.config.zoo
  assert config is not None
  copies = len(config.members(name))
  population = 'copies' in config.models[name]
  recipe = config.recipe_of(name)
  kept = config.recipe is not None or recipe.epochs > 1
  trained = zoo.fit(
    jax.random.split(key, copies) if population else key,
    zoo.create(num_classes=images.num_classes, **config.module_fields(name)),
    images.zoo_x,
    images.zoo_y,
    num_classes=images.num_classes,
    recipe=recipe,
    objective=objective(config.objective),
    directory=_training(experiment, name) if kept else None,
    held_out=(images.profile_x, images.profile_y),
    name=name,
  )
  if not population:
    return [trained.variables], trained.records[-1]
  # On the host, for a member of what lies on a mesh is on all its devices.
  members = jax.device_get(trained.variables)
  fitted = [
    jax.tree.map(lambda leaf, i=i: leaf[i, ...], members) for i in range(copies)
  ]
  return fitted, trained.records[-1]


def _training(experiment: Experiment, name: str) -> pathlib.Path:
  return experiment.directory / 'training' / name


def profile(experiment: Experiment) -> None:
  """Writes profile.csv; for a trained zoo also profile.json, how it was measured."""
  path = experiment.directory / 'profile.csv'
  if experiment.config.published is not None:
    published = experiment.published()
    workdir.write(path, lambda temporary: zoo.write_profile(temporary, published))
    return
  config, images = experiment.config.profiling, experiment.images()
  assert config is not None
  models = models_of(experiment, images)
  if config.stored:
    profile, description = _with_stored_latencies(config.stored, models, images)
    experiment.check_inputs()
    columns = functools.partial(zoo.write_profile, profile=profile)
  else:
    measured = zoo.measure(
      models,
      images.profile_x,
      images.profile_y,
      batch_size=config.batch_size,
      rounds=config.rounds,
    )
    description = msgspec.convert(measured.description, Description)
    columns = functools.partial(
      zoo.write_profile, profile=measured.profile, measured=measured
    )
  PROFILE.write(experiment.directory, description)
  workdir.write(path, columns)


def _with_stored_latencies(
  stored: str, models: dict[str, zoo.Model], images: data.Splits
) -> tuple[ZooProfile, Description]:
  """The models' own accuracies beside stored latencies, and where those are from."""
  path = _files.local('config.profiling.stored', stored)
  latencies = zoo.stored_profile(path, tuple(models)).latency_ms
  for name, model in models.items():
    zoo.check_served(model, images.profile_x, name=name)
  accuracies = [
    float(np.mean(zoo.predict(model, images.profile_x).argmax(-1) == images.profile_y))
    for model in models.values()
  ]
  told = path.with_name('profile.json')
  remedy = 'it tells where config.profiling.stored was measured; restore or remove it'
  description = Description('unknown')
  if told.is_file():
    description = workdir.read_json(told, Description, remedy)
  return (
    ZooProfile(accuracies, latencies, tuple(models)),  # type: ignore[arg-type]
    dataclasses.replace(description, stored=path.name),
  )


def predict(experiment: Experiment) -> None:
  """Writes predictions.npz: pool f32[M, P, K] and test f32[M, N, K] probabilities."""
  images = experiment.images()
  models = models_of(experiment, images)
  pool = np.stack([zoo.predict(model, images.pool_x) for model in models.values()])
  test = np.stack([zoo.predict(model, images.test_x) for model in models.values()])
  workdir.write(
    experiment.directory / 'predictions.npz',
    lambda temporary: np.savez(temporary, pool=pool, test=test),
  )


def models_of(experiment: Experiment, images: data.Splits) -> dict[str, zoo.Model]:
  """The zoo's models by name, as they are served, from their checkpoints."""
  config = experiment.config.zoo
  assert config is not None
  return {
    member: model_of(experiment, member, images.num_classes, images.zoo_x.shape[1:])
    for name in config.models
    for member in config.members(name)
  }


def model_of(
  experiment: Experiment, name: str, num_classes: int, image_shape: tuple[int, ...]
) -> zoo.Model:
  """One of the zoo's models, as it is served, from its checkpoint."""
  config = experiment.config.zoo
  assert config is not None
  entry = next(entry for entry in config.models if name in config.members(entry))
  module = zoo.create(num_classes=num_classes, **config.module_fields(entry))
  abstract = zoo.abstract_variables(module, image_shape)
  variables = zoo.restore(experiment.directory / 'zoo' / name, abstract)
  return _as_served(zoo.Model(module, variables))


def _as_served(model: zoo.Model) -> zoo.Model:
  """The form that a server would run: of a RepVGG the fused one."""
  branches = isinstance(model.module, RepVGG) and not model.module.deploy
  return zoo.fuse(model) if branches else model
