"""The data sets: sizes, disjointness, determinism, and files that are not as told."""

import functools
import gzip
import hashlib
import http.server
import io
import pathlib
import pickle
import shutil
import tarfile
import threading

import absl.logging
import jax
import jax.numpy as jnp
import numpy as np
import pooch
import pytest
import requests
import scipy.io
import sklearn.datasets

from psml_jax import _keys, data
from psml_jax.data import _cifar, _official, _synthetic

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


def set_source(monkeypatch, source, **fields):
  """Changes an official source, frozen as it is, for one test."""
  for field, value in fields.items():
    monkeypatch.setitem(source.__dict__, field, value)


def contents(images):
  return {image.tobytes() for image in images}


def check(splits, sizes, shape, num_classes=10):
  assert splits.num_classes == num_classes
  sizes = {**sizes, 'profile_size': sizes.get('profile_size', 0)}
  parts = (splits.zoo_x, splits.pool_x, splits.test_x, splits.profile_x)
  for images, size in zip(parts, sizes.values(), strict=True):
    assert images.shape == (size, *shape)
    assert images.dtype == np.float32
    assert images.flags.c_contiguous
    assert images.min(initial=0) >= 0
    assert images.max(initial=1) <= 1
  classes = (splits.zoo_y, splits.test_y, splits.profile_y)
  for labels, images in zip(classes, (parts[0], parts[2], parts[3]), strict=True):
    assert labels.shape == images.shape[:1]
    assert labels.dtype == np.int32
  assert len(set.union(*map(contents, parts))) == sum(sizes.values())


def assert_same(a, b):
  for field in ('zoo_x', 'zoo_y', 'pool_x', 'test_x', 'test_y'):
    np.testing.assert_array_equal(getattr(a, field), getattr(b, field))


def test_files_that_are_not_official_are_told(cifar_dir, monkeypatch):
  told = []
  monkeypatch.setattr(
    absl.logging, 'warning', lambda text, *values: told.append(values)
  )
  official = dict.fromkeys(FILES, '')
  path = cifar_dir / FOLDER / FILES[0]
  md5 = hashlib.md5(path.read_bytes()).hexdigest()
  set_source(monkeypatch, _cifar.CIFAR10, files=official | {FILES[0]: md5})
  data.load('cifar10', seed=0, **SIZES, data_dir=cifar_dir)
  assert told == []
  set_source(monkeypatch, _cifar.CIFAR10, files=official | {FILES[0]: '0' * 32})
  data.load('cifar10', seed=0, **SIZES, data_dir=cifar_dir)
  assert told == [(cifar_dir / FOLDER, FILES[0])]


def test_digits_are_all_there_with_their_labels():
  sizes = {'zoo_size': 700, 'pool_size': 600, 'test_size': 397, 'profile_size': 100}
  splits = data.load('digits', seed=3, **sizes)
  check(splits, sizes, (8, 8, 1))
  raw = sklearn.datasets.load_digits()
  label = {
    (image / 16).astype(np.float32).tobytes(): y
    for image, y in zip(raw.images, raw.target)
  }
  assert len(label) == 1797
  assert all(label[image] == y for image, y in labels_by_image(splits).items())


def test_digits_drop_duplicates(monkeypatch):
  raw = sklearn.datasets.load_digits()
  raw.images[1000:1100] = raw.images[:100]
  monkeypatch.setattr(sklearn.datasets, 'load_digits', lambda: raw)
  sizes = {'zoo_size': 597, 'pool_size': 600, 'test_size': 500}
  check(data.load('digits', seed=0, **sizes), sizes, (8, 8, 1))
  with pytest.raises(ValueError, match='at most 1697'):
    data.load('digits', seed=0, **{**sizes, 'test_size': 501})


@pytest.mark.parametrize(
  ('bad', 'message'),
  [
    ({'zoo_size': 0}, r'zoo_size is 0; .* >= 1'),
    ({'pool_size': -1}, r'pool_size is -1; .* >= 1'),
    ({'test_size': 2.0}, r'test_size is 2\.0; .* >= 1'),
    ({'seed': -1}, r'seed is -1; .* \[0, 4294967295\]'),
    ({'seed': None}, r'seed is None; .* \[0, 4294967295\]'),
    ({'seed': 2**32}, r'seed is 4294967296; .* \[0, 4294967295\]'),
    ({'profile_size': -1}, r'profile_size is -1; .* >= 0'),
  ],
)
def test_bad_arguments_are_told_before_any_work(bad, message, tmp_path, no_download):
  with pytest.raises(ValueError, match=message):
    data.load('mnist', **{'seed': 0, **SIZES, 'data_dir': tmp_path, **bad})
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
  ('name', 'message'),
  [
    ('cifar1O', r"name is 'cifar1O' \(did you mean 'cifar10'\?\); .*digits.*svhn"),
    ('fashion-mnist', r"did you mean 'fashion_mnist'"),
    ('imagenet', r"name is 'imagenet'; it must be one of .*synthetic"),
    (None, r'name is None; it must be one of .*synthetic'),
  ],
)
def test_unknown_name(name, message):
  with pytest.raises(ValueError, match=message):
    data.load(name, seed=0, **SIZES)


@pytest.mark.parametrize(
  ('name', 'message'),
  [
    ('cifar10', 'num_clases is no field of cifar10; its fields are none'),
    (
      'npz',
      'num_clases is no field of npz .*num_classes.*; its fields are num_classes',
    ),
    (
      'synthetic',
      'num_clases is no field of synthetic .*; its fields are channels, diff',
    ),
  ],
)
def test_unknown_field(name, message):
  with pytest.raises(ValueError, match=message):
    data.load(name, seed=0, **SIZES, num_clases=3)


def test_cifar10_takes_each_split_from_its_files(cifar_dir):
  sizes = {'zoo_size': 12, 'pool_size': 8, 'test_size': 4}
  splits = data.load('cifar10', data_dir=cifar_dir, seed=0, **sizes)
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
  splits = data.load('cifar10', data_dir=tmp_path, seed=0, **sizes)
  check(splits, sizes, (32, 32, 3))
  first = records['data_batch_2.bin'][3]
  image = first[1:].reshape(3, 32, 32).transpose(1, 2, 0) / np.float32(255)
  everything = {
    x.tobytes(): y
    for seed in range(4)
    for s in [data.load('cifar10', data_dir=tmp_path, seed=seed, **sizes)]
    for x, y in zip(s.zoo_x, s.zoo_y)
  }
  assert everything[np.ascontiguousarray(image).tobytes()] == first[0]
  for size, most in (('pool_size', 18), ('test_size', 2)):
    with pytest.raises(ValueError, match=rf'{size} \(.*at most {most},'):
      data.load(
        'cifar10', data_dir=tmp_path, seed=0, **{**sizes, size: sizes[size] + 1}
      )


