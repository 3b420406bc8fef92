"""What `train.fit` asks of keys and modules; strict promotion and x64."""

import contextlib
import warnings

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from psml_jax import train, zoo
from psml_jax._validate import InputError

STEPS = train.Steps(steps=2, batch_size=4, learning_rate=1e-3)
EPOCHS = train.Epochs(epochs=1, batch_size=4, crop_padding=1, ema_decay=0.9)
LINEAR = zoo.create('linear', num_classes=3)
RESNET = zoo.create('resnet', num_classes=3, depth=8, width=2)


@pytest.fixture(scope='module')
def data():
  rng = np.random.default_rng(0)
  return rng.random((8, 8, 8, 3), np.float32), rng.integers(0, 3, 8, np.int32)


def fit(data, module=LINEAR, key=None, recipe=EPOCHS, **settings):
  key = jax.random.key(0) if key is None else key
  return train.fit(key, module, *data, num_classes=3, recipe=recipe, **settings)


class TestKeys:
  def test_keys_of_the_old_kind_are_refused(self, data):
    with pytest.raises(ValueError, match='key is of type uint32; .* jax.random.key'):
      fit(data, key=jax.random.PRNGKey(0))

  def test_a_seed_is_no_key(self, data):
    with pytest.raises(ValueError, match='key is 3; it must be made by'):
      fit(data, key=3)

  def test_how_many(self, data):
    keys = jax.random.split(jax.random.key(0), 4)
    with pytest.raises(ValueError, match=r'key has shape \(2, 2\); it must be one key'):
      fit(data, key=keys.reshape(2, 2))
    with pytest.raises(ValueError, match=r'key has shape \(0,\)'):
      fit(data, key=keys[:0])


class Untrained(nn.Module):
  @nn.compact
  def __call__(self, images):
    return nn.Dense(3)(images.mean((1, 2)))


class Half(nn.Module):
  @nn.compact
  def __call__(self, images, train=False):
    return nn.Dense(3, dtype=jnp.bfloat16)(images.mean((1, 2)))


class TestModules:
  @pytest.mark.parametrize(
    ('module', 'message'),
    [
      (Untrained(), 'module: .* of Untrained has no argument train; .*train=False'),
      (Half(), 'module gives logits of type bfloat16; they must be float32'),
      (lambda images: images, 'must be a flax.linen.Module'),
    ],
  )
  def test_what_cannot_be_trained(self, data, module, message):
    with pytest.raises(ValueError, match=message):
      fit(data, module)

  @pytest.mark.parametrize(
    ('factor', 'hint'), [(255, r'\(divide by 255\)'), (-1, 'standardised')]
  )
  def test_pixels_of_another_range_are_refused(self, data, factor, hint):
    images, labels = data
    with pytest.raises(ValueError, match=rf'images span .*in \[0, 1\].*{hint}'):
      fit((factor * images, labels))

  @pytest.mark.parametrize(
    'steep',
    [
      train.Steps(steps=30, batch_size=4, learning_rate=1e38),
      train.Epochs(epochs=9, batch_size=4, learning_rate=1e38),
    ],
  )
  def test_a_loss_that_is_not_finite_is_an_error_of_the_input(self, data, steep):
    with pytest.raises(InputError, match='the loss .*is (nan|inf).*lower'):
      fit(data, recipe=steep)

  def test_fields_must_be_hashable(self, data):
    with pytest.raises(ValueError, match='module Network has fields that are not hash'):
      fit(data, Network(own, np.zeros(1)))


class Network(nn.Module):
  convolution: object
  depth: int = 2

  @nn.compact
  def __call__(self, images, train=False):
    for _ in range(self.depth):
      images = Inner(self.convolution)(images)
    return nn.Dense(3)(images.mean((1, 2)))


class Inner(nn.Module):
  convolution: object

  @nn.compact
  def __call__(self, images):
    return nn.relu(self.convolution()(images))


def plain():
  return nn.Conv(4, (3, 3))


def own():
  return zoo.Conv(4)


class TestWarning:
  @pytest.mark.parametrize('depth', [1, 2])
  def test_convolutions_of_flax_are_slow_on_cpus(self, data, depth):
    with warnings.catch_warnings(record=True) as caught:
      warnings.simplefilter('always')
      fit(data, Network(plain, depth))
    (warning,) = caught
    message = str(warning.message)
    assert 'module Network holds flax.linen.Conv (Inner_0/Conv_0' in message
    assert ('and more' in message) == (depth > 1)
    assert 'psml_jax.zoo.Conv' in message
    assert warning.filename == __file__

  def test_those_of_the_library_are_not(self, data):
    fit(data, Network(own))

  def test_elsewhere_they_are_not(self, data, monkeypatch):
    from psml_jax.train import contract

    module = Network(plain)
    monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
    contract.warn_of_slow_layers(module, (8, 8, 3))

  def test_wrapped_ones_are_found(self, data):
    with pytest.warns(UserWarning, match='flax.linen.Conv'):
      fit(data, Network(lambda: nn.remat(nn.Conv)(4, (3, 3))))

  def test_no_architecture_of_the_library_is_warned_of(self):
    from psml_jax.train import contract

    for name in ('vgg11_bn', 'mobilenetv2_x0_5', 'shufflenetv2_x0_5', 'repvgg_a0'):
      contract.warn_of_slow_layers(zoo.create(name, num_classes=3), (32, 32, 3))
    vit = zoo.create('vit_small_patch16_384', num_classes=3, image_size=32, depth=1)
    contract.warn_of_slow_layers(vit, (32, 32, 3))


