"""The zoo: its convolution, registry, checkpoints and profiles."""

import csv
import pathlib
import runpy

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from psml_jax import data, pareto, zoo
from psml_jax.core import ZooProfile
from psml_jax.zoo import conv, registry
from psml_jax.zoo.models import prepare

CONFIGS = pathlib.Path(__file__).parents[1] / 'configs'
FIELDS = {
  'cnn': {'widths': [4, 8]},
  'linear': {'size': 4},
  'mlp': {'widths': [16], 'size': 2},
}


@pytest.fixture(scope='module')
def images():
  return jax.random.uniform(jax.random.key(0), (6, 8, 8, 1))


def random(seed, *shape):
  return jax.random.normal(jax.random.key(seed), shape)


class TestConv3x3:
  @pytest.mark.parametrize(
    ('shape', 'features'), [((2, 8, 8, 1), 4), ((3, 5, 7, 3), 2), ((1, 1, 2, 2), 1)]
  )
  def test_is_the_convolution_of_xla(self, shape, features):
    images, kernel = random(0, *shape), random(1, 3, 3, shape[-1], features)
    weights = random(2, *shape[:-1], features)

    def both(form):
      value, pull = jax.vjp(form, images, kernel)
      return value, *pull(weights)

    forms = jax.jit(lambda: (both(conv.conv3x3), both(conv.direct)))()
    for found, wanted in zip(*forms, strict=True):
      np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4)

  def test_under_vmap_over_kernels(self):
    images, kernels = random(0, 2, 6, 6, 2), random(1, 3, 3, 3, 2, 4)
    found = jax.jit(jax.vmap(conv.conv3x3, in_axes=(None, 0)))(images, kernels)
    wanted = jnp.stack([conv.direct(images, kernel) for kernel in kernels])
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4)

  def test_in_a_loop_of_gradient_steps(self):
    images, kernel = random(0, 2, 6, 6, 2), random(1, 3, 3, 2, 4)

    def descend(form):
      def step(kernel, _):
        loss, slope = jax.value_and_grad(lambda k: jnp.mean(form(images, k) ** 2))(
          kernel
        )
        return kernel - 0.01 * slope, loss

      return jax.jit(lambda k: jax.lax.scan(step, k, length=4))(kernel)

    for found, wanted in zip(descend(conv.conv3x3), descend(conv.direct), strict=True):
      np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4)


class TestModels:
  def test_contract_holds_for_every_family(self, images):
    """Logits of the right shape, deterministic, the same under jit."""
    assert set(zoo.families()) == set(FIELDS)
    for family in zoo.families():
      module = zoo.create(family, num_classes=5, **FIELDS[family])
      variables = jax.jit(module.init)(jax.random.key(1), images)
      assert set(variables) == {'params'}, family
      logits = module.apply(variables, images)
      assert logits.shape == (6, 5), family
      assert logits.dtype == jnp.float32
      np.testing.assert_array_equal(logits, module.apply(variables, images))
      compiled = jax.jit(module.apply)(variables, images)
      np.testing.assert_allclose(compiled, logits, rtol=0, atol=1e-5)
      backwards = module.apply(variables, images[::-1])
      np.testing.assert_allclose(backwards[::-1], logits, rtol=0, atol=1e-5)
      model = zoo.Model(module, variables)
      np.testing.assert_allclose(model.probabilities(images).sum(-1), 1, atol=1e-5)
      abstract = zoo.abstract_variables(module, (8, 8, 1))
      assert jax.tree.map(jnp.shape, variables) == jax.tree.map(jnp.shape, abstract)
      hash(module)

  def test_predict_is_the_same_at_any_batch_size(self, images):
    module = zoo.create('mlp', num_classes=5, widths=[16])
    model = zoo.Model(module, module.init(jax.random.key(1), images))
    wanted = model.probabilities(images)
    for batch_size in (4, 256):
      found = zoo.predict(model, np.asarray(images), batch_size=batch_size)
      assert found.shape == (6, 5)
      np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)

  def test_images_are_centred_and_averaged_over_blocks(self):
    images = jnp.linspace(0.0, 1.0, 32).reshape(2, 4, 4, 1)
    smaller = np.asarray(prepare(images, 2))
    blocks = np.asarray(images)[:, :2, :2, 0].mean((1, 2))
    np.testing.assert_allclose(smaller[:, 0, 0, 0], 4 * blocks - 2, atol=1e-6)
    np.testing.assert_allclose(prepare(images, 0), 4 * images - 2)

  def test_a_size_that_divides_no_image(self, images):
    with pytest.raises(
      ValueError, match='size is 3; it must divide the image height 8'
    ):
      prepare(images, 3)

  def test_more_stages_than_the_image_can_be_halved(self):
    module = zoo.create('cnn', num_classes=3, widths=[4, 4, 4])
    with pytest.raises(ValueError, match='widths has 3 stages.*by 4, not 6 x 6'):
      zoo.abstract_variables(module, (6, 6, 1))


