"""Any images that the user keeps in one .npz file."""

import pathlib

import numpy as np

from psml_jax import _validate
from psml_jax.data._splits import Images, Part, at_least_two

_ARRAYS = ('x_train', 'y_train', 'x_test', 'y_test')


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
    ValueError: `num_classes` or a label out of range; no `data_dir`; a file that is
      missing, damaged or lacks arrays; an array of another type, rank or range;
      images of different sizes or types; not one label for each image.
  """
  if num_classes is not None:
    at_least_two(num_classes)
  arrays = _load(data_dir)
  x_train, x_test = (_images(name, arrays[name]) for name in ('x_train', 'x_test'))
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
  y_train = _labels('y_train', arrays['y_train'], len(x_train))
  y_test = _labels('y_test', arrays['y_test'], len(x_test))
  allowed = '>= 0' if num_classes is None else f'0 to {num_classes - 1}'
  classes = num_classes or 1 + max(int(y_train.max()), int(y_test.max()))
  for name, y in (('y_train', y_train), ('y_test', y_test)):
    _validate.reject(name, y, (y < 0) | (y >= classes), allowed)
  classes = at_least_two(classes)
  return Images(Part(x_train, y_train), Part(x_test, y_test), classes)


def _load(data_dir: str | pathlib.Path | None) -> dict[str, np.ndarray]:
  wanted = ', '.join(_ARRAYS)
  if data_dir is None:
    raise ValueError(f'data_dir is None; npz needs the path of a file with {wanted}')
  path = pathlib.Path(data_dir)
  if not path.is_file():
    raise ValueError(
      f'data_dir is {str(path)!r}, which is no file; npz needs the path of a file with '
      f'{wanted}'
    )
  try:
    with path.open('rb') as raw, np.load(raw, allow_pickle=False) as file:
      found = list(file)
      arrays = {name: file[name] for name in _ARRAYS if name in found}
  except Exception as error:  # Zip, zlib and numpy each raise their own.
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
  if floating:
    _validate.reject(name, x, ~((x >= 0) & (x <= 1)), 'in [0, 1] where it holds floats')
    x = x.astype(np.float32)
  return x[..., None] if x.ndim == 3 else x


def _labels(name: str, y: np.ndarray, num_images: int) -> np.ndarray:
  if not np.issubdtype(y.dtype, np.integer):
    raise ValueError(f'{name} is of type {y.dtype}; it must hold whole numbers')
  if y.shape not in ((num_images,), (num_images, 1)):
    raise ValueError(
      f'{name} is of shape {y.shape}; it must be ({num_images},) or ({num_images}, 1), '
      'one label for each image'
    )
  return y.reshape(-1)
