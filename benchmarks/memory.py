"""Whether a config's programs fit an accelerator, and in how many minutes they run.

python benchmarks/memory.py --config=configs/cifar10_paper.py --limit_gib=40

Nothing is run and no data set is read: the library's own programs are compiled for
abstract arrays, on a CPU, and XLA says what they hold and compute. A Markdown table is
printed, a program a line; the exit code is 1 where one is too large or too long. What
XLA says of a CPU's program is not what an accelerator's takes: layouts, workspaces of
libraries and halves that a CPU computes as floats differ. So a program may hold half of
the memory at most: JAX takes three quarters of it, and the rest of these is a margin of
1.5. Its minutes are those of the larger of two times, of its floating-point operations
at `--teraflops` and of its memory traffic at `--gigabytes`, which XLA counts before
operations are fused; compilation is not in them.
"""

import dataclasses
import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from jax.sharding import Mesh

from psml_jax import _compile, _validate, train, zoo
from psml_jax.core import Harvest
from psml_jax.experiments import config_file, harness, pieces
from psml_jax.experiments.config import Config, Data, Extraction, objective, parse
from psml_jax.train import feeding, model
from psml_jax.zoo.repvgg import RepVGG

GIB = 2.0**30
SHARE = 0.5
"""Of the memory that a program may hold by the analysis."""
LONGEST_MINUTES = 9.0
_KNOWN = {
  'cifar10': ((32, 32, 3), 10),
  'cifar100': ((32, 32, 3), 100),
  'digits': ((8, 8, 1), 10),
  'fashion_mnist': ((28, 28, 1), 10),
  'mnist': ((28, 28, 1), 10),
  'svhn': ((32, 32, 3), 10),
}


@dataclasses.dataclass(frozen=True)
class Program:
  """A program that an experiment runs.

  Attributes:
    name: what it does.
    lowered: for abstract arrays; compiled by `compile`.
    times: how often a unit, all between two savings, runs the body of its innermost
      loop, which XLA counts once.
    units: of a model, or of a chunk of surrogates.
  """

  name: str
  lowered: Any
  times: int
  units: int


@dataclasses.dataclass(frozen=True)
class Cost:
  """What XLA says of a program: bytes held, and work of a unit.

  Attributes:
    arguments: bytes, with the results that do not lie in their place.
    temporaries: bytes.
    flops: floating-point operations of a unit.
    traffic: bytes read and written by a unit, before operations are fused.
  """

  arguments: float
  temporaries: float
  flops: float
  traffic: float

  @property
  def total(self) -> float:
    """Bytes held."""
    return self.arguments + self.temporaries

  def minutes(self, teraflops: float, gigabytes: float) -> float:
    """Of a unit, at sustained rates a second."""
    return max(self.flops / teraflops / 1e12, self.traffic / gigabytes / 1e9) / 60


def images_of(config: Data) -> tuple[tuple[int, int, int], int]:
  """The shape (H, W, C) of a data set's images, and its classes, without its files.

  Raises:
    ValueError: a data set that has no shape of its own.
  """
  if config.name == 'synthetic':
    size = config.fields.get('image_size', 32)
    channels = config.fields.get('channels', 3)
    return (size, size, channels), config.fields.get('num_classes', 10)
  _validate.one_of('config.data.name', config.name, (*_KNOWN, 'synthetic'))
  return _KNOWN[config.name]


def programs(config: Config) -> Iterator[Program]:
  """The large programs of an experiment: training, serving and stealing its zoo.

  Args:
    config: of an experiment that trains one model an entry.

  Raises:
    ValueError: a published zoo, an entry with copies, or an unknown data set.
  """
  if config.zoo is None or config.data is None or config.extraction is None:
    raise ValueError('config.zoo is absent; an experiment that trains has one')
  shape, classes = images_of(config.data)
  for name in config.zoo.models:
    if 'copies' in config.zoo.models[name]:
      raise ValueError(
        f'config.zoo.models.{name}.copies is given; how many train at once is for the '
        'accelerator to say, so no program can be compiled for them here'
      )
    yield _training(config, name, shape, classes)
    yield _serving(config, name, shape, classes)
  yield from surrogates(config, config.extraction, config.data)


