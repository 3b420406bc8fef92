"""Weights from PyTorch: equal outputs; what does not fit is told by its name."""

import itertools
import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from psml_jax import zoo
from psml_jax.zoo import registry

SMALL_VIT = {'depth': 2, 'image_size': 32}
ONE_OF_EACH = {
  'resnet20': {},
  'vgg11_bn': {},
  'mobilenetv2_x0_5': {},
  'shufflenetv2_x0_5': {},
  'repvgg_a0': {},
  'vit_small_patch16_384': SMALL_VIT,
}
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)


@pytest.mark.parametrize('name', ONE_OF_EACH)
class TestParity:
  """Against PyTorch definitions that share no code with the library."""

  @pytest.fixture
  def golden(self, name):
    torch = pytest.importorskip('torch', reason='PyTorch is absent: make parity')
    from tests import torch_models

    torch.set_num_threads(1)
    module = torch_models.create(name, 7, **ONE_OF_EACH[name])
    torch_models.randomise(module, seed=0)
    entries = {entry: value.numpy() for entry, value in module.state_dict().items()}
    images = np.random.default_rng(0).random((4, 32, 32, 3)).astype(np.float32)
    seen = (images - np.float32(MEAN)) / np.float32(STD)
    seen = torch.from_numpy(seen.transpose(0, 3, 1, 2)).double()
    with torch.no_grad():
      logits = module.double().eval()(seen)
    return {k: v.copy() for k, v in entries.items()}, images, logits.numpy()

  def test_outputs_are_those_of_pytorch(self, name, golden, tmp_path):
    entries, images, wanted = golden
    suffix = 'npz' if name in ('resnet20', 'vgg11_bn') else 'safetensors'
    path = tmp_path / f'weights.{suffix}'
    if suffix == 'npz':
      np.savez(path, **entries)
    else:
      safetensors.numpy.save_file(entries, path)
    model = zoo.import_state_dict(name, path, mean=MEAN, std=STD, **ONE_OF_EACH[name])
    assert model.module.num_classes == 7
    found = jax.jit(model.module.apply)(model.variables, images)
    assert np.abs(wanted).max() > 1
    # As PyTorch's own float32 differs from its float64, which `wanted` is.
    scale = np.abs(wanted).max()
    np.testing.assert_allclose(found / scale, wanted / scale, rtol=0, atol=1e-4)
    probabilities = jax.nn.softmax(found), jax.nn.softmax(wanted)
    np.testing.assert_allclose(*probabilities, rtol=0, atol=1e-4)


@pytest.fixture(scope='module')
def entries():
  """A state dict of a resnet8-like model, by the names that PyTorch gives it."""
  rng = np.random.default_rng(0)
  shapes = {'conv1.weight': (4, 3, 3, 3), 'fc.weight': (5, 16), 'fc.bias': (5,)}
  norms = {'bn1': 4}
  before = 4
  for stage, width in enumerate((4, 8, 16), start=1):
    block = f'layer{stage}.0'
    shapes[f'{block}.conv1.weight'] = (width, before, 3, 3)
    shapes[f'{block}.conv2.weight'] = (width, width, 3, 3)
    norms |= {f'{block}.bn1': width, f'{block}.bn2': width}
    if stage > 1:
      shapes[f'{block}.downsample.0.weight'] = (width, before, 1, 1)
      norms[f'{block}.downsample.1'] = width
    before = width
  for norm, width in norms.items():
    for entry in ('weight', 'bias', 'running_mean', 'running_var'):
      shapes[f'{norm}.{entry}'] = (width,)
  state = {k: rng.uniform(0.5, 1, shape).astype('f4') for k, shape in shapes.items()}
  return state | {f'{norm}.num_batches_tracked': np.array(3) for norm in norms}


def load(tmp_path, entries):
  path = tmp_path / 'weights.npz'
  np.savez(path, **entries)
  return zoo.import_state_dict('resnet', path, depth=8, width=4)


