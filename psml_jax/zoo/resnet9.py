"""The ResNet of nine wide layers, for small images."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from psml_jax.zoo.layers import Classifier, Conv, relu

_SCALE = 0.125


class ResNet9(Classifier, kw_only=True):
  """Few, wide layers, halved by maxima: Page (2018), "How to train your ResNet".

  Its first stage has one layer; three more double the channels and halve the images,
  and the second and the last of the four have a residual block. Far fewer activations
  for the same arithmetic than `ResNet`.

  Attributes (beside those of `Classifier`):
    width: channels of the first stage; published with 64.
    mirror: whether it answers, once trained, with the mean of its logits for an image
      and for the mirrored one.
  """

  width: int = 64
  mirror: bool = False

  @nn.compact
  def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
    if self.width < 1:
      raise ValueError(f'width is {self.width}; it must be at least 1')
    norm = self.norm(train)
    x = self.standardise(images, multiple=8)
    if mirror := self.mirror and not train:
      x = jnp.concatenate([x, x[:, :, ::-1]])
    for stage in range(4):
      x = ConvNorm(self.width * 2**stage, norm, name=f'stage{stage}')(x)
      if stage:
        x = _halve(x)
      if stage % 2:
        y = ConvNorm(x.shape[-1], norm, name=f'stage{stage}_res1')(x)
        x += ConvNorm(x.shape[-1], norm, name=f'stage{stage}_res2')(y)
    logits = self.logits(x.max((1, 2)), 'fc') * _SCALE
    return logits.reshape(2, -1, self.num_classes).mean(0) if mirror else logits


class ConvNorm(nn.Module):
  """A 3 x 3 convolution, normalised and rectified."""

  features: int
  norm: Any

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    x = Conv(self.features, dtype=x.dtype, name='conv')(x)
    return relu(self.norm(name='bn')(x))


def _halve(x: jax.Array) -> jax.Array:
  """The maxima over blocks of 2 x 2."""
  batch, height, width, channels = x.shape
  return x.reshape(batch, height // 2, 2, width // 2, 2, channels).max((2, 4))