def test_cifar10_data_dir_is_a_file(tmp_path, no_download):
  path = tmp_path / 'file'
  path.touch()
  with pytest.raises(ValueError, match=r'data_dir is .*file'):
    data.load('cifar10', data_dir=path, seed=0, **SIZES)


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
    set_source(monkeypatch, _cifar.CIFAR10, url=url)
    yield archive
    server.shutdown()
    thread.join()


def test_cifar10_download(served, tmp_path, monkeypatch):
  md5 = hashlib.md5(served).hexdigest()
  set_source(monkeypatch, _cifar.CIFAR10, archive_md5=md5)
  downloaded, written = tmp_path / 'a', tmp_path / 'b'
  got = data.load('cifar10', data_dir=downloaded, seed=0, **SIZES)
  assert [path.name for path in downloaded.iterdir()] == [FOLDER]
  write(written, make_records())
  assert_same(got, data.load('cifar10', data_dir=written, seed=0, **SIZES))


def test_cifar10_download_of_something_else(served, tmp_path):
  with pytest.raises(ValueError, match='hash'):
    data.load('cifar10', data_dir=tmp_path, seed=0, **SIZES)
  assert not list(tmp_path.iterdir())


def write_cifar100(data_dir, train=10, test=2):
  rng = np.random.default_rng(1)
  folder = data_dir / 'cifar-100-binary'
  folder.mkdir()
  for file, count in (('train.bin', train), ('test.bin', test)):
    rows = rng.integers(0, 256, (count, 3074), np.uint8)
    rows[:, 0] = rng.integers(0, 20, count)
    rows[:, 1] = rng.integers(0, 100, count)
    (folder / file).write_bytes(rows.tobytes())


def write_svhn(data_dir, train=10, test=4):
  rng = np.random.default_rng(2)
  (data_dir / 'svhn').mkdir()
  for file, count in (('train_32x32.mat', train), ('test_32x32.mat', test)):
    x = rng.integers(0, 256, (32, 32, 3, count), np.uint8)
    y = (np.arange(count, dtype=np.uint8) % 10 + 1)[:, None]
    scipy.io.savemat(data_dir / 'svhn' / file, {'X': x, 'y': y}, do_compression=True)


def idx(array):
  header = bytes((0, 0, 8, array.ndim)) + np.array(array.shape, '>u4').tobytes()
  return header + array.astype(np.uint8).tobytes()


def write_idx(data_dir, folder, train=10, test=4, pack=lambda raw: raw, suffix=''):
  rng = np.random.default_rng(len(folder))
  (data_dir / folder).mkdir()
  for part, count in (('train', train), ('t10k', test)):
    x = rng.integers(0, 256, (count, 28, 28))
    y = np.arange(count) % 10
    for file, array in (('images-idx3-ubyte', x), ('labels-idx1-ubyte', y)):
      path = data_dir / folder / f'{part}-{file}{suffix}'
      path.write_bytes(pack(idx(array)))


write_mnist = functools.partial(write_idx, folder='mnist')
write_fashion = functools.partial(
  write_idx, folder='fashion_mnist', pack=gzip.compress, suffix='.gz'
)
OFFICIAL = {
  'cifar10': lambda data_dir: write(data_dir, make_records()),
  'cifar100': write_cifar100,
  'svhn': write_svhn,
  'mnist': write_mnist,
  'fashion_mnist': write_fashion,
}
SHAPES = {
  'cifar10': (32, 32, 3),
  'cifar100': (32, 32, 3),
  'svhn': (32, 32, 3),
  'mnist': (28, 28, 1),
  'fashion_mnist': (28, 28, 1),
}
SOURCES = _official.SOURCES
TINY = {'zoo_size': 6, 'pool_size': 4, 'test_size': 2}


def tree(folder):
  """Path -> content of all files under a folder."""
  return {
    str(path.relative_to(folder)): path.read_bytes()
    for path in sorted(folder.rglob('*'))
    if path.is_file()
  }


@pytest.mark.parametrize('name', OFFICIAL)
def test_official_layout_gives_disjoint_splits(name, tmp_path, no_download):
  OFFICIAL[name](tmp_path)
  before = tree(tmp_path)
  splits = data.load(name, seed=0, **TINY, data_dir=str(tmp_path))
  check(splits, TINY, SHAPES[name], 100 if name == 'cifar100' else 10)
  assert splits.name == name
  assert_same(splits, data.load(name, seed=0, **TINY, data_dir=tmp_path))
  other = data.load(name, seed=1, **TINY, data_dir=tmp_path)
  assert contents(splits.zoo_x) != contents(other.zoo_x)
  assert tree(tmp_path) == before


def labels_by_image(splits):
  pairs = [
    *zip(splits.zoo_x, splits.zoo_y),
    *zip(splits.test_x, splits.test_y),
    *zip(splits.profile_x, splits.profile_y),
  ]
  return {x.tobytes(): int(y) for x, y in pairs}


def as_floats(pixels):
  return (np.ascontiguousarray(pixels) / np.float32(255)).astype(np.float32).tobytes()


def test_cifar100_gives_fine_classes(tmp_path):
  write_cifar100(tmp_path)
  raw = tree(tmp_path / 'cifar-100-binary')
  expected = {}
  for content in raw.values():
    for row in np.frombuffer(content, np.uint8).reshape(-1, 3074):
      expected[as_floats(row[2:].reshape(3, 32, 32).transpose(1, 2, 0))] = row[1]
  got = labels_by_image(data.load('cifar100', seed=0, **TINY, data_dir=tmp_path))
  assert all(expected[image] == label for image, label in got.items())


def test_svhn_class_10_is_digit_0(tmp_path):
  write_svhn(tmp_path)
  expected = {}
  for file in ('train_32x32.mat', 'test_32x32.mat'):
    arrays = scipy.io.loadmat(tmp_path / 'svhn' / file)
    for i, label in enumerate(arrays['y'][:, 0]):
      expected[as_floats(arrays['X'][..., i])] = label % 10
  sizes = {'zoo_size': 9, 'pool_size': 1, 'test_size': 4}
  got = labels_by_image(data.load('svhn', seed=0, **sizes, data_dir=tmp_path))
  assert all(expected[image] == label for image, label in got.items())
  assert min(got.values()) == 0


