"""MNIST (LeCun et al. 1998) and Fashion-MNIST (Xiao et al. 2017), in IDX files."""

import math
import pathlib
from collections.abc import Mapping

import numpy as np

from psml_jax.data import _official
from psml_jax.data._splits import Images

_SIDE = 28
_CLASSES = 10
MNIST = _official.Source(
  'mnist',
  'mnist',
  {
    'train-images-idx3-ubyte.gz': 'f68b3c2dcbeaaa9fbdd348bbdeb94873',
    'train-labels-idx1-ubyte.gz': 'd53e105ee54ea40749a09fcbcd1e9432',
    't10k-images-idx3-ubyte.gz': '9fb629c4189551a2d022fa330f9573f3',
    't10k-labels-idx1-ubyte.gz': 'ec29112dd5afa0611ce80d1b7f02629c',
  },
  'https://ossci-datasets.s3.amazonaws.com/mnist/',
)
FASHION_MNIST = _official.Source(
  'fashion_mnist',
  'fashion_mnist',
  {
    'train-images-idx3-ubyte.gz': '8d4fb7e6c68d591d4c3dfef9ec88bf0d',
    'train-labels-idx1-ubyte.gz': '25c81989df183df01b3e8a0aad5dffbe',
    't10k-images-idx3-ubyte.gz': 'bef4ecab320f06d8554ea6380940ec79',
    't10k-labels-idx1-ubyte.gz': 'bb300cfdad3c16e7a12a480ee83cd310',
  },
  'http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/',
)


def make(contents: Mapping[pathlib.Path, bytes]) -> Images:
  """The images and labels of training and test set.

  Args:
    contents: file -> content: images and labels, training before test.

  Returns:
    The images.

  Raises:
    ValueError: a file that is truncated, of another shape, holds classes above 9, or
      does not match its partner.
  """
  train_images, train_labels, test_images, test_labels = contents.items()
  x, y = _part(train_images, train_labels)
  return Images(x, y, *_part(test_images, test_labels), _CLASSES)


def _part(
  images: tuple[pathlib.Path, bytes], labels: tuple[pathlib.Path, bytes]
) -> tuple[np.ndarray, np.ndarray]:
  x, y = _array(*images, 'images', rank=3), _array(*labels, 'labels', rank=1)
  if x.shape[1:] != (_SIDE, _SIDE):
    raise ValueError(
      f'{images[0]} holds images of {x.shape[1]} x {x.shape[2]} pixels; they must be '
      f'{_SIDE} x {_SIDE}, so it is corrupt or of another data set'
    )
  if y.max() >= _CLASSES:
    raise ValueError(
      f'{labels[0]} holds class {y.max()}; classes must be 0 to {_CLASSES - 1}, so it '
      'is corrupt or of another data set'
    )
  if len(x) != len(y):
    raise ValueError(
      f'{labels[0]} holds {len(y)} labels and {images[0].name} {len(x)} images; there '
      'must be one label for each image, so one of the two is truncated or swapped'
    )
  return x, y


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


_official.register(MNIST, make)
_official.register(FASHION_MNIST, make)
