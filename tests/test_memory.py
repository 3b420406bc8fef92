"""Programs of the config that is meant for an accelerator fit into its memory."""

import runpy

import jax
import jax.numpy as jnp
import pytest

from psml_jax import _compile, experiments, train, zoo
from psml_jax.core import Harvest
from psml_jax.experiments import harness
from psml_jax.train import feeding

GIB = 2**30
CONFIG = experiments.parse(runpy.run_path('configs/cifar10_paper.py')['get_config']())
KEY = jax.eval_shape(lambda: jax.random.key(0))


def floats(*shape):
  return jax.ShapeDtypeStruct(shape, jnp.float32)


def integers(*shape):
  return jax.ShapeDtypeStruct(shape, jnp.int32)


def surrogates():
  config, images = CONFIG.extraction, CONFIG.data
  rows, models = config.rows_per_chunk, len(CONFIG.zoo.models)
  tables = harness.Tables(
    pool=floats(images.pool_size, 32, 32, 3),
    pool_outputs=floats(models, images.pool_size, 10),
    test=floats(images.test_size, 32, 32, 3),
    test_labels=integers(images.test_size),
    test_outputs=floats(models, images.test_size, 10),
  )
  most = max(config.query_budgets)
  return harness.scores.lower(
    config.training(10),
    tables,
    jax.eval_shape(lambda: jax.random.split(jax.random.key(0), rows)),
    integers(rows),
    Harvest(integers(rows, most), floats(rows, most, 10), integers(rows)),
    config.test_batch,
    config.width,
    train.local_mesh(),
  )


def training(name):
  module = zoo.create(num_classes=10, **CONFIG.zoo.module_fields(name))
  what = train.Training(module, CONFIG.zoo.recipe_of(name))
  size = CONFIG.data.zoo_size
  state = jax.eval_shape(lambda key: train.start(key, what, (32, 32, 3), size), KEY)
  examples = Harvest(integers(size), integers(size), integers())
  images = floats(size, 32, 32, 3)
  return feeding._resident.lower(state, KEY, what, images, examples, None)


@pytest.mark.slow
@pytest.mark.parametrize(
  'name', ['surrogates', 'mobilenetv2_x1_4', 'shufflenetv2_x2_0']
)
def test_the_largest_programs_take_less_than_16_gib(name):
  """The surrogates, the largest model, and the one that is divided to be smaller.

  Found by compiling the largest of each family; code is not optimised.
  """
  lowered = surrogates() if name == 'surrogates' else training(name)
  options = _compile.options('training') | {'xla_backend_optimization_level': '0'}
  found = lowered.compile(options).memory_analysis()
  taken = found.temp_size_in_bytes + found.argument_size_in_bytes
  assert GIB < taken < 16 * GIB