def _floats(*shape: int) -> Any:
  return jax.ShapeDtypeStruct(shape, jnp.float32)


def _integers(*shape: int) -> Any:
  return jax.ShapeDtypeStruct(shape, jnp.int32)


def _training(
  config: Config, name: str, shape: tuple[int, ...], classes: int
) -> Program:
  """An epoch of a zoo's model, as `zoo.fit` runs it."""
  assert config.zoo is not None
  assert config.data is not None
  module = zoo.create(num_classes=classes, **config.zoo.module_fields(name))
  recipe = config.zoo.recipe_of(name)
  training = train.Training(module, recipe, objective(config.zoo.objective))
  size, _ = config.data.zoo_sizes()
  key = jax.eval_shape(lambda: jax.random.key(0))
  state = jax.eval_shape(
    lambda key: feeding.begin(key, training, shape, size, None), key
  )
  examples = Harvest(_integers(size), _integers(size), _integers())
  lowered = feeding._resident.lower(
    state, key, training, _floats(size, *shape), examples, None
  )
  times = recipe.epoch_steps(size) * recipe.accumulate
  return Program(f'{name}: an epoch', lowered, times, recipe.epochs)


def _serving(
  config: Config, name: str, shape: tuple[int, ...], classes: int, batch: int = 256
) -> Program:
  """Answers to all images of a zoo's model, in the form that is served."""
  assert config.zoo is not None
  assert config.data is not None
  module = zoo.create(num_classes=classes, **config.zoo.module_fields(name))
  if isinstance(module, RepVGG):
    module = module.clone(deploy=True)
  lowered = model._answer.lower(
    module, zoo.abstract_variables(module, shape), _floats(batch, *shape)
  )
  _, profile_size = config.data.zoo_sizes()
  images = config.data.pool_size + config.data.test_size + profile_size
  return Program(f'{name}: answers', lowered, math.ceil(images / batch), 1)


def surrogates(config: Config, extraction: Extraction, images: Data) -> list[Program]:
  """What a chunk of surrogates runs on one device, as the extraction stage does.

  Args:
    config: of the experiment.
    extraction: its part on surrogates.
    images: its part on images.
  """
  assert config.zoo is not None
  shape, classes = images_of(images)
  rows = extraction.rows_per_chunk
  members = sum(len(config.zoo.members(name)) for name in config.zoo.models)
  tables = harness.Tables(
    pool=_floats(images.pool_size, *shape),
    pool_outputs=_floats(members, images.pool_size, classes),
    test=_floats(images.test_size, *shape),
    test_labels=_integers(images.test_size),
    test_outputs=_floats(members, images.test_size, classes),
  )
  most = max(extraction.query_budgets)
  harvests = Harvest(
    _integers(rows, most), _floats(rows, most, classes), _integers(rows)
  )
  keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), rows))
  training = extraction.training(classes)
  recipe, width = training.recipe, extraction.width
  mesh = Mesh(np.array(jax.local_devices()[:1]), ('rows',))
  steps = recipe.epochs * recipe.epoch_steps(most) * recipe.accumulate
  turns = math.ceil(rows / width)
  if extraction.pieces == 1:
    lowered = harness.scores.lower(
      training,
      tables,
      keys,
      _integers(rows),
      harvests,
      extraction.test_batch,
      width,
      mesh,
    )
    return [Program('surrogates: a chunk', lowered, turns * steps, 1)]
  under = jax.eval_shape(
    lambda keys: pieces.begin(keys, training, shape, most, mesh), keys
  )
  advance = pieces.advance.lower(
    under,
    training,
    tables,
    keys,
    harvests,
    recipe.epochs // extraction.pieces,
    width,
    mesh,
  )
  examine = pieces.examine.lower(
    under, training, tables, _integers(rows), extraction.test_batch, width, mesh
  )
  batches = math.ceil(images.test_size / extraction.test_batch)
  return [
    Program(
      'surrogates: a piece',
      advance,
      turns * steps // extraction.pieces,
      extraction.pieces,
    ),
    Program('surrogates: scores', examine, turns * batches, 1),
  ]