def test_mnist_labels_follow_their_images(tmp_path):
  write_mnist(tmp_path)
  folder = tmp_path / 'mnist'
  expected = {}
  for part in ('train', 't10k'):
    x = np.frombuffer(
      (folder / f'{part}-images-idx3-ubyte').read_bytes()[16:], np.uint8
    )
    y = (folder / f'{part}-labels-idx1-ubyte').read_bytes()[8:]
    expected |= {as_floats(i): c for i, c in zip(x.reshape(-1, 28, 28, 1), y)}
  got = labels_by_image(data.load('mnist', seed=0, **TINY, data_dir=tmp_path))
  assert all(expected[image] == label for image, label in got.items())


def edit(file, change):
  """An operation on a data_dir that changes a file's content."""

  def apply(data_dir):
    path = data_dir / file
    path.write_bytes(change(path.read_bytes()))

  return apply


def swap(a, b):
  def apply(data_dir):
    first, second = (data_dir / a).read_bytes(), (data_dir / b).read_bytes()
    (data_dir / a).write_bytes(second)
    (data_dir / b).write_bytes(first)

  return apply


def copy(a, b):
  return lambda data_dir: shutil.copy(data_dir / a, data_dir / b)


def remove(file):
  return lambda data_dir: (data_dir / file).unlink()


def mat(file, **arrays):
  return lambda data_dir: scipy.io.savemat(data_dir / 'svhn' / file, arrays)


