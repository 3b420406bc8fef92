"""Data sets of real images, in disjoint splits for zoo, attacker and test.

| name | images | zoo and pool from | test from | after dropping duplicates |
|---|---|---|---|---|
| `digits` | 8 x 8 x 1 | the one set | the one set | 1,797 of 1,797 |
| `cifar10` | 32 x 32 x 3 | training files | test file | see `cifar10` |
"""

import pathlib

from psml_jax import _validate
from psml_jax.data._cifar10 import cifar10
from psml_jax.data._digits import digits
from psml_jax.data._splits import Splits

__all__ = ['Splits', 'cifar10', 'digits', 'load']


def load(
  name: str,
  *,
  seed: int,
  zoo_size: int,
  pool_size: int,
  test_size: int,
  data_dir: str | pathlib.Path | None = None,
) -> Splits:
  """Loads a data set by name; the same arguments give the same splits.

  Args:
    name: 'digits' or 'cifar10'.
    seed: of the shuffle before the split, a whole number >= 0.
    zoo_size: images that the zoo trains on.
    pool_size: images of the attacker.
    test_size: images to measure on.
    data_dir: where the files of cifar10 lie or are downloaded to; digits reads none.

  Returns:
    The splits.

  Raises:
    ValueError: an unknown name, a seed or size out of range, or files that are
      missing or damaged.
  """
  _validate.one_of('name', name, ('cifar10', 'digits'))
  if name == 'digits':
    return digits(
      seed=seed, zoo_size=zoo_size, pool_size=pool_size, test_size=test_size
    )
  return cifar10(
    data_dir, seed=seed, zoo_size=zoo_size, pool_size=pool_size, test_size=test_size
  )
