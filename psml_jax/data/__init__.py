"""Data sets of images, in disjoint splits for zoo, attacker and test.

| name | images | classes | official train / test | files |
|---|---|---|---|---|
| `digits` | 8 x 8 x 1 | 10 | 1,797, one set | none: scikit-learn ships them |
| `cifar10` | 32 x 32 x 3 | 10 | 50,000 / 10,000 | `cifar-10-batches-bin/`: `data_batch_1.bin` to `data_batch_5.bin`, `test_batch.bin` |
| `cifar100` | 32 x 32 x 3 | 100 (fine) | 50,000 / 10,000 | `cifar-100-binary/`: `train.bin`, `test.bin` |
| `svhn` | 32 x 32 x 3 | 10 | 73,257 / 26,032 | `svhn/`: `train_32x32.mat`, `test_32x32.mat` |
| `mnist` | 28 x 28 x 1 | 10 | 60,000 / 10,000 | `mnist/`: `train-images-idx3-ubyte`, `train-labels-idx1-ubyte`, `t10k-images-idx3-ubyte`, `t10k-labels-idx1-ubyte`, each with or without `.gz`, packed or not |
| `fashion_mnist` | 28 x 28 x 1 | 10 | 60,000 / 10,000 | `fashion_mnist/`: as `mnist` |
| `npz` | any | `num_classes`, by default 1 + the largest label | as in the file | one `.npz` file with `x_train`, `y_train`, `x_test`, `y_test` |
| `synthetic` | `image_size` (32), `channels` (3) | `num_classes` (10) | as asked for | none; `difficulty` (0.5) from 0, trivial, to 1, hopeless |

Zoo and attacker share out the training images, the test images are measured on; digits
has one set for all three. Where asked for, images to profile the zoo on are cut after all
others, from the training images or the one set, and change no other split. Of images with
the same pixels only the first is kept, training images before test images;
near-duplicates stay. A seeded shuffle and cuts follow, so splits are disjoint, and their
sizes add up to what is left at most. Synthetic images are made for each split and need
none of this.

Where its folder is absent, an official data set is downloaded and checked against its
official checksum: all files or none. Files that are there already may be subsets, or
encoded anew, which is logged as a warning: they are checked for whole records, headers,
shapes, class ranges and counts that fit each other; an official file under the name of
another and a file under two names are refused. CIFAR files must hold the same part of
their official records.

Images that can be read but hardly be meant are warned of: those that are constant or use
less than half of their range, and classes without an image or without a training image,
unless the files are official ones, which may be subsets.

A data set of a user's own is a function that reads it:

  def stripes(data_dir, size=8):
    ...
    return data.Images(x_train, y_train, x_test, y_test)

  data.DATASETS.register('stripes', data.Entry(stripes))
"""  # noqa: E501

import inspect
import pathlib
import warnings
from collections.abc import Iterable
from typing import Any

from psml_jax import _files, _registry
from psml_jax.data import _cifar, _digits, _idx, _npz, _svhn, _synthetic  # noqa: F401
from psml_jax.data._checks import checked, odd_pixels, unused_classes
from psml_jax.data._official import SOURCES
from psml_jax.data._splits import (
  DATASETS,
  Entry,
  Images,
  MakeSplits,
  Splits,
  check_arguments,
  split,
)

__all__ = ['DATASETS', 'Entry', 'Images', 'MakeSplits', 'Splits', 'files', 'load']


def load(
  name: str,
  *,
  seed: int,
  zoo_size: int,
  pool_size: int,
  test_size: int,
  profile_size: int = 0,
  data_dir: str | pathlib.Path | None = None,
  **fields: Any,
) -> Splits:
  """Loads a data set by name; the same arguments give the same splits.

  Args:
    name: one of `DATASETS`, see the table of this module.
    seed: of the shuffle before the split, a whole number in [0, 2 ** 32).
    zoo_size: images that the zoo trains on.
    pool_size: images of the attacker.
    test_size: images to measure on.
    profile_size: images that the operator profiles the zoo's accuracy on; 0 for none.
    data_dir: the folder that holds the data set's folder, or that it is downloaded
      to; of npz the path of the file. Digits and synthetic read none.
    **fields: the data set's own: `num_classes` of npz; `image_size`, `channels`,
      `num_classes` and `difficulty` of synthetic.

  Returns:
    The splits.

  Raises:
    ValueError: an unknown name or field, a seed, size or field out of range, sizes
      that add up to too many, or files that are missing, damaged or of another kind.

  >>> load('synthetic', seed=0, zoo_size=5, pool_size=5, test_size=5, channels=1).name
  'synthetic'
  """
  check_name(name)
  check_fields(name, fields)
  sizes = {'zoo_size': zoo_size, 'pool_size': pool_size, 'test_size': test_size}
  check_arguments(seed, profile_size=profile_size, **sizes)
  path = None if data_dir is None else _files.local('data_dir', data_dir)
  found = DATASETS[name].read(path, **fields)
  if not (isinstance(found, Images) or callable(found)):
    raise ValueError(f'{name} is read as {type(found).__name__}; it must be as Images')
  if not isinstance(found, Images):
    splits = found(name, seed=seed, profile_size=profile_size, **sizes)
    if not isinstance(splits, Splits):
      raise ValueError(f'{name} is made as {splits!r}; it must be as Splits')
    return splits
  images = checked(found)
  where = name if path is None else f'{name} in {path}'
  odd = [*odd_pixels(where, images)]
  if name not in SOURCES:  # Of official files there may be a part.
    odd += unused_classes(where, images)
  for message in odd:
    warnings.warn(message, stacklevel=2)
  return split(images, name, seed=seed, profile_size=profile_size, **sizes)


def files(name: str, data_dir: str | pathlib.Path | None) -> list[pathlib.Path]:
  """The files that `load` reads, as far as they exist.

  Args:
    name: of the data set.
    data_dir: as for `load`.

  Returns:
    Their paths, in a fixed order; none of digits and synthetic.

  Raises:
    ValueError: an unknown name, or a `data_dir` that is no path of this machine.

  >>> files('digits', None)
  []
  """
  check_name(name)
  of = DATASETS[name].files
  if of is None or data_dir is None:
    return []
  paths = map(pathlib.Path, of(_files.local('data_dir', data_dir)))
  return [path for path in paths if path.is_file()]


def check_fields(name: str, fields: Iterable[str]) -> None:
  """Raises a ValueError for a field that a data set does not have, or for one less."""
  given = [*inspect.signature(DATASETS[name].read).parameters.values()][1:]
  others = any(field.kind is field.VAR_KEYWORD for field in given)
  own = {f.name: f for f in given if f.kind not in (f.VAR_KEYWORD, f.VAR_POSITIONAL)}
  for field in fields:
    if field not in own and not others:
      hint = _registry.near(field, own)
      raise ValueError(
        f'{field} is no field of {name}{hint}; its fields are '
        f'{", ".join(sorted(own)) or "none"}'
      )
  for field, parameter in own.items():
    if parameter.default is parameter.empty and field not in fields:
      raise ValueError(f'{field} is missing; {name} needs it')


def check_name(name: str) -> None:
  """Raises a ValueError for a name of no data set."""
  DATASETS.find(name, 'name')