MODES = {
  'strict': lambda: jax.numpy_dtype_promotion('strict'),
  'x64': lambda: jax.enable_x64(True),
}


@pytest.mark.parametrize('mode', MODES)
class TestModes:
  """The library's own arithmetic casts, and stays in 32 bits."""

  @pytest.fixture(autouse=True)
  def enter(self, mode):
    with contextlib.ExitStack() as stack:
      stack.enter_context(MODES[mode]())
      yield

  def is_float32(self, variables):
    return {str(leaf.dtype) for leaf in jax.tree.leaves(variables)} == {'float32'}

  def test_train_and_predict(self, data):
    module = zoo.create('cnn', num_classes=3, widths=[4, 4], size=4)
    model = zoo.Model(module, fit(data, module, recipe=STEPS).variables)
    assert self.is_float32(model.variables)
    assert zoo.predict(model, data[0]).dtype == np.float32

  @pytest.mark.parametrize(
    ('module', 'resident'), [(RESNET, None), (LINEAR, 1)], ids=['resident', 'streamed']
  )
  def test_fit(self, data, module, resident):
    recipe = train.Epochs(epochs=1, batch_size=4, ema_decay=0.9, accumulate=2)
    trained = fit(
      data,
      module,
      recipe=recipe,
      objective=train.CrossEntropy(0.1),
      held_out=data,
      resident_bytes=resident,
    )
    assert self.is_float32(trained.variables)
    assert np.isfinite(trained.records[-1]['loss'])
    model = zoo.Model(module, trained.variables)
    zoo.measure({'m': model}, *data, batch_size=2, rounds=1)

  def test_a_population(self, data):
    keys = jax.random.split(jax.random.key(0), 3)
    assert self.is_float32(fit(data, key=keys).variables)

  @pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
  @pytest.mark.parametrize(
    ('name', 'fields'),
    [
      ('vgg11_bn', {}),
      ('mobilenetv2_x0_5', {}),
      ('shufflenetv2_x0_5', {}),
      ('repvgg_a0', {}),
      ('vit_small_patch16_384', {'image_size': 32, 'depth': 1}),
    ],
  )
  def test_every_family_and_its_gradient(self, mode, name, fields, dtype):
    if (mode, dtype) == ('strict', 'bfloat16'):
      pytest.skip("Flax's own norms mix types of half precision")
    module = zoo.create(name, num_classes=3, dtype=dtype, **fields)
    variables = zoo.abstract_variables(module, (32, 32, 3))
    assert self.is_float32(variables)

    def loss(variables, images):
      rngs = {'dropout': jax.random.key(0)}
      logits, _ = module.apply(
        variables, images, train=True, mutable=['batch_stats'], rngs=rngs
      )
      return logits.sum()

    images = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
    slopes = jax.eval_shape(jax.grad(loss), variables, images)
    assert self.is_float32(slopes)

  def test_a_fused_repvgg(self, data):
    fields = {'widths': (4, 4, 4, 4), 'blocks': (1, 1, 1, 1)}
    module = zoo.create('repvgg_a0', num_classes=3, **fields)
    variables = jax.jit(module.init)(jax.random.key(0), data[0])
    fused = zoo.fuse(zoo.Model(module, variables))
    assert self.is_float32(fused.variables)
    zoo.predict(fused, data[0])


@pytest.mark.parametrize(
  ('keys', 'settings'),
  [
    (1, {'recipe': STEPS}),
    (1, {'resident_bytes': 1, 'directory': None}),
    (3, {'held_out': True}),
  ],
)
def test_a_second_training_of_equal_shapes_compiles_nothing(
  data, reported, keys, settings
):
  """Keys, images, labels and weights are arguments of the programs."""

  def compiled():
    made = '/jax/core/compile/jaxpr_to_mlir_module_duration'
    return [details['fun_name'] for event, details in reported if event == made]

  for seed in (1, 2):
    key = jax.random.key(seed)
    key = jax.random.split(key, keys) if keys > 1 else key
    other = data[0] * seed / 2, np.roll(data[1], seed)
    module = zoo.create('linear', num_classes=3, size=2 + 2 * keys)
    arguments = dict(settings)
    if 'held_out' in arguments:
      arguments['held_out'] = other
    first = compiled()
    fit(other, module, key=key, **arguments)
  assert first
  assert compiled() == first
