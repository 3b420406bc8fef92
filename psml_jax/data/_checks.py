"""Images and classes that can be read but hardly be meant."""

from collections.abc import Iterator, Sequence

import numpy as np

from psml_jax.data._splits import Images

_MOST_CONSTANT = 0.01
_MOST_RANGES = 10


def odd_pixels(where: str, images: Images) -> Iterator[str]:
  """Says what is odd about the pixels of a data set.

  Odd are images of one value, a largest pixel below half of the range, and more columns
  than rows but as many as channels.

  Args:
    where: the data set and its files, for the messages.
    images: of the data set.

  Yields:
    Warnings.

  Raises:
    ValueError: bytes whose largest pixel is 1.
  """
  for part, of_part in (('training', images.train), ('test', images.test)):
    if of_part is not None:
      yield from _odd_part(f'the {part} images of {where}', of_part.x)


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
    images: of the data set.

  Yields:
    At most one warning of each kind.
  """
  parts = [part.y for part in (images.train, images.test) if part is not None]
  present = np.unique(np.concatenate(parts)).tolist()
  gaps = [
    (before + 1, after - 1)
    for before, after in zip([-1, *present], [*present, images.num_classes])
    if after - before > 1
  ]
  if gaps:
    yield (
      f'{_have(gaps)} no image in {where}; its classes are 0 to '
      f'{images.num_classes - 1}'
    )
  if images.test is not None:
    untrained = np.setdiff1d(images.test.y, images.train.y)
    starts = np.flatnonzero(np.diff(untrained, prepend=-2) > 1)
    runs = [(part[0], part[-1]) for part in np.split(untrained, starts) if len(part)]
    if runs:
      yield f'{_have(runs)} no training image in {where}, but test images'


def _have(runs: Sequence[tuple[int, int]]) -> str:
  """'class 3 has' or 'classes 1, 4 to 6 have', of first and last classes."""
  ranges = [f'{a}' if a == b else f'{a} to {b}' for a, b in runs]
  if len(ranges) > _MOST_RANGES:
    ranges[_MOST_RANGES:] = [f'{len(ranges) - _MOST_RANGES} more ranges']
  if len(runs) == 1 and runs[0][0] == runs[0][1]:
    return f'class {ranges[0]} has'
  return f'classes {", ".join(ranges)} have'