POINTER = b'version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n'
CIFAR100 = 'cifar-100-binary'
IMAGES, LABELS = 'train-images-idx3-ubyte', 'train-labels-idx1-ubyte'
X = np.zeros((32, 32, 3, 5), np.uint8)
Y = np.ones((5, 1), np.uint8)
DAMAGE = {
  'cifar10, missing': (
    'cifar10',
    remove(f'{FOLDER}/data_batch_4.bin'),
    'data_batch_4.bin is missing; .*data_batch_1.bin.*test_batch.bin',
  ),
  'cifar10, empty': (
    'cifar10',
    edit(f'{FOLDER}/test_batch.bin', lambda raw: b''),
    'test_batch.bin has 0 bytes; .*3073',
  ),
  'cifar10, cut': (
    'cifar10',
    edit(f'{FOLDER}/data_batch_4.bin', lambda raw: raw[:-1]),
    f'data_batch_4.bin has {3073 * PER_FILE - 1} bytes; .*3073',
  ),
  'cifar10, class': (
    'cifar10',
    edit(f'{FOLDER}/test_batch.bin', lambda raw: b'\x0a' + raw[1:]),
    'test_batch.bin holds class 10; .* 0 to 9',
  ),
  'cifar10, cut at a record': (
    'cifar10',
    edit(f'{FOLDER}/data_batch_3.bin', lambda raw: raw[:-3073]),
    r'data_batch_3.bin holds 3 records; it must hold 4, as data_batch_1.bin holds 4',
  ),
  'cifar10, the test file cut': (
    'cifar10',
    edit(f'{FOLDER}/test_batch.bin', lambda raw: raw[:3073]),
    r'test_batch.bin holds 1 records; it must hold 4, .* truncated',
  ),
  'cifar10, the first file cut': (
    'cifar10',
    edit(f'{FOLDER}/data_batch_1.bin', lambda raw: raw[:3073]),
    r'data_batch_1.bin holds 1 records; it must hold 4, as data_batch_2.bin',
  ),
  'cifar10, a file twice': (
    'cifar10',
    copy(f'{FOLDER}/data_batch_1.bin', f'{FOLDER}/data_batch_2.bin'),
    r'data_batch_2.bin is the same as data_batch_1.bin',
  ),
  'cifar10, of cifar100': (
    'cifar10',
    edit(f'{FOLDER}/data_batch_2.bin', lambda raw: bytes(3074 * 5)),
    r'data_batch_2.bin has 15370 bytes; .* not a CIFAR-10 file',
  ),
  'cifar100, cut': (
    'cifar100',
    edit(f'{CIFAR100}/train.bin', lambda raw: raw[:-7]),
    r'train.bin has 30733 bytes; .* 3074 bytes, .* truncated or not a CIFAR-100 file',
  ),
  'cifar100, cut at a record': (
    'cifar100',
    edit(f'{CIFAR100}/train.bin', lambda raw: raw[:-3074]),
    r'train.bin holds 9 records; it must hold 10, as test.bin holds 2',
  ),
  'cifar100, swapped': (
    'cifar100',
    swap(f'{CIFAR100}/train.bin', f'{CIFAR100}/test.bin'),
    r'train.bin holds 2 records; .* as test.bin holds 10, .* swapped',
  ),
  'cifar100, class': (
    'cifar100',
    edit(f'{CIFAR100}/test.bin', lambda raw: b'\x00\x64' + raw[2:]),
    r'test.bin holds class 100; classes must be 0 to 99',
  ),
  'cifar100, coarse class': (
    'cifar100',
    edit(f'{CIFAR100}/test.bin', lambda raw: b'\x14' + raw[1:]),
    r'test.bin holds coarse class 20; classes must be 0 to 19',
  ),
  'svhn, cut': (
    'svhn',
    edit('svhn/train_32x32.mat', lambda raw: raw[: len(raw) // 2]),
    r'train_32x32.mat is truncated, corrupt or no MATLAB file',
  ),
  'svhn, empty': (
    'svhn',
    edit('svhn/test_32x32.mat', lambda raw: b''),
    r'test_32x32.mat is truncated, corrupt or no MATLAB file',
  ),
  'svhn, tag': (
    'svhn',
    lambda data_dir: [
      mat('test_32x32.mat', X=X, y=Y)(data_dir),
      edit('svhn/test_32x32.mat', lambda raw: raw[:184] + b'\xff' + raw[185:])(
        data_dir
      ),
    ],
    r'test_32x32.mat is truncated, corrupt or no MATLAB file',
  ),
  'svhn, no y': (
    'svhn',
    mat('test_32x32.mat', X=X, labels=Y),
    r"test_32x32.mat lacks \['y'\], of X and y it holds \['X'\]",
  ),
  'svhn, shape': (
    'svhn',
    mat('test_32x32.mat', X=X.T, y=Y),
    r'test_32x32.mat holds X of type uint8 and shape \(5, 3, 32, 32\); .*32, 32, 3, N',
  ),
  'svhn, type': (
    'svhn',
    mat('test_32x32.mat', X=X / 255, y=Y),
    r'test_32x32.mat holds X of type float64 .* must be uint8',
  ),
  'svhn, labels': (
    'svhn',
    mat('test_32x32.mat', X=X, y=Y[1:]),
    r'test_32x32.mat holds y of shape \(4, 1\); it must be \(5, 1\)',
  ),
  'svhn, class': (
    'svhn',
    mat('test_32x32.mat', X=X, y=Y - 1),
    r'test_32x32.mat holds class 0; classes must be 1 to 10',
  ),
  'svhn, swapped': (
    'svhn',
    swap('svhn/train_32x32.mat', 'svhn/test_32x32.mat'),
    r'svhn in .* holds 4 training and 10 test images; .* swapped',
  ),
  'svhn, a file twice': (
    'svhn',
    copy('svhn/train_32x32.mat', 'svhn/test_32x32.mat'),
    r'test_32x32.mat is the same as train_32x32.mat',
  ),
  'mnist, missing': (
    'mnist',
    remove(f'mnist/{LABELS}'),
    rf'{LABELS}.gz is missing; mnist must hold {IMAGES}.gz, {LABELS}.gz, t10k-',
  ),
  'mnist, cut': (
    'mnist',
    edit(f'mnist/{IMAGES}', lambda raw: raw[:-784]),
    rf'{IMAGES} has 7072 bytes.*\[10, 28, 28\] asks for 7856',
  ),
  'mnist, cut in the header': (
    'mnist',
    edit(f'mnist/{IMAGES}', lambda raw: raw[:10]),
    rf'{IMAGES} has 10 bytes.* truncated',
  ),
  'mnist, no images': (
    'mnist',
    edit(f'mnist/{IMAGES}', lambda raw: idx(np.zeros((0, 28, 28)))),
    rf'{IMAGES} has 16 bytes.* at least one',
  ),
  'mnist, empty': (
    'mnist',
    edit(f'mnist/{LABELS}', lambda raw: b''),
    rf"{LABELS} starts with bytes ''; .* '00000801'",
  ),
  'mnist, labels for images': (
    'mnist',
    swap(f'mnist/{IMAGES}', f'mnist/{LABELS}'),
    rf"{IMAGES} starts with bytes '00000801'; an IDX file of images .* '00000803'",
  ),
  'mnist, other size': (
    'mnist',
    edit(f'mnist/{IMAGES}', lambda raw: idx(np.zeros((10, 32, 30)))),
    rf'{IMAGES} holds images of 32 x 30 pixels; they must be 28 x 28',
  ),
  'mnist, class': (
    'mnist',
    edit(f'mnist/{LABELS}', lambda raw: raw[:-1] + b'\x0a'),
    rf'{LABELS} holds class 10; classes must be 0 to 9',
  ),
  'mnist, labels swapped': (
    'mnist',
    swap(f'mnist/{LABELS}', 'mnist/t10k-labels-idx1-ubyte'),
    rf'{LABELS} holds 4 labels and {IMAGES} 10 images',
  ),
  'mnist, train and test swapped': (
    'mnist',
    lambda data_dir: [
      swap(f'mnist/{file}', f'mnist/{file.replace("train", "t10k")}')(data_dir)
      for file in (IMAGES, LABELS)
    ],
    r'mnist in .* holds 4 training and 10 test images; .* swapped',
  ),
  'mnist, a file twice': (
    'mnist',
    lambda data_dir: [
      copy(f'mnist/{file}', f'mnist/{file.replace("train", "t10k")}')(data_dir)
      for file in (IMAGES, LABELS)
    ],
    rf't10k-images-idx3-ubyte is the same as {IMAGES}',
  ),
  'fashion_mnist, cut': (
    'fashion_mnist',
    edit(f'fashion_mnist/{IMAGES}.gz', lambda raw: raw[:-20]),
    rf'{IMAGES}.gz is truncated, corrupt or no gzip file',
  ),
  'fashion_mnist, corrupt': (
    'fashion_mnist',
    edit(f'fashion_mnist/{IMAGES}.gz', lambda raw: raw[:500] + b'ab' + raw[502:]),
    rf'{IMAGES}.gz is truncated, corrupt or no gzip file',
  ),
  'fashion_mnist, corrupt without suffix': (
    'fashion_mnist',
    lambda data_dir: [
      edit(f'fashion_mnist/{IMAGES}.gz', lambda raw: raw[:-20])(data_dir),
      (data_dir / f'fashion_mnist/{IMAGES}.gz').rename(
        data_dir / f'fashion_mnist/{IMAGES}'
      ),
    ],
    rf'{IMAGES} is truncated, corrupt or no gzip file',
  ),
  'mnist, of 0 and 1': (
    'mnist',
    edit(f'mnist/{IMAGES}', lambda raw: raw[:16] + bytes(b & 1 for b in raw[16:])),
    r'the training images of mnist in .* are bytes of which the largest is 1; 0 to 255',
  ),
  'mnist, pointer': (
    'mnist',
    edit(f'mnist/{IMAGES}', lambda raw: POINTER),
    rf'{IMAGES} is a Git LFS pointer, not the file itself',
  ),
  'cifar10, pointer': (
    'cifar10',
    edit(f'{FOLDER}/data_batch_2.bin', lambda raw: POINTER),
    r'data_batch_2.bin is a Git LFS pointer',
  ),
  'fashion_mnist, page': (
    'fashion_mnist',
    edit(f'fashion_mnist/{IMAGES}.gz', lambda raw: gzip.compress(b'<html>')),
    rf'{IMAGES}.gz is an HTML or XML page',
  ),
  'svhn, page': (
    'svhn',
    edit('svhn/test_32x32.mat', lambda raw: b'<!DOCTYPE html><html>404'),
    r'test_32x32.mat is an HTML or XML page',
  ),
}


@pytest.mark.parametrize('case', DAMAGE)
def test_damaged_files_are_named(case, tmp_path, no_download):
  name, damage, message = DAMAGE[case]
  OFFICIAL[name](tmp_path)
  damage(tmp_path)
  with pytest.raises(ValueError, match=message):
    data.load(name, seed=0, **TINY, data_dir=tmp_path)


@pytest.mark.parametrize(
  ('name', 'file', 'owner'),
  [
    ('cifar10', f'{FOLDER}/data_batch_1.bin', ('cifar10', 'test_batch.bin')),
    ('mnist', f'mnist/{IMAGES}', ('fashion_mnist', f'{IMAGES}.gz')),
  ],
)
def test_official_file_under_another_name(name, file, owner, tmp_path, monkeypatch):
  OFFICIAL[name](tmp_path)
  md5 = hashlib.md5((tmp_path / file).read_bytes()).hexdigest()
  set_source(
    monkeypatch, SOURCES[owner[0]], files=SOURCES[owner[0]].files | {owner[1]: md5}
  )
  message = rf'{file} is the official {owner[1]} of {owner[0]}; .* swapped'
  with pytest.raises(ValueError, match=message):
    data.load(name, seed=0, **TINY, data_dir=tmp_path)


def test_no_data_dir(no_download):
  for name, source in SOURCES.items():
    message = f'data_dir is None; {name} needs .*{source.folder}'
    with pytest.raises(ValueError, match=message):
      data.load(name, seed=0, **TINY)


@pytest.mark.parametrize('name', SOURCES)
def test_offline_says_what_to_put_where(name, tmp_path, monkeypatch):
  def fail(url, known_hash, *, path, **kwargs):
    assert known_hash in {f'md5:{md5}' for md5 in source.downloads.values()}
    assert tmp_path / 'new' in pathlib.Path(path).parents
    pathlib.Path(path).mkdir(exist_ok=True)
    (pathlib.Path(path) / 'partial').write_bytes(b'half')
    raise requests.ConnectionError('no route')

  source = SOURCES[name]
  monkeypatch.setattr(pooch, 'retrieve', fail)
  with pytest.raises(ValueError, match='no route') as error:
    data.load(name, seed=0, **TINY, data_dir=tmp_path / 'new')
  for part in (*source.files, *source.downloads, str(tmp_path / 'new' / source.folder)):
    assert part in str(error.value)
  assert not list(tmp_path.iterdir())


@pytest.fixture
def publisher(monkeypatch):
  """Lets a folder stand in for the publishers' servers."""

  def start(folder):
    def retrieve(url, known_hash, *, fname, path, progressbar):
      assert progressbar
      path = pathlib.Path(path)
      path.mkdir(exist_ok=True)
      content = (folder / url.rpartition('/')[2]).read_bytes()
      if f'md5:{hashlib.md5(content).hexdigest()}' != known_hash:
        raise ValueError(f'{url} has another hash')
      (path / fname).write_bytes(content)
      return str(path / fname)

    monkeypatch.setattr(pooch, 'retrieve', retrieve)
    return {p.name: hashlib.md5(p.read_bytes()).hexdigest() for p in folder.iterdir()}

  return start


def test_download_of_files(tmp_path, publisher, monkeypatch):
  there, here = tmp_path / 'there', tmp_path / 'here'
  there.mkdir()
  write_fashion(there)
  source = SOURCES['fashion_mnist']
  files = publisher(there / source.folder)
  *good, last = source.files
  official = {f: files[f] for f in good}
  set_source(monkeypatch, source, files=official | {last: '0'})
  with pytest.raises(ValueError, match=f'{last} has another hash'):
    data.load(source.name, seed=0, **TINY, data_dir=here)
  assert not here.exists()
  set_source(monkeypatch, source, files=official | {last: files[last]})
  downloaded = data.load(source.name, seed=0, **TINY, data_dir=here)
  assert tree(here) == tree(there)
  assert_same(downloaded, data.load(source.name, seed=0, **TINY, data_dir=there))


def arrays(**changes):
  rng = np.random.default_rng(4)
  made = {
    'x_train': rng.integers(0, 256, (12, 5, 6, 2), np.uint8),
    'y_train': np.arange(12) % 3,
    'x_test': rng.integers(0, 256, (4, 5, 6, 2), np.uint8),
    'y_test': np.arange(4) % 3,
  }
  return {k: v for k, v in (made | changes).items() if v is not None}


def save_npz(folder, **changes):
  np.savez_compressed(folder / 'my.npz', **arrays(**changes))
  return folder / 'my.npz'


def test_npz_of_bytes(tmp_path):
  raw = arrays()
  sizes = {'zoo_size': 4, 'pool_size': 4, 'test_size': 4, 'profile_size': 4}
  splits = data.load('npz', seed=0, **sizes, data_dir=save_npz(tmp_path))
  check(splits, sizes, (5, 6, 2), 3)
  expected = {as_floats(x): y for x, y in zip(raw['x_train'], raw['y_train'])}
  expected |= {as_floats(x): y for x, y in zip(raw['x_test'], raw['y_test'])}
  assert all(expected[x] == y for x, y in labels_by_image(splits).items())


@pytest.mark.parametrize('kind', [np.float16, np.float32, np.float64])
def test_npz_of_floats_without_channels(kind, tmp_path):
  rng = np.random.default_rng(0)
  raw = {n: rng.random((k, 5, 6)).astype(kind) for n, k in (('train', 12), ('test', 4))}
  path = save_npz(
    tmp_path,
    x_train=raw['train'],
    x_test=raw['test'],
    y_train=np.arange(12, dtype=np.int8)[:, None] % 3,
  )
  with pytest.warns(
    UserWarning, match=r'npz in .*my.npz has no image of class 3, 4, 5, 6'
  ):
    splits = data.load('npz', seed=0, **TINY, data_dir=path, num_classes=7)
  check(splits, TINY, (5, 6, 1), 7)
  assert contents(splits.test_x) <= contents(raw['test'].astype(np.float32))


def test_npz_drops_duplicates(tmp_path):
  x = arrays()['x_train']
  x[1] = x[0]
  path = save_npz(tmp_path, x_train=x, x_test=x[8:])
  with pytest.raises(ValueError, match='at most 11, .* training images of npz'):
    data.load('npz', seed=0, **{**TINY, 'zoo_size': 8}, data_dir=path)
  with pytest.raises(ValueError, match=r'test_size \(2\) is too large; .* at most 0'):
    data.load('npz', seed=0, **TINY, data_dir=path)


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    (
      {'y_test': None, 'x_train': None, 'x': X},
      r"my.npz lacks \['x_train', 'y_test'\]; it holds \['y_train', 'x_test', 'x'\]",
    ),
    (
      {'x_train': np.zeros((12, 5, 6, 2), np.int64)},
      r'x_train is of type int64; .*uint8',
    ),
    (
      {'x_test': np.zeros((4, 60), np.uint8)},
      r'x_test is of shape \(4, 60\); .*N, H, W',
    ),
    ({'x_test': np.zeros((0, 5, 6, 2), np.uint8)}, r'x_test is of shape .* not empty'),
    (
      {'x_test': np.zeros((4, 6, 6, 2), np.uint8)},
      r'x_test holds images of shape \(6, 6, 2\) and x_train of \(5, 6, 2\)',
    ),
    (
      {'x_test': np.zeros((4, 5, 6, 2))},
      r'x_test is of type float64 and x_train of uint8; both',
    ),
    ({'x_train': np.full((12, 5, 6, 2), np.nan)}, r'x_train\[0, .* is nan; .*\[0, 1\]'),
    ({'y_train': np.arange(12) / 2}, r'y_train is of type float64; .* whole numbers'),
    ({'y_train': np.array(3)}, r'y_train is of shape \(\); it must be \(12,\)'),
    ({'y_test': np.arange(5)}, r'y_test is of shape \(5,\); it must be \(4,\)'),
    (
      {'y_test': np.array([0, 1, -1, 2])},
      r'y_test\[2\] is -1; y_test must be 0 to \d+',
    ),
    (
      {'y_train': np.zeros(12, int), 'y_test': np.zeros(4, int)},
      r'num_classes is 1; it must be a whole number >= 2',
    ),
    (
      {'y_train': np.array([None] * 12)},
      r'y_train in .*my.npz holds Python objects; it must hold numbers',
    ),
    (
      {'x_train': np.zeros((12, 3, 5, 6), np.uint8)},
      r'x_train .* shape \(3, 5, 6\), which look like channels first; .*\(0, 2, 3, 1\)',
    ),
    (
      {'x_train': np.zeros((5, 6, 2, 12), np.uint8)},
      r'y_train is of shape \(12,\); it must be \(5,\) .* along the last axis',
    ),
    (
      {'y_train': np.eye(3)[np.arange(12) % 3]},
      r'y_train is of shape \(12, 3\), as one-hot rows are; .*y_train.argmax\(1\)',
    ),
    (
      {'y_train': np.arange(12.0)},
      r'type float64; .*numbers \(y_train.astype\(int\)\)',
    ),
    ({'y_train': np.array(['cat'] * 12)}, r'y_train is of type <U3; .* whole numbers$'),
    (
      {'y_test': np.array([0, 1, 2, 2**31])},
      r'y_test\[3\] is 2147483648; y_test must be 0 to 2147483646',
    ),
    (
      {'x_train': np.full((12, 5, 6, 2), 200.0)},
      r'x_train.* is 200.0; .* in \[0, 1\] .* \(divide them by 255\)',
    ),
    (
      {'x_train': np.linspace(-2, 2, 720).reshape(12, 5, 6, 2)},
      r'x_train.* is -2.0; .* in \[0, 1\] .*standardised',
    ),
    (
      {'x_train': arrays()['x_train'] // 128},
      r'the training images of npz in .*my.npz are bytes of which the largest is 1; 0',
    ),
  ],
)
def test_bad_npz(changes, message, tmp_path):
  with pytest.raises(ValueError, match=message):
    data.load('npz', seed=0, **TINY, data_dir=save_npz(tmp_path, **changes))


@pytest.mark.parametrize(
  ('num_classes', 'message'),
  [
    (2, r'y_train\[2\] is 2; y_train must be 0 to 1'),
    (1, r'num_classes is 1; it must be a whole number >= 2'),
    (3.0, r'num_classes is 3\.0; it must be a whole number'),
  ],
)
def test_bad_npz_num_classes(num_classes, message, tmp_path):
  path = save_npz(tmp_path)
  with pytest.raises(ValueError, match=message):
    data.load('npz', seed=0, **TINY, data_dir=path, num_classes=num_classes)


@pytest.mark.parametrize(
  'damage', [lambda raw: raw[:-40], lambda raw: b'', lambda r: X]
)
def test_damaged_npz(damage, tmp_path):
  path = save_npz(tmp_path)
  path.write_bytes(damage(path.read_bytes()))
  with pytest.raises(ValueError, match=r'my.npz is truncated, corrupt or no .npz file'):
    data.load('npz', seed=0, **TINY, data_dir=path)


@pytest.mark.parametrize(
  ('raw', 'message'),
  [
    (POINTER, 'my.npz is a Git LFS pointer'),
    (b'\n<html><body>', 'my.npz is an HTML or XML page'),
    (b'\x93NUMPY\x01\0', r'no .npz file, but an array of numpy.save; .*numpy.savez'),
    (
      pickle.dumps({'x_train': 1}),
      'no .npz file; it must be of numpy.savez and hold x_',
    ),
  ],
)
def test_npz_that_is_another_file(raw, message, tmp_path):
  (tmp_path / 'my.npz').write_bytes(raw)
  with pytest.raises(ValueError, match=message) as caught:
    data.load('npz', seed=0, **TINY, data_dir=tmp_path / 'my.npz')
  assert 'pickle' not in str(caught.value)


@pytest.mark.filterwarnings('ignore:.*npz')  # one of several is looked for
@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    (
      {'x_train': arrays()['x_train'] % 16},
      'training .* bytes of at most 15; 0 to 255',
    ),
    (
      {'x_test': arrays()['x_test'] % 128},
      'the test images .* bytes of at most 127; 0',
    ),
    (
      {n: arrays()[n] / 255 / 255 for n in ('x_train', 'x_test')},
      r'floats of at most 0\.0039\d, so they may be divided by 255 twice; 0 to 1 is',
    ),
    (
      {n: arrays()[n] / 1000 for n in ('x_train', 'x_test')},
      r'floats of at most 0\.25\d; 0 to 1 is expected',
    ),
    (
      {
        'x_test': np.arange(0, 200, 50, np.uint8)[:, None, None, None]
        + np.zeros((5, 6, 2), np.uint8)
      },
      'the test images .*my.npz hold 4 of 4 in which all pixels are .*, 1 of them b',
    ),
    (
      {'y_train': np.arange(12) % 2 + 1, 'y_test': np.ones(4, int)},
      'has no image of class 0; its classes are 0 to 2',
    ),
    (
      {'y_train': np.array([2, 255, 5] * 4), 'y_test': np.array([0, 2, 4, 5])},
      r'in .*my.npz has no image of class 1, 3, 6, .*, 13 and 241 more; .* to 255$',
    ),
    (
      {'y_train': np.arange(12) % 3, 'y_test': np.array([0, 3, 4, 6])},
      r'my.npz has no training image, but test images, of class 3, 4, 6$',
    ),
    (
      {'y_train': 2**30 * np.arange(12) % 2**31, 'y_test': np.array([2**31 - 2] * 4)},
      r'no image of class 1, 2, .*, 10 and \d+ more; .* are 0 to 2147483646',
    ),
  ],
)
@pytest.mark.filterwarnings('default')
def test_odd_npz_is_warned_of(changes, message, tmp_path):
  path = save_npz(tmp_path, **changes)
  sizes = {**TINY, 'test_size': 1}
  with pytest.warns(UserWarning, match=message) as caught:
    data.load('npz', seed=0, **sizes, data_dir=path)
  assert {warning.filename for warning in caught} == {__file__}


