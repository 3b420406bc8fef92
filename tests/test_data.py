"""The data sets: sizes, disjointness, determinism, and files that are not as told."""

import functools
import hashlib
import http.server
import io
import pathlib
import tarfile
import threading

import numpy as np
import pooch
import pytest
import requests
import sklearn.datasets

from psml_jax import data
from psml_jax.data import _cifar10

FOLDER = 'cifar-10-batches-bin'
TRAIN = [f'data_batch_{i}.bin' for i in range(1, 6)]
FILES = [*TRAIN, 'test_batch.bin']
SIZES = {'zoo_size': 6, 'pool_size': 7, 'test_size': 4}
PER_FILE = 4


def make_records():
  """Random, different records: 4 in each of the six files."""
  rng = np.random.default_rng(0)
  records = rng.integers(0, 256, (len(FILES), PER_FILE, 3073), np.uint8)
  records[..., 0] = rng.integers(0, 10, records.shape[:2])
  return dict(zip(FILES, records))


def write(data_dir, records):
  (data_dir / FOLDER).mkdir(parents=True)
  for name, rows in records.items():
    (data_dir / FOLDER / name).write_bytes(rows.tobytes())


@pytest.fixture
def cifar_dir(tmp_path, no_download):
  write(tmp_path, make_records())
  return tmp_path


@pytest.fixture
def no_download(monkeypatch):
  def refuse(*args, **kwargs):
    pytest.fail('tried to download')

  monkeypatch.setattr(pooch, 'retrieve', refuse)


def contents(images):
  return {image.tobytes() for image in images}


def check(splits, sizes, shape):
  assert splits.num_classes == 10
  parts = (splits.zoo_x, splits.pool_x, splits.test_x)
  for images, size in zip(parts, sizes.values(), strict=True):
    assert images.shape == (size, *shape)
    assert images.dtype == np.float32
    assert images.flags.c_contiguous
    assert images.min() >= 0
    assert images.max() <= 1
  for labels, images in ((splits.zoo_y, parts[0]), (splits.test_y, parts[2])):
    assert labels.shape == images.shape[:1]
    assert labels.dtype == np.int32
  assert len(set.union(*map(contents, parts))) == sum(sizes.values())


def assert_same(a, b):
  for field in ('zoo_x', 'zoo_y', 'pool_x', 'test_x', 'test_y'):
    np.testing.assert_array_equal(getattr(a, field), getattr(b, field))


def test_digits_are_all_there_with_their_labels():
  sizes = {'zoo_size': 700, 'pool_size': 600, 'test_size': 497}
  splits = data.digits(seed=3, **sizes)
  check(splits, sizes, (8, 8, 1))
  assert splits.name == 'digits'
  raw = sklearn.datasets.load_digits()
  label = {
    (image / 16).astype(np.float32).tobytes(): y
    for image, y in zip(raw.images, raw.target)
  }
  assert len(label) == 1797
  for x, y in ((splits.zoo_x, splits.zoo_y), (splits.test_x, splits.test_y)):
    assert [label[image.tobytes()] for image in x] == y.tolist()


def test_digits_drop_duplicates(monkeypatch):
  raw = sklearn.datasets.load_digits()
  raw.images[1000:1100] = raw.images[:100]
  monkeypatch.setattr(sklearn.datasets, 'load_digits', lambda: raw)
  sizes = {'zoo_size': 597, 'pool_size': 600, 'test_size': 500}
  check(data.digits(seed=0, **sizes), sizes, (8, 8, 1))
  with pytest.raises(ValueError, match='at most 1697'):
    data.digits(seed=0, **{**sizes, 'test_size': 501})


@pytest.mark.parametrize('name', ['digits', 'cifar10'])
def test_seed_decides_the_split(name, cifar_dir):
  load = functools.partial(data.load, name, **SIZES, data_dir=cifar_dir)
  assert_same(load(seed=1), load(seed=1))
  assert contents(load(seed=1).zoo_x) != contents(load(seed=2).zoo_x)


