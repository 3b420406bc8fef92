"""A population of surrogates on real images, against PyTorch: one by one, stacked."""

import dataclasses
import os
import time
from collections.abc import Callable, Sequence
from concurrent import futures
from typing import Any, TypeVarTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch
import torch_surrogates
from records import Row, rates, seconds
from sklearn.linear_model import LogisticRegression

from psml_jax import _compile, data, train
from psml_jax.attacks import extraction
from psml_jax.core import Harvest
from psml_jax.experiments.config import Config

NUM_SURROGATES = 64
NUM_QUERIES = 400
PEER_SURROGATES = 4
STACKED = (16, 32, 64)
_TRIAL_STEPS = 30

Arguments = TypeVarTuple('Arguments')
Work = tuple[Callable[[], Any], int]


def measure(config: Config) -> list[Row]:
  """The rows on surrogates; prints the seconds of the compilation.

  Args:
    config: an experiment whose surrogate is an MLP of the images as they are.
  """
  assert config.extraction is not None
  images, outputs = answered_pool(config)
  pool, targets = jnp.asarray(images.pool_x), jnp.asarray(outputs, jnp.float32)
  training = config.extraction.training(images.num_classes)
  steps = training.recipe
  assert isinstance(steps, train.Steps)

  on_cpu = jax.default_backend() == 'cpu'
  width = config.extraction.width if on_cpu else NUM_SURROGATES

  def population(pool: jax.Array, targets: jax.Array, keys: jax.Array) -> Any:
    def row(key: jax.Array) -> Any:
      query_key, fit_key = jax.random.split(key)
      sent = extraction.choose_inputs(query_key, len(pool), NUM_QUERIES)
      harvest = Harvest(sent, targets[sent], jnp.int32(NUM_QUERIES))
      return train.pure_fit(fit_key, training, pool, harvest)

    return train.over_population(row, keys, width=width)

  keys = jax.random.split(jax.random.key(config.seed), NUM_SURROGATES)

  def compiled(options: Any) -> tuple[Work, float]:
    began = time.perf_counter()
    lowered = jax.jit(population, compiler_options=options).lower(pool, targets, keys)
    program = lowered.compile()
    spent = time.perf_counter() - began
    return (lambda: program(pool, targets, keys), NUM_SURROGATES), spent

  ours, compile_seconds = compiled(_compile.options('surrogates'))
  print(f'population of {NUM_SURROGATES}: compiled in {compile_seconds:.2f} s')

  rng = np.random.default_rng(config.seed)
  sent = [rng.permutation(len(pool))[:NUM_QUERIES] for _ in range(NUM_SURROGATES)]
  centred = 4 * images.pool_x.reshape(len(pool), -1) - 2
  inputs = torch.from_numpy(centred[np.stack(sent)])
  soft = torch.from_numpy(outputs.astype(np.float32)[np.stack(sent)])
  widths = (inputs.shape[2], *config.extraction.surrogate['widths'], images.num_classes)
  one_by_one, loop_name = _one_by_one(widths, inputs, soft, steps)
  stacked, stacked_name = _stacked(widths, inputs, soft, steps)

  def row(name: str, ours: Work, peer: Work, peer_name: str, bar: str) -> Row:
    return rates(
      name,
      ours,
      peer,
      rounds=5,
      unit='surrogates/s',
      peer_name=peer_name,
      bar=bar,
    )

  excluding = row('surrogates, compiled', ours, one_by_one, loop_name, '>= 25x')
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
    row(f'surrogates, width {width}', ours, stacked, stacked_name, '>= 1.9x'),
  ]


def answered_pool(config: Config) -> tuple[data.Splits, np.ndarray]:
  """The images, and a logistic regression's answers to the pool, f64[P, K]."""
  assert config.data is not None
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
  return images, outputs


def _one_by_one(
  widths: Sequence[int],
  inputs: torch.Tensor,
  targets: torch.Tensor,
  recipe: train.Steps,
) -> tuple[Work, str]:
  """PyTorch's loop over surrogates, with its default number of threads or one."""

  def work(threads: int, recipe: train.Steps) -> None:
    torch.set_num_threads(threads)
    for row in range(PEER_SURROGATES):
      draws = torch.randint(NUM_QUERIES, (recipe.steps, recipe.batch_size))
      model = torch_surrogates.create(widths)
      torch_surrogates.fit(model, inputs[row], targets[row], draws, recipe)

  threads = _fastest(work, {(n,): PEER_SURROGATES for n in _thread_counts()}, recipe)[0]
  return (
    (lambda: work(threads, recipe), PEER_SURROGATES),
    f'PyTorch, one by one, {threads} threads',
  )


def _stacked(
  widths: Sequence[int],
  inputs: torch.Tensor,
  targets: torch.Tensor,
  recipe: train.Steps,
) -> tuple[Work, str]:
  """PyTorch's batched matrix products; rows at once and threads by trial.

  A worker a core, each with its rows and one thread of PyTorch, is one of the trials.
  """
  cores = os.cpu_count() or 1
  pool = futures.ThreadPoolExecutor(cores)

  def fit(num_rows: int, recipe: train.Steps) -> None:
    draws = torch.randint(NUM_QUERIES, (recipe.steps, num_rows, recipe.batch_size))
    parameters = torch_surrogates.create_stacked(widths, num_rows)
    torch_surrogates.fit_stacked(
      parameters, inputs[:num_rows], targets[:num_rows], draws, recipe
    )

  def work(num_rows: int, threads: int, workers: int, recipe: train.Steps) -> None:
    torch.set_num_threads(threads)
    list(pool.map(lambda _: fit(num_rows, recipe), range(workers)))

  layouts = {(n, 1) for n in _thread_counts()} | {(1, cores)}
  trials = {
    (num_rows, threads, workers): num_rows * workers
    for num_rows in STACKED
    for threads, workers in sorted(layouts)
  }
  best = _fastest(work, trials, recipe)
  num_rows, threads, workers = best
  return (
    (lambda: work(*best, recipe), trials[best]),
    f'PyTorch, {num_rows} stacked, {threads} threads, {workers} workers',
  )


def _thread_counts() -> list[int]:
  return sorted({1, os.cpu_count() or 1})


def _fastest(
  work: Callable[[*Arguments, train.Steps], None],
  trials: dict[tuple[*Arguments], int],
  recipe: train.Steps,
) -> tuple[*Arguments]:
  """The arguments whose short trainings give the most surrogates a second."""
  trial = dataclasses.replace(recipe, steps=min(recipe.steps, _TRIAL_STEPS))
  spent = {}
  for arguments, count in trials.items():
    work(*arguments, trial)
    turns = [seconds(lambda a=arguments: work(*a, trial)) for _ in range(3)]
    spent[arguments] = min(turns) / count
    step = 1e6 * spent[arguments] / trial.steps
    print(f'PyTorch, trial {arguments}: {step:.0f} us a step of a surrogate')
  return min(spent, key=lambda arguments: spent[arguments])
