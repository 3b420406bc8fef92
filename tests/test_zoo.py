"""The zoo: its registry, checkpoints and profiles."""

import csv
import datetime
import functools
import itertools
import json
import pathlib
import runpy

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from psml_jax import data, pareto, zoo
from psml_jax.core import ZooProfile
from psml_jax.train import model as train_model
from psml_jax.zoo import registry
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


@pytest.fixture(scope='module')
def model(images):
  module = zoo.create('mlp', num_classes=5, widths=[16])
  return zoo.Model(module, jax.jit(module.init)(jax.random.key(1), images))


class TestModels:
  def test_contract_holds_for_every_small_family(self, images):
    """Logits of the right shape, deterministic, the same under jit."""
    for family in FIELDS:
      module = zoo.create(family, num_classes=5, **FIELDS[family])
      variables = jax.jit(module.init)(jax.random.key(1), images)
      assert set(variables) == {'params'}, family
      apply = jax.jit(module.apply)
      logits = apply(variables, images)
      assert logits.shape == (6, 5), family
      assert logits.dtype == jnp.float32
      np.testing.assert_array_equal(logits, apply(variables, images))
      if family == 'mlp':
        eager = module.apply(variables, images)
        np.testing.assert_allclose(eager, logits, rtol=0, atol=1e-5)
        model = zoo.Model(module, variables)
        np.testing.assert_allclose(model.probabilities(images).sum(-1), 1, atol=1e-5)
      backwards = apply(variables, images[::-1])
      np.testing.assert_allclose(backwards[::-1], logits, rtol=0, atol=1e-5)
      abstract = zoo.abstract_variables(module, (8, 8, 1))
      assert jax.tree.map(jnp.shape, variables) == jax.tree.map(jnp.shape, abstract)
      hash(module)

  def test_predict_is_the_same_at_any_batch_size(self, model, images):
    wanted = model.probabilities(images)
    for batch_size in (4, 256):
      found = zoo.predict(model, np.asarray(images), batch_size=batch_size)
      assert found.shape == (6, 5)
      np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)

  def test_at_most_two_batches_lie_on_the_device(self, model, monkeypatch):
    waiting, most = [0], []
    answer, read = train_model._answer, jax.device_get

    def asked(*arguments):
      waiting[0] += 1
      most.append(waiting[0])
      return answer(*arguments)

    def fetched(answers):
      waiting[0] -= len(answers)
      return read(answers)

    monkeypatch.setattr(train_model, '_answer', asked)
    monkeypatch.setattr(jax, 'device_get', fetched)
    found = zoo.predict(model, np.zeros((9, 8, 8, 1), np.float32), batch_size=2)
    assert (len(found), most) == (9, [1, 2, 2, 2, 2])

  @pytest.mark.parametrize(
    ('shape', 'batch_size', 'message'),
    [
      ((0, 8, 8, 1), 4, r'images are \(0, 8, 8, 1\); they must be .* not empty'),
      ((8, 8, 1), 4, r'images are \(8, 8, 1\)'),
      ((2, 8, 8, 1), 0, 'batch_size is 0'),
      ((2, 8, 8, 1), 2.0, 'batch_size is 2.0'),
    ],
  )
  def test_what_cannot_be_predicted(self, model, shape, batch_size, message):
    with pytest.raises(ValueError, match=message):
      zoo.predict(model, np.zeros(shape, np.float32), batch_size=batch_size)

  @pytest.mark.parametrize(
    ('wrong', 'message'),
    [
      ([[[[0.5]]]], 'images is of type list; it must be an array'),
      (np.full((2, 8, 8, 1), 200, np.uint8), 'images are of type uint8'),
      (np.full((2, 8, 8, 1), 200, np.float32), r'200\]; .* \(divide by 255\)'),
      (np.full((2, 8, 8, 1), -1, np.float32), r'\[-1, -1\]; .*standardised'),
      (np.full((2, 8, 8, 1), np.nan, np.float32), 'images hold NaN'),
      (np.zeros((2, 8, 8, 3), np.float32), r'shape \(8, 8, 3\), which the model'),
      (np.zeros((2, 4, 8, 1), np.float32), r'shape \(4, 8, 1\), which the model'),
    ],
  )
  def test_images_that_are_refused(self, model, wrong, message):
    with pytest.raises(ValueError, match=message):
      zoo.predict(model, wrong)
    rounded = np.full((2, 8, 8, 1), 1 + 5e-7, np.float32)
    assert zoo.predict(model, rounded).shape == (2, 5)

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
    with pytest.raises(ValueError, match=r"'transformer'; it must be one of cnn"):
      zoo.create('transformer', num_classes=10)

  @pytest.mark.parametrize('num_classes', [1, 0, -2, 2.0, True])
  def test_too_few_classes(self, num_classes):
    with pytest.raises(ValueError, match=f'num_classes is {num_classes}'):
      zoo.create('linear', num_classes=num_classes)

  @pytest.mark.parametrize('fields', [{'widths': [3], 'width': 3}, {}])
  def test_unknown_or_missing_field(self, fields):
    with pytest.raises(ValueError, match="fields of family 'mlp' are .*width"):
      zoo.create('mlp', num_classes=10, **fields)

  def test_arrays_and_lists_become_tuples(self):
    for widths in ([4, 8], np.array([4, 8]), jnp.array([4, 8]), (np.int64(4), 8)):
      module = zoo.create('cnn', num_classes=np.int64(3), widths=widths)
      assert module == zoo.create('cnn', num_classes=3, widths=(4, 8))
      assert hash(module) == hash(zoo.create('cnn', num_classes=3, widths=(4, 8)))
      assert [type(width) for width in module.widths] == [int, int]


