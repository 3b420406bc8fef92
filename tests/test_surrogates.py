"""Surrogates: a population gives the same however it is batched and sharded."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

from psml_jax import train
from psml_jax.core import Harvest
from psml_jax.zoo.models import CNN, Linear

NUM_ROWS = 5
ORDER = np.array([3, 0, 4, 1, 2])
RECIPE = train.Steps(steps=6, batch_size=8, learning_rate=1e-2)
SHAPE = (4, 4, 1)
MODULE = Linear(num_classes=3)


def close(one, other):
  for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-5)


@pytest.fixture(scope='module')
def pool():
  return jax.random.uniform(jax.random.key(0), (30, *SHAPE))


@pytest.fixture(scope='module')
def rows():
  """Keys and harvests of different sizes, one of them empty."""
  keys = jax.random.split(jax.random.key(1), NUM_ROWS)
  inputs = jax.vmap(lambda key: jax.random.permutation(key, 30)[:12])(keys)
  targets = jax.nn.softmax(jax.random.normal(jax.random.key(2), (NUM_ROWS, 12, 3)))
  count = jnp.array([12, 1, 0, 7, 12], jnp.int32)
  return keys, Harvest(inputs.astype(jnp.int32), targets, count)


def population(pool, width, module=MODULE, mesh=None):
  def one(row):
    return fit(row, module, pool)

  return jax.jit(lambda rows: train.over_population(one, rows, width=width, mesh=mesh))


def fit(row, module, pool):
  training = train.Training(module, RECIPE)
  return train.pure_fit(row[0], training, pool, row[1])[0]


@pytest.fixture(scope='module')
def trained(pool, rows):
  """The population, each row trained alone."""
  one = jax.jit(lambda row: fit(row, MODULE, pool))
  alone = [one(jax.tree.map(lambda x, i=i: x[i], rows)) for i in range(NUM_ROWS)]
  return jax.tree.map(lambda *leaves: np.stack(leaves), *alone)


@pytest.mark.parametrize('width', [1, 2, 4])
def test_neither_width_nor_neighbours_matter(pool, rows, trained, width):
  assert len(jax.devices()) == 2
  run = population(pool, width)
  close(run(rows), trained)
  keys, harvest = jax.tree.map(lambda leaf: leaf[ORDER], rows)
  poisoned = harvest.targets.at[1:].set(jnp.nan)
  found = run((keys, Harvest(harvest.inputs, poisoned, harvest.count)))
  first = jax.tree.map(lambda leaf: leaf[0], found)
  close(first, jax.tree.map(lambda leaf: leaf[ORDER[0]], trained))


def test_the_number_of_devices_does_not_matter(pool, rows, trained):
  one = Mesh(jax.devices()[:1], ('any',))
  close(population(pool, 2, mesh=one)(rows), trained)


def test_a_mesh_has_one_axis():
  mesh = Mesh(np.reshape(jax.devices(), (1, 2)), ('a', 'b'))
  with pytest.raises(ValueError, match=r"mesh has the axes \('a', 'b'\); it must have"):
    train.over_population(lambda x: x, jnp.arange(3), mesh=mesh)
  with pytest.raises(ValueError, match=r'mesh is 3; it must be a jax\.sharding\.Mesh'):
    train.over_population(lambda x: x, jnp.arange(3), mesh=3)


@pytest.mark.parametrize(
  ('rows', 'message'),
  [
    (jnp.zeros((0, 2)), r'axes \[\(0,\)\]; they must be equal, and at least 1'),
    ((), r'axes \[\]; they must be equal'),
    (jnp.float32(1), r'axes \[\(\)\]'),
    ((jnp.zeros(3), jnp.zeros((2, 3))), r'axes \[\(2,\), \(3,\)\]'),
  ],
)
def test_rows_that_are_none(rows, message):
  with pytest.raises(ValueError, match=f'rows has leaves with the leading {message}'):
    train.over_population(lambda row: row, rows)


def test_convolutions_train_under_vmap_as_alone(pool, rows):
  module = CNN(num_classes=3, widths=(4,))
  close(population(pool, 1, module)(rows), population(pool, 3, module)(rows))


@pytest.mark.parametrize('num_rows', [1, 2, 3, 7])
@pytest.mark.parametrize('width', [1, 3])
def test_any_number_of_rows(num_rows, width):
  rows = {'x': jnp.arange(num_rows, dtype=jnp.float32), 'y': jnp.ones((num_rows, 2))}
  run = functools.partial(train.over_population, width=width)
  found = jax.jit(lambda rows: run(lambda row: row['x'] + row['y'], rows))(rows)
  np.testing.assert_array_equal(found, np.arange(num_rows)[:, None] + np.ones((1, 2)))


def test_an_empty_harvest_leaves_the_initial_parameters(pool, rows):
  key, harvest = rows[0][2], jax.tree.map(lambda leaf: leaf[2], rows[1])
  fitted = fit((key, harvest), MODULE, pool)
  training = train.Training(MODULE, RECIPE)
  started = train.start(jax.random.split(key)[0], training, SHAPE, 12)
  close(fitted, started.variables)


@pytest.mark.parametrize('width', [0, -1, 1.0, True])
def test_width_must_be_a_whole_number(width):
  with pytest.raises(ValueError, match=f'width is {width}'):
    train.over_population(lambda x: x, jnp.arange(3), width=width)
