"""The families of models: linear, MLP and CNN, on images of any square size."""

from collections.abc import Sequence

import flax.linen as nn
import jax

from psml_jax.zoo.conv import conv3x3


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
  if size:
    batch, height, width, channels = images.shape
    if height % size or width % size:
      raise ValueError(
        f'size is {size}; it must divide the image height {height} and width {width}'
      )
    rows = images.reshape(batch, size, height // size, width * channels).mean(2)
    images = rows.reshape(batch, size, size, width // size, channels).mean(3)
  return 4 * images - 2


class Linear(nn.Module):
  """Logistic regression: f32[N, H, W, C] -> f32[N, num_classes] logits."""

  num_classes: int
  size: int = 0

  @nn.compact
  def __call__(self, images: jax.Array) -> jax.Array:
    x = prepare(images, self.size)
    return nn.Dense(self.num_classes)(x.reshape(len(x), -1))


class MLP(nn.Module):
  """Dense ReLU layers: f32[N, H, W, C] -> f32[N, num_classes] logits."""

  num_classes: int
  widths: Sequence[int]
  size: int = 0

  @nn.compact
  def __call__(self, images: jax.Array) -> jax.Array:
    x = prepare(images, self.size)
    x = x.reshape(len(x), -1)
    for width in self.widths:
      x = nn.relu(nn.Dense(width)(x))
    return nn.Dense(self.num_classes)(x)


class Conv3x3(nn.Module):
  """A 3 x 3 convolution with bias: f32[N, H, W, C] -> f32[N, H, W, features]."""

  features: int

  @nn.compact
  def __call__(self, images: jax.Array) -> jax.Array:
    shape = (3, 3, images.shape[-1], self.features)
    kernel = self.param('kernel', nn.initializers.he_normal(), shape)
    bias = self.param('bias', nn.initializers.zeros_init(), (self.features,))
    return conv3x3(images, kernel) + bias.reshape(1, 1, 1, -1)


class CNN(nn.Module):
  """Stages of 3 x 3 convolutions: f32[N, H, W, C] -> f32[N, num_classes] logits.

  Each stage has `depth` convolutions of one width; the maximum over blocks of 2 x 2
  leads to the next. No norms, so the model is stateless.
  """

  num_classes: int
  widths: Sequence[int]
  depth: int = 1
  size: int = 0

  @nn.compact
  def __call__(self, images: jax.Array) -> jax.Array:
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
        x = nn.relu(Conv3x3(width)(x))
    return nn.Dense(self.num_classes)(x.reshape(len(x), -1))