class Constant(nn.Module):
  num_classes: int

  @nn.compact
  def __call__(self, images, train=False):
    bias = self.param('bias', nn.initializers.zeros_init(), (1, self.num_classes))
    return jnp.repeat(bias, len(images), axis=0)


class Untrained(nn.Module):
  num_classes: int
  width: int

  def __call__(self, images):
    return images


class Required(nn.Module):
  num_classes: int

  def __call__(self, images, train):
    return images


class Unnumbered(nn.Module):
  def __call__(self, images, train=False):
    return images


class TestRegister:
  @pytest.fixture(autouse=True)
  def families(self, monkeypatch):
    monkeypatch.setattr(registry._FAMILIES, '_entries', dict(registry._FAMILIES))

  def test_a_family_is_added_once(self, images):
    zoo.register('constant', Constant)
    assert 'constant' in zoo.families()
    module = zoo.create('constant', num_classes=3)
    variables = module.init(jax.random.key(0), images)
    assert module.apply(variables, images).shape == (6, 3)
    with pytest.raises(ValueError, match="family 'constant' is registered already"):
      zoo.register('constant', Constant)

  def test_a_function_and_a_partial_are_families_too(self):
    zoo.register('function', lambda num_classes: Constant(num_classes))
    zoo.register('partial', functools.partial(Constant))
    zoo.register('needs', lambda num_classes, width: Constant(num_classes))
    assert zoo.create('function', num_classes=3) == Constant(3)
    assert zoo.create('needs', num_classes=3, width=1) == Constant(3)

  @pytest.mark.parametrize(
    ('name', 'make', 'message'),
    [
      ('', Constant, "family is ''; it must be letters"),
      ('a b', Constant, "family is 'a b'; it must be letters"),
      ('../x', Constant, 'it must be letters'),
      (3, Constant, 'family is 3'),
      ('new', None, "make of family 'new' is None; it must make a module"),
      ('new', Constant(3), 'it must make a module when it is called'),
      ('new', Unnumbered, 'must take num_classes by its name: .*num_classes'),
      ('new', lambda classes: Constant(classes), 'must take num_classes'),
      ('new', Untrained, 'Untrained has no argument train; .*train=False'),
      ('new', functools.partial(Untrained, width=3), 'Untrained has no argument train'),
      ('new', Required, 'Required has no default of train'),
      ('new', lambda num_classes: 'a module', "'a module'; it must be a flax.*Module"),
      ('new', dict, 'must take num_classes by its name'),
    ],
  )
  def test_what_cannot_be_registered(self, name, make, message):
    with pytest.raises(ValueError, match=message):
      zoo.register(name, make)
    assert name not in zoo.families()

  def test_a_maker_with_fields_of_its_own_is_judged_by_what_it_makes(self):
    zoo.register('late', lambda num_classes, width: Untrained(num_classes, width))
    with pytest.raises(ValueError, match="family 'late': .* has no argument train"):
      zoo.create('late', num_classes=3, width=2)


