"""Wide ResNets (Zagoruyko and Komodakis 2016) for small images."""

from typing import Any

import flax.linen as nn
import jax

from psml_jax.zoo.layers import Classifier, Conv, relu


class WideResNet(Classifier, kw_only=True):
  """Three stages of blocks that normalise before they convolve.

  WRN-28-2, the student of semi-supervised learning, is depth 28, factor 2.

  Attributes (beside those of `Classifier`):
    depth: 6n + 4 for n blocks a stage: 10, 16, 22, 28, ...
    factor: how many times as wide as a ResNet's stages of 16, 32 and 64 channels.
  """

  depth: int = 28
  factor: int = 2

  @nn.compact
  def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
    if self.depth < 10 or (self.depth - 4) % 6:
      raise ValueError(f'depth is {self.depth}; it must be 10, 16, 22, ... (6n + 4)')
    if self.factor < 1:
      raise ValueError(f'factor is {self.factor}; it must be at least 1')
    norm = self.norm(train)
    x = Conv(16, dtype=self.dtype, name='conv1')(self.standardise(images, multiple=4))
    for stage in range(3):
      for i in range((self.depth - 4) // 6):
        block = WideBlock(
          self.factor * 16 * 2**stage,
          stride=2 if stage and not i else 1,
          norm=norm,
          name=f'block{stage + 1}_layer_{i}',
        )
        x = block(x)
    return self.logits(relu(norm(name='bn1')(x)).mean((1, 2)), 'fc')


class WideBlock(nn.Module):
  """Two normalised 3 x 3 convolutions beside a shortcut."""

  features: int
  stride: int
  norm: Any

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    features, stride, norm = self.features, self.stride, self.norm
    y = relu(norm(name='bn1')(x))
    if stride > 1 or x.shape[-1] != features:
      x = Conv(features, 1, stride, dtype=x.dtype, name='shortcut')(y)
    y = Conv(features, stride=stride, dtype=x.dtype, name='conv1')(y)
    return x + Conv(features, dtype=x.dtype, name='conv2')(relu(norm(name='bn2')(y)))