@pytest.mark.filterwarnings('default')
def test_many_bands_that_look_like_channels_first(tmp_path):
  rng = np.random.default_rng(0)
  x = rng.integers(0, 256, (16, 6, 9, 9), np.uint8)
  path = save_npz(tmp_path, x_train=x[:12], x_test=x[12:])
  with pytest.warns(
    UserWarning, match=r'shape \(6, 9, 9\), which looks like channels f'
  ):
    data.load('npz', seed=0, **TINY, data_dir=path)


def test_a_few_constant_images_are_no_warning(tmp_path):
  x = np.random.default_rng(0).integers(0, 256, (200, 5, 6, 2), np.uint8)
  x[0] = 7
  path = save_npz(tmp_path, x_train=x, y_train=np.arange(200) % 3)
  data.load('npz', seed=0, **TINY, data_dir=path)


def test_npz_without_file(tmp_path):
  with pytest.raises(
    ValueError, match='data_dir is None; npz needs the path .*x_train'
  ):
    data.load('npz', seed=0, **TINY)
  for path in (tmp_path, tmp_path / 'absent.npz'):
    with pytest.raises(ValueError, match=f"'{path}', which is no file; .*x_train"):
      data.load('npz', seed=0, **TINY, data_dir=path)


OTHER = {'channels': 1, 'image_size': 4, 'num_classes': 3, 'difficulty': 0}


