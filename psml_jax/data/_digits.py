"""Handwritten digits of 8 x 8 pixels, shipped inside scikit-learn."""

import numpy as np
import sklearn.datasets

from psml_jax.data._splits import Splits, check_arguments, first_of_each, take


def digits(*, seed: int, zoo_size: int, pool_size: int, test_size: int) -> Splits:
  """Splits the 1,797 digits of scikit-learn; no two are the same, so none is dropped.

  Args:
    seed: of the shuffle before the split.
    zoo_size: images that the zoo trains on.
    pool_size: images of the attacker.
    test_size: images to measure on; the three add up to 1,797 at most.

  Returns:
    The splits, images f32[., 8, 8, 1], 10 classes.

  Raises:
    ValueError: a seed or size that is not a whole number in range, or sizes that add
      up to too many.

  >>> digits(seed=0, zoo_size=600, pool_size=700, test_size=400).pool_x.shape
  (700, 8, 8, 1)
  """
  check_arguments(seed, zoo_size=zoo_size, pool_size=pool_size, test_size=test_size)
  raw = sklearn.datasets.load_digits()
  images = (raw.images[..., None] / 16).astype(np.float32)
  labels = raw.target.astype(np.int32)
  (kept,) = first_of_each(images)
  zoo, pool, test = take(
    'digits',
    np.random.default_rng(seed).permutation(kept),
    zoo_size=zoo_size,
    pool_size=pool_size,
    test_size=test_size,
  )
  return Splits(
    zoo_x=images[zoo],
    zoo_y=labels[zoo],
    pool_x=images[pool],
    test_x=images[test],
    test_y=labels[test],
    num_classes=10,
    name='digits',
  )
