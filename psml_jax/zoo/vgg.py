"""VGG with BatchNorm (Simonyan & Zisserman 2015), as published for CIFAR."""

import flax.linen as nn
import jax

from psml_jax.zoo.layers import Classifier, Conv, relu

_WIDTHS = (64, 128, 256, 512, 512)


class VGG(Classifier, kw_only=True):
  """Five stages of 3 x 3 convolutions and three dense layers.

  Attributes (beside those of `Classifier`):
    convolutions: how many in each of the five stages.
  """

  convolutions: tuple[int, ...] = (1, 1, 2, 2, 2)

  @nn.compact
  def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
    norm = self.norm(train)
    x = self.standardise(images, exactly=32)
    layer = 0
    for width, count in zip(_WIDTHS, self.convolutions, strict=True):
      for _ in range(count):
        name = f'features_{layer}'
        x = Conv(width, use_bias=True, dtype=self.dtype, name=name)(x)
        x = relu(norm(name=f'features_{layer + 1}')(x))
        layer += 3
      x = nn.max_pool(x, (2, 2), (2, 2))
      layer += 1
    x = x.reshape(len(x), -1)
    for name in ('classifier_0', 'classifier_3'):
      x = relu(self.dense(512, name)(x))
      x = nn.Dropout(0.5, deterministic=not train)(x)
    return self.logits(x, 'classifier_6')