def synthetic(seed=0, **arguments):
  sizes = {'zoo_size': 40, 'pool_size': 30, 'test_size': 20}
  return data.load('synthetic', **{'seed': seed, 'image_size': 8, **sizes, **arguments})


def test_synthetic_is_told_by_seed_and_fields():
  splits = synthetic(data_dir='ignored')
  sizes = {'zoo_size': 40, 'pool_size': 30, 'test_size': 20}
  check(splits, sizes, (8, 8, 3))
  assert splits.name == 'synthetic'
  assert_same(splits, synthetic())
  assert contents(splits.zoo_x) != contents(synthetic(seed=1).zoo_x)
  check(synthetic(**OTHER), sizes, (4, 4, 1), 3)


def test_synthetic_larger_splits_start_with_smaller_ones():
  small = synthetic()
  large = synthetic(zoo_size=300, pool_size=31, test_size=700)
  for field in ('zoo_x', 'zoo_y', 'pool_x', 'test_x', 'test_y'):
    part = getattr(small, field)
    np.testing.assert_array_equal(getattr(large, field)[: len(part)], part)
  assert len(contents(large.test_x)) == 700
  assert set(large.test_y) == set(range(10))


def test_synthetic_difficulty():
  accuracies = []
  for difficulty in (0.0, 0.4, 0.6, 0.8, 1.0):
    s = synthetic(zoo_size=1500, test_size=1500, difficulty=difficulty)
    means = np.stack([s.zoo_x[s.zoo_y == k].mean(0) for k in range(10)])
    distances = ((s.test_x[:, None] - means) ** 2).sum((2, 3, 4))
    accuracies.append(np.mean(distances.argmin(1) == s.test_y))
  assert accuracies[0] > 0.99
  assert np.all(np.diff(accuracies[:4]) < -0.04)
  # 0.1 by guessing, with a standard error of 0.008.
  assert abs(accuracies[-1] - 0.1) < 0.03


