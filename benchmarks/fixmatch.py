"""A population of FixMatch surrogates, against the same training in a PyTorch loop."""

import dataclasses
import os
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
import torch_fixmatch
from population import NUM_QUERIES, NUM_SURROGATES, answered_pool
from records import Row, rates, seconds

from psml_jax import _compile, train
from psml_jax.attacks import extraction
from psml_jax.core import Harvest
from psml_jax.experiments.config import Config

OBJECTIVE = train.FixMatch(unlabelled=2, threshold=0.8)


def measure(config: Config) -> list[Row]:
  """The row on FixMatch; prints the seconds of the compilation.

  Args:
    config: an experiment whose surrogate is an MLP of the images as they are, trained
      by `Steps`.
  """
  own = config.extraction
  assert own is not None
  images, outputs = answered_pool(config)
  base = own.training(images.num_classes)
  assert isinstance(base.recipe, train.Steps)
  recipe = dataclasses.replace(base.recipe, ema_decay=0.99, rotation_degrees=10.0)
  training = train.Training(base.module, recipe, OBJECTIVE)
  pool, targets = jnp.asarray(images.pool_x), jnp.asarray(outputs, jnp.float32)

  def population(pool: jax.Array, targets: jax.Array, keys: jax.Array) -> Any:
    def row(key: jax.Array) -> Any:
      query_key, fit_key = jax.random.split(key)
      sent = extraction.choose_inputs(query_key, len(pool), NUM_QUERIES)
      harvest = Harvest(sent, targets[sent], jnp.int32(NUM_QUERIES))
      return train.pure_fit(fit_key, training, pool, harvest)

    on_cpu = jax.default_backend() == 'cpu'
    width = own.width if on_cpu else NUM_SURROGATES
    return train.over_population(row, keys, width=width)

  keys = jax.random.split(jax.random.key(config.seed), NUM_SURROGATES)
  began = time.perf_counter()
  program = (
    jax.jit(population, compiler_options=_compile.options('surrogates'))
    .lower(pool, targets, keys)
    .compile()
  )
  print(f'FixMatch population: compiled in {time.perf_counter() - began:.2f} s')

  widths = (
    int(np.prod(images.pool_x.shape[1:])),
    *own.surrogate['widths'],
    images.num_classes,
  )
  theirs = torch.from_numpy(np.moveaxis(images.pool_x, -1, 1).copy())
  sent = torch.randperm(len(theirs))[:NUM_QUERIES]
  soft = torch.from_numpy(outputs.astype(np.float32))[sent]

  def one(recipe: train.Steps = recipe) -> None:
    torch_fixmatch.fit(widths, theirs, sent, soft, recipe, OBJECTIVE)

  spent = {}
  for threads in sorted({1, os.cpu_count() or 1}):
    torch.set_num_threads(threads)
    trial = dataclasses.replace(recipe, steps=60)
    spent[threads] = min(seconds(lambda trial=trial: one(trial)) for _ in range(3))
  threads = min(spent, key=lambda count: spent[count])
  torch.set_num_threads(threads)
  return [
    rates(
      'FixMatch surrogates',
      (lambda: program(pool, targets, keys), NUM_SURROGATES),
      (one, 1),
      rounds=5,
      unit='surrogates/s',
      peer_name=f'PyTorch, one by one, {threads} threads',
      bar='>= 10x',
    )
  ]
