"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009) in their official binary layout."""

import functools
import pathlib
from collections.abc import Mapping

import numpy as np

from psml_jax.data import _official
from psml_jax.data._splits import Images

_SHAPE = (3, 32, 32)
_PIXELS = 3 * 32 * 32
# All training files together hold five times the images of the test file.
_TRAIN_TO_TEST = 5
CIFAR10 = _official.Source(
  'cifar10',
  'cifar-10-batches-bin',
  {
    'data_batch_1.bin': '5dd7e06a14cb22eb9f671a540d1b7c25',
    'data_batch_2.bin': '5ea93a67294ea407fff1d09f752e9692',
    'data_batch_3.bin': '942cd6a4bcdd0dd3c604fbe906cb4421',
    'data_batch_4.bin': 'ae636b3ba5c66a11e91e8cb52e771fcb',
    'data_batch_5.bin': '53f37980c15c3d472c316c40844f3f0d',
    'test_batch.bin': '803d5f7f4d78ea53de84dbe85f74fb6d',
  },
  'https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz',
  'c32a1d4ab5d03f1284b67883e8d87530',
)
CIFAR100 = _official.Source(
  'cifar100',
  'cifar-100-binary',
  {'train.bin': '', 'test.bin': ''},
  'https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz',
  '03b5dce01913d631647c71ecec9e9cb8',
)


def make(labels: Mapping[str, int], contents: Mapping[pathlib.Path, bytes]) -> Images:
  """The images of training files and the test file, which is the last.

  Files may hold fewer records than officially, all of them to the same degree.

  Args:
    labels: label byte -> its classes; the last one is the label.
    contents: file -> content.

  Returns:
    The images.

  Raises:
    ValueError: a file that is truncated or holds classes out of range.
  """
  records = {path: _records(path, raw, labels) for path, raw in contents.items()}
  _check_counts({path: len(rows) for path, rows in records.items()})
  *train, test = records.values()
  x, y = _part(np.concatenate(train), len(labels))
  return Images(x, y, *_part(test, len(labels)), labels['class'])


def _part(records: np.ndarray, labels: int) -> tuple[np.ndarray, np.ndarray]:
  pixels = records[:, labels:].reshape(-1, *_SHAPE).transpose(0, 2, 3, 1)
  return pixels, records[:, labels - 1]


def _records(path: pathlib.Path, raw: bytes, labels: Mapping[str, int]) -> np.ndarray:
  size = len(labels) + _PIXELS
  data_set = f'CIFAR-{labels["class"]}'
  if not raw or len(raw) % size:
    raise ValueError(
      f'{path} has {len(raw)} bytes; it must be one or more whole records of {size} '
      f'bytes, so it is truncated or not a {data_set} file'
    )
  records = np.frombuffer(raw, np.uint8).reshape(-1, size)
  for i, (what, classes) in enumerate(labels.items()):
    largest = records[:, i].max()
    if largest >= classes:
      raise ValueError(
        f'{path} holds {what} {largest}; classes must be 0 to {classes - 1}, so it is '
        f'corrupt or not a {data_set} file'
      )
  return records


def _check_counts(counts: Mapping[pathlib.Path, int]) -> None:
  """Checks that all files hold the same part of their official records."""
  *train, test = counts
  weights = {**dict.fromkeys(train, len(train)), test: _TRAIN_TO_TEST}
  fullest = max(counts, key=lambda path: counts[path] * weights[path])
  wanted = counts[fullest] * weights[fullest]
  for path, count in counts.items():
    if count * weights[path] != wanted:
      raise ValueError(
        f'{path} holds {count} records; it must hold {wanted // weights[path]}, as '
        f'{fullest.name} holds {counts[fullest]}, so it is truncated or files are '
        'swapped'
      )


_official.register(CIFAR10, functools.partial(make, {'class': 10}))
_official.register(
  CIFAR100, functools.partial(make, {'coarse class': 20, 'class': 100})
)
