"""Convolutions: XLA's own values and gradients, whatever form a platform takes."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from psml_jax import _compile, zoo
from psml_jax.zoo import conv


def random(seed, *shape):
  return jax.random.normal(jax.random.key(seed), shape)


def both(form, images, kernel, weights):
  value, pull = jax.vjp(form, images, kernel)
  return value, *pull(weights)


@pytest.mark.parametrize('stride', [1, 2])
@pytest.mark.parametrize('side', [8, 5, 2])
@pytest.mark.parametrize(
  'kernel_shape',
  [(3, 3, 4, 6), (1, 1, 4, 6), (3, 3, 1, 4), (5, 5, 4, 2)],
  ids=['full', 'pointwise', 'depthwise', 'large'],
)
def test_values_and_gradients_are_those_of_xla(stride, side, kernel_shape):
  images, kernel = random(0, 3, side, side, 4), random(1, *kernel_shape)
  result = conv.direct(images, kernel, stride=stride)
  weights = random(2, *result.shape)
  forms = (
    functools.partial(conv.conv, stride=stride),
    functools.partial(conv.direct, stride=stride),
  )
  found, wanted = jax.jit(
    lambda *arrays: [both(form, *arrays) for form in forms],
    compiler_options=_compile.options('training'),
  )(images, kernel, weights)
  for one, other in zip(found, wanted, strict=True):
    assert one.shape == other.shape
    np.testing.assert_allclose(one, other, rtol=0, atol=1e-4)


def test_one_channel_is_no_depthwise_convolution():
  images, kernel = random(0, 2, 6, 6, 1), random(1, 3, 3, 1, 4)
  wanted = conv.direct(images, kernel, stride=1)
  assert wanted.shape == (2, 6, 6, 4)
  np.testing.assert_allclose(conv.conv(images, kernel), wanted, rtol=0, atol=1e-5)


def test_under_vmap_over_kernels():
  images, kernels = random(0, 2, 6, 6, 2), random(1, 3, 3, 3, 2, 4)

  def slopes(form):
    return jax.vmap(jax.grad(lambda k: jnp.sum(form(images, k) ** 2)))(kernels)

  found = jax.jit(lambda: slopes(conv.conv))()
  wanted = slopes(lambda images, k: conv.direct(images, k, stride=1))
  np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-3)


def test_half_precision_keeps_its_type():
  images = random(0, 2, 6, 6, 2).astype(jnp.bfloat16)
  kernel = random(1, 3, 3, 2, 4).astype(jnp.bfloat16)
  slope = jax.grad(lambda k: jnp.sum(conv.conv(images, k, stride=2)))(kernel)
  assert slope.dtype == jnp.bfloat16


@pytest.mark.parametrize('of', ['training', 'serving'])
def test_options_are_ones_that_this_version_takes(of):
  program = jax.jit(lambda x: x @ x, compiler_options=_compile.options(of))
  np.testing.assert_array_equal(program(jnp.eye(3)), np.eye(3))


@pytest.mark.parametrize(
  ('kinds', 'wanted'),
  [
    ((('DOT', 'NO_SUCH_KIND'), ('DOT',)), 'LIBRARY_FUSION_TYPE_DOT'),
    ((('NO_SUCH_KIND',),), None),
  ],
)
def test_a_version_that_knows_fewer_kinds_gets_those(monkeypatch, kinds, wanted):
  _compile._accepted.cache_clear()
  monkeypatch.setattr(_compile, '_KINDS', {'training': kinds})
  found = _compile.options('training')
  monkeypatch.undo()
  _compile._accepted.cache_clear()
  assert list(found.values()) == ([wanted] if wanted else [])


def test_options_follow_the_backend(monkeypatch):
  on_a_cpu = _compile.options('serving')
  monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
  assert _compile.options('serving') == {}
  monkeypatch.undo()
  assert _compile.options('serving') == on_a_cpu


class TestLayer:
  """The layer that users build their own modules of."""

  @pytest.mark.parametrize('depthwise', [False, True])
  @pytest.mark.parametrize(('size', 'stride'), [(3, 1), (5, 2), (1, 2)])
  def test_it_is_the_convolution_of_flax(self, size, stride, depthwise):
    features = 4 if depthwise else 6
    layer = zoo.Conv(features, size, stride, depthwise, use_bias=True)
    half = size // 2
    flax = nn.Conv(
      features,
      (size, size),
      stride,
      ((half, half), (half, half)),
      feature_group_count=4 if depthwise else 1,
    )
    images = random(0, 2, 7, 7, 4)
    variables = flax.init(jax.random.key(1), images)
    own = layer.init(jax.random.key(1), images)
    assert jax.tree.map(jnp.shape, own) == jax.tree.map(jnp.shape, variables)
    variables['params']['bias'] = random(2, features)
    found, wanted = layer.apply(variables, images), flax.apply(variables, images)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)

  @pytest.mark.parametrize('size', [0, 2, 4])
  def test_an_even_size(self, size):
    with pytest.raises(ValueError, match=f'size is {size}; it must be odd'):
      zoo.Conv(4, size).init(jax.random.key(0), random(0, 1, 8, 8, 3))

  def test_a_depthwise_one_keeps_its_channels(self):
    with pytest.raises(ValueError, match='features is 6; .* number of channels, 4'):
      zoo.Conv(6, depthwise=True).init(jax.random.key(0), random(0, 1, 8, 8, 4))


def test_in_a_loop_of_gradient_steps():
  images, kernel = random(0, 2, 6, 6, 2), random(1, 3, 3, 2, 4)

  def descend(form):
    def step(kernel, _):
      loss, slope = jax.value_and_grad(lambda k: jnp.mean(form(images, k) ** 2))(kernel)
      return kernel - 0.01 * slope, loss

    return jax.jit(lambda k: jax.lax.scan(step, k, length=4))(kernel)

  direct = functools.partial(conv.direct, stride=1)
  for found, wanted in zip(descend(conv.conv), descend(direct), strict=True):
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4)
