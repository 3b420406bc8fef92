"""Disjoint splits of a data set: for the zoo, the attacker and measurements."""

import dataclasses
import hashlib
import inspect
import pathlib
from collections.abc import Callable, Iterable

import numpy as np

from psml_jax import _registry, _validate


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


@dataclasses.dataclass(frozen=True, eq=False)
class Images:
  """A data set as it is read; `load` checks it and shares it out.

  Attributes:
    x_train: what zoo, attacker and profile share out: [N, H, W, C], or [N, H, W] of one
      channel, uint8 in 0 to 255 or floats in [0, 1].
    y_train: its classes, whole numbers [N] or [N, 1].
    x_test: what is measured on; None where `x_train` is shared out for this as well.
    y_test: its classes.
    num_classes: K, at least 2; None makes it 1 + the largest label.
  """

  x_train: np.ndarray
  y_train: np.ndarray
  x_test: np.ndarray | None = None
  y_test: np.ndarray | None = None
  num_classes: int | None = None


MakeSplits = Callable[..., Splits]
"""`(name, *, seed, zoo_size, pool_size, test_size, profile_size) -> Splits`."""


SIZES = ('zoo_size', 'pool_size', 'test_size', 'profile_size')
_OF_LOAD = ('name', 'seed', 'data_dir', *SIZES)


@dataclasses.dataclass(frozen=True)
class Entry:
  """An entry of `DATASETS`.

  Attributes:
    read: `(data_dir, **fields) -> Images`; the fields are those of the config, and
      `data_dir` is a path or None. Images that are made for each split come as
      `MakeSplits` instead.
    files: `data_dir -> paths` of the files that it reads, which an experiment digests,
      whether they exist or not; None where it reads none.

  Raises:
    ValueError: a `read` that takes no `data_dir`, or a field that `load` takes itself.
  """

  read: Callable[..., Images | MakeSplits]
  files: Callable[[pathlib.Path], Iterable[str | pathlib.Path]] | None = None

  def __post_init__(self) -> None:
    if not callable(self.read) or not (self.files is None or callable(self.files)):
      raise ValueError(
        f'read is {self.read!r} and files {self.files!r}; they must be functions'
      )
    signature = inspect.signature(self.read)
    try:
      signature.bind_partial(None)
    except TypeError as error:
      raise ValueError(f'read must take data_dir before all else: {error}') from None
    for field in list(signature.parameters)[1:]:
      if field in _OF_LOAD:
        raise ValueError(
          f'read has a field {field}, which load takes itself; it must be none of '
          f'{", ".join(_OF_LOAD)}'
        )


DATASETS = _registry.Registry[Entry]('data set', Entry)
"""Data sets by the names that configs give them."""


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
  images: Images,
  name: str,
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
    images: of the data set, checked.
    name: the data set's.
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
  x, y, test_x, test_y = images.x_train, images.y_train, images.x_test, images.y_test
  if test_x is None:
    test_x, test_y = x, y
    (kept,) = first_of_each(x)
    zoo, pool, test, profile = take(
      f'images of {name}',
      rng.permutation(kept),
      zoo_size=zoo_size,
      pool_size=pool_size,
      test_size=test_size,
      profile_size=profile_size,
    )
  else:
    kept, kept_test = first_of_each(x, test_x)
    zoo, pool, profile = take(
      f'training images of {name}',
      rng.permutation(kept),
      zoo_size=zoo_size,
      pool_size=pool_size,
      profile_size=profile_size,
    )
    (test,) = take(
      f'test images of {name}', rng.permutation(kept_test), test_size=test_size
    )
  assert test_y is not None
  assert images.num_classes is not None
  return Splits(
    zoo_x=_pixels(x[zoo]),
    zoo_y=y[zoo].astype(np.int32),
    pool_x=_pixels(x[pool]),
    test_x=_pixels(test_x[test]),
    test_y=test_y[test].astype(np.int32),
    profile_x=_pixels(x[profile]),
    profile_y=y[profile].astype(np.int32),
    num_classes=images.num_classes,
    name=name,
  )


def _pixels(x: np.ndarray) -> np.ndarray:
  if x.dtype == np.uint8:
    return np.divide(x, 255, dtype=np.float32, order='C')
  return np.ascontiguousarray(x, np.float32)
