"""Models that compile quickly, for tests of what trains them."""

import flax.linen as nn
import jax

from psml_jax.zoo.layers import Conv


class Small(nn.Module):
  """A convolution, BatchNorm and a dense layer.

  Attributes:
    num_classes: K.
    width: channels of the convolution.
  """

  num_classes: int
  width: int = 2

  @nn.compact
  def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
    x = Conv(self.width, name='conv')(images)
    x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9)(x))
    return nn.Dense(self.num_classes)(x.mean((1, 2)))


class Normed(nn.Module):
  """BatchNorm of the pixels and a dense layer.

  Attributes:
    num_classes: K.
  """

  num_classes: int

  @nn.compact
  def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
    x = images.reshape(len(images), -1)
    x = nn.BatchNorm(use_running_average=not train, momentum=0.9)(x)
    return nn.Dense(self.num_classes)(x)
