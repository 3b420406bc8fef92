"""The published architectures: sizes, statistics, precision, what they refuse."""

import csv
import importlib.resources

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from psml_jax import profiles, zoo

VIT_MILLIONS = {
  'vit_small_patch16_384': 22.2,
  'vit_base_patch16_384': 86.9,
  'vit_large_patch16_384': 304.7,
}
SMALL_VIT = {'depth': 1, 'width': 32, 'heads': 2, 'image_size': 32}
ONE_OF_EACH = {
  'resnet': {'depth': 8, 'width': 4},
  'vgg11_bn': {},
  'mobilenetv2_x0_5': {},
  'shufflenetv2_x0_5': {},
  'repvgg_a0': {'widths': (8, 8, 8, 16), 'blocks': (1, 2, 2, 1)},
  'vit_small_patch16_384': SMALL_VIT,
}


def published(classes):
  file = importlib.resources.files(profiles) / f'cifar{classes}_published.csv'
  rows = csv.DictReader(file.read_text('utf-8').splitlines())
  return {row['model']: row['params_million'] for row in rows}


def parameters(name, classes):
  module = zoo.create(name, num_classes=classes)
  variables = zoo.abstract_variables(module, module.input_shape)
  return sum(leaf.size for leaf in jax.tree.leaves(variables['params'])) / 1e6


@pytest.fixture(scope='module')
def images():
  return jax.random.uniform(jax.random.key(0), (4, 32, 32, 3))


class TestParameterCounts:
  @pytest.mark.parametrize('classes', [10, 100])
  @pytest.mark.parametrize('name', sorted(published(10)))
  def test_every_count_is_the_published_one(self, name, classes):
    stated = published(classes)[name]
    if stated:
      assert f'{parameters(name, classes):.2f}' == f'{float(stated):.2f}'
    else:
      difference = VIT_MILLIONS[name] - parameters(name, 1000)
      head = zoo.create(name, num_classes=2).width
      assert abs(difference) <= 0.05
      fewer = parameters(name, 1000) - parameters(name, classes)
      assert fewer == pytest.approx((1000 - classes) * (head + 1) / 1e6)

  def test_all_twenty_two_are_registered(self):
    assert set(published(10)) == set(published(100)) <= set(zoo.families())
    assert len(published(10)) == 22
    assert [name for name, stated in published(10).items() if not stated] == list(
      VIT_MILLIONS
    )


@pytest.mark.parametrize('name', ONE_OF_EACH)
class TestEveryFamily:
  def make(self, name, images):
    module = zoo.create(name, num_classes=5, **ONE_OF_EACH[name])
    return module, jax.jit(module.init)(jax.random.key(1), images)

  @pytest.mark.slow
  def test_logits_and_statistics(self, name, images):
    module, variables = self.make(name, images)
    hash(module)
    apply = jax.jit(module.apply, static_argnames=('train', 'mutable'))
    logits = apply(variables, images)
    assert logits.shape == (4, 5)
    np.testing.assert_array_equal(logits, apply(variables, images))
    np.testing.assert_allclose(apply(variables, images[::-1])[::-1], logits, atol=1e-4)
    _, updated = apply(
      variables,
      images,
      train=True,
      mutable=('batch_stats',),
      rngs={'dropout': jax.random.key(0)},
    )
    if 'vit' in name:
      assert set(variables) == {'params'}
      return
    assert set(variables) == {'params', 'batch_stats'}
    before, after = (
      np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(v['batch_stats'])])
      for v in (variables, updated)
    )
    assert np.mean(before != after) > 0.9

  def test_bfloat16_computes_with_float32_parameters(self, name, images):
    module, variables = self.make(name, images)
    half = module.clone(dtype='bfloat16')
    apply = jax.jit(half.apply)
    text = str(jax.make_jaxpr(half.apply)(variables, images))
    assert 'bf16' in text
    logits = apply(variables, images)
    assert logits.dtype == jnp.float32
    assert {leaf.dtype.name for leaf in jax.tree.leaves(variables)} == {'float32'}
    exact = jax.jit(module.apply)(variables, images)
    assert jnp.linalg.norm(logits - exact) < 0.1 * jnp.linalg.norm(exact)
    assert not jnp.array_equal(logits, exact)

  def test_one_channel_is_refused_and_can_be_asked_for(self, name, images):
    module = zoo.create(name, num_classes=5, **ONE_OF_EACH[name])
    with pytest.raises(ValueError, match='images have 1 channels; .* mean of 3'):
      zoo.abstract_variables(module, (32, 32, 1))
    gray = zoo.create(name, num_classes=5, mean=(0.5,), std=(0.5,), **ONE_OF_EACH[name])
    assert gray.input_shape[-1] == 1
    zoo.abstract_variables(gray, (32, 32, 1))

  def test_images_of_a_wrong_size(self, name, images):
    module = zoo.create(name, num_classes=5, **ONE_OF_EACH[name])
    with pytest.raises(ValueError, match=r'images are 30 x 30; \w+ takes '):
      zoo.abstract_variables(module, (30, 30, 3))


