"""The families of models: linear, MLP and CNN, on images of any square size."""

from collections.abc import Sequence

import flax.linen as nn
import jax

from psml_jax import _validate
from psml_jax.zoo.layers import Conv, pool


def prepare(images: jax.Array, size: int) -> jax.Array:
  """Centres the pixels, and averages square blocks so that images become smaller.

  Args:
    images: f32[N, H, W, C], pixels in [0, 1].
    size: a divisor of H and W; 0 keeps the images' size.

  Returns:
    f32[N, size, size, C], pixels in [-2, 2].

  Raises:
    ValueError: `size` does not divide the image.
  """
  return 4 * pool(images, size) - 2


def _check_widths(widths: Sequence[int]) -> None:
  if isinstance(widths, str) or not isinstance(widths, Sequence) or not len(widths):
    raise ValueError(
      f'widths is {widths!r}; it must be a list of one or more whole numbers >= 1'
    )
  for width in widths:
    _validate.positive_int('widths', width)


class Linear(nn.Module):
  """Logistic regression: f32[N, H, W, C] -> f32[N, num_classes] logits."""

  num_classes: int
  size: int = 0

  def __post_init__(self) -> None:
    _validate.non_negative_int('size', self.size)
    super().__post_init__()

  @nn.compact
  def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
    x = prepare(images, self.size)
    return nn.Dense(self.num_classes)(x.reshape(len(x), -1))


class MLP(nn.Module):
  """Dense ReLU layers: f32[N, H, W, C] -> f32[N, num_classes] logits."""

  num_classes: int
  widths: Sequence[int]
  size: int = 0

  def __post_init__(self) -> None:
    _check_widths(self.widths)
    _validate.non_negative_int('size', self.size)
    super().__post_init__()

  @nn.compact
  def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
    x = prepare(images, self.size)
    x = x.reshape(len(x), -1)
    for width in self.widths:
      x = nn.relu(nn.Dense(width)(x))
    return nn.Dense(self.num_classes)(x)


class CNN(nn.Module):
  """Stages of 3 x 3 convolutions: f32[N, H, W, C] -> f32[N, num_classes] logits.

  Each stage has `depth` convolutions of one width; the maximum over blocks of 2 x 2
  leads to the next. No norms, so the model is stateless.
  """

  num_classes: int
  widths: Sequence[int]
  depth: int = 1
  size: int = 0

  def __post_init__(self) -> None:
    _check_widths(self.widths)
    _validate.positive_int('depth', self.depth)
    _validate.non_negative_int('size', self.size)
    super().__post_init__()

  @nn.compact
  def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
    x = prepare(images, self.size)
    factor = 2 ** max(len(self.widths) - 1, 0)
    if x.shape[1] % factor or x.shape[2] % factor:
      raise ValueError(
        f'widths has {len(self.widths)} stages, which need images whose height and '
        f'width are divisible by {factor}, not {x.shape[1]} x {x.shape[2]}'
      )
    for stage, width in enumerate(self.widths):
      if stage:
        batch, height, breadth, channels = x.shape
        x = x.reshape(batch, height // 2, 2, breadth // 2, 2, channels).max((2, 4))
      for _ in range(self.depth):
        x = nn.relu(Conv(width, use_bias=True)(x))
    return nn.Dense(self.num_classes)(x.reshape(len(x), -1))
