"""Compiled answers of half precision: right ones pass, those of a broken one do not."""

import re
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from psml_jax import zoo
from psml_jax._validate import InputError
from psml_jax.zoo import layers, registry

FIELDS = {'num_classes': 4, 'depth': 8, 'width': 4}


class Broken(nn.Module):
  """Right in float32; in bfloat16 it goes wrong as a compiler might."""

  num_classes: int
  fault: str = 'none'
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, images, train=False):
    x = 8 * images.reshape(len(images), -1).astype(self.dtype)
    logits = nn.Dense(self.num_classes, dtype=self.dtype, name='fc')(x)
    logits = logits.astype(jnp.float32)
    if self.dtype == jnp.float32 or self.fault == 'none':
      return logits
    if self.fault == 'one image':
      return logits.at[0].set(-logits[0])
    return {
      'zeros': 0 * logits,
      'constant': jnp.broadcast_to(logits.mean(0, keepdims=True), logits.shape),
      'nan': logits * jnp.nan,
      'infinite': logits.at[:, 0].set(jnp.inf),
      'shuffled': logits[:, ::-1],
    }[self.fault]


@pytest.fixture(scope='module')
def images():
  return np.random.default_rng(0).random((6, 8, 8, 3), np.float32)


def model_of(module, images):
  return zoo.Model(module, jax.jit(module.init)(jax.random.key(0), images))


@pytest.mark.parametrize('dtype', ['bfloat16', jnp.float16])
def test_right_answers_pass(images, dtype):
  zoo.check_served(
    model_of(zoo.create('resnet', dtype=dtype, **FIELDS), images), images
  )
  model = model_of(Broken(4, dtype=dtype), images)
  for count in (6, 1):
    zoo.check_served(model, images[:count])


FAULTS = ['zeros', 'constant', 'nan', 'infinite', 'shuffled']


@pytest.mark.filterwarnings('ignore:invalid value:RuntimeWarning')
@pytest.mark.parametrize('fault', FAULTS)
def test_wrong_answers_are_refused(images, fault):
  module = Broken(4, fault, jnp.dtype('bfloat16'))
  model = model_of(module, images)
  with pytest.raises(
    InputError, match='^vgg answers otherwise in bfloat16 than in flo'
  ):
    zoo.check_served(model, images, name='vgg')
  arguments = {'batch_size': 4, 'rounds': 1}
  with pytest.raises(InputError, match='^some answers otherwise in bfloat16'):
    zoo.measure({'some': model}, images, np.zeros(6, int), **arguments)


def test_the_program_of_one_image_is_measured_and_checked(images):
  """The fault is of requests of one image alone; whole batches are right."""

  class Single(Broken):
    def __call__(self, images, train=False):
      logits = super().__call__(images)
      return (
        logits
        if len(images) > 1
        else jnp.where(self.dtype != jnp.float32, 0, 1) * (logits)
      )

  model = model_of(Single(4, dtype=jnp.dtype('bfloat16')), images)
  zoo.check_served(model, images)
  with pytest.raises(InputError, match='^some answers otherwise'):
    zoo.measure({'some': model}, images, np.zeros(6, int), batch_size=6, rounds=1)


def test_float32_is_not_compared(images):
  for module in (Broken(4, 'zeros'), zoo.create('mlp', num_classes=4, widths=[4])):
    zoo.check_served(model_of(module, images), images)
  measured = zoo.measure(
    {'half': model_of(Broken(4, dtype=jnp.dtype('bfloat16')), images)},
    images,
    np.zeros(6, int),
    batch_size=4,
    rounds=1,
  )
  assert measured.profile.names == ('half',)


@pytest.mark.parametrize('fault', ['none', 'zeros'])
def test_an_imported_model_is_compared(tmp_path, monkeypatch, fault):
  monkeypatch.setattr(registry._FAMILIES, '_entries', dict(registry._FAMILIES))
  zoo.register('broken', Broken)
  rng = np.random.default_rng(0)
  path = tmp_path / 'weights.npz'
  weight = rng.normal(0, 0.1, (4, 192)).astype('f4')
  np.savez(path, **{'fc.weight': weight, 'fc.bias': np.zeros(4, 'f4')})
  fields = {'image_shape': (8, 8, 3), 'fault': fault, 'dtype': jnp.dtype('bfloat16')}
  if fault == 'none':
    zoo.import_state_dict('broken', path, **fields)
  else:
    with pytest.raises(InputError, match=f'^{re.escape(str(path))} as broken answers'):
      zoo.import_state_dict('broken', path, **fields)


def test_two_rectifiers_of_half_precision_under_jit():
  """XLA's CPU backend of jaxlib 0.12 loses the result of `nn.relu` here."""
  x = jax.random.normal(jax.random.key(0), (4, 8, 8, 64), jnp.bfloat16)

  def twice(x):
    return layers.relu(layers.relu(x) - jnp.bfloat16(0.25)).sum((1, 2))

  found = np.asarray(jax.jit(twice)(x), np.float32)
  exact = np.maximum(np.maximum(np.asarray(x, np.float32), 0) - 0.25, 0).sum((1, 2))
  np.testing.assert_allclose(found, exact, rtol=0.05)
  assert layers.relu(x).dtype == jnp.bfloat16
  np.testing.assert_array_equal(layers.relu(x), nn.relu(x))
  for value in (-1.0, 0.0, 2.0):
    slopes = [jax.grad(lambda v, f=f: f(v))(value) for f in (layers.relu, nn.relu)]
    assert slopes[0] == slopes[1]


def test_a_compiled_vgg_of_half_precision_is_that_of_float32():
  images = np.random.default_rng(0).random((4, 32, 32, 3), np.float32)
  exact = zoo.create('vgg11_bn', num_classes=4)
  half = exact.clone(dtype=jnp.dtype('bfloat16'))
  variables = jax.jit(exact.init)(jax.random.key(0), images[:1])
  wanted = np.asarray(jax.jit(exact.apply)(variables, images))
  found = np.asarray(jax.jit(half.apply)(variables, images))
  assert np.abs(wanted).max() > 0.01
  np.testing.assert_allclose(found, wanted, rtol=0, atol=0.05 * np.abs(wanted).max())
