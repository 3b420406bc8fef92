"""Any images that the user keeps in one .npz file."""

import pathlib

import numpy as np

from psml_jax import _files
from psml_jax.data._splits import DATASETS, Entry, Images

_ARRAYS = ('x_train', 'y_train', 'x_test', 'y_test')
_ZIP = (b'PK\x03\x04', b'PK\x05\x06')


def read(path: pathlib.Path | None, num_classes: int | None = None) -> Images:
  """Reads x_train, y_train, x_test and y_test, as `Images` has them.

  Args:
    path: of the file, `data_dir` of `load`.
    num_classes: K, at least 2; None makes it 1 + the largest label.

  Returns:
    The images, not checked.

  Raises:
    ValueError: no path; a file that is missing, damaged, no .npz file or lacks
      arrays.
  """
  wanted = ', '.join(_ARRAYS)
  if path is None:
    raise ValueError(f'data_dir is None; npz needs the path of a file with {wanted}')
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
  return Images(**arrays, num_classes=num_classes)


DATASETS.register('npz', Entry(read, lambda path: [path]))
