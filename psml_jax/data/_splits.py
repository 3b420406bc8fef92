"""Disjoint splits of a data set: for the zoo, the attacker and measurements."""

import dataclasses
import hashlib
from typing import NamedTuple

import numpy as np

from psml_jax import _validate


@dataclasses.dataclass(frozen=True, eq=False)
class Splits:
  """Images of one data set; no two of them are the same, pixel for pixel.

  Attributes:
    zoo_x: f32[N, H, W, C], pixels in [0, 1]: what the zoo trains on.
    zoo_y: i32[N], its classes.
    pool_x: f32[P, H, W, C], the attacker's images, without labels.
    test_x: f32[T, H, W, C], what accuracy and fidelity are measured on.
    test_y: i32[T], its classes.
    profile_x: f32[Q, H, W, C], what the operator profiles the zoo's accuracy on.
    profile_y: i32[Q], its classes.
    num_classes: K; classes are 0 to K - 1.
    name: the data set's.
  """

  zoo_x: np.ndarray
  zoo_y: np.ndarray
  pool_x: np.ndarray
  test_x: np.ndarray
  test_y: np.ndarray
  profile_x: np.ndarray
  profile_y: np.ndarray
  num_classes: int
  name: str


class Part(NamedTuple):
  """Images and classes that lie together.

  Attributes:
    x: [N, H, W, C], uint8, or f32 with pixels in [0, 1].
    y: whole numbers [N], classes.
  """

  x: np.ndarray
  y: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Images:
  """A data set as its files hold it.

  Attributes:
    train: what zoo, attacker and profile share out.
    test: what is measured on; None where `train` is shared out for this as well.
    num_classes: K; classes are 0 to K - 1.
  """

  train: Part
  test: Part | None
  num_classes: int


def check_arguments(seed: int, *, profile_size: int, **sizes: int) -> None:
  """Checks what every data set is asked for, before any file is touched.

  Args:
    seed: of the shuffle, a whole number in [0, 2 ** 32).
    profile_size: how many images, a whole number >= 0.
    **sizes: argument name -> how many images, a whole number >= 1.

  Raises:
    ValueError: one that is not.
  """
  _validate.seed('seed', seed)
  for argument, size in sizes.items():
    _validate.positive_int(argument, size)
  _validate.non_negative_int('profile_size', profile_size)


def at_least_two(num_classes: int) -> int:
  """The value, a whole number of at least two."""
  if _validate.positive_int('num_classes', num_classes) < 2:
    raise ValueError(f'num_classes is {num_classes}; it must be at least 2')
  return int(num_classes)


def first_of_each(*parts: np.ndarray) -> list[np.ndarray]:
  """Finds the images that appear for the first time, over several arrays.

  Args:
    *parts: arrays of images [N, ...], in order.

  Returns:
    For each array, i64[...]: indices of the images that occur neither earlier in it
    nor in an array before it.

  >>> a, b = np.array([[0], [0], [1]]), np.array([[1], [2]])
  >>> [kept.tolist() for kept in first_of_each(a, b)]
  [[0, 2], [1]]
  """
  seen: set[bytes] = set()
  kept = []
  for part in parts:
    indices = []
    for i, image in enumerate(part):
      content = hashlib.blake2b(image.tobytes(), digest_size=16).digest()
      if content not in seen:
        seen.add(content)
        indices.append(i)
    kept.append(np.array(indices, np.int64))
  return kept


def take(what: str, shuffled: np.ndarray, **sizes: int) -> list[np.ndarray]:
  """Cuts disjoint runs of the given sizes off shuffled indices.

  Args:
    what: is being shared out, for the error.
    shuffled: i64[N], indices.
    **sizes: argument name -> how many.

  Returns:
    The indices of each run.

  Raises:
    ValueError: the sizes add up to more than N.

  >>> [run.tolist() for run in take('things', np.array([2, 0, 1]), a=1, b=2)]
  [[2], [0, 1]]
  """
  total = sum(sizes.values())
  if total > len(shuffled):
    asked = [f'{argument} ({size})' for argument, size in sizes.items() if size]
    sum_ = ' + '.join(asked)
    is_ = f'{sum_} is {total}' if len(asked) > 1 else f'{sum_} is too large'
    raise ValueError(
      f'{is_}; it must be at most {len(shuffled)}, the number of different {what}'
    )
  ends = np.cumsum(list(sizes.values()))
  return np.split(shuffled[:total], ends[:-1])


def split(
  name: str,
  images: Images,
  *,
  seed: int,
  zoo_size: int,
  pool_size: int,
  test_size: int,
  profile_size: int,
) -> Splits:
  """Drops duplicates, shuffles, and shares out.

  Of images with the same pixels only the first is kept, training images before test
  images; near-duplicates stay.

  Args:
    name: the data set's.
    images: of the data set.
    seed: of the shuffles.
    zoo_size: images that the zoo trains on.
    pool_size: images of the attacker.
    test_size: images to measure on.
    profile_size: images to profile on, cut after all others.

  Returns:
    The splits.

  Raises:
    ValueError: sizes that add up to more than there are.
  """
  rng = np.random.default_rng(seed)
  train = images.train
  if images.test is None:
    test = train
    (kept,) = first_of_each(train.x)
    zoo, pool, held_out, profile = take(
      f'images of {name}',
      rng.permutation(kept),
      zoo_size=zoo_size,
      pool_size=pool_size,
      test_size=test_size,
      profile_size=profile_size,
    )
  else:
    test = images.test
    kept, kept_test = first_of_each(train.x, test.x)
    zoo, pool, profile = take(
      f'training images of {name}',
      rng.permutation(kept),
      zoo_size=zoo_size,
      pool_size=pool_size,
      profile_size=profile_size,
    )
    (held_out,) = take(
      f'test images of {name}', rng.permutation(kept_test), test_size=test_size
    )
  return Splits(
    zoo_x=_pixels(train.x[zoo]),
    zoo_y=train.y[zoo].astype(np.int32),
    pool_x=_pixels(train.x[pool]),
    test_x=_pixels(test.x[held_out]),
    test_y=test.y[held_out].astype(np.int32),
    profile_x=_pixels(train.x[profile]),
    profile_y=train.y[profile].astype(np.int32),
    num_classes=images.num_classes,
    name=name,
  )


def _pixels(x: np.ndarray) -> np.ndarray:
  if x.dtype == np.uint8:
    return np.divide(x, 255, dtype=np.float32, order='C')
  return np.ascontiguousarray(x, np.float32)
