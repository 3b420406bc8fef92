"""RepVGG (Ding et al. 2021), as published for CIFAR, and its fused deploy form."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from psml_jax.train.model import Model
from psml_jax.zoo.layers import Classifier, Conv, relu

_EPSILON = 1e-5


class RepVGG(Classifier, kw_only=True):
  """Blocks of three branches that fuse into one convolution.

  Attributes (beside those of `Classifier`):
    widths: channels of the four stages.
    blocks: how many in each of the four stages.
    deploy: whether the blocks are the fused convolutions; see `fuse`.
  """

  widths: tuple[int, ...] = (48, 96, 192, 1280)
  blocks: tuple[int, ...] = (2, 4, 14, 1)
  deploy: bool = False

  @nn.compact
  def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
    norm = self.norm(train)
    x = self.standardise(images, multiple=8)
    first = min(64, self.widths[0])
    x = RepVGGBlock(first, 1, self.deploy, norm, name='stage0')(x)
    for stage, (width, blocks) in enumerate(zip(self.widths, self.blocks), start=1):
      for i in range(blocks):
        stride = 2 if stage > 1 and not i else 1
        name = f'stage{stage}_{i}'
        x = RepVGGBlock(width, stride, self.deploy, norm, name=name)(x)
    return self.logits(x.mean((1, 2)), 'linear')


class RepVGGBlock(nn.Module):
  """A 3 x 3 and a 1 x 1 convolution and, where shapes allow, the identity, summed."""

  features: int
  stride: int
  deploy: bool
  norm: Any

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    if self.deploy:
      fused = Conv(
        self.features, 3, self.stride, False, True, x.dtype, name='rbr_reparam'
      )
      return relu(fused(x))
    y = Branch(self.features, 3, self.stride, self.norm, name='rbr_dense')(x)
    y += Branch(self.features, 1, self.stride, self.norm, name='rbr_1x1')(x)
    if self.stride == 1 and x.shape == y.shape:
      y += self.norm(name='rbr_identity')(x)
    return relu(y)


class Branch(nn.Module):
  """A convolution and its BatchNorm."""

  features: int
  size: int
  stride: int
  norm: Any

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    x = Conv(self.features, self.size, self.stride, dtype=x.dtype, name='conv')(x)
    return self.norm(name='bn')(x)


def fuse(model: Model) -> Model:
  """Folds every block of a trained RepVGG into one convolution.

  BatchNorm of a convolution `W * x` is the convolution `(s W) * x + b - s m`, with
  `s = scale / sqrt(var + epsilon)`; a 1 x 1 kernel is the middle of a 3 x 3 one, and
  so is the identity (paper of RepVGG, section 3.3).

  Args:
    model: a RepVGG with three branches.

  Returns:
    The model with `deploy=True`, equal up to floating-point sums.

  Raises:
    ValueError: the module is no RepVGG, or fused already.
  """
  if not isinstance(model.module, RepVGG) or model.module.deploy:
    raise ValueError(
      f'model is {type(model.module).__name__}; it must be a RepVGG with deploy=False'
    )
  variables = jax.tree.map(np.asarray, model.variables)
  params, stats = variables['params'], variables['batch_stats']
  fused = {
    name: {'rbr_reparam': _fold(params[name], stats[name])} if name in stats else entry
    for name, entry in params.items()
  }
  fused = jax.tree.map(jnp.asarray, fused)
  return Model(model.module.clone(deploy=True), {'params': fused})


def _fold(params: Mapping[str, Any], stats: Mapping[str, Any]) -> dict[str, np.ndarray]:
  channels = params['rbr_dense']['conv']['kernel'].shape[2]
  middle = ((1, 1), (1, 1), (0, 0), (0, 0))
  branches = [
    (params['rbr_dense']['conv']['kernel'], 'rbr_dense'),
    (np.pad(params['rbr_1x1']['conv']['kernel'], middle), 'rbr_1x1'),
  ]
  kernel = bias = np.zeros((), np.float32)
  for branch, name in branches:
    scale, shift = _affine(params[name]['bn'], stats[name]['bn'])
    kernel, bias = kernel + branch * scale.reshape(1, 1, 1, -1), bias + shift
  if 'rbr_identity' in params:
    identity = np.pad(np.eye(channels, dtype=np.float32)[None, None], middle)
    scale, shift = _affine(params['rbr_identity'], stats['rbr_identity'])
    kernel, bias = kernel + identity * scale.reshape(1, 1, 1, -1), bias + shift
  return {'kernel': kernel, 'bias': bias}


def _affine(
  params: Mapping[str, np.ndarray], stats: Mapping[str, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
  scale = params['scale'] / np.sqrt(stats['var'] + _EPSILON)
  return scale, params['bias'] - scale * stats['mean']