def test_kernels_are_transposed_and_nothing_else(entries, tmp_path):
  variables = load(tmp_path, entries).variables
  kernel = variables['params']['layer2_0']['downsample_0']['kernel']
  wanted = entries['layer2.0.downsample.0.weight'].transpose(2, 3, 1, 0)
  np.testing.assert_array_equal(kernel, wanted)
  np.testing.assert_array_equal(
    variables['params']['fc']['kernel'], entries['fc.weight'].T
  )
  stats = variables['batch_stats']['layer1_0']['bn2']
  np.testing.assert_array_equal(stats['var'], entries['layer1.0.bn2.running_var'])
  np.testing.assert_array_equal(stats['mean'], entries['layer1.0.bn2.running_mean'])


def test_every_entry_that_does_not_fit_is_named(entries, tmp_path):
  broken = {k: v for k, v in entries.items() if k not in ('bn1.weight', 'fc.bias')}
  broken['layer4.0.conv1.weight'] = np.zeros((2, 2), 'f4')
  broken['conv1.weight'] = np.zeros((4, 1, 3, 3), 'f4')
  broken['layer1.0.bn1.bias'] = np.full(4, np.nan, 'f4')
  with pytest.raises(ValueError, match='no state dict of resnet') as caught:
    load(tmp_path, broken)
  message = str(caught.value)
  assert 'missing: bn1.weight, fc.bias' in message
  assert 'not part of it: layer4.0.conv1.weight' in message
  assert 'conv1.weight is (4, 1, 3, 3), not (4, 3, 3, 3)' in message
  assert 'not finite: layer1.0.bn1.bias' in message


def test_entries_that_are_no_floats_are_named(entries, tmp_path):
  entries = entries | {
    'fc.bias': np.ones(5, np.int8),
    'bn1.bias': np.array(['1.0'] * 4),
    'bn1.weight': np.ones(4, complex),
  }
  with pytest.raises(ValueError, match='no floats: bn1.*, bn1.*, fc.bias'):
    load(tmp_path, entries)


def test_the_file_tells_the_classes(tmp_path):
  with pytest.raises(ValueError, match='num_classes is no field of an import'):
    zoo.import_state_dict('resnet20', tmp_path / 'weights.npz', num_classes=10)


def test_only_kernels_are_transposed(monkeypatch, tmp_path):
  class Tables(nn.Module):
    num_classes: int

    @nn.compact
    def __call__(self, images, train=False):
      zeros = nn.initializers.zeros_init()
      table = self.param('table', zeros, (3, 3))
      seen = images.mean((1, 2)) @ table
      return nn.Dense(self.num_classes, name='fc')(seen)

  monkeypatch.setattr(registry._FAMILIES, '_entries', dict(registry._FAMILIES))
  zoo.register('tables', Tables)
  table = np.arange(9, dtype=np.float32).reshape(3, 3)
  fc = np.arange(6, dtype=np.float32).reshape(2, 3)
  path = tmp_path / 'weights.npz'
  np.savez(path, **{'table': table, 'fc.weight': fc, 'fc.bias': np.zeros(2, 'f4')})
  params = zoo.import_state_dict('tables', path).variables['params']
  np.testing.assert_array_equal(params['table'], table)
  np.testing.assert_array_equal(params['fc']['kernel'], fc.T)


def test_another_architecture_is_told(entries, tmp_path):
  path = tmp_path / 'weights.npz'
  np.savez(path, **entries)
  with pytest.raises(ValueError, match=r'of vgg11_bn; missing: .*features.0.weight'):
    zoo.import_state_dict('vgg11_bn', path)


@pytest.mark.parametrize('suffix', ['pt', 'pth', 'bin', 'ckpt'])
def test_a_pickle_is_not_read_but_its_conversion_told(suffix, tmp_path):
  path = tmp_path / f'cifar10_resnet20.{suffix}'
  path.write_bytes(b'\x80\x02.')
  with pytest.raises(ValueError, match='is a pickle, which may run code') as caught:
    zoo.import_state_dict('resnet20', path)
  assert f"torch.load('cifar10_resnet20.{suffix}'" in str(caught.value)
  assert "weights_only=True), 'cifar10_resnet20.safetensors')" in str(caught.value)


