"""MobileNetV2 (Sandler et al. 2018), as published for CIFAR."""

from typing import Any

import flax.linen as nn
import jax

from psml_jax.zoo.layers import Classifier, Conv

# Expansion, channels, blocks, stride of the first block.
_STAGES = (
  (1, 16, 1, 1),
  (6, 24, 2, 1),
  (6, 32, 3, 2),
  (6, 64, 4, 2),
  (6, 96, 3, 1),
  (6, 160, 3, 2),
  (6, 320, 1, 1),
)


class MobileNetV2(Classifier, kw_only=True):
  """Inverted residuals with depthwise convolutions.

  Attributes (beside those of `Classifier`):
    width: what every number of channels is multiplied by.
  """

  width: float = 1.0

  @nn.compact
  def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
    norm = self.norm(train)
    x = self.standardise(images, multiple=8)
    x = ConvNorm(_divisible(32 * self.width), norm, name='features_0')(x)
    layer = 1
    for expansion, channels, blocks, stride in _STAGES:
      for i in range(blocks):
        block = InvertedResidual(
          _divisible(channels * self.width),
          expansion=expansion,
          stride=1 if i else stride,
          norm=norm,
          name=f'features_{layer}',
        )
        x = block(x)
        layer += 1
    last = _divisible(1280 * max(1.0, self.width))
    x = ConvNorm(last, norm, size=1, name=f'features_{layer}')(x)
    x = nn.Dropout(0.2, deterministic=not train)(x.mean((1, 2)))
    return self.logits(x, 'classifier_1')


class InvertedResidual(nn.Module):
  """A wide depthwise convolution between two narrow ends."""

  features: int
  expansion: int
  stride: int
  norm: Any

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    inside = x.shape[-1] * self.expansion
    y, layer = x, 0
    if self.expansion > 1:
      y, layer = ConvNorm(inside, self.norm, size=1, name='conv_0')(y), 1
    depthwise = ConvNorm(
      inside, self.norm, stride=self.stride, depthwise=True, name=f'conv_{layer}'
    )
    y = Conv(self.features, 1, dtype=x.dtype, name=f'conv_{layer + 1}')(depthwise(y))
    y = self.norm(name=f'conv_{layer + 2}')(y)
    return x + y if self.stride == 1 and x.shape == y.shape else y


class ConvNorm(nn.Module):
  """A convolution, BatchNorm and ReLU6 (entries 0 and 1 of the published layout)."""

  features: int
  norm: Any
  size: int = 3
  stride: int = 1
  depthwise: bool = False

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    convolution = Conv(
      self.features, self.size, self.stride, self.depthwise, dtype=x.dtype, name='0'
    )
    return nn.relu6(self.norm(name='1')(convolution(x)))


def _divisible(channels: float) -> int:
  """The nearest multiple of eight that is not below nine tenths of `channels`."""
  nearest = max(8, int(channels + 4) // 8 * 8)
  return nearest if nearest >= 0.9 * channels else nearest + 8
