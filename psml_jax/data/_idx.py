"""MNIST (LeCun et al. 1998) and Fashion-MNIST (Xiao et al. 2017), in IDX files."""

import math
import pathlib

import numpy as np

from psml_jax.data import _official
from psml_jax.data._splits import Images, Part

_SIDE = 28
_CLASSES = 10


def read(source: _official.Source, data_dir: str | pathlib.Path | None) -> Images:
  """Reads images and labels of training and test set.

  Args:
    source: of MNIST or Fashion-MNIST.
    data_dir: the folder that holds the data set's folder, or is to hold it.

  Returns:
    The images.

  Raises:
    ValueError: what `_official.read` raises; a file that is truncated, of another
      shape, holds classes above 9, does not match its partner, or is the same as
      another.
  """
  contents = _official.read(source, data_dir)
  train_x, train_y, test_x, test_y = contents
  train = _part(train_x, contents[train_x], train_y, contents[train_y])
  test = _part(test_x, contents[test_x], test_y, contents[test_y])
  _official.check_counts(train_x, len(train.x), test_x, len(test.x))
  _official.check_different({path: contents[path] for path in (train_x, test_x)})
  return Images(train, test, _CLASSES)


def _part(
  images: pathlib.Path, raw_images: bytes, labels: pathlib.Path, raw_labels: bytes
) -> Part:
  x = _array(images, raw_images, 'images', rank=3)
  if x.shape[1:] != (_SIDE, _SIDE):
    raise ValueError(
      f'{images} holds images of {x.shape[1]} x {x.shape[2]} pixels; they must be '
      f'{_SIDE} x {_SIDE}, so it is corrupt or of another data set'
    )
  y = _array(labels, raw_labels, 'labels', rank=1)
  if y.max() >= _CLASSES:
    raise ValueError(
      f'{labels} holds class {y.max()}; classes must be 0 to {_CLASSES - 1}, so it is '
      'corrupt or of another data set'
    )
  if len(x) != len(y):
    raise ValueError(
      f'{labels} holds {len(y)} labels and {images.name} {len(x)} images; there must '
      'be one label for each image, so one of the two is truncated or swapped'
    )
  return Part(x[..., None], y)


def _array(path: pathlib.Path, raw: bytes, what: str, *, rank: int) -> np.ndarray:
  """The unsigned bytes of an IDX file."""
  header = 4 + 4 * rank
  magic = bytes((0, 0, 8, rank))
  if raw[:4] != magic:
    raise ValueError(
      f'{path} starts with bytes {raw[:4].hex()!r}; an IDX file of {what} must start '
      f'with {magic.hex()!r}, so it is corrupt or swapped with another'
    )
  shape = [int(n) for n in np.frombuffer(raw[4:header].ljust(header - 4), '>u4')]
  wanted = header + math.prod(shape)
  if len(raw) != wanted or not wanted > header:
    raise ValueError(
      f'{path} has {len(raw)} bytes, unpacked; its header of shape {shape} asks for '
      f'{wanted}, at least one of them data, so it is truncated or corrupt'
    )
  return np.frombuffer(raw, np.uint8, offset=header).reshape(shape)
