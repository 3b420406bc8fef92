"""The recipe: what one epoch does, against the same thing written out."""

import dataclasses
import functools
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from psml_jax import train, zoo
from psml_jax.core import Harvest
from psml_jax.train import CrossEntropy, Training
from tests.models import Small

RECIPE = train.Epochs(
  epochs=3, batch_size=4, learning_rate=0.05, crop_padding=0, flip=False
)
MODULE = Small(num_classes=3)
KEY = jax.random.key(1)
LINEAR = zoo.create('linear', num_classes=3)


@pytest.fixture(scope='module')
def data():
  rng = np.random.default_rng(0)
  images = jnp.asarray(rng.random((14, 8, 8, 3)), jnp.float32)
  return images, jnp.asarray(rng.integers(0, 3, 14), jnp.int32)


def start(module, recipe):
  training = Training(module, recipe)
  return jax.jit(lambda: train.start(KEY, training, (8, 8, 3), 14))()


@functools.partial(jax.jit, static_argnums=2)
def step(key, state, training, images, labels):
  examples = Harvest(jnp.arange(14), labels, jnp.int32(14))
  state, metrics = train.epoch(key, state, training, images, examples)
  return state, jax.tree.map(jnp.mean, metrics)


def run(data, recipe, epochs, module=LINEAR, seed=0, smoothing=0.0):
  state = start(module, recipe)
  training = Training(module, recipe, CrossEntropy(smoothing))
  for _ in range(epochs):
    state, metrics = step(jax.random.key(seed), state, training, *data)
  return state, metrics


def assert_close(one, other, atol=1e-6):
  for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
    np.testing.assert_allclose(a, b, rtol=0, atol=atol)


def differ(one, other):
  pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
  return any(not np.array_equal(a, b) for a, b in pairs)


def reference(data, recipe, epochs, smoothing=0.0):
  """SGD with Nesterov momentum, written out step by step in NumPy's way."""
  images, labels = data
  state = start(LINEAR, recipe)
  params = state.variables['params']
  velocity = jax.tree.map(jnp.zeros_like, params)
  order_key, _ = jax.random.split(jax.random.key(0))
  total, warm_up = 3 * recipe.epochs, round(3 * recipe.warmup_epochs)

  def loss(params, rows):
    logits = LINEAR.apply({'params': params}, images[rows])
    wanted = (1 - smoothing) * jax.nn.one_hot(labels[rows], 3) + smoothing / 3
    return -jnp.mean(jnp.sum(wanted * jax.nn.log_softmax(logits), -1))

  for step in range(3 * epochs):
    epoch = step // 3
    order = jax.random.permutation(jax.random.fold_in(order_key, epoch), 14)
    gradient = jax.grad(loss)(params, order[4 * (step % 3) :][:4])
    if step < warm_up:
      rate = recipe.learning_rate * step / warm_up
    else:
      done = (step - warm_up) / (total - warm_up)
      rate = recipe.learning_rate * (1 + np.cos(np.pi * done)) / 2
    decay = {'Dense_0': {'kernel': recipe.weight_decay, 'bias': 0.0}}
    gradient = jax.tree.map(lambda g, d, p: g + d * p, gradient, decay, params)
    velocity = jax.tree.map(lambda v, g: recipe.momentum * v + g, velocity, gradient)
    params = jax.tree.map(
      lambda p, g, v: p - rate * (g + recipe.momentum * v),  # noqa: B023
      params,
      gradient,
      velocity,
    )
  return params


@pytest.mark.parametrize('smoothing', [0.0, 0.2])
def test_an_epoch_is_nesterov_with_warm_up_cosine_and_decay(data, smoothing):
  recipe = dataclasses.replace(RECIPE, weight_decay=0.1)
  state, _ = run(data, recipe, epochs=3, smoothing=smoothing)
  assert int(state.step) == 9
  wanted = reference(data, recipe, 3, smoothing)
  assert_close(state.variables['params'], wanted, atol=1e-5)


def test_without_warm_up_the_first_step_moves(data):
  recipe = dataclasses.replace(RECIPE, warmup_epochs=0.0)
  state, _ = run(data, recipe, epochs=1)
  assert_close(state.variables['params'], reference(data, recipe, 1), atol=1e-5)


def test_every_epoch_has_its_own_order_of_all_different_images(data):
  """A model that counts what it sees: its statistics are the images' own."""

  class Counter(nn.Module):
    @nn.compact
    def __call__(self, images, train=False):
      seen = self.variable('batch_stats', 'seen', lambda: jnp.zeros(14))
      first = self.variable('batch_stats', 'first', lambda: jnp.zeros(()))
      if train:
        index = jnp.int32(images[:, 0, 0, 0])
        seen.value = seen.value.at[index].add(1)
        first.value = 14 * first.value + index[0]
      bias = self.param('bias', nn.initializers.zeros_init(), (1, 3))
      return jnp.repeat(bias, len(images), axis=0)

  images = jnp.broadcast_to(jnp.arange(14.0).reshape(-1, 1, 1, 1), (14, 8, 8, 3))
  seen, firsts = [], []
  for epochs in (1, 2):
    state, _ = run((images, data[1]), RECIPE, epochs, Counter())
    seen.append(np.asarray(state.variables['batch_stats']['seen']))
    firsts.append(float(state.variables['batch_stats']['first']))
  assert sorted(seen[0]) == [0, 0] + [1] * 12
  assert sorted(seen[1] - seen[0]) == [0, 0] + [1] * 12
  assert firsts[1] - 14**3 * firsts[0] != firsts[0]


