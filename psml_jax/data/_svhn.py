"""SVHN (Netzer et al. 2011), cropped house numbers in MATLAB files."""

import io
import pathlib
import struct

import numpy as np
import scipy.io

from psml_jax.data import _official
from psml_jax.data._splits import Images, Part

_SHAPE = (32, 32, 3)
_CLASSES = 10
_MATRIX = 14
_DATA_TYPES = {*range(1, 8), 9, *range(12, 19)}
_NUMERIC = range(6, 16)
_COMPLEX = 0x800


def read(data_dir: str | pathlib.Path | None) -> Images:
  """Reads the training and the test file; class 10 of the files is digit 0.

  Args:
    data_dir: the folder that holds `svhn`, or is to hold it.

  Returns:
    The images.

  Raises:
    ValueError: what `_official.read` raises; a file that is truncated, lacks arrays,
      has arrays of other shapes or types, classes other than 1 to 10, or is the same
      as another.
  """
  contents = _official.read(_official.SVHN, data_dir)
  train_path, test_path = contents
  train, test = (_part(path, raw) for path, raw in contents.items())
  _official.check_counts(train_path, len(train.x), test_path, len(test.x))
  _official.check_different(contents)
  return Images(train, test, _CLASSES)


def _part(path: pathlib.Path, raw: bytes) -> Part:
  try:
    _check_tags(raw)
    arrays = scipy.io.loadmat(io.BytesIO(raw), variable_names=('X', 'y'))
  except Exception as error:  # scipy raises what its parser stumbles over.
    raise ValueError(
      f'{path} is truncated, corrupt or no MATLAB file ({type(error).__name__}: '
      f'{error}); it must hold X and y'
    ) from error
  found = [name for name in arrays if not name.startswith('__')]
  missing = [name for name in ('X', 'y') if name not in found]
  if missing:
    raise ValueError(f'{path} lacks {missing}, of X and y it holds {found}')
  x, y = arrays['X'], arrays['y']
  if x.dtype != np.uint8 or x.ndim != 4 or x.shape[:3] != _SHAPE or not x.size:
    raise ValueError(
      f'{path} holds X of type {x.dtype} and shape {x.shape}; it must be uint8 of '
      'shape (32, 32, 3, N)'
    )
  if y.shape != (x.shape[-1], 1):
    raise ValueError(
      f'{path} holds y of shape {y.shape}; it must be {(x.shape[-1], 1)}, one class '
      'for each image of X'
    )
  classes = np.arange(1, _CLASSES + 1)
  wrong = y[~np.isin(y, classes)]
  if wrong.size:
    raise ValueError(f'{path} holds class {wrong[0]}; classes must be 1 to {_CLASSES}')
  return Part(x.transpose(3, 0, 1, 2), y[:, 0].astype(np.int32) % _CLASSES)


def _check_tags(raw: bytes) -> None:
  """Checks the tags of arrays that are not compressed (MAT-file format, version 5).

  scipy 1.17 reads past its memory where they are wrong; compressed arrays have a
  checksum.

  Raises:
    ValueError: a tag of an unknown type, past its array's end, or too many or few.
  """
  order = '>' if raw[126:128] == b'MI' else '<'
  at = 128
  while at + 8 <= len(raw):
    kind, size = struct.unpack_from(f'{order}II', raw, at)
    inner, at = at + 8, at + 8 + size
    if kind != _MATRIX:
      continue
    (flags,) = struct.unpack_from(f'{order}I', raw, inner + 8)
    tags = 0
    while inner < min(at, len(raw)):
      kind, size = struct.unpack_from(f'{order}II', raw, inner)
      short = kind > 0xFFFF  # Up to 4 bytes of data lie in the tag itself.
      inner += 8 if short else 8 + (size + 7) // 8 * 8
      tags += 1
      if kind & 0xFFFF not in _DATA_TYPES or kind >> 16 > 4:
        raise ValueError(f'a tag of type {kind}')
    wanted = 5 if flags & _COMPLEX else 4
    if inner != at or at > len(raw) or (flags & 0xFF in _NUMERIC and tags != wanted):
      raise ValueError(f'an array of {tags} parts that ends at byte {inner}, not {at}')