def test_pooled_images_are_what_the_model_sees(images):
  whole = zoo.create('resnet', num_classes=5, depth=8)
  pooled = zoo.create('resnet', num_classes=5, depth=8, size=16)
  variables = jax.jit(whole.init)(jax.random.key(0), images)
  smaller = images.reshape(4, 16, 2, 16, 2, 3).mean((2, 4))
  found, wanted = jax.jit(
    lambda: (pooled.apply(variables, images), whole.apply(variables, smaller))
  )()
  np.testing.assert_allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize('depth', [2, 9, 21])
def test_a_depth_that_no_resnet_has(depth):
  module = zoo.create('resnet', num_classes=5, depth=depth)
  with pytest.raises(ValueError, match=f'depth is {depth}; it must be 8, 14, 20'):
    zoo.abstract_variables(module, (32, 32, 3))


class TestFuse:
  @pytest.fixture(scope='class')
  @classmethod
  def model(cls):
    """A RepVGG with scales of its own, and the statistics that its images give."""
    small = {'widths': (24, 48, 96, 160), 'blocks': (2, 2, 2, 1)}
    module = zoo.create('repvgg_a0', num_classes=10, **small)
    images = jax.random.uniform(jax.random.key(1), (8, 32, 32, 3))
    variables = jax.jit(module.init)(jax.random.key(0), images)
    rng = np.random.default_rng(0)

    def disturb(path, leaf):
      spread = rng.uniform(-0.2, 0.2, leaf.shape).astype(np.float32)
      return leaf if path[-1].key == 'kernel' else np.asarray(leaf) + spread

    params = jax.tree_util.tree_map_with_path(disturb, variables['params'])

    @jax.jit
    def seen(params):
      before = {'params': params, 'batch_stats': variables['batch_stats']}
      _, after = module.apply(before, images, train=True, mutable='batch_stats')
      return jax.tree.map(
        lambda new, old: (new - 0.9 * old) / 0.1,
        after['batch_stats'],
        variables['batch_stats'],
      )

    return zoo.Model(module, {'params': params, 'batch_stats': seen(params)})

  def test_the_fused_form_is_equal(self, model, images):
    fused = zoo.fuse(model)
    assert fused.module.deploy
    expected = zoo.abstract_variables(fused.module, (32, 32, 3))
    shapes = jax.tree.map(jnp.shape, (expected, fused.variables))
    assert shapes[0] == shapes[1]
    wanted = jax.jit(model.module.apply)(model.variables, images)
    found = jax.jit(fused.module.apply)(fused.variables, images)
    assert 0.1 < float(jnp.abs(wanted).max()) < 100
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4)

  def test_what_cannot_be_fused(self, model):
    with pytest.raises(ValueError, match='model is RepVGG; .* deploy=False'):
      zoo.fuse(zoo.fuse(model))
    with pytest.raises(ValueError, match='model is ResNet; it must be a RepVGG'):
      zoo.fuse(zoo.Model(zoo.create('resnet20', num_classes=10), {}))
