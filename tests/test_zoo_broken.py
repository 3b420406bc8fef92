"""Checkpoints and training directories that a broken copy or a full disk leaves."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from psml_jax import train, zoo
from psml_jax._validate import InputError

# Where one entry of a checkpoint cannot be read, orbax leaves the others' reads behind.
pytestmark = pytest.mark.filterwarnings(
  'ignore::pytest.PytestUnraisableExceptionWarning'
)

MODULE = zoo.create('linear', num_classes=3)
RECIPE = train.Epochs(epochs=3, batch_size=8, learning_rate=0.05, crop_padding=0)


def cut(folder):
  for path in folder.iterdir():
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def emptied(folder):
  shutil.rmtree(folder)
  folder.mkdir()


DAMAGES = {
  'no manifest': lambda folder: (folder / 'manifest.ocdbt').unlink(),
  'no metadata': lambda folder: (folder / '_METADATA').unlink(),
  'metadata cut': lambda folder: (folder / '_METADATA').write_text('{"tree_meta'),
  'metadata empty': lambda folder: (folder / '_METADATA').write_text(''),
  'data cut': lambda folder: cut(folder / 'd'),
  'no data': lambda folder: shutil.rmtree(folder / 'd'),
  'empty': emptied,
}


@pytest.fixture(scope='module')
def model(tmp_path_factory):
  variables = jax.jit(MODULE.init)(jax.random.key(0), jnp.zeros((1, 8, 8, 1)))
  path = tmp_path_factory.mktemp('zoo') / 'model'
  zoo.save(path, variables)
  return path


@pytest.fixture(scope='module')
def data():
  rng = np.random.default_rng(0)
  return rng.random((16, 8, 8, 1), np.float32), rng.integers(0, 3, 16, np.int32)


@pytest.fixture(scope='module')
def training(tmp_path_factory, data):
  path = tmp_path_factory.mktemp('zoo') / 'training'
  fit(data, path)
  return path


def fit(data, directory):
  return zoo.fit(
    jax.random.key(0), MODULE, *data, num_classes=3, recipe=RECIPE, directory=directory
  )


@pytest.mark.parametrize('damage', DAMAGES)
def test_a_damaged_model_is_reported_by_its_folder(model, damage, tmp_path):
  path = tmp_path / 'mlp4'
  shutil.copytree(model, path)
  DAMAGES[damage](path)
  with pytest.raises(InputError) as caught:
    zoo.restore(path, zoo.abstract_variables(MODULE, (8, 8, 1)))
  message = str(caught.value)
  assert f'{path} is no whole checkpoint (' in message
  assert message.endswith('; remove it and the run makes it anew')
  assert '\n' not in message


@pytest.mark.parametrize('damage', DAMAGES)
def test_a_damaged_training_is_reported(training, data, damage, tmp_path):
  path = tmp_path / 'training'
  shutil.copytree(training, path)
  newest = path / 'checkpoints' / '3'
  DAMAGES[damage](newest / 'default')
  with pytest.raises(InputError) as caught:
    fit(data, path)
  message = str(caught.value)
  assert f'{newest} is no whole checkpoint (' in message
  assert '\n' not in message


def test_a_training_continues_from_the_epoch_before(training, data, tmp_path):
  path = tmp_path / 'training'
  shutil.copytree(training, path)
  shutil.rmtree(path / 'checkpoints' / '3')
  again = fit(data, path)
  assert [record['epoch'] for record in again.records] == [1, 2, 3]


def first_lines(path, count):
  lines = path.read_text().splitlines(keepends=True)
  path.write_text(''.join(lines[:count]))


@pytest.mark.parametrize(
  ('name', 'damage', 'reason'),
  [
    ('settings.json', lambda path: path.write_text('{"recipe": {'), 'Expecting'),
    ('settings.json', lambda path: path.write_text(''), 'Expecting value'),
    ('settings.json', lambda path: path.write_text('[1]'), 'cannot convert'),
    ('settings.json', lambda path: path.write_bytes(b'\xff\xfe'), 'decode'),
    ('metrics.jsonl', lambda path: path.write_text('{"epoch": 1\n'), 'Expecting'),
    ('metrics.jsonl', lambda path: path.write_text('{"loss": 1}\n'), 'epoch'),
    ('metrics.jsonl', lambda path: path.write_text('1\n'), 'int'),
    ('metrics.jsonl', lambda path: path.unlink(), r'epoch 3, its records of \[\]'),
    ('metrics.jsonl', lambda path: first_lines(path, 2), r'records of \[1, 2\]'),
  ],
)
def test_a_damaged_file_of_a_training(training, data, name, damage, reason, tmp_path):
  path = tmp_path / 'training'
  shutil.copytree(training, path)
  damage(path / name)
  with pytest.raises(InputError, match=f'{name} is damaged .*{reason}') as caught:
    fit(data, path)
  assert f'remove {path} and the run makes it anew' in str(caught.value)


def test_files_are_replaced_whole(training):
  assert not list(training.glob('.*'))
  lines = (training / 'metrics.jsonl').read_text().splitlines()
  assert [json.loads(line)['epoch'] for line in lines] == [1, 2, 3]


class TestPaths:
  """A home directory is expanded, a URL refused, wherever a path is taken."""

  @pytest.fixture(autouse=True)
  def home(self, monkeypatch, tmp_path):
    monkeypatch.setenv('HOME', str(tmp_path))
    monkeypatch.chdir(tmp_path)

  def test_home(self, tmp_path, data):
    variables = jax.jit(MODULE.init)(jax.random.key(0), jnp.zeros((1, 8, 8, 1)))
    zoo.save('~/model', variables)
    zoo.restore('~/model', zoo.abstract_variables(MODULE, (8, 8, 1)))
    fit(data, '~/training')
    found = sorted(path.name for path in tmp_path.iterdir())
    assert found == ['model', 'training']

  def test_urls(self, data):
    abstract = zoo.abstract_variables(MODULE, (8, 8, 1))
    for call in (
      lambda url: zoo.save(url, {}),
      lambda url: zoo.restore(url, abstract),
      lambda url: fit(data, url),
      lambda url: zoo.import_state_dict('resnet20', url),
      lambda url: zoo.read_profiles(url),
      lambda url: zoo.write_profile(url, None),
    ):
      with pytest.raises(ValueError, match='gs://bucket/x.*a URL'):
        call('gs://bucket/x')