@pytest.mark.parametrize(
  ('bad', 'message'),
  [
    ({'image_size': 3}, r'image_size is 3; it must be at least 4'),
    ({'image_size': 8.0}, r'image_size is 8\.0; .* whole number'),
    ({'channels': 0}, r'channels is 0; .* >= 1'),
    ({'num_classes': 1}, r'num_classes is 1; .* >= 2'),
    ({'difficulty': -0.1}, r'difficulty is -0\.1; .* in \[0, 1\]'),
    ({'difficulty': 50}, r'difficulty is 50\.0; .* percent'),
    ({'difficulty': float('nan')}, r'difficulty is nan; .* in \[0, 1\]'),
    ({'difficulty': [0.5]}, r'difficulty is \[0\.5\]; .* in \[0, 1\]'),
    ({'difficulty': 'hard'}, r"difficulty must hold numbers, got 'hard'"),
  ],
)
def test_bad_synthetic(bad, message):
  with pytest.raises(ValueError, match=message):
    synthetic(**bad)


@pytest.mark.parametrize('name', ['digits', 'cifar10', 'synthetic'])
def test_profile_images_change_no_other_split(name, cifar_dir):
  sizes = {'zoo_size': 4, 'pool_size': 3, 'test_size': 2}
  fields = {'image_size': 8} if name == 'synthetic' else {}
  load = functools.partial(
    data.load, name, seed=3, data_dir=cifar_dir, **sizes, **fields
  )
  without, with_two, with_three = load(), load(profile_size=2), load(profile_size=3)
  shape = without.zoo_x.shape[1:]
  assert without.profile_x.shape == (0, *shape)
  assert without.profile_y.shape == (0,)
  assert_same(without, with_three)
  check(with_three, {**sizes, 'profile_size': 3}, shape)
  np.testing.assert_array_equal(with_three.profile_x[:2], with_two.profile_x)


def test_sizes_too_large(cifar_dir):
  with pytest.raises(
    ValueError,
    match=r'zoo_size \(6\) \+ pool_size \(7\) \+ profile_size \(8\) is 21; it must be '
    'at most 20, the number of different training images of cifar10',
  ):
    data.load('cifar10', data_dir=cifar_dir, seed=0, **SIZES, profile_size=8)
  with pytest.raises(
    ValueError, match=r'test_size \(5\) is too large; .* most 4, .*test'
  ):
    data.load('cifar10', data_dir=cifar_dir, seed=0, **{**SIZES, 'test_size': 5})
  with pytest.raises(ValueError, match=r'\+ test_size \(98\) is 1798; .* most 1797'):
    data.load('digits', seed=0, zoo_size=1000, pool_size=700, test_size=98)


