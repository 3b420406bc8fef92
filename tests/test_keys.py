"""Every key has one use: it is split, or folded in with counters, or drawn from."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from psml_jax import _keys, data, defenses, goodput, profiles, routers, train, zoo
from psml_jax.core import Harvest

DRAWS = (
  'bernoulli',
  'exponential',
  'laplace',
  'normal',
  'permutation',
  'randint',
  'uniform',
)


@pytest.fixture
def uses(monkeypatch):
  """Key -> the kinds of its uses, of all concrete keys while the test runs."""
  seen = {}

  def watch(kind, name):
    function = getattr(jax.random, name)

    def watched(key, *args, **kwargs):
      if not isinstance(key, jax.core.Tracer) and not key.ndim:
        seen.setdefault(tuple(jax.random.key_data(key).tolist()), set()).add(kind)
      return function(key, *args, **kwargs)

    monkeypatch.setattr(jax.random, name, watched)

  watch('split', 'split')
  watch('fold_in', 'fold_in')
  for name in DRAWS:
    watch(f'draw {name}', name)
  return seen


def assert_one_use(uses, least):
  assert len(uses) >= least
  assert {key: kinds for key, kinds in uses.items() if len(kinds) > 1} == {}


def test_the_watch_sees_a_second_use(uses):
  key = jax.random.key(0)
  jax.random.split(key)
  jax.random.uniform(key)
  with pytest.raises(AssertionError):
    assert_one_use(uses, 1)


def test_stages_and_data_of_one_seed(uses):
  with jax.disable_jit():
    data.load('synthetic', seed=3, zoo_size=2, pool_size=2, test_size=2, profile_size=2)
    for name in _keys.PURPOSES:
      jax.random.split(_keys.purpose(3, name), 4)
  assert_one_use(uses, 8)


def test_split_and_fold_in_are_the_same_function():
  """Why no key may be used by both."""
  key = jax.random.key(5)
  split = jax.random.key_data(jax.random.split(key, 3))
  folded = [jax.random.key_data(jax.random.fold_in(key, i)) for i in range(3)]
  np.testing.assert_array_equal(split, folded)


@pytest.mark.parametrize(
  ('recipe', 'least'),
  [
    (train.Steps(steps=3, batch_size=2, learning_rate=1e-3), 9),
    (train.Epochs(epochs=2, batch_size=2, crop_padding=1), 15),
  ],
)
def test_a_training(uses, recipe, least):
  training = train.Training(zoo.create('mlp', num_classes=3, widths=(4,)), recipe)
  examples = Harvest(jnp.arange(6), jnp.ones((6, 3)) / 3, jnp.int32(6))
  with jax.disable_jit():
    train.pure_fit(jax.random.key(1), training, jnp.zeros((6, 2, 2, 1)), examples)
  assert_one_use(uses, least)


def test_draws_and_dropout_of_a_step_have_keys_of_their_own():
  """All keys that steps draw with, and dropout's, differ."""
  used = []

  class Spy(zoo.create('mlp', num_classes=3, widths=(4,)).__class__):
    def __call__(self, images, train=False):
      if train:
        used.append(self.make_rng('dropout'))
      return super().__call__(images, train)

  recipe = train.Steps(steps=3, batch_size=2, learning_rate=1e-3)
  training = train.Training(Spy(num_classes=3, widths=(4,)), recipe)
  examples = Harvest(jnp.arange(6), jnp.ones((6, 3)) / 3, jnp.int32(6))
  with jax.disable_jit():
    train.pure_fit(jax.random.key(1), training, jnp.zeros((6, 2, 2, 1)), examples)
  assert len({str(k) for k in used}) == len(used) == 3


def test_defended_routes_and_workloads(uses):
  profile = profiles.load('cifar10_published')
  workload_key, route_key = jax.random.split(jax.random.key(2))
  noise = defenses.chain(defenses.laplace(0.1, 1.0), defenses.refusal(0.1))
  with jax.disable_jit():
    specs = goodput.uniform_workload(workload_key, profile, 5)
    router = defenses.defend(routers.uniform(profile), noise)
    goodput.by_class(route_key, profile, router, specs)
  assert_one_use(uses, 12)
