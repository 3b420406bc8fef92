"""Images and classes that are not as told, or can hardly be meant."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from psml_jax import _validate
from psml_jax.data._splits import Images

_MOST_CONSTANT = 0.01
_MOST_NAMED = 10
_MOST_CLASSES = 2**31 - 1


def checked(images: Images) -> Images:
  """The images with a channel axis, uint8 or f32, with labels [N] and their K.

  Args:
    images: as a data set gives them.

  Raises:
    ValueError: `num_classes` or a label out of range; an array of another type, rank or
      range; images of different sizes or types, or channels first; not one label for
      each image; one of `x_test` and `y_test` alone.
  """
  k = images.num_classes
  if k is not None:
    _validate.at_least_two('num_classes', k)
  if (images.x_test is None) != (images.y_test is None):
    lacking = 'x_test' if images.x_test is None else 'y_test'
    raise ValueError(f'{lacking} is None; give both x_test and y_test, or neither')
  x_train = _images('x_train', images.x_train)
  y_train = _labels('y_train', images.y_train, x_train)
  x_test, labels = None, {'y_train': y_train}
  if images.x_test is not None:
    x_test = _images('x_test', images.x_test)
    labels['y_test'] = _labels('y_test', images.y_test, x_test)
    if x_train.shape[1:] != x_test.shape[1:]:
      raise ValueError(
        f'x_test holds images of shape {x_test.shape[1:]} and x_train of '
        f'{x_train.shape[1:]}; they must be the same'
      )
    if x_train.dtype != x_test.dtype:
      raise ValueError(
        f'x_test is of type {np.asarray(images.x_test).dtype} and x_train of '
        f'{np.asarray(images.x_train).dtype}; both must be uint8, or both floats'
      )
  most = (k or _MOST_CLASSES) - 1
  for name, y in labels.items():
    _validate.reject(name, y, (y < 0) | (y > most), f'0 to {most}')
  k = _validate.at_least_two(
    'num_classes', k or 1 + max(int(y.max()) for y in labels.values())
  )
  return Images(x_train, y_train, x_test, labels.get('y_test'), k)


def _array(name: str, value: Any) -> np.ndarray:
  try:
    return np.asarray(value)
  except ValueError as error:
    raise ValueError(f'{name} is no array ({error}); all must be of one size') from None


def _images(name: str, given: Any) -> np.ndarray:
  x = _array(name, given)
  floating = np.issubdtype(x.dtype, np.floating)
  if not (floating or x.dtype == np.uint8):
    raise ValueError(
      f'{name} is of type {x.dtype}; it must be uint8 (0 to 255) or floats in [0, 1]'
    )
  if x.ndim not in (3, 4) or not x.size:
    raise ValueError(
      f'{name} is of shape {x.shape}; it must be [N, H, W, C] or [N, H, W], not empty'
    )
  if x.ndim == 4 and x.shape[1] <= 4 < min(x.shape[2:]):
    raise ValueError(
      f'{name} holds images of shape {x.shape[1:]}, which look like channels first; '
      f'they must be [H, W, C] ({name}.transpose(0, 2, 3, 1))'
    )
  if floating:
    hint = ''
    if x.min() < 0:
      hint = ' (they may be standardised: undo it)'
    elif 1 < x.max() <= 255:
      hint = ' (divide them by 255)'
    allowed = f'in [0, 1] where it holds floats{hint}'
    _validate.reject(name, x, ~((x >= 0) & (x <= 1)), allowed)
    x = x.astype(np.float32, copy=False)
  return x[..., None] if x.ndim == 3 else x


def _labels(name: str, given: Any, x: np.ndarray) -> np.ndarray:
  y = _array(name, given)
  if y.ndim == 2 and len(y) == len(x) and y.shape[1] > 1:
    raise ValueError(
      f'{name} is of shape {y.shape}, as one-hot rows are; it must be ({len(x)},), the '
      f'classes themselves ({name}.argmax(1))'
    )
  if y.shape not in ((len(x),), (len(x), 1)):
    last = y.shape[:1] == x.shape[-1:] and x.ndim == 4 and len(y) > 4
    hint = ' (the images seem to be along the last axis)' if last else ''
    raise ValueError(
      f'{name} is of shape {y.shape}; it must be ({len(x)},) or ({len(x)}, 1), one '
      f'label for each image{hint}'
    )
  if not np.issubdtype(y.dtype, np.integer):
    whole = np.issubdtype(y.dtype, np.floating) and np.all(y == np.floor(y))
    hint = f' ({name}.astype(int))' if whole else ''
    raise ValueError(f'{name} is of type {y.dtype}; it must hold whole numbers{hint}')
  return y.reshape(-1)


def odd_pixels(where: str, images: Images) -> Iterator[str]:
  """Says what is odd about the pixels of a data set.

  Odd are images of one value, a largest pixel below half of the range, and more columns
  than rows but as many as channels.

  Args:
    where: the data set and its files, for the messages.
    images: of the data set, checked.

  Yields:
    Warnings.

  Raises:
    ValueError: bytes whose largest pixel is 1.
  """
  for part, x in (('training', images.x_train), ('test', images.x_test)):
    if x is not None:
      yield from _odd_part(f'the {part} images of {where}', x)


def _odd_part(what: str, x: np.ndarray) -> Iterator[str]:
  is_bytes = x.dtype == np.uint8
  smallest, largest = x.min(axis=(1, 2, 3)), x.max(axis=(1, 2, 3))
  brightest = largest.max()
  if is_bytes and brightest == 1:
    raise ValueError(
      f'{what} are bytes of which the largest is 1; 0 to 255 is expected (multiply by '
      '255, or give floats in [0, 1])'
    )
  constant = largest[smallest == largest]
  if len(constant) > _MOST_CONSTANT * len(x):
    black = np.sum(constant == 0)
    yield (
      f'{what} hold {len(constant)} of {len(x)} in which all pixels are the same, '
      f'{black} of them black'
    )
  if is_bytes and 0 < brightest < 128:
    yield f'{what} are bytes of at most {brightest}; 0 to 255 is expected'
  if not is_bytes and 0 < brightest < 0.5:
    twice = ', so they may be divided by 255 twice' if brightest <= 1.01 / 255 else ''
    yield f'{what} are floats of at most {brightest:.3g}{twice}; 0 to 1 is expected'
  height, width, channels = x.shape[1:]
  if height < width == channels and channels > 4:
    yield f'{what} are of shape {x.shape[1:]}, which looks like channels first'


def unused_classes(where: str, images: Images) -> Iterator[str]:
  """Names the classes that no training or test image has, or a test image alone.

  Args:
    where: the data set and its files, for the message.
    images: of the data set, checked.

  Yields:
    At most one warning of each kind.
  """
  assert images.num_classes is not None
  test = images.y_train[:0] if images.y_test is None else images.y_test
  present = np.union1d(images.y_train, test)
  if len(present) < images.num_classes:
    first = np.arange(min(images.num_classes, len(present) + _MOST_NAMED))
    unused = _some(np.setdiff1d(first, present), images.num_classes - len(present))
    yield (
      f'{where} has no image of class {unused}; its classes are 0 to '
      f'{images.num_classes - 1}'
    )
  untrained = np.setdiff1d(test, images.y_train)
  if len(untrained):
    yield (
      f'{where} has no training image, but test images, of class '
      f'{_some(untrained, len(untrained))}'
    )


def _some(classes: np.ndarray, count: int) -> str:
  """'1, 3, 4', or the first of many and how many more there are."""
  more = f' and {count - _MOST_NAMED} more' if count > _MOST_NAMED else ''
  return ', '.join(map(str, classes[:_MOST_NAMED])) + more