class TestRegistry:
  def test_unknown_family_names_the_nearest(self):
    with pytest.raises(ValueError, match=r"family is 'mpl' \(did you mean 'mlp'\?\)"):
      zoo.create('mpl', num_classes=10)

  def test_unknown_family_without_a_near_one(self):
    with pytest.raises(ValueError, match=r"'transformer'; it must be one of \('cnn'"):
      zoo.create('transformer', num_classes=10)

  @pytest.mark.parametrize('num_classes', [1, 0, -2, 2.0, True])
  def test_too_few_classes(self, num_classes):
    with pytest.raises(ValueError, match=f'num_classes is {num_classes}'):
      zoo.create('linear', num_classes=num_classes)

  @pytest.mark.parametrize('fields', [{'widths': [3], 'width': 3}, {}])
  def test_unknown_or_missing_field(self, fields):
    with pytest.raises(ValueError, match="fields of family 'mlp' are .*width"):
      zoo.create('mlp', num_classes=10, **fields)

  def test_a_family_is_added_once(self, monkeypatch, images):
    monkeypatch.setattr(registry, '_FAMILIES', dict(registry._FAMILIES))

    class Constant(nn.Module):
      num_classes: int

      @nn.compact
      def __call__(self, images):
        bias = self.param('bias', nn.initializers.zeros_init(), (1, self.num_classes))
        return jnp.repeat(bias, len(images), axis=0)

    zoo.register('constant', Constant)
    assert 'constant' in zoo.families()
    module = zoo.create('constant', num_classes=3)
    variables = module.init(jax.random.key(0), images)
    assert module.apply(variables, images).shape == (6, 3)
    with pytest.raises(ValueError, match="family 'constant' is registered already"):
      zoo.register('constant', Constant)


class TestCheckpoints:
  @pytest.fixture(scope='class')
  @classmethod
  def saved(cls, tmp_path_factory):
    module = zoo.create('cnn', num_classes=3, widths=[4])
    variables = module.init(jax.random.key(0), jnp.zeros((1, 8, 8, 1)))
    path = tmp_path_factory.mktemp('zoo') / 'model'
    zoo.save(path, variables)
    return path, variables

  def test_round_trip_is_bit_identical(self, saved):
    path, variables = saved
    module = zoo.create('cnn', num_classes=3, widths=[4])
    restored = zoo.restore(str(path), zoo.abstract_variables(module, (8, 8, 1)))
    assert jax.tree.structure(restored) == jax.tree.structure(variables)
    for one, other in zip(
      jax.tree.leaves(restored), jax.tree.leaves(variables), strict=True
    ):
      assert one.dtype == other.dtype
      np.testing.assert_array_equal(one, other)

  @pytest.mark.parametrize(
    ('family', 'fields', 'message'),
    [
      ('cnn', {'widths': [6]}, r'Conv3x3_0.*kernel.* is \(3, 3, 1, 4\), not '),
      ('cnn', {'widths': [4, 4]}, r'Conv3x3_1.*bias.* is absent, not \(4,\)'),
      ('linear', {}, r'Conv3x3_0.* is .*, not absent'),
    ],
  )
  def test_another_architecture_is_named(self, saved, family, fields, message):
    module = zoo.create(family, num_classes=3, **fields)
    with pytest.raises(ValueError, match=f'holds another architecture: .*{message}'):
      zoo.restore(saved[0], zoo.abstract_variables(module, (8, 8, 1)))

  def test_missing_directory(self, saved, tmp_path):
    module = zoo.create('linear', num_classes=3)
    with pytest.raises(
      ValueError, match='path is .*nowhere.*directory of a checkpoint'
    ):
      zoo.restore(tmp_path / 'nowhere', zoo.abstract_variables(module, (8, 8, 1)))


