"""The zoo's stages: training, profiling, and every model's answers to every image."""

import time

import jax
import numpy as np
from tqdm import tqdm

from psml_jax import data, zoo
from psml_jax.experiments import workdir
from psml_jax.experiments.experiment import Experiment


def train(experiment: Experiment) -> None:
  """Writes a checkpoint a model under zoo/, and zoo_metrics.jsonl; then zoo.json."""
  config, images = experiment.config.zoo, experiment.images()
  assert config is not None
  metrics = experiment.directory / 'zoo_metrics.jsonl'
  records = workdir.read_jsonl(metrics)
  for i, name in enumerate(tqdm(config.models, desc='zoo', unit='model')):
    path = experiment.directory / 'zoo' / name
    if path.exists():
      continue
    began = time.perf_counter()
    model, losses = zoo.train(
      jax.random.fold_in(experiment.key('zoo'), i),
      zoo.create(num_classes=images.num_classes, **config.models[name]),
      images.zoo_x,
      images.zoo_y,
      num_classes=images.num_classes,
      hyper=config.hyper,
    )
    records = [record for record in records if record['model'] != name]
    records.append(
      {
        'model': name,
        'seconds': time.perf_counter() - began,
        'loss_by_tenth': [float(part.mean()) for part in np.array_split(losses, 10)],
      }
    )
    workdir.write_jsonl(metrics, records)
    zoo.save(path, model.variables)
  workdir.write_json(experiment.directory / 'zoo.json', list(config.models))


def profile(experiment: Experiment) -> None:
  """Writes profile.csv; for a trained zoo also profile.json, how it was measured."""
  path = experiment.directory / 'profile.csv'
  if experiment.config.published is not None:
    published = experiment.published()
    workdir.write(path, lambda temporary: zoo.write_profile(temporary, published))
    return
  config, images = experiment.config.profiling, experiment.images()
  assert config is not None
  measured = zoo.measure(
    _models(experiment, images),
    images.test_x,
    images.test_y,
    batch_size=config.batch_size,
    rounds=config.rounds,
  )
  workdir.write_json(experiment.directory / 'profile.json', measured.description)
  workdir.write(
    path, lambda temporary: zoo.write_profile(temporary, measured.profile, measured)
  )


def predict(experiment: Experiment) -> None:
  """Writes predictions.npz: pool f32[M, P, K] and test f32[M, N, K] probabilities."""
  images = experiment.images()
  models = _models(experiment, images)
  pool = np.stack([zoo.predict(model, images.pool_x) for model in models.values()])
  test = np.stack([zoo.predict(model, images.test_x) for model in models.values()])
  workdir.write(
    experiment.directory / 'predictions.npz',
    lambda temporary: np.savez(temporary, pool=pool, test=test),
  )


def _models(experiment: Experiment, images: data.Splits) -> dict[str, zoo.Model]:
  config = experiment.config.zoo
  assert config is not None
  models = {}
  for name, fields in config.models.items():
    module = zoo.create(num_classes=images.num_classes, **fields)
    abstract = zoo.abstract_variables(module, images.zoo_x.shape[1:])
    variables = zoo.restore(experiment.directory / 'zoo' / name, abstract)
    models[name] = zoo.Model(module, variables)
  return models
