"""CIFAR-10 (Krizhevsky 2009) in its official binary layout."""

import pathlib
import shutil
import tempfile

import numpy as np
import pooch

from psml_jax.data._splits import Splits, check_arguments, first_of_each, take

_URL = 'https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz'
_HASH = 'md5:c32a1d4ab5d03f1284b67883e8d87530'
_FOLDER = 'cifar-10-batches-bin'
_TRAIN = tuple(f'data_batch_{i}.bin' for i in range(1, 6))
_TEST = 'test_batch.bin'
_FILES = ', '.join((*_TRAIN, _TEST))
_SHAPE = (3, 32, 32)
_RECORD = 1 + 3 * 32 * 32


def cifar10(
  data_dir: str | pathlib.Path | None,
  *,
  seed: int,
  zoo_size: int,
  pool_size: int,
  test_size: int,
) -> Splits:
  """Splits CIFAR-10, downloading it where its folder is absent.

  The zoo's and the attacker's images come from the five training files, the test
  images from the test file. Of images with the same pixels only the first is kept,
  in the order data_batch_1 to 5, then test_batch; near-duplicates stay. A copy of
  CIFAR-10 re-encoded as JPEG has no exact duplicates: 50,000 and 10,000 images remain.
  Files may hold fewer records than the official 10,000.

  Args:
    data_dir: the folder that holds `cifar-10-batches-bin`, or is to hold it; it is
      created for the download (about 170 MB) where it does not exist.
    seed: of the shuffles before the split.
    zoo_size: images that the zoo trains on.
    pool_size: images of the attacker.
    test_size: images to measure on.

  Returns:
    The splits, images f32[., 32, 32, 3], 10 classes.

  Raises:
    ValueError: no `data_dir`; files that are absent and cannot be downloaded; a file
      that is missing, truncated or holds classes above 9; a seed or size that is not
      a whole number in range, or sizes that are too large.
  """
  check_arguments(seed, zoo_size=zoo_size, pool_size=pool_size, test_size=test_size)
  if data_dir is None:
    raise ValueError(
      f'data_dir is None; cifar10 needs the folder that holds {_FOLDER}, or one to '
      'download it to'
    )
  folder = pathlib.Path(data_dir) / _FOLDER
  if not folder.is_dir():
    _download(folder)
  train = np.concatenate([_read(folder / name) for name in _TRAIN])
  test = _read(folder / _TEST)
  kept_train, kept_test = first_of_each(train[:, 1:], test[:, 1:])
  rng = np.random.default_rng(seed)
  zoo, pool = take(
    'training images of cifar10',
    rng.permutation(kept_train),
    zoo_size=zoo_size,
    pool_size=pool_size,
  )
  (held_out,) = take(
    'test images of cifar10', rng.permutation(kept_test), test_size=test_size
  )
  return Splits(
    zoo_x=_images(train[zoo]),
    zoo_y=train[zoo, 0].astype(np.int32),
    pool_x=_images(train[pool]),
    test_x=_images(test[held_out]),
    test_y=test[held_out, 0].astype(np.int32),
    num_classes=10,
    name='cifar10',
  )


def _images(records: np.ndarray) -> np.ndarray:
  pixels = records[:, 1:].reshape(-1, *_SHAPE).transpose(0, 2, 3, 1)
  return np.divide(pixels, 255, dtype=np.float32, order='C')


def _read(path: pathlib.Path) -> np.ndarray:
  if not path.is_file():
    raise ValueError(f'{path} is missing; {_FOLDER} must hold {_FILES}')
  raw = np.fromfile(path, np.uint8)
  if not raw.size or raw.size % _RECORD:
    raise ValueError(
      f'{path} has {raw.size} bytes; it must be one or more whole records of '
      f'{_RECORD} bytes, so it is truncated or not a CIFAR-10 file'
    )
  records = raw.reshape(-1, _RECORD)
  if records[:, 0].max() > 9:
    raise ValueError(
      f'{path} holds class {records[:, 0].max()}; classes must be 0 to 9, so it is '
      'corrupt or not a CIFAR-10 file'
    )
  return records


def _download(folder: pathlib.Path) -> None:
  """Puts the official files into `folder`: all of them, verified, or none."""
  data_dir = folder.parent
  try:
    data_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=data_dir, prefix='.cifar10-') as scratch:
      archive = pooch.retrieve(
        _URL, _HASH, fname='cifar10.tar.gz', path=scratch, progressbar=True
      )
      shutil.unpack_archive(archive, scratch, filter='data')
      (pathlib.Path(scratch) / _FOLDER).rename(folder)
  except (OSError, ValueError) as error:
    raise ValueError(
      f'data_dir is {str(data_dir)!r}, where {_FOLDER} is absent and could not be '
      f'downloaded ({error}); put {_FILES} into {folder}, from {_URL}'
    ) from error