def test_accumulated_parts_are_the_whole_minibatch(data):
  """Without BatchNorm, whose statistics are a part's own."""
  whole, metrics = run(data, RECIPE, 2)
  parts, other = run(data, dataclasses.replace(RECIPE, accumulate=4), 2)
  assert_close(whole.variables, parts.variables)
  np.testing.assert_allclose(metrics.loss, other.loss, rtol=1e-5)


def test_the_average_follows_the_variables(data):
  """One minibatch an epoch, so that the variables of every step are seen."""
  recipe = dataclasses.replace(RECIPE, batch_size=14, ema_decay=0.15)
  state = start(MODULE, recipe)
  average = state.variables
  for decay in (1 / 10, 0.15, 0.15):
    state, _ = step(jax.random.key(0), state, Training(MODULE, recipe), *data)
    average = jax.tree.map(
      lambda a, v, d=decay: d * a + (1 - d) * v, average, state.variables
    )
    assert_close(state.average, average)
  assert differ(state.average, state.variables)
  assert not differ(state.result, state.average)
  plain, _ = run(data, RECIPE, 1, MODULE)
  assert plain.average == ()
  assert not differ(plain.result, plain.variables)


def test_statistics_of_batchnorm_are_updated(data):
  state, _ = run(data, RECIPE, 1, MODULE)
  before = start(MODULE, RECIPE).variables['batch_stats']
  assert differ(state.variables['batch_stats'], before)


def test_the_same_key_gives_the_same_bits(data):
  recipe = dataclasses.replace(RECIPE, crop_padding=2, flip=True)
  one, _ = run(data, recipe, 2, MODULE)
  again, _ = run(data, recipe, 2, MODULE)
  other, _ = run(data, recipe, 2, MODULE, seed=5)
  assert not differ(one, again)
  assert differ(one, other)


class TestAugment:
  def crops(self, padding, flip, count=400):
    image = jnp.arange(1.0, 17.0).reshape(1, 4, 4, 1)
    images = jnp.broadcast_to(image, (count, 4, 4, 1))
    found = train.augment(jax.random.key(0), images, padding=padding, flip=flip)
    return np.asarray(image)[0, :, :, 0], np.asarray(found)[..., 0]

  def test_every_crop_out_of_the_frame_is_as_likely(self):
    image, found = self.crops(1, flip=False, count=1800)
    framed = np.pad(image, 1)
    counts = np.zeros((3, 3))
    for i in range(3):
      for j in range(3):
        window = framed[i : i + 4, j : j + 4]
        counts[i, j] = (found == window).all((1, 2)).sum()
    assert counts.sum() == 1800
    assert 150 < counts.min() <= counts.max() < 250

  def test_half_are_mirrored(self):
    image, found = self.crops(0, flip=True, count=1000)
    mirrored = (found == image[:, ::-1]).all((1, 2))
    assert (mirrored | (found == image).all((1, 2))).all()
    assert 430 < mirrored.sum() < 570

  def test_nothing_to_do_is_the_identity(self):
    image, found = self.crops(0, flip=False, count=3)
    np.testing.assert_array_equal(found, np.stack([image] * 3))


@pytest.mark.parametrize(
  ('field', 'value', 'message'),
  [
    ('epochs', 0, 'epochs is 0'),
    ('batch_size', 1.5, r'batch_size is 1\.5'),
    ('learning_rate', 0.0, r'learning_rate is 0\.0'),
    ('momentum', 1.0, r'momentum is 1\.0; it must be a number in \[0, 1\)'),
    ('weight_decay', -1.0, 'weight_decay'),
    ('warmup_epochs', float('nan'), 'warmup_epochs'),
    ('ema_decay', 2.0, r'ema_decay is 2\.0'),
    ('accumulate', 3, 'accumulate is 3; it must divide batch_size 4'),
    ('crop_padding', -3, 'crop_padding is -3; it must be a whole number >= 0'),
    ('crop_padding', 0.0, r'crop_padding is 0\.0; it must be a whole number >= 0'),
    ('learning_rate', 'x', "learning_rate is 'x'; it must be a finite number > 0"),
    ('learning_rate', np.ones(1), 'learning_rate is array.*; it must be a finite num'),
    ('learning_rate', True, 'learning_rate is True'),
    ('weight_decay', np.zeros(3), 'weight_decay is array.* a finite number >= 0'),
    ('ema_decay', 'x', "ema_decay is 'x'"),
    ('momentum', None, 'momentum is None'),
    ('flip', 'no', "flip is 'no'; it must be True or False"),
    ('flip', 0, 'flip is 0'),
  ],
)
def test_settings_outside_their_range(field, value, message):
  with pytest.raises(ValueError, match=message):
    dataclasses.replace(RECIPE, **{field: value})


@pytest.mark.parametrize('share', [-0.1, 1.0, float('nan'), '0.1', None, [0.1]])
def test_smoothing_outside_its_range(share):
  told = re.escape(f'label_smoothing is {share!r}; it must be a number in [0, 1)')
  with pytest.raises(ValueError, match=told):
    CrossEntropy(share)
