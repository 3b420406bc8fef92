"""A population of surrogates on real images, against a PyTorch loop."""

import dataclasses
import itertools
import math
import time
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import torch
from records import Row, rates, seconds
from sklearn.linear_model import LogisticRegression
from torch import nn

from psml_jax import data, surrogates, training, zoo
from psml_jax.attacks import extraction
from psml_jax.experiments.config import Config

NUM_SURROGATES = 64
NUM_QUERIES = 400
PEER_SURROGATES = 4


def measure(config: Config) -> list[Row]:
  """The rows on surrogates; prints the seconds of the compilation.

  Args:
    config: an experiment whose surrogate is an MLP of the images as they are.
  """
  assert config.data is not None
  assert config.extraction is not None
  images = data.load(
    config.data.name,
    seed=config.seed,
    zoo_size=config.data.zoo_size,
    pool_size=config.data.pool_size,
    test_size=config.data.test_size,
  )
  victim = LogisticRegression(max_iter=1000)
  victim.fit(images.zoo_x.reshape(len(images.zoo_x), -1), images.zoo_y)
  outputs = victim.predict_proba(images.pool_x.reshape(len(images.pool_x), -1))
  pool, targets = jnp.asarray(images.pool_x), jnp.asarray(outputs, jnp.float32)
  module = zoo.create(num_classes=images.num_classes, **config.extraction.surrogate)
  hyper = config.extraction.hyper

  @jax.jit
  def train(pool: jax.Array, targets: jax.Array, keys: jax.Array) -> jax.Array:
    def row(key: jax.Array) -> jax.Array:
      query_key, fit_key = jax.random.split(key)
      sent = extraction.choose_inputs(query_key, len(pool), NUM_QUERIES)
      harvest = extraction.Harvest(sent, targets[sent], jnp.int32(NUM_QUERIES))
      return surrogates.fit(fit_key, module, pool, harvest, hyper)

    width = 1 if jax.default_backend() == 'cpu' else NUM_SURROGATES
    return surrogates.over_population(row, keys, width=width)

  keys = jax.random.split(jax.random.key(config.seed), NUM_SURROGATES)
  began = time.perf_counter()
  program = train.lower(pool, targets, keys).compile()
  compile_seconds = time.perf_counter() - began
  print(f'population of {NUM_SURROGATES}: compiled in {compile_seconds:.2f} s')

  sent = np.random.default_rng(config.seed).permutation(len(images.pool_x))[
    :NUM_QUERIES
  ]
  flat = torch.from_numpy(images.pool_x[sent].reshape(NUM_QUERIES, -1))
  soft = torch.from_numpy(outputs[sent].astype(np.float32))
  widths = (flat.shape[1], *config.extraction.surrogate['widths'], images.num_classes)
  threads = _choose_threads(widths, flat, soft, hyper)
  excluding = rates(
    'surrogates, compiled',
    (lambda: program(pool, targets, keys), NUM_SURROGATES),
    (
      lambda: [torch_fit(widths, flat, soft, hyper) for _ in range(PEER_SURROGATES)],
      PEER_SURROGATES,
    ),
    rounds=5,
    unit='surrogates/s',
    peer_name=f'PyTorch, one by one, {threads} threads',
    bar='>= 5x',
  )
  with_compilation = NUM_SURROGATES / (
    NUM_SURROGATES / excluding.ours + compile_seconds
  )
  return [
    excluding,
    Row(
      'surrogates with compilation',
      with_compilation,
      excluding.peer,
      excluding.unit,
      excluding.peer_name,
    ),
  ]


def _choose_threads(
  widths: Sequence[int],
  inputs: torch.Tensor,
  targets: torch.Tensor,
  hyper: training.Hyper,
) -> int:
  """Gives PyTorch its default number of threads or one, whichever is faster here."""
  trial = dataclasses.replace(hyper, steps=min(hyper.steps, 30))
  spent = {}
  for threads in (torch.get_num_threads(), 1):
    torch.set_num_threads(threads)
    torch_fit(widths, inputs, targets, trial)
    spent[threads] = seconds(lambda: torch_fit(widths, inputs, targets, trial))
    print(
      f'PyTorch, {threads} threads: {spent[threads] / trial.steps * 1e3:.2f} ms/step'
    )
  fastest = min(spent, key=lambda threads: spent[threads])
  torch.set_num_threads(fastest)
  return fastest


def torch_fit(
  widths: Sequence[int],
  inputs: torch.Tensor,
  targets: torch.Tensor,
  hyper: training.Hyper,
) -> nn.Module:
  """Trains an MLP as `training.fit` does: same loss, steps, batches and schedule."""
  layers: list[nn.Module] = []
  for fan_in, fan_out in itertools.pairwise(widths):
    layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
  model = nn.Sequential(*layers[:-1])
  warm_up = max(1, hyper.steps // 20)

  def share(step: int) -> float:
    if step < warm_up:
      return step / warm_up
    return 0.5 + 0.5 * math.cos(math.pi * (step - warm_up) / (hyper.steps - warm_up))

  optimiser = torch.optim.AdamW(
    model.parameters(), lr=hyper.learning_rate, weight_decay=hyper.weight_decay
  )
  schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, share)
  for _ in range(hyper.steps):
    drawn = torch.randint(0, len(inputs), (hyper.batch_size,))
    loss = nn.functional.cross_entropy(model(inputs[drawn]), targets[drawn])
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    schedule.step()
  return model
