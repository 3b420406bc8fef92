"""The published architectures: sizes, statistics, precision, what they refuse."""

import csv
import importlib.resources
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from psml_jax import profiles, zoo
from psml_jax.zoo import layers, mobilenetv2, shufflenetv2

VIT_MILLIONS = {
  'vit_small_patch16_384': 22.2,
  'vit_base_patch16_384': 86.9,
  'vit_large_patch16_384': 304.7,
}
SMALL_VIT = {'depth': 1, 'width': 32, 'heads': 2, 'image_size': 32}
ONE_OF_EACH = {
  'resnet': {'depth': 8, 'width': 4},
  'resnet9': {'width': 4},
  'wide_resnet': {'depth': 10, 'factor': 1},
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
  """How many a model has, and how many of them are of its last layer."""
  module = zoo.create(name, num_classes=classes)
  variables = zoo.abstract_variables(module, module.input_shape)
  leaves = jax.tree.leaves(variables['params'])
  return (
    sum(leaf.size for leaf in leaves),
    sum(leaf.size for leaf in leaves if leaf.shape[-1] == classes),
  )


def random_variables(module, images):
  """As they could be after training, without a program that draws them."""
  rng = np.random.default_rng(0)

  def draw(path, leaf):
    normal = rng.normal(size=leaf.shape).astype(np.float32)
    kind = path[-1].key
    if kind == 'kernel':
      return normal * np.float32(np.sqrt(2 / np.prod(leaf.shape[:-1])))
    return 0.1 * normal + np.float32(kind in ('scale', 'var'))

  abstract = zoo.abstract_variables(module, images.shape[1:])
  return jax.tree_util.tree_map_with_path(draw, abstract)


@pytest.fixture(scope='module')
def images():
  return np.random.default_rng(1).random((4, 32, 32, 3), np.float32)


class TestParameterCounts:
  @pytest.fixture(autouse=True)
  def shapes_alone(self, monkeypatch):
    """A stand-in for convolutions: what they are made of takes long to trace."""
    monkeypatch.setattr(
      layers,
      'conv',
      lambda images, kernel, stride: (
        images[:, ::stride, ::stride, :1] * kernel[0, 0, 0].reshape(1, 1, 1, -1)
      ),
    )

  @pytest.mark.parametrize('name', sorted(published(10)))
  def test_every_count_is_the_published_one(self, name):
    classes = 1000 if name in VIT_MILLIONS else 97
    found, last = parameters(name, classes)
    if name in VIT_MILLIONS:
      assert published(10)[name] == published(100)[name] == ''
      assert last == classes * (zoo.create(name, num_classes=2).width + 1)
      assert abs(found / 1e6 - VIT_MILLIONS[name]) <= 0.05
      return
    for of in (10, 100):
      count = (found + last // classes * (of - classes)) / 1e6
      assert f'{count:.2f}' == f'{float(published(of)[name]):.2f}'

  @pytest.mark.parametrize(
    ('name', 'count'), [('wide_resnet', 1_467_610), ('resnet9', 6_573_130)]
  )
  def test_unlisted_counts_are_those_of_their_authors(self, name, count):
    found, last = parameters(name, 97)
    assert found - last // 97 * 87 == count

  @pytest.mark.parametrize('name', ['resnet20', 'vgg11_bn'])
  def test_classes_change_the_last_layer_alone(self, name):
    (few, last), (many, larger) = parameters(name, 11), parameters(name, 97)
    assert many - larger == few - last
    assert larger * 11 == last * 97

  def test_all_twenty_two_are_registered(self):
    assert set(published(10)) == set(published(100)) <= set(zoo.families())
    assert len(published(10)) == 22
    assert [name for name, stated in published(10).items() if not stated] == list(
      VIT_MILLIONS
    )


class Made(NamedTuple):
  module: nn.Module
  variables: Any
  apply: Any
  logits: jax.Array


@pytest.fixture(scope='module')
def shallow():
  """Every kind of block of the two deepest architectures, and few of each."""
  with pytest.MonkeyPatch.context() as patch:
    stages = ((1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 1, 2), (6, 64, 2, 2))
    patch.setattr(mobilenetv2, '_STAGES', stages)
    patch.setattr(shufflenetv2, '_BLOCKS', (2, 1, 2))
    yield


@pytest.mark.parametrize('name', ONE_OF_EACH, scope='class')
class TestEveryFamily:
  @pytest.fixture(scope='class')
  @classmethod
  def made(cls, name, images, shallow):
    module = zoo.create(name, num_classes=5, **ONE_OF_EACH[name])
    variables = random_variables(module, images)
    apply = jax.jit(module.apply, static_argnames=('train', 'mutable'))
    return Made(module, variables, apply, apply(variables, images))

  def test_logits_and_statistics(self, name, made, images):
    module, variables, apply, logits = made
    hash(module)
    assert logits.shape == (4, 5)
    assert np.abs(logits[0] - logits[1]).max() > 1e-3
    np.testing.assert_array_equal(logits, apply(variables, images))
    backwards = apply(variables, images[::-1])[::-1]
    np.testing.assert_allclose(backwards, logits, atol=1e-4)
    if 'vit' in name:
      assert set(variables) == {'params'}
      return
    _, updated = apply(
      variables,
      images,
      train=True,
      mutable=('batch_stats',),
      rngs={'dropout': jax.random.key(0)},
    )
    assert set(variables) == {'params', 'batch_stats'}
    before, after = (
      np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(v['batch_stats'])])
      for v in (variables, updated)
    )
    assert np.mean(before != after) > 0.9

  def test_bfloat16_computes_with_float32_parameters(self, made, images):
    half = made.module.clone(dtype='bfloat16')
    assert jax.tree.map(
      lambda leaf: leaf.dtype, zoo.abstract_variables(half, images.shape[1:])
    ) == jax.tree.map(lambda leaf: leaf.dtype, made.variables)
    traced = jax.jit(half.apply).trace(made.variables, images)
    assert 'bf16' in str(traced.jaxpr)
    logits = traced.lower().compile()(made.variables, images)
    assert logits.dtype == jnp.float32
    assert jnp.linalg.norm(logits - made.logits) < 0.1 * jnp.linalg.norm(made.logits)
    assert not jnp.array_equal(logits, made.logits)

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


