"""Training: a pure function of its key, its data and its settings."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import load_digits

from psml_jax import train
from psml_jax.core import Harvest
from psml_jax.train import Steps, Training
from psml_jax.zoo.models import MLP, Linear

RECIPE = Steps(steps=12, batch_size=8, learning_rate=1e-2, weight_decay=1e-3)
MODULE = Linear(num_classes=3)
TRAINING = Training(MODULE, RECIPE)
KEY = jax.random.key(0)


def leaves(tree):
  return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


def assert_identical(one, other):
  for a, b in zip(leaves(one), leaves(other), strict=True):
    np.testing.assert_array_equal(a, b)


@pytest.fixture(scope='module')
def rows():
  rng = np.random.default_rng(0)
  inputs = jnp.asarray(rng.uniform(size=(20, 8, 8, 1)), jnp.float32)
  targets = jax.nn.softmax(jnp.asarray(rng.normal(size=(20, 3)), jnp.float32))
  return inputs, targets


def harvest(targets, count):
  return Harvest(jnp.arange(len(targets)), targets, jnp.int32(count))


@functools.partial(jax.jit, static_argnames='training')
def pure_fit(key, inputs, targets, count, training=TRAINING):
  variables, metrics = train.pure_fit(key, training, inputs, harvest(targets, count))
  return variables, metrics.loss


@functools.partial(jax.jit, static_argnums=(3, 4))
def begun_and_fitted(key, inputs, targets, count, training):
  """Of one program, for in one of its own JAX 0.12 rounds the start otherwise."""
  start_key, _ = jax.random.split(key)
  state = train.start(start_key, training, (8, 8, 1), 20)
  return pure_fit(key, inputs, targets, count, training), state


@pytest.mark.parametrize(
  'recipe',
  [
    dataclasses.replace(RECIPE, epochs=2),
    dataclasses.replace(RECIPE, epochs=2, ema_decay=0.5, accumulate=2, flip=True),
    train.Epochs(epochs=2, batch_size=8),
  ],
)
def test_two_halves_are_the_whole_bit_for_bit(rows, recipe):
  training = Training(MODULE, recipe)
  key, examples = jax.random.key(0), harvest(rows[1], 20)
  (whole, losses), state = begun_and_fitted(key, *rows, 20, training)
  _, steps_key = jax.random.split(key)
  epoch = jax.jit(train.epoch, static_argnums=2)
  parts = []
  for _ in range(2):
    state, metrics = epoch(steps_key, state, training, rows[0], examples)
    parts.append(metrics.loss)
  assert int(state.step) == len(losses)
  assert_identical(state.result, whole)
  np.testing.assert_array_equal(np.concatenate(parts), losses)


def test_the_same_key_gives_the_same_model_and_another_another(rows):
  count = 20
  one, _ = pure_fit(jax.random.key(1), *rows, count)
  again, _ = pure_fit(jax.random.key(1), *rows, count)
  other, _ = pure_fit(jax.random.key(2), *rows, count)
  assert_identical(one, again)
  assert any((a != b).any() for a, b in zip(leaves(one), leaves(other), strict=True))


def begun(key):
  return train.start(jax.random.split(key)[0], TRAINING, (8, 8, 1), 20)


def test_without_data_the_parameters_stay_at_their_start(rows):
  key = jax.random.key(3)
  inputs, targets = rows
  (fitted, _), started = begun_and_fitted(key, inputs * jnp.nan, targets, 0, TRAINING)
  assert_identical(fitted, started.variables)


@pytest.mark.parametrize('count', [1, 7])
def test_padding_is_never_drawn(rows, count):
  inputs, targets = rows
  poisoned = inputs.at[count:].set(jnp.nan), targets.at[count:].set(jnp.nan)
  clean, clean_losses = pure_fit(jax.random.key(4), inputs, targets, count)
  fitted, losses = pure_fit(jax.random.key(4), *poisoned, count)
  assert np.isfinite(losses).all()
  assert_identical(fitted, clean)
  np.testing.assert_array_equal(losses, clean_losses)


@pytest.mark.parametrize(
  ('recipe', 'size', 'message'),
  [
    (
      train.Epochs(epochs=1, batch_size=8),
      7,
      'is 7; it must be at least 8, for Epochs',
    ),
    (
      train.Epochs(epochs=1, batch_size=8),
      0,
      'is 0; it must be at least 8, for Epochs',
    ),
    (RECIPE, 0, 'is 0; it must be at least 1, for Steps of batch_size 8'),
  ],
)
def test_too_few_examples(rows, recipe, size, message):
  with pytest.raises(ValueError, match=f'num_examples {message}'):
    pure_fit(KEY, rows[0], rows[1][:size], size, Training(MODULE, recipe))


def test_the_loss_is_the_cross_entropy_of_soft_labels(rows):
  inputs, targets = rows
  key = jax.random.key(5)
  _, losses = pure_fit(key, inputs[:1], targets[:1], 1)
  started = begun(key)
  logits = np.asarray(MODULE.apply(started.variables, inputs[:1]), np.float64)[0]
  wanted = np.log(np.exp(logits).sum()) - np.asarray(targets[0]) @ logits
  np.testing.assert_allclose(losses[0], wanted, rtol=1e-5)


@pytest.mark.parametrize('count', [1, 7, 20])
def test_epochs_pass_over_what_was_answered(count):
  """As often as there is room for, each time in a new order."""
  recipe = train.Epochs(epochs=3, batch_size=4)
  rows, keys = recipe.draw(jax.random.key(0), jnp.int32(5), 10, 20, jnp.int32(count))
  assert rows.shape == (10, 4)
  assert len(keys) == len(set(map(str, jax.random.key_data(keys).tolist()))) == 10
  for epoch in np.asarray(rows).reshape(2, 20):
    seen = np.bincount(epoch, minlength=20)
    assert not seen[count:].any()
    assert seen[:count].max() - seen[:count].min() <= 1
  assert count == 1 or (rows[:5] != rows[5:]).any()


def test_the_loss_falls_on_digits():
  images, labels = load_digits(return_X_y=True)
  images = (images / 16).astype(np.float32).reshape(-1, 8, 8, 1)
  module = MLP(num_classes=10, widths=(64,))
  trained = train.fit(
    jax.random.key(0),
    module,
    images[:800],
    labels[:800].astype(np.int32),
    num_classes=10,
    recipe=Steps(steps=150, batch_size=32, learning_rate=3e-3, epochs=10),
  )
  losses = [record['loss'] for record in trained.records]
  assert len(losses) == 10
  assert losses[-1] < 0.25 * losses[0]
  model = train.Model(module, trained.variables)
  found = train.predict(model, images[800:1200]).argmax(-1)
  assert (found == labels[800:1200]).mean() > 0.85


@pytest.mark.parametrize(
  ('name', 'value'),
  [
    ('steps', 0),
    ('steps', 1.5),
    ('steps', True),
    ('epochs', 0),
    ('ema_decay', 1.0),
    ('batch_size', -1),
    ('learning_rate', 0.0),
    ('learning_rate', float('nan')),
    ('learning_rate', float('inf')),
    ('weight_decay', -1e-3),
    ('weight_decay', float('nan')),
  ],
)
def test_settings_outside_their_range(name, value):
  good = {'steps': 1, 'batch_size': 1, 'learning_rate': 0.1, 'weight_decay': 0.0}
  Steps(**good)
  with pytest.raises(ValueError, match=f'{name} is {value}'):
    Steps(**(good | {name: value}))


def test_epochs_divide_the_steps():
  with pytest.raises(ValueError, match='epochs is 5; it must divide steps 12'):
    dataclasses.replace(RECIPE, epochs=5)