class TestProfiling:
  @pytest.fixture(scope='class')
  @classmethod
  def demo(cls):
    """The demo's architectures, images, and labels that tell the models apart.

    No model is trained; each is biased to answer one class of its own, and
    larger ones have more of the labels.
    """
    images = data.load(
      'digits', seed=0, zoo_size=600, pool_size=100, test_size=256
    ).test_x
    fields = runpy.run_path(str(CONFIGS / 'digits.py'))['get_config']().zoo.models
    modules = {
      name: zoo.create(num_classes=10, **fields[name].to_dict()) for name in fields
    }
    rng, models, sizes = np.random.default_rng(0), {}, []
    for answer, (name, module) in enumerate(modules.items()):
      variables = jax.tree.map(
        lambda leaf: rng.normal(0, 0.01, leaf.shape).astype(leaf.dtype),
        zoo.abstract_variables(module, images.shape[1:]),
      )
      output = max(layer for layer in variables['params'] if 'Dense' in layer)
      variables['params'][output]['bias'] = 100 * np.eye(10, dtype=np.float32)[answer]
      models[name] = zoo.Model(module, variables)
      sizes.append(sum(leaf.size for leaf in jax.tree.leaves(variables)))
    shares = np.argsort(np.argsort(sizes)) + 1
    ends = np.cumsum(shares) * len(images) // shares.sum()
    labels = np.searchsorted(ends, np.arange(len(images)), side='right')
    return models, images, labels

  def test_two_profiles_in_a_row_have_the_same_frontier(self, demo, tmp_path):
    models, images, labels = demo
    frontiers = []
    for _ in range(2):
      measured = zoo.measure(models, images, labels, batch_size=256, rounds=20)
      order = pareto.frontier(measured.profile)
      frontiers.append([measured.profile.names[i] for i in order])
    assert len(set(np.asarray(measured.profile.accuracy).tolist())) == len(models)
    assert frontiers[0] == frontiers[1]
    assert len(frontiers[0]) >= 4
    self.check_written(tmp_path / 'profile.csv', measured, models)

  def check_written(self, path, measured, demo):
    median = np.asarray(measured.profile.latency_ms)
    assert (measured.latency_p10_ms <= median * (1 + 1e-6)).all()
    assert (median <= measured.latency_p90_ms * (1 + 1e-6)).all()
    assert measured.description['batch_size'] == 256
    assert measured.description['platform'] == 'cpu'
    zoo.write_profile(path, measured.profile, measured)
    with path.open(newline='') as file:
      rows = list(csv.DictReader(file))
    assert [row['name'] for row in rows] == list(demo)
    assert [int(row['parameters']) for row in rows] == measured.parameters.tolist()
    again = ZooProfile.from_csv(
      path,
      name_column='name',
      accuracy_column='accuracy',
      latency_column='latency_ms',
      accuracy_unit='fraction',
    )
    np.testing.assert_array_equal(again.accuracy, measured.profile.accuracy)
    np.testing.assert_array_equal(again.latency_ms, measured.profile.latency_ms)

  @pytest.mark.parametrize(
    ('changes', 'message'),
    [
      ({'models': {}}, 'models is empty'),
      ({'batch_size': 7}, 'images holds 6; it must hold at least the 7'),
      ({'batch_size': 0}, 'batch_size is 0'),
      ({'rounds': 0}, 'rounds is 0'),
      ({'rounds': 1.5}, r'rounds is 1\.5'),
    ],
  )
  def test_what_cannot_be_measured(self, images, changes, message):
    module = zoo.create('linear', num_classes=3)
    model = zoo.Model(module, module.init(jax.random.key(0), images))
    arguments = {
      'models': {'linear': model},
      'images': np.asarray(images),
      'labels': np.zeros(6, np.int32),
      'batch_size': 4,
      'rounds': 1,
    }
    with pytest.raises(ValueError, match=message):
      zoo.measure(**(arguments | changes))