def test_files_that_a_data_set_reads(tmp_path, no_download):
  for write_one in OFFICIAL.values():
    write_one(tmp_path)
  assert data.files('npz', tmp_path / 'my.npz') == []
  path = save_npz(tmp_path)
  assert data.files('npz', str(path)) == [path]
  for name, source in SOURCES.items():
    found = data.files(name, tmp_path)
    assert [p.name.removesuffix('.gz') for p in found] == [
      file.removesuffix('.gz') for file in source.files
    ]
    assert all(p.is_file() and p.parent == tmp_path / source.folder for p in found)
    assert data.files(name, tmp_path / 'absent') == []
  for name in ('digits', 'synthetic', 'npz', 'mnist'):
    assert data.files(name, None) == []
  shutil.copy(tmp_path / f'fashion_mnist/{IMAGES}.gz', tmp_path / 'mnist')
  assert data.files('mnist', tmp_path)[0] == tmp_path / 'mnist' / IMAGES
  with pytest.raises(ValueError, match="name is 'minst' .*did you mean 'mnist'"):
    data.files('minst', tmp_path)


@pytest.mark.parametrize(
  'load', [functools.partial(data.load, seed=0, **TINY), data.files]
)
@pytest.mark.parametrize('path', ['gs://bucket/x', pathlib.Path('s3://bucket/x'), ''])
def test_data_dir_is_a_path_of_this_machine(load, path, no_download):
  with pytest.raises(ValueError, match='data_dir is .*it must be a path'):
    load('npz', data_dir=path)


def test_data_dir_in_the_home(tmp_path, monkeypatch):
  monkeypatch.setenv('HOME', str(tmp_path))
  path = save_npz(tmp_path)
  data.load('npz', seed=0, **TINY, data_dir='~/my.npz')
  assert data.files('npz', '~/my.npz') == [path]


def test_failed_download_leaves_other_files(tmp_path, monkeypatch):
  def fail(*args, **kwargs):
    raise OSError('no route')

  monkeypatch.setattr(pooch, 'retrieve', fail)
  monkeypatch.setenv('HOME', str(tmp_path))
  (tmp_path / 'data').mkdir()
  (tmp_path / 'data' / 'notes').write_text('mine')
  for data_dir in ('~/data', '~/data/new/deep'):
    with pytest.raises(ValueError, match='no route'):
      data.load('svhn', seed=0, **TINY, data_dir=data_dir)
  assert [p.name for p in tmp_path.rglob('*')] == ['data', 'notes']


@pytest.mark.parametrize('suffix', ['', '.gz'])
def test_content_says_whether_a_file_is_packed(suffix, tmp_path, no_download):
  def twice(raw):
    return gzip.compress(gzip.compress(raw))

  wanted = None
  for pack in (lambda raw: raw, gzip.compress, twice):
    here = tmp_path / pack.__name__
    here.mkdir()
    write_mnist(here, pack=pack, suffix=suffix)
    found = data.load('mnist', seed=0, **TINY, data_dir=here)
    assert_same(found, wanted or found)
    wanted = found


def test_a_packed_file_of_svhn(tmp_path, no_download):
  write_svhn(tmp_path)
  wanted = data.load('svhn', seed=0, **TINY, data_dir=tmp_path)
  path = tmp_path / 'svhn' / 'test_32x32.mat'
  path.with_suffix('.mat.gz').write_bytes(gzip.compress(path.read_bytes()))
  path.unlink()
  assert_same(wanted, data.load('svhn', seed=0, **TINY, data_dir=tmp_path))


def test_published_content_without_its_suffix_is_official(tmp_path, monkeypatch):
  told = []
  monkeypatch.setattr(
    absl.logging, 'warning', lambda text, *values: told.append(values[1])
  )
  write_mnist(tmp_path, pack=functools.partial(gzip.compress, mtime=0))
  files = {
    f'{p.name}.gz': hashlib.md5(p.read_bytes()).hexdigest()
    for p in data.files('mnist', tmp_path)
  }
  set_source(monkeypatch, SOURCES['mnist'], files=files)
  data.load('mnist', seed=0, **TINY, data_dir=tmp_path)
  assert told == []
  set_source(monkeypatch, SOURCES['mnist'], files=files | {f'{IMAGES}.gz': '0' * 32})
  data.load('mnist', seed=0, **TINY, data_dir=tmp_path)
  assert told == [f'{IMAGES}.gz']


def test_synthetic_keys_are_of_no_other_purpose(monkeypatch):
  def words(keys):
    return set(
      map(tuple, np.asarray(jax.random.key_data(keys)).reshape(-1, 2).tolist())
    )

  def children(key):
    return words(jax.vmap(functools.partial(jax.random.fold_in, key))(jnp.arange(256)))

  used = []
  make, prototypes = _synthetic._make, _synthetic._prototypes
  monkeypatch.setattr(
    _synthetic, '_make', lambda key, *a: [used.append(key), make(key, *a)][1]
  )
  monkeypatch.setattr(
    _synthetic,
    '_prototypes',
    lambda key, *a: [used.append(key), prototypes(key, *a)][1],
  )
  synthetic(profile_size=3)
  assert len(used) == 5
  ours = [words(used[i]) | children(used[i]) for i in range(5)]
  others = [words(jax.random.key(0)), children(jax.random.key(0))]
  for name in _keys.PURPOSES:
    key = _keys.purpose(0, name)
    others.append(words(key))
    if name != 'data':
      others.append(children(key))
  assert not set.union(*ours) & set.union(*others)
  assert len(set.union(*ours)) == 5 * 257


def test_synthetic_under_wide_types_and_strict_promotion():
  wanted = synthetic(profile_size=3, **OTHER)
  with jax.enable_x64(True), jax.numpy_dtype_promotion('strict'):
    got = synthetic(profile_size=3, **OTHER)
  sizes = {'zoo_size': 40, 'pool_size': 30, 'test_size': 20, 'profile_size': 3}
  check(got, sizes, (4, 4, 1), 3)
  for field in ('zoo_x', 'zoo_y', 'pool_x', 'test_x', 'profile_x', 'profile_y'):
    np.testing.assert_allclose(getattr(got, field), getattr(wanted, field), atol=1e-6)