@pytest.mark.parametrize('name', ['digits', 'cifar10'])
@pytest.mark.parametrize(
  ('bad', 'message'),
  [
    ({'zoo_size': 0}, r'zoo_size is 0; .* >= 1'),
    ({'pool_size': -1}, r'pool_size is -1; .* >= 1'),
    ({'test_size': 2.0}, r'test_size is 2\.0; .* >= 1'),
    ({'test_size': True}, r'test_size is True; .* >= 1'),
    ({'seed': -1}, r'seed is -1; .* >= 0'),
    ({'seed': None}, r'seed is None; .* >= 0'),
    ({'seed': 0.5}, r'seed is 0\.5; .* >= 0'),
    ({'seed': True}, r'seed is True; .* >= 0'),
  ],
)
def test_bad_arguments_are_told_before_any_work(
  name, bad, message, tmp_path, no_download
):
  with pytest.raises(ValueError, match=message):
    data.load(name, **{'seed': 0, **SIZES, 'data_dir': tmp_path, **bad})
  assert not list(tmp_path.iterdir())


def test_unknown_name():
  with pytest.raises(ValueError, match=r"name is 'svhn'; .*'cifar10', 'digits'"):
    data.load('svhn', seed=0, **SIZES)


def test_digits_sizes_too_large():
  with pytest.raises(
    ValueError,
    match=r'zoo_size \(1000\) \+ pool_size \(700\) \+ test_size \(98\) is 1798; '
    'it must be at most 1797',
  ):
    data.digits(seed=0, zoo_size=1000, pool_size=700, test_size=98)


def test_cifar10_takes_each_split_from_its_files(cifar_dir):
  sizes = {'zoo_size': 12, 'pool_size': 8, 'test_size': 4}
  splits = data.cifar10(cifar_dir, seed=0, **sizes)
  check(splits, sizes, (32, 32, 3))
  assert splits.name == 'cifar10'
  expected = {}
  for name, rows in make_records().items():
    for row in rows:
      image = np.empty((32, 32, 3), np.float32)
      for c in range(3):
        image[..., c] = row[1 + 1024 * c : 1 + 1024 * (c + 1)].reshape(32, 32)
      expected[(image / np.float32(255)).tobytes()] = (name, int(row[0]))
  zoo = [expected[x.tobytes()] for x in splits.zoo_x]
  pool = [expected[x.tobytes()] for x in splits.pool_x]
  test = [expected[x.tobytes()] for x in splits.test_x]
  assert {name for name, _ in zoo + pool} == set(TRAIN)
  assert {name for name, _ in test} == {'test_batch.bin'}
  assert [y for _, y in zoo] == splits.zoo_y.tolist()
  assert [y for _, y in test] == splits.test_y.tolist()


def test_cifar10_drops_duplicates_within_and_across_files(tmp_path):
  records = make_records()
  records['data_batch_1.bin'][1] = records['data_batch_1.bin'][0]
  records['data_batch_5.bin'][2, 1:] = records['data_batch_2.bin'][3, 1:]
  records['data_batch_5.bin'][2, 0] = (records['data_batch_2.bin'][3, 0] + 1) % 10
  records['test_batch.bin'][0, 1:] = records['data_batch_3.bin'][1, 1:]
  records['test_batch.bin'][2] = records['test_batch.bin'][1]
  write(tmp_path, records)
  sizes = {'zoo_size': 10, 'pool_size': 8, 'test_size': 2}
  splits = data.cifar10(tmp_path, seed=0, **sizes)
  check(splits, sizes, (32, 32, 3))
  first = records['data_batch_2.bin'][3]
  image = first[1:].reshape(3, 32, 32).transpose(1, 2, 0) / np.float32(255)
  everything = {
    x.tobytes(): y
    for seed in range(4)
    for s in [data.cifar10(tmp_path, seed=seed, **sizes)]
    for x, y in zip(s.zoo_x, s.zoo_y)
  }
  assert everything[np.ascontiguousarray(image).tobytes()] == first[0]
  for size, most in (('pool_size', 18), ('test_size', 2)):
    with pytest.raises(ValueError, match=rf'{size} \(.*at most {most},'):
      data.cifar10(tmp_path, seed=0, **{**sizes, size: sizes[size] + 1})