@pytest.mark.parametrize('name', ONE_OF_EACH)
def test_pooled_images_are_what_the_model_sees(name, images):
  whole = zoo.create(name, num_classes=5, **ONE_OF_EACH[name])
  pooled = whole.clone(size=32)
  larger = np.repeat(np.repeat(images, 2, axis=1), 2, axis=2)
  found, wanted = pooled.standardise(larger), whole.standardise(images)
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
    small = {'widths': (24, 48, 96, 160), 'blocks': (2, 1, 1, 1)}
    module = zoo.create('repvgg_a0', num_classes=10, **small)
    images = np.random.default_rng(0).random((8, 32, 32, 3), np.float32)
    variables = random_variables(module, images)

    @jax.jit
    def seen(variables):
      _, after = module.apply(variables, images, train=True, mutable='batch_stats')
      return jax.tree.map(
        lambda new, old: (new - 0.9 * old) / 0.1,
        after['batch_stats'],
        variables['batch_stats'],
      )

    return zoo.Model(module, variables | {'batch_stats': seen(variables)})

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


def test_a_mirrored_image_is_answered_alike(images):
  answers = []
  for mirror in (True, False):
    module = zoo.create('resnet9', num_classes=5, width=4, mirror=mirror)
    variables = random_variables(module, images)
    answers += [
      module.apply(variables, batch) for batch in (images, images[:, :, ::-1])
    ]
  np.testing.assert_allclose(answers[0], answers[1], rtol=1e-5)
  np.testing.assert_allclose(answers[0], (answers[2] + answers[3]) / 2, rtol=1e-4)
  assert np.abs(answers[2] - answers[3]).max() > 1e-3
