"""A population of surrogates on real images, against PyTorch: one by one, stacked.

python benchmarks/population.py --config=configs/cifar10_paper.py --rows=8 --steps=8

times the ways to train a population of a config's surrogates on made-up images instead,
and needs no PyTorch.
"""

import contextlib
import dataclasses
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from typing import TYPE_CHECKING, Any, TypeVarTuple

import jax
import jax.numpy as jnp
import memory
import numpy as np
from absl import app, flags
from jax.sharding import Mesh
from records import Row, device, rates, seconds, table
from sklearn.linear_model import LogisticRegression

from psml_jax import _compile, data, train
from psml_jax.attacks import extraction
from psml_jax.core import Harvest
from psml_jax.experiments import config_file
from psml_jax.experiments.config import Config, parse
from psml_jax.zoo import conv, layers

if TYPE_CHECKING:
  import torch

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
  import torch  # Here, for the ways to train a population need none.

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
  inputs: 'torch.Tensor',
  targets: 'torch.Tensor',
  recipe: train.Steps,
) -> tuple[Work, str]:
  """PyTorch's loop over surrogates, with its default number of threads or one."""
  import torch
  import torch_surrogates

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
  inputs: 'torch.Tensor',
  targets: 'torch.Tensor',
  recipe: train.Steps,
) -> tuple[Work, str]:
  """PyTorch's batched matrix products; rows at once and threads by trial.

  A worker a core, each with its rows and one thread of PyTorch, is one of the trials.
  """
  import torch
  import torch_surrogates

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


def strategies(config: Config, num_rows: int, steps: int) -> list[Row]:
  """Ways to train a population on one device, each against one row after the other.

  All rows unrolled in one program; widths of 2, 4, ... under one vmap, as
  `config.extraction.width` sets them; and the widest again with convolutions written as
  products of matrices, which vmap makes batched products. Images and answers are drawn.
  Prints the seconds of each compilation and the bytes of its temporaries.

  Args:
    config: an experiment with surrogates.
    num_rows: surrogates, at least 2.
    steps: minibatches of each, at least 2.
  """
  assert config.extraction is not None
  assert config.data is not None
  shape, classes = memory.images_of(config.data)
  training = _shortened(config.extraction.training(classes), steps)
  size = training.recipe.batch_size * steps
  pool_key, input_key, target_key, row_key = jax.random.split(
    jax.random.key(config.seed), 4
  )
  pool = jax.random.uniform(pool_key, (config.data.pool_size, *shape))
  harvests = Harvest(
    jax.random.randint(input_key, (num_rows, size), 0, len(pool)),
    jax.nn.softmax(jax.random.normal(target_key, (num_rows, size, classes))),
    jnp.full(num_rows, size, jnp.int32),
  )
  keys = jax.random.split(row_key, num_rows)
  begin = _compile.jit('once')(
    lambda keys: jax.vmap(lambda key: train.start(key, training, shape, size))(keys)
  )
  rows = begin(keys), keys, harvests
  one_device = Mesh(np.array(jax.local_devices()[:1]), ('rows',))

  def one(pool: jax.Array, row: Any) -> Any:
    state, key, harvest = row
    return train.epoch(key, state, training, pool, harvest)

  def mapped(width: int) -> Callable[[jax.Array, Any], Any]:
    return lambda pool, rows: train.over_population(
      lambda row: one(pool, row), rows, width=width, mesh=one_device
    )

  def unrolled(pool: jax.Array, rows: Any) -> Any:
    done = [
      one(pool, jax.tree.map(lambda leaf, i=i: leaf[i], rows)) for i in range(num_rows)
    ]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *done)

  def work(name: str, function: Callable[[jax.Array, Any], Any]) -> Work:
    began = time.perf_counter()
    options = _compile.options('surrogates')
    lowered = jax.jit(function, compiler_options=options).lower(pool, rows)
    program = lowered.compile()
    analysed: Any = program.memory_analysis()
    held = analysed.temp_size_in_bytes / memory.GIB
    spent = time.perf_counter() - began
    print(f'{name}: compiled in {spent:.1f} s, temporaries {held:.2f} GiB', flush=True)
    return (lambda: program(pool, rows)), num_rows * steps

  base = work('lax.map', mapped(1))
  widths = [2**i for i in range(1, num_rows.bit_length()) if 2**i <= num_rows]
  ways = {'unrolled': work('unrolled', unrolled)}
  ways |= {f'vmap {width}': work(f'vmap {width}', mapped(width)) for width in widths}
  with _products() as replaced:
    name = f'batched products {widths[-1]}'
    products = work(name, mapped(widths[-1]))
  if replaced:
    ways[name] = products
  return [
    rates(name, way, base, rounds=3, unit='steps/s', peer_name='lax.map')
    for name, way in ways.items()
  ]


def _shortened(training: train.Training, steps: int) -> train.Training:
  """The training with one epoch of so many steps."""
  recipe = training.recipe
  if isinstance(recipe, train.Steps):
    changed: Any = dataclasses.replace(recipe, steps=steps, epochs=1)
  else:
    changed = dataclasses.replace(recipe, epochs=1)
  return dataclasses.replace(training, recipe=changed)


@contextlib.contextmanager
def _products() -> Iterator[list[str]]:
  """Convolutions as products of matrices, and the layers that were replaced so far."""
  replaced: list[str] = []
  usual = layers.conv

  def product(images: jax.Array, kernel: jax.Array, *, stride: int = 1) -> jax.Array:
    if images.shape[-1] > 1 and kernel.shape[2] == 1:
      return usual(images, kernel, stride=stride)
    replaced.append(str(kernel.shape))
    way = conv._pointwise if len(kernel) == 1 else conv._unfolded
    return way(images, kernel, stride=stride)

  layers.conv = product
  try:
    yield replaced
  finally:
    layers.conv = usual


def main(argv: Sequence[str]) -> None:
  """Times the ways to train a population of a config's surrogates."""
  if len(argv) > 1:
    raise app.UsageError(f'unknown arguments {argv[1:]}; all settings are flags')
  given = flags.FLAGS
  config = parse(config_file.load(given.config))
  rows = strategies(config, given.rows, given.steps)
  print(f'\n{device()}\n{table(rows)}')


if __name__ == '__main__':
  flags.DEFINE_string('config', 'configs/digits.py', 'Whose surrogates are trained.')
  flags.DEFINE_integer('rows', 8, 'Surrogates.', lower_bound=2)
  flags.DEFINE_integer('steps', 8, 'Minibatches of each.', lower_bound=2)
  app.run(main)