class TestMeanAndStd:
  @pytest.mark.parametrize('name', ['resnet20', 'vit_small_patch16_384'])
  @pytest.mark.parametrize('make', [list, tuple, np.array, jnp.array])
  def test_numbers_of_any_container_are_a_hashable_tuple(self, name, make):
    third = [0.25, 0.5, 1.0]
    module = zoo.create(name, num_classes=3, mean=make(third), std=make(third))
    assert module.mean == module.std == (0.25, 0.5, 1.0)
    hash(module)
    direct = type(module)(num_classes=3, mean=make(third))
    assert direct.mean == (0.25, 0.5, 1.0)
    assert direct.clone(dtype=jnp.bfloat16).mean == (0.25, 0.5, 1.0)

  def test_black_is_a_mean(self):
    assert zoo.create('resnet20', num_classes=3, mean=[0, 0, 0]).mean == (0, 0, 0)

  @pytest.mark.parametrize(
    ('fields', 'message'),
    [
      ({'mean': [125.3, 123.0, 113.9]}, r'mean\[0\] is 125.3; .* divide by 255'),
      ({'std': [63.0, 62.1, 66.7]}, r'std\[0\] is 63.0; .* divide by 255'),
      ({'std': [0.2, 0.0, 0.2]}, r'std\[1\] is 0.0; std must be numbers in \(0, 1\]'),
      ({'std': [0.2, -0.2, 0.2]}, r'std\[1\] is -0.2'),
      ({'mean': [-1e-3, 0.5, 0.5]}, r'mean\[0\] is -0.001; .* in \[0, 1\]$'),
      ({'mean': [float('nan'), 0.5, 0.5]}, r'mean\[0\] is nan'),
      ({'std': [0.5, float('inf'), 0.5]}, r'std\[1\] is inf; .*\(0, 1\]$'),
      ({'mean': 0.5}, 'mean is 0.5; it must list one number for each channel'),
      ({'std': np.float32(0.5)}, 'std is 0.5; it must list one number'),
      ({'mean': []}, r'mean is \(\); it must list'),
      ({'mean': [[0.5]]}, 'it must list one number for each channel'),
      ({'mean': 'grey'}, "mean must hold numbers, got 'grey'"),
      ({'mean': None}, 'mean is None; it must list'),
    ],
  )
  def test_others_are_refused_where_they_are_given(self, fields, message, tmp_path):
    with pytest.raises(ValueError, match=message):
      zoo.create('resnet20', num_classes=10, **fields)
    with pytest.raises(ValueError, match=message):
      zoo.import_state_dict('resnet20', tmp_path / 'absent.npz', **fields)

  def test_one_for_each_channel(self):
    module = zoo.create('resnet', num_classes=3, depth=8, mean=[0.5], std=[0.5])
    zoo.abstract_variables(module, (8, 8, 1))
    with pytest.raises(
      ValueError, match='images have 3 channels; ResNet has a mean of'
    ):
      zoo.abstract_variables(module, (8, 8, 3))


