"""Convolutions: values and gradients of plain loops, whatever form a platform takes."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from psml_jax import _compile, zoo
from psml_jax.zoo import conv


def random(seed, *shape):
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def both(form, images, kernel, weights):
  value, pull = jax.vjp(form, images, kernel)
  return value, *pull(weights)


def in_loops(images, kernel, weights, stride):
  """The convolution, and the gradients of its products with the weights."""
  size, channels = len(kernel), images.shape[-1]
  half, depthwise = size // 2, kernel.shape[2] < channels
  if depthwise:
    kernel = kernel * np.eye(channels, dtype=np.float32)
  padding = ((0, 0), (half, half), (half, half), (0, 0))
  padded = np.pad(images, padding)
  result, to_padded, to_kernel = (np.zeros_like(x) for x in (weights, padded, kernel))
  for i, j in np.ndindex(weights.shape[1:3]):
    seen = np.s_[:, i * stride : i * stride + size, j * stride : j * stride + size]
    weight = weights[:, i, j]
    result[:, i, j] = np.einsum('nabc,abcf->nf', padded[seen], kernel)
    to_kernel += np.einsum('nabc,nf->abcf', padded[seen], weight)
    to_padded[seen] += np.einsum('nf,abcf->nabc', weight, kernel)
  if depthwise:
    to_kernel = np.einsum('abcc->abc', to_kernel)[:, :, None]
  height, width = images.shape[1:3]
  return result, to_padded[:, half : half + height, half : half + width], to_kernel


@pytest.mark.parametrize(
  ('kernel_shape', 'side', 'stride'),
  [
    *(((3, 3, 4, 6), side, stride) for side in (8, 5, 2) for stride in (1, 2)),
    *(((3, 3, 1, 4), *sizes) for sizes in ((8, 2), (5, 1), (5, 2), (2, 2))),
    *(((1, 1, 4, 6), *sizes) for sizes in ((8, 2), (5, 2), (2, 1))),
    *(((5, 5, 4, 2), *sizes) for sizes in ((8, 2), (5, 1), (5, 2), (2, 1))),
  ],
)
def test_values_and_gradients_are_those_of_loops(kernel_shape, side, stride):
  images, kernel = random(0, 3, side, side, 4), random(1, *kernel_shape)
  rows = -(-side // stride)
  weights = random(2, 3, rows, rows, kernel_shape[-1])
  found = jax.jit(
    functools.partial(both, functools.partial(conv.conv, stride=stride)),
    compiler_options=_compile.options('training'),
  )(images, kernel, weights)
  wanted = in_loops(images, kernel, weights, stride)
  for one, other in zip(found, wanted, strict=True):
    assert one.shape == other.shape
    np.testing.assert_allclose(one, other, rtol=0, atol=1e-4)


@pytest.mark.parametrize('kernel_shape', [(3, 3, 4, 6), (3, 3, 1, 4)])
def test_what_other_platforms_run_is_the_same(kernel_shape):
  images, kernel = random(0, 3, 5, 5, 4), random(1, *kernel_shape)
  weights = random(2, 3, 3, 3, kernel_shape[-1])
  form = functools.partial(conv.direct, stride=2)
  found = jax.jit(functools.partial(both, form))(images, kernel, weights)
  for one, other in zip(found, in_loops(images, kernel, weights, 2), strict=True):
    np.testing.assert_allclose(one, other, rtol=0, atol=1e-4)


def test_one_channel_is_no_depthwise_convolution():
  images, kernel = random(0, 2, 6, 6, 1), random(1, 3, 3, 1, 4)
  wanted, *_ = in_loops(images, kernel, random(2, 2, 6, 6, 4), 1)
  found = jax.jit(conv.conv)(images, kernel)
  np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)


def test_under_vmap_over_kernels():
  images, kernels = random(0, 2, 6, 6, 2), random(1, 3, 3, 3, 2, 4)
  weights = random(2, 3, 2, 6, 6, 4)
  found = jax.jit(jax.vmap(functools.partial(both, conv.conv), (None, 0, 0)))(
    images, kernels, weights
  )
  for i in range(3):
    wanted = in_loops(images, kernels[i], weights[i], 1)
    for one, other in zip(found, wanted, strict=True):
      np.testing.assert_allclose(one[i], other, rtol=0, atol=1e-4)


def test_half_precision_keeps_its_type():
  images = random(0, 2, 6, 6, 2).astype(jnp.bfloat16)
  kernel = random(1, 3, 3, 2, 4).astype(jnp.bfloat16)
  loss = jax.jit(jax.grad(lambda k: jnp.sum(conv.conv(images, k, stride=2))))
  assert loss(kernel).dtype == jnp.bfloat16


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
  if not _compile.options('serving'):
    wanted = None  # A jaxlib that knows no kind, such as 0.8.
  _compile._accepted.cache_clear()
  choices = [_compile._given_to_ynnpack(*each) for each in kinds]
  monkeypatch.setattr(_compile, '_CHOICES', {'training': choices})
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
    own, shapes = (
      jax.eval_shape(each.init, jax.random.key(1), images) for each in (layer, flax)
    )
    assert jax.tree.map(jnp.shape, own) == jax.tree.map(jnp.shape, shapes)
    variables = jax.tree.map(lambda leaf: random(1, *leaf.shape), shapes)
    found, wanted = jax.jit(lambda *given: (layer.apply(*given), flax.apply(*given)))(
      variables, images
    )
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
