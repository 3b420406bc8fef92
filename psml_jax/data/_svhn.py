"""SVHN (Netzer et al. 2011), cropped house numbers in MATLAB files."""

import pathlib
import struct
import zlib
from collections.abc import Iterator, Mapping

import numpy as np

from psml_jax.data import _official
from psml_jax.data._splits import Images

_SHAPE = (32, 32, 3)
_CLASSES = 10
_MATRIX, _COMPRESSED = 14, 15
_NUMBERS = dict(zip((1, 2, 3, 4, 5, 6, 7, 9, 12, 13), 'bBhHiIfdqQ', strict=True))
SVHN = _official.Source(
  'svhn',
  'svhn',
  {
    'train_32x32.mat': 'e26dedcc434d2e4c54c9b2d4a06d8373',
    'test_32x32.mat': 'eb5a983be6a315427106f1b164d9cef3',
  },
  'http://ufldl.stanford.edu/housenumbers/',
)


def make(contents: Mapping[pathlib.Path, bytes]) -> Images:
  """The images of the training and the test file; class 10 of the files is digit 0.

  Args:
    contents: file -> content.

  Returns:
    The images.

  Raises:
    ValueError: a file that is truncated, lacks arrays, has arrays of other shapes or
      types, or classes other than 1 to 10.
  """
  (x, y), test = (_part(path, raw) for path, raw in contents.items())
  return Images(x, y, *test, _CLASSES)


def _part(path: pathlib.Path, raw: bytes) -> tuple[np.ndarray, np.ndarray]:
  try:
    arrays = dict(_arrays(raw))
  except (ValueError, KeyError, struct.error, zlib.error) as error:
    raise ValueError(
      f'{path} is truncated, corrupt or no MATLAB file of version 5 or 7 '
      f'({type(error).__name__}: {error}); it must hold X and y'
    ) from error
  missing = [name for name in ('X', 'y') if name not in arrays]
  if missing:
    raise ValueError(f'{path} lacks {missing}, of X and y it holds {[*arrays]}')
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
  wrong = y[~np.isin(y, np.arange(1, _CLASSES + 1))]
  if wrong.size:
    raise ValueError(f'{path} holds class {wrong[0]}; classes must be 1 to {_CLASSES}')
  return x.transpose(3, 0, 1, 2), y[:, 0].astype(np.int32) % _CLASSES


def _arrays(raw: bytes) -> Iterator[tuple[str, np.ndarray]]:
  """Names and values of X and y in a MAT-file of version 5.

  scipy's reader ends the process where the tag of a number's type is damaged.
  """
  if raw[124:128] != b'\0\1IM':
    raise ValueError('its header is of another version; save it with -v7')
  for kind, content in _elements(memoryview(raw)[128:]):
    if kind == _COMPRESSED:
      ((kind, content),) = _elements(memoryview(zlib.decompress(content)))
    parts = list(_elements(content)) if kind == _MATRIX else []
    if len(parts) > 3 and (name := bytes(parts[2][1]).decode('latin-1')) in ('X', 'y'):
      shape = np.frombuffer(parts[1][1], '<i4')
      number, values = parts[3]
      array = np.frombuffer(values, f'<{_NUMBERS[number]}')
      yield name, array.reshape(shape, order='F')


def _elements(raw: memoryview) -> Iterator[tuple[int, memoryview]]:
  """Type and content of elements that follow each other in a MAT-file."""
  at = 0
  while at < len(raw):
    kind, size = struct.unpack_from('<II', raw, at)
    if kind >> 16:  # Up to 4 bytes lie in the tag itself.
      kind, size, start, end = kind & 0xFFFF, kind >> 16, at + 4, at + 8
    else:
      start = at + 8
      end = start + (size if kind == _COMPRESSED else (size + 7) // 8 * 8)
    if end > len(raw) or start + size > end:
      raise ValueError(f'an element of {size} bytes has {len(raw) - start}')
    yield kind, raw[start : start + size]
    at = end


_official.register(SVHN, make)