class TestCheckpoints:
  @pytest.fixture(scope='class')
  @classmethod
  def saved(cls, tmp_path_factory):
    module = zoo.create('cnn', num_classes=3, widths=[4])
    variables = jax.jit(module.init)(jax.random.key(0), jnp.zeros((1, 8, 8, 1)))
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
      ('cnn', {'widths': [6]}, r'Conv_0.*kernel.* is \(3, 3, 1, 4\), not '),
      ('cnn', {'widths': [4, 4]}, r'Conv_1.*bias.* is absent, not \(4,\)'),
      ('linear', {}, r'Conv_0.* is .*, not absent'),
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
    larger ones have more of the labels. The demo's two wide MLPs take the same time,
    which matters only here, where both are on the frontier; one of them is left out.
    """
    images = data.load(
      'digits', seed=0, zoo_size=600, pool_size=100, test_size=256
    ).test_x
    fields = runpy.run_path(str(CONFIGS / 'digits.py'))['get_config']().zoo.models
    modules = {
      name: zoo.create(num_classes=10, **fields[name].to_dict())
      for name in fields
      if name != 'mlp2-wide'
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

  @pytest.mark.alone
  def test_two_profiles_in_a_row_have_the_same_frontier(self, demo, tmp_path):
    models, images, labels = demo
    latencies, frontiers = [], []
    for _ in range(2):
      measured = zoo.measure(models, images, labels, batch_size=256, rounds=20)
      latencies.append(np.asarray(measured.profile.latency_ms))
      frontiers.append(pareto.frontier(measured.profile).tolist())
    accuracy = np.asarray(measured.profile.accuracy)
    assert len(set(accuracy.tolist())) == len(models)
    # A busy machine makes neighbours change places, no others.
    for on, other, latency in zip(frontiers, frontiers[::-1], latencies[::-1]):
      for model in set(on) - set(other):
        better = accuracy > accuracy[model]
        assert latency[better].min() > latency[model] / 1.25
    assert min(map(len, frontiers)) >= 4
    self.check_written(tmp_path / 'profile.csv', measured, models)

  def check_written(self, path, measured, demo):
    latency = np.asarray(measured.profile.latency_ms)
    np.testing.assert_allclose(latency, measured.single.fastest, rtol=1e-6)
    assert measured.description['request_images'] == 1
    for size in (measured.serving, measured.single):
      ordered = (size.fastest_p10, size.fastest, size.fastest_p90)
      for smaller, larger in itertools.pairwise(ordered):
        assert (smaller <= larger).all()
      for smaller, larger in itertools.pairwise((size.median, size.p95, size.p99)):
        assert (smaller <= larger).all()
      assert (size.fastest_p10 > 0).all()
    assert (measured.single.fastest < measured.serving.fastest).all()
    assert measured.description['batch_size'] == 256
    assert measured.description['platform'] == 'cpu'
    assert measured.description['versions']['jax'] == jax.__version__
    assert datetime.datetime.fromisoformat(measured.description['date']).tzinfo
    zoo.write_profile(path, measured.profile, measured)
    with path.open(newline='') as file:
      rows = list(csv.DictReader(file))
    assert [row['name'] for row in rows] == list(demo)
    assert [int(row['parameters']) for row in rows] == measured.parameters.tolist()
    for size, latency in (('', measured.single), ('batch_', measured.serving)):
      for field in ('fastest_p10', 'fastest_p90', 'median', 'p95', 'p99'):
        column = [float(row[f'{size}{field}_ms']) for row in rows]
        assert column == getattr(latency, field).tolist()
    column = [float(row['batch_fastest_ms']) for row in rows]
    assert column == measured.serving.fastest.tolist()
    again = ZooProfile.from_csv(
      path,
      name_column='name',
      accuracy_column='accuracy',
      latency_column='latency_ms',
      accuracy_unit='fraction',
    )
    np.testing.assert_array_equal(again.accuracy, measured.profile.accuracy)
    np.testing.assert_array_equal(again.latency_ms, measured.profile.latency_ms)

  def test_flops_are_those_of_one_image(self):
    images = np.zeros((4, 8, 8, 1), np.float32)
    module = zoo.create('linear', num_classes=3)
    model = zoo.Model(module, jax.jit(module.init)(jax.random.key(0), images))
    measured = zoo.measure(
      {'linear': model}, images, np.zeros(4, np.int32), batch_size=4, rounds=1
    )
    assert measured.parameters.tolist() == [64 * 3 + 3]
    products = 2 * 64 * 3
    assert products <= measured.flops[0] < 2 * products

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
  def test_what_cannot_be_measured(self, model, images, changes, message):
    arguments = {
      'models': {'mlp': model},
      'images': np.asarray(images),
      'labels': np.zeros(6, np.int32),
      'batch_size': 4,
      'rounds': 1,
    }
    with pytest.raises(ValueError, match=message):
      zoo.measure(**(arguments | changes))
    with pytest.raises(ValueError, match=r'labels are \(6, 1\); they must be \(6,\)'):
      zoo.measure(**(arguments | {'labels': np.zeros((6, 1), np.int32)}))


class TestProfilesMeasuredApart:
  def write(self, directory, names, **description):
    directory.mkdir()
    latencies = np.arange(1.0, len(names) + 1)
    profile = ZooProfile(np.full(len(names), 0.5), latencies, names)
    zoo.write_profile(directory / 'profile.csv', profile)
    whole = {'device': 'A', 'platform': 'gpu', 'request_images': 1, 'batch_size': 64}
    whole |= description
    (directory / 'profile.json').write_text(json.dumps(whole))
    return directory

  def test_of_one_device_they_are_joined(self, tmp_path):
    one = self.write(tmp_path / 'one', ('a', 'b'), date='Monday')
    other = self.write(tmp_path / 'other', ('c',), date='Tuesday')
    joined = zoo.read_profiles(one, other)
    assert joined.names == ('a', 'b', 'c')
    assert joined.latency_ms.tolist() == [1.0, 2.0, 1.0]

  @pytest.mark.parametrize(
    ('field', 'value'), [('device', 'B'), ('platform', 'cpu'), ('request_images', 2)]
  )
  def test_of_two_devices_they_are_refused(self, tmp_path, field, value):
    one = self.write(tmp_path / 'one', ('a',))
    other = self.write(tmp_path / 'other', ('b',), **{field: value})
    with pytest.raises(ValueError, match=f'other was measured with {field} {value!r}'):
      zoo.read_profiles(one, other)

  def test_the_batch_size_of_other_columns_is_no_hindrance(self, tmp_path):
    one = self.write(tmp_path / 'one', ('a',))
    other = self.write(tmp_path / 'other', ('b',), batch_size=1)
    assert zoo.read_profiles(one, other).names == ('a', 'b')

  def test_profiles_of_before_are_of_their_batch_size(self, tmp_path):
    one = self.write(tmp_path / 'one', ('a',))
    old = self.write(tmp_path / 'old', ('b',))
    for size, same in ((64, False), (1, True)):
      description = {'device': 'A', 'platform': 'gpu', 'batch_size': size}
      (old / 'profile.json').write_text(json.dumps(description))
      if same:
        assert zoo.read_profiles(one, old).names == ('a', 'b')
      else:
        with pytest.raises(ValueError, match='old was measured with request_images 64'):
          zoo.read_profiles(one, old)

  def test_a_damaged_description_is_named(self, tmp_path):
    one = self.write(tmp_path / 'one', ('a',))
    (one / 'profile.json').write_text('{"device": ')
    with pytest.raises(ValueError, match=r'profile\.json is damaged .* anew'):
      zoo.read_profiles(one)

  def test_what_cannot_be_joined(self, tmp_path):
    one = self.write(tmp_path / 'one', ('a',))
    with pytest.raises(ValueError, match='directories is empty'):
      zoo.read_profiles()
    with pytest.raises(ValueError, match=r'nowhere has no profile\.csv'):
      zoo.read_profiles(one, tmp_path / 'nowhere')
    with pytest.raises(ValueError, match="names .*'a'"):
      zoo.read_profiles(one, self.write(tmp_path / 'again', ('a',)))
    (one / 'profile.json').unlink()
    with pytest.raises(ValueError, match=r'one has no profile\.json'):
      zoo.read_profiles(one)


class TestStoredProfile:
  @pytest.fixture
  def stored(self, tmp_path):
    path = tmp_path / 'profile.csv'
    profile = ZooProfile([0.1, 0.7, 0.5], [1.1, 2.2, 3.3], ('a', 'b', 'c'))
    zoo.write_profile(path, profile)
    return path

  def test_it_is_in_the_order_that_is_asked_for(self, stored):
    found = zoo.stored_profile(stored, ['c', 'a', 'b'])
    assert found.names == ('c', 'a', 'b')
    np.testing.assert_array_equal(found.latency_ms, np.float32([3.3, 1.1, 2.2]))
    np.testing.assert_array_equal(found.accuracy, np.float32([0.5, 0.1, 0.7]))

  @pytest.mark.parametrize(
    ('names', 'message'),
    [
      (['a', 'b'], 'missing: none; not part of it: c$'),
      (['a', 'b', 'c', 'd'], 'missing: d; not part of it: none$'),
      (['b', 'x', 'y'], 'missing: x, y; not part of it: a, c$'),
    ],
  )
  def test_other_models_are_named(self, stored, names, message):
    with pytest.raises(ValueError, match=f'profile.csv holds another zoo; {message}'):
      zoo.stored_profile(stored, names)

  def test_a_table_that_is_none(self, tmp_path):
    with pytest.raises(ValueError, match='absent.csv'):
      zoo.stored_profile(tmp_path / 'absent.csv', ['a'])
