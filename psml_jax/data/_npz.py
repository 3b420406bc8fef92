"""Any images that the user keeps in one .npz file."""

import pathlib

import numpy as np

from psml_jax import _files, _validate
from psml_jax.data._splits import Images, Part, at_least_two

_ARRAYS = ('x_train', 'y_train', 'x_test', 'y_test')
_ZIP = (b'PK\x03\x04', b'PK\x05\x06')
_MOST_CLASSES = 2**31 - 1


def read(
  data_dir: str | pathlib.Path | None, *, num_classes: int | None = None
) -> Images:
  """Reads x_train, y_train, x_test and y_test.

  Args:
    data_dir: path of the file. Images are [N, H, W, C], or [N, H, W] of one channel,
      uint8 in 0 to 255 or floats in [0, 1]; labels are whole numbers [N] or [N, 1].
    num_classes: K, at least 2; None makes it 1 + the largest label.

  Returns:
    The images.

  Raises:
    ValueError: `num_classes` or a label out of range; no `data_dir`, or a URL; a file
      that is missing, damaged, no .npz file or lacks arrays; an array of another type,
      rank or range; images of different sizes or types, or channels first; not one
      label for each image.
  """
  if num_classes is not None:
    at_least_two(num_classes)
  arrays = _load(data_dir)
  x_train, x_test = (_images(name, arrays[name]) for name in ('x_train', 'x_test'))
  y_train = _labels('y_train', arrays['y_train'], x_train)
  y_test = _labels('y_test', arrays['y_test'], x_test)
  if x_train.shape[1:] != x_test.shape[1:]:
    raise ValueError(
      f'x_test holds images of shape {x_test.shape[1:]} and x_train of '
      f'{x_train.shape[1:]}; they must be the same'
    )
  if x_train.dtype != x_test.dtype:
    raise ValueError(
      f'x_test is of type {arrays["x_test"].dtype} and x_train of '
      f'{arrays["x_train"].dtype}; both must be uint8, or both floats'
    )
  allowed = '>= 0' if num_classes is None else f'0 to {num_classes - 1}'
  classes = num_classes or 1 + max(int(y_train.max()), int(y_test.max()))
  if num_classes is None and classes > _MOST_CLASSES:
    allowed, classes = f'0 to {_MOST_CLASSES - 1}', _MOST_CLASSES
  for name, y in (('y_train', y_train), ('y_test', y_test)):
    _validate.reject(name, y, (y < 0) | (y >= classes), allowed)
  classes = at_least_two(classes)
  return Images(Part(x_train, y_train), Part(x_test, y_test), classes)


def _load(data_dir: str | pathlib.Path | None) -> dict[str, np.ndarray]:
  wanted = ', '.join(_ARRAYS)
  if data_dir is None:
    raise ValueError(f'data_dir is None; npz needs the path of a file with {wanted}')
  path = _files.local('data_dir', data_dir)
  if not path.is_file():
    raise ValueError(
      f'data_dir is {str(path)!r}, which is no file; npz needs the path of a file with '
      f'{wanted}'
    )
  with path.open('rb') as raw:
    head = raw.read(256)
  _files.check_content(path, head)
  if not head.startswith(_ZIP):
    single = ', but an array of numpy.save' if head.startswith(b'\x93NUMPY') else ''
    raise ValueError(
      f'{path} is truncated, corrupt or no .npz file{single}; it must be of '
      f'numpy.savez and hold {wanted}'
    )
  arrays = {}
  try:
    with path.open('rb') as raw, np.load(raw, allow_pickle=False) as file:
      found = list(file)
      for name in _ARRAYS:
        if name in found:
          arrays[name] = np.asarray(file[name])
  except Exception as error:  # Zip, zlib and numpy each raise their own.
    if 'allow_pickle' in str(error):
      raise ValueError(
        f'{name} in {path} holds Python objects; it must hold numbers, all images or '
        'labels of one size'
      ) from None
    raise ValueError(
      f'{path} is truncated, corrupt or no .npz file of plain arrays '
      f'({type(error).__name__}: {error}); it must hold {wanted}'
    ) from error
  missing = [name for name in _ARRAYS if name not in found]
  if missing:
    raise ValueError(f'{path} lacks {missing}; it holds {found} and must hold {wanted}')
  return arrays


def _images(name: str, x: np.ndarray) -> np.ndarray:
  """The images with a channel axis, uint8 or float32."""
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
    x = x.astype(np.float32)
  return x[..., None] if x.ndim == 3 else x


def _labels(name: str, y: np.ndarray, x: np.ndarray) -> np.ndarray:
  if not y.ndim:
    raise ValueError(
      f'{name} is of shape (); it must be ({len(x)},), one label for each image'
    )
  if y.ndim == 2 and len(y) == len(x) and y.shape[1] > 1:
    raise ValueError(
      f'{name} is of shape {y.shape}, as one-hot rows are; it must be ({len(x)},), the '
      f'classes themselves ({name}.argmax(1))'
    )
  if not np.issubdtype(y.dtype, np.integer):
    whole = np.issubdtype(y.dtype, np.floating) and np.all(y == np.floor(y))
    hint = f' ({name}.astype(int))' if whole else ''
    raise ValueError(f'{name} is of type {y.dtype}; it must hold whole numbers{hint}')
  if y.shape not in ((len(x),), (len(x), 1)):
    last = len(y) == x.shape[-1] and x.ndim == 4 and len(y) > 4
    hint = ' (the images seem to be along the last axis)' if last else ''
    raise ValueError(
      f'{name} is of shape {y.shape}; it must be ({len(x)},) or ({len(x)}, 1), one '
      f'label for each image{hint}'
    )
  return y.reshape(-1)
