"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009) in their official binary layout."""

import collections
import pathlib
from collections.abc import Mapping

import numpy as np

from psml_jax.data import _official
from psml_jax.data._splits import Images, Part

_SHAPE = (3, 32, 32)
_PIXELS = 3 * 32 * 32
# Data set -> label byte -> its classes; the last one is the label.
_LABELS = {
  'cifar10': {'class': 10},
  'cifar100': {'coarse class': 20, 'class': 100},
}
# All training files together hold five times the images of the test file.
_TRAIN_TO_TEST = 5


def read(source: _official.Source, data_dir: str | pathlib.Path | None) -> Images:
  """Reads the training files and the test file, which is the last.

  Files may hold fewer records than officially, all of them to the same degree.

  Args:
    source: of CIFAR-10 or CIFAR-100.
    data_dir: the folder that holds the data set's folder, or is to hold it.

  Returns:
    The images; of CIFAR-100 with fine classes.

  Raises:
    ValueError: what `_official.read` raises; a file that is truncated, holds
      classes out of range, or is the same as another.
  """
  labels = _LABELS[source.name]
  contents = _official.read(source, data_dir)
  records = {path: _records(path, raw, labels) for path, raw in contents.items()}
  _check_counts({path: len(rows) for path, rows in records.items()})
  _official.check_different(contents)
  *train, test = (_part(rows, len(labels)) for rows in records.values())
  x, y = (np.concatenate(arrays) for arrays in zip(*train))
  return Images(Part(x, y), test, labels['class'])


def _part(records: np.ndarray, labels: int) -> Part:
  pixels = records[:, labels:].reshape(-1, *_SHAPE).transpose(0, 2, 3, 1)
  return Part(pixels, records[:, labels - 1])


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
  shares = {path: count * weights[path] for path, count in counts.items()}
  ((share, votes),) = collections.Counter(shares.values()).most_common(1)
  if votes == 1:
    share = max(shares.values())
  usual = next(path for path in counts if shares[path] == share)
  for path, count in counts.items():
    if shares[path] != share:
      raise ValueError(
        f'{path} holds {count} records; it must hold {share // weights[path]}, as '
        f'{usual.name} holds {counts[usual]}, so it is truncated or files are swapped'
      )
