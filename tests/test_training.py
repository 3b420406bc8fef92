"""Training: a pure function of its key, its data and its settings."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import load_digits

from psml_jax import training, zoo
from psml_jax.zoo.models import MLP, Linear

HYPER = training.Hyper(steps=12, batch_size=8, learning_rate=1e-2, weight_decay=1e-3)
MODULE = Linear(num_classes=3)


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


@functools.partial(jax.jit, static_argnames='hyper')
def fit(key, inputs, targets, count, hyper=HYPER):
  return training.fit(key, MODULE, inputs, targets, count, hyper)


def test_two_halves_are_the_whole_bit_for_bit(rows):
  hyper = training.Hyper(12, 8, 1e-2, 1e-3)
  key, count = jax.random.key(0), jnp.int32(20)
  whole, losses = fit(key, *rows, count, hyper)
  start_key, steps_key = jax.random.split(key)
  state = training.start(start_key, MODULE, (8, 8, 1), hyper)
  advance = jax.jit(training.advance, static_argnums=(2, 6, 7))
  parts = []
  for _ in range(2):
    state, part = advance(steps_key, state, MODULE, *rows, count, hyper, 6)
    parts.append(part)
  assert int(state.step) == 12
  assert_identical(state.variables, whole)
  np.testing.assert_array_equal(np.concatenate(parts), losses)


def test_the_same_key_gives_the_same_model_and_another_another(rows):
  count = jnp.int32(20)
  one, _ = fit(jax.random.key(1), *rows, count)
  again, _ = fit(jax.random.key(1), *rows, count)
  other, _ = fit(jax.random.key(2), *rows, count)
  assert_identical(one, again)
  assert any((a != b).any() for a, b in zip(leaves(one), leaves(other), strict=True))


def test_without_data_the_parameters_stay_at_their_start(rows):
  key = jax.random.key(3)
  inputs, targets = rows
  fitted, _ = fit(key, inputs * jnp.nan, targets, jnp.int32(0))
  started = training.start(jax.random.split(key)[0], MODULE, (8, 8, 1), HYPER)
  assert_identical(fitted, started.variables)


@pytest.mark.parametrize('count', [1, 7])
def test_padding_is_never_drawn(rows, count):
  inputs, targets = rows
  poisoned = inputs.at[count:].set(jnp.nan), targets.at[count:].set(jnp.nan)
  clean, clean_losses = fit(jax.random.key(4), inputs, targets, jnp.int32(count))
  fitted, losses = fit(jax.random.key(4), *poisoned, jnp.int32(count))
  assert np.isfinite(losses).all()
  assert_identical(fitted, clean)
  np.testing.assert_array_equal(losses, clean_losses)


def test_the_loss_is_the_cross_entropy_of_soft_labels(rows):
  inputs, targets = rows
  key = jax.random.key(5)
  _, losses = fit(key, inputs[:1], targets[:1], jnp.int32(1))
  started = training.start(jax.random.split(key)[0], MODULE, (8, 8, 1), HYPER)
  logits = np.asarray(MODULE.apply(started.variables, inputs[:1]), np.float64)[0]
  wanted = np.log(np.exp(logits).sum()) - np.asarray(targets[0]) @ logits
  np.testing.assert_allclose(losses[0], wanted, rtol=1e-5)


def test_the_loss_falls_on_digits():
  images, labels = load_digits(return_X_y=True)
  images = (images / 16).astype(np.float32).reshape(-1, 8, 8, 1)
  model, losses = zoo.train(
    jax.random.key(0),
    MLP(num_classes=10, widths=(64,)),
    images[:800],
    labels[:800].astype(np.int32),
    num_classes=10,
    hyper=training.Hyper(steps=150, batch_size=32, learning_rate=3e-3),
  )
  assert losses.shape == (150,)
  assert losses[-20:].mean() < 0.25 * losses[:10].mean()
  found = zoo.predict(model, images[800:1200]).argmax(-1)
  assert (found == labels[800:1200]).mean() > 0.85


@pytest.mark.parametrize('labels', [[0, 3], [-1, 2]])
def test_labels_outside_the_classes(labels):
  with pytest.raises(ValueError, match=r'labels span .*must be in \[0, 2\]'):
    zoo.train(
      jax.random.key(0),
      MODULE,
      np.zeros((2, 8, 8, 1), np.float32),
      np.array(labels, np.int32),
      num_classes=3,
      hyper=HYPER,
    )


@pytest.mark.parametrize(
  ('name', 'value'),
  [
    ('steps', 0),
    ('steps', 1.5),
    ('steps', True),
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
  training.Hyper(**good)
  with pytest.raises(ValueError, match=f'{name} is {value}'):
    training.Hyper(**(good | {name: value}))
