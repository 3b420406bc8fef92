"""ShuffleNetV2 (Ma et al. 2018), as published for CIFAR."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from psml_jax.zoo.layers import Classifier, Conv, relu

_BLOCKS = (4, 8, 4)


class ShuffleNetV2(Classifier, kw_only=True):
  """Halves that are convolved, joined and shuffled.

  Attributes (beside those of `Classifier`):
    widths: channels of the three stages and of the last convolution.
  """

  widths: tuple[int, ...] = (116, 232, 464, 1024)

  @nn.compact
  def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
    norm = self.norm(train)
    x = self.standardise(images, multiple=8)
    x = Conv(24, dtype=self.dtype, name='conv1_0')(x)
    x = relu(norm(name='conv1_1')(x))
    for stage, (width, blocks) in enumerate(zip(self.widths, _BLOCKS), start=2):
      for i in range(blocks):
        name = f'stage{stage}_{i}'
        x = ShuffleBlock(width, 1 if i else 2, norm, name=name)(x)
    x = Conv(self.widths[-1], 1, dtype=self.dtype, name='conv5_0')(x)
    x = relu(norm(name='conv5_1')(x))
    return self.logits(x.mean((1, 2)), 'fc')


class ShuffleBlock(nn.Module):
  """One half goes through convolutions; with stride 2 both do, from all channels."""

  features: int
  stride: int
  norm: Any

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    if self.stride > 1:
      left = self._depthwise(x, 'branch1_0', 'branch1_1')
      left = self._pointwise(left, 'branch1_2', 'branch1_3')
      right = x
    else:
      left, right = jnp.split(x, 2, axis=-1)
    right = self._pointwise(right, 'branch2_0', 'branch2_1')
    right = self._depthwise(right, 'branch2_3', 'branch2_4')
    right = self._pointwise(right, 'branch2_5', 'branch2_6')
    return jnp.stack([left, right], axis=-1).reshape(*left.shape[:3], -1)

  def _pointwise(self, x: jax.Array, conv: str, norm: str) -> jax.Array:
    x = Conv(self.features // 2, 1, dtype=x.dtype, name=conv)(x)
    return relu(self.norm(name=norm)(x))

  def _depthwise(self, x: jax.Array, conv: str, norm: str) -> jax.Array:
    channels = x.shape[-1]
    x = Conv(channels, 3, self.stride, True, dtype=x.dtype, name=conv)(x)
    return self.norm(name=norm)(x)
