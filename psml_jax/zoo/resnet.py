"""ResNets for small images (He et al. 2016, section 4.2), as published for CIFAR."""

from typing import Any

import flax.linen as nn
import jax

from psml_jax.zoo.layers import Classifier, Conv, relu


class ResNet(Classifier, kw_only=True):
  """Three stages of basic blocks.

  Attributes (beside those of `Classifier`):
    depth: 6n + 2 for n blocks a stage: 8, 14, 20, 32, 44, 56, ...
    width: channels of the first stage; the next ones double them.
  """

  depth: int = 20
  width: int = 16

  @nn.compact
  def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
    if self.depth < 8 or (self.depth - 2) % 6:
      raise ValueError(f'depth is {self.depth}; it must be 8, 14, 20, ... (6n + 2)')
    norm = self.norm(train)
    x = self.standardise(images, multiple=4)
    x = relu(norm(name='bn1')(Conv(self.width, dtype=self.dtype, name='conv1')(x)))
    for stage in range(3):
      for i in range((self.depth - 2) // 6):
        block = BasicBlock(
          self.width * 2**stage,
          stride=2 if stage and not i else 1,
          norm=norm,
          name=f'layer{stage + 1}_{i}',
        )
        x = block(x)
    return self.logits(x.mean((1, 2)), 'fc')


class BasicBlock(nn.Module):
  """Two 3 x 3 convolutions beside a shortcut."""

  features: int
  stride: int
  norm: Any

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    features, stride, norm = self.features, self.stride, self.norm
    y = Conv(features, stride=stride, dtype=x.dtype, name='conv1')(x)
    y = Conv(features, dtype=x.dtype, name='conv2')(relu(norm(name='bn1')(y)))
    if stride > 1 or x.shape[-1] != features:
      short = Conv(features, 1, stride, dtype=x.dtype, name='downsample_0')
      x = norm(name='downsample_1')(short(x))
    return relu(norm(name='bn2')(y) + x)