@pytest.mark.parametrize(
  ('name', 'content', 'message'),
  [
    ('absent.npz', None, 'there is no such file'),
    ('weights.h5', b'', r'must end in \.safetensors or \.npz'),
    ('weights.npz', b'PK\x03\x04 cut', 'cannot be read, so it is damaged'),
    ('weights.safetensors', b'\xff' * 20, 'cannot be read, so it is damaged'),
  ],
)
def test_files_that_cannot_be_read(tmp_path, name, content, message):
  if content is not None:
    (tmp_path / name).write_bytes(content)
  with pytest.raises(ValueError, match=message):
    zoo.import_state_dict('resnet20', tmp_path / name)


@pytest.mark.parametrize('suffix', ['safetensors', 'npz'])
@pytest.mark.parametrize(
  ('content', 'message'),
  [
    (b'version https://git-lfs.github.com/spec/v1\noid sha256:0\n', 'Git LFS pointer'),
    (b'<!DOCTYPE html>\n<html><body>Not found</body></html>', 'HTML or XML page'),
  ],
)
def test_what_stands_in_place_of_a_file(tmp_path, suffix, content, message):
  path = tmp_path / f'weights.{suffix}'
  path.write_bytes(content)
  with pytest.raises(ValueError, match=f'{path.name} is an? {message}') as caught:
    zoo.import_state_dict('resnet20', path)
  assert 'damaged' not in str(caught.value)


@pytest.mark.parametrize('dtype', ['F8_E4M3', 'F8_E5M2', 'F8_E8M0'])
def test_an_unsupported_type_is_named(tmp_path, dtype):
  entry = {'dtype': dtype, 'shape': [2], 'data_offsets': [0, 2]}
  header = json.dumps({'fc.bias': entry}).encode()
  path = tmp_path / 'weights.safetensors'
  path.write_bytes(len(header).to_bytes(8, 'little') + header + b'\0\0')
  with pytest.raises(
    ValueError, match=f'fc.bias is of type {dtype}, which is not supported'
  ):
    zoo.import_state_dict('resnet20', path)


def test_every_supported_type_is_read(entries, tmp_path):
  """Floats of any size, and whole numbers that are ignored."""
  path = tmp_path / 'weights.safetensors'
  types = itertools.cycle([np.float64, np.float32, np.float16, jnp.bfloat16])
  floats = {k: v.astype(t) for (k, v), t in zip(entries.items(), types)}
  counts = itertools.cycle([np.int64, np.int8, np.uint8, np.bool_])
  floats |= {
    k: v.astype(t) for (k, v), t in zip(entries.items(), counts) if 'tracked' in k
  }
  safetensors.numpy.save_file(floats, path)
  model = zoo.import_state_dict('resnet', path, depth=8, width=4)
  kernel = model.variables['params']['conv1']['kernel']
  assert kernel.dtype == jnp.float32
  wanted = entries['conv1.weight'].transpose(2, 3, 1, 0)
  np.testing.assert_allclose(kernel, wanted, rtol=0.01)


def test_an_npz_that_is_none_gives_no_unsafe_advice(tmp_path):
  (tmp_path / 'weights.npz').write_bytes(b'\x80\x04 something else')
  with pytest.raises(ValueError, match='it is no zip archive') as caught:
    zoo.import_state_dict('resnet20', tmp_path / 'weights.npz')
  assert 'unsafe' not in str(caught.value)


def test_an_array_of_objects_is_not_unpickled(tmp_path):
  np.savez(tmp_path / 'weights.npz', evil=np.array([object()], dtype=object))
  with pytest.raises(ValueError, match='Object arrays cannot be loaded'):
    zoo.import_state_dict('resnet20', tmp_path / 'weights.npz')