def test_cifar10_without_data_dir():
  with pytest.raises(ValueError, match=f'data_dir is None.*{FOLDER}'):
    data.load('cifar10', seed=0, **SIZES)


@pytest.mark.parametrize('name', ['data_batch_4.bin', 'test_batch.bin'])
@pytest.mark.parametrize(
  ('damage', 'message'),
  [
    (lambda raw: None, 'is missing; .*data_batch_1.bin.*test_batch.bin'),
    (lambda raw: b'', 'has 0 bytes; .*3073'),
    (lambda raw: raw[:-1], f'has {3073 * PER_FILE - 1} bytes; .*3073'),
    (lambda raw: b'\x0a' + raw[1:], 'holds class 10; .* 0 to 9'),
  ],
  ids=['missing', 'empty', 'truncated', 'class'],
)
def test_cifar10_damaged_file(name, damage, message, cifar_dir):
  path = cifar_dir / FOLDER / name
  raw = damage(path.read_bytes())
  path.unlink()
  if raw is not None:
    path.write_bytes(raw)
  with pytest.raises(ValueError, match=f'{name} {message}'):
    data.cifar10(cifar_dir, seed=0, **SIZES)


@pytest.mark.parametrize(
  'error', [requests.ConnectionError('no route'), OSError('no route')]
)
def test_cifar10_offline(error, tmp_path, monkeypatch):
  def fail(*args, path, **kwargs):
    assert data_dir in pathlib.Path(path).parents
    (pathlib.Path(path) / 'partial').write_bytes(b'half')
    raise error

  data_dir = tmp_path / 'new'
  monkeypatch.setattr(pooch, 'retrieve', fail)
  with pytest.raises(ValueError, match=r'no route.*put data_batch_1.*test_batch') as e:
    data.cifar10(data_dir, seed=0, **SIZES)
  assert str(data_dir / FOLDER) in str(e.value)
  assert not list(data_dir.iterdir())


def test_cifar10_data_dir_is_a_file(tmp_path, no_download):
  path = tmp_path / 'file'
  path.touch()
  with pytest.raises(ValueError, match=r'data_dir is .*file'):
    data.cifar10(path, seed=0, **SIZES)


def make_archive(records):
  buffer = io.BytesIO()
  with tarfile.open(fileobj=buffer, mode='w:gz') as archive:
    for name, rows in records.items():
      member = tarfile.TarInfo(f'{FOLDER}/{name}')
      member.size = rows.size
      archive.addfile(member, io.BytesIO(rows.tobytes()))
  return buffer.getvalue()


@pytest.fixture
def served(monkeypatch):
  """A local server in place of the official one; gives the archive's bytes."""
  archive = make_archive(make_records())

  class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
      self.send_response(200)
      self.send_header('Content-Length', str(len(archive)))
      self.end_headers()
      self.wfile.write(archive)

    def log_message(self, *args):
      pass

  with http.server.HTTPServer(('127.0.0.1', 0), Handler) as server:
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    monkeypatch.setenv('NO_PROXY', '127.0.0.1')
    url = f'http://127.0.0.1:{server.server_port}/cifar.tar.gz'
    monkeypatch.setattr(_cifar10, '_URL', url)
    yield archive
    server.shutdown()
    thread.join()


def test_cifar10_download(served, tmp_path, monkeypatch):
  md5 = hashlib.md5(served).hexdigest()
  monkeypatch.setattr(_cifar10, '_HASH', f'md5:{md5}')
  downloaded, written = tmp_path / 'a', tmp_path / 'b'
  got = data.cifar10(downloaded, seed=0, **SIZES)
  assert [path.name for path in downloaded.iterdir()] == [FOLDER]
  write(written, make_records())
  assert_same(got, data.cifar10(written, seed=0, **SIZES))


def test_cifar10_download_of_something_else(served, tmp_path):
  with pytest.raises(ValueError, match='hash'):
    data.cifar10(tmp_path, seed=0, **SIZES)
  assert not list(tmp_path.iterdir())