def cost(program: Program) -> Cost:
  """Compiles a program, whose code is not optimised, and asks XLA."""
  options = _compile.options('training') | {'xla_backend_optimization_level': '0'}
  if jax.default_backend() != 'cpu':
    options = {}
  found = program.lowered.compile(options).memory_analysis()
  results = found.output_size_in_bytes - found.alias_size_in_bytes
  counted: Mapping[str, float] = program.lowered.cost_analysis()
  return Cost(
    arguments=found.argument_size_in_bytes + results,
    temporaries=found.temp_size_in_bytes,
    flops=program.times * counted['flops'],
    traffic=program.times * counted['bytes accessed'],
  )


def faults(
  name: str, its: Cost, limit_gib: float, teraflops: float, gigabytes: float
) -> list[str]:
  """What is too large or too long of a program.

  Args:
    name: of the program.
    its: what XLA says of it.
    limit_gib: the accelerator's memory.
    teraflops: floating-point operations it sustains a second, in units of 1e12.
    gigabytes: memory traffic it sustains a second, in units of 1e9 bytes.
  """
  found, minutes = [], its.minutes(teraflops, gigabytes)
  if its.total > SHARE * limit_gib * GIB:
    found.append(f'{name} holds {its.total / GIB:.1f} GiB')
  if minutes > LONGEST_MINUTES:
    found.append(f'{name} takes {minutes:.1f} minutes a unit')
  return found


def main(argv: Sequence[str]) -> None:
  """Prints the table, and fails for what is too large or too long."""
  if len(argv) > 1:
    raise app.UsageError(f'unknown arguments {argv[1:]}; all settings are flags')
  given = flags.FLAGS
  config = parse(config_file.load(given.config))
  print(
    '| program | arguments (GiB) | temporaries (GiB) | total (GiB) | TFLOP a unit '
    '| traffic (TB) | minutes a unit | units |\n| --- |' + ' ---: |' * 7
  )
  failed = []
  for program in programs(config):
    began = time.perf_counter()
    its = cost(program)
    print(
      f'| {program.name} | {its.arguments / GIB:.2f} | {its.temporaries / GIB:.2f} '
      f'| {its.total / GIB:.2f} | {its.flops / 1e12:,.1f} | {its.traffic / 1e12:,.2f} '
      f'| {its.minutes(given.teraflops, given.gigabytes):.2f} | {program.units} |',
      flush=True,
    )
    spent = time.perf_counter() - began
    print(f'{program.name}: compiled in {spent:.0f} s', file=sys.stderr, flush=True)
    failed += faults(
      program.name, its, given.limit_gib, given.teraflops, given.gigabytes
    )
  if failed:
    sys.exit(
      f'too large for {SHARE:g} of {given.limit_gib:g} GiB or longer than '
      f'{LONGEST_MINUTES:g} minutes: {"; ".join(failed)}'
    )


if __name__ == '__main__':
  flags.DEFINE_string('config', 'configs/cifar10_paper.py', 'The experiment.')
  flags.DEFINE_float('limit_gib', 40, "The accelerator's memory.", lower_bound=0)
  flags.DEFINE_float('teraflops', 5, 'A second, what it sustains.', lower_bound=0)
  flags.DEFINE_float('gigabytes', 1000, 'A second, what it sustains.', lower_bound=0)
  app.run(main)
