"""Vision transformers (Dosovitskiy et al. 2021), with timm's names of parameters."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from psml_jax.zoo.layers import Classifier


class ViT(Classifier, kw_only=True):
  """A transformer on patches with a class token.

  Attributes (beside those of `Classifier`):
    image_size: H and W of the images, a multiple of `patch`.
    patch: height and width of a patch.
    width: of a token.
    depth: blocks.
    heads: of the attention.
  """

  mean: Sequence[float] = (0.5, 0.5, 0.5)
  std: Sequence[float] = (0.5, 0.5, 0.5)
  image_size: int = 384
  patch: int = 16
  width: int = 384
  depth: int = 12
  heads: int = 6

  @property
  def input_shape(self) -> tuple[int, int, int]:
    """(H, W, C) of the images it was published for."""
    return (self.image_size, self.image_size, len(self.mean))

  @nn.compact
  def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
    x = self.standardise(images, multiple=self.patch, exactly=self.image_size)
    x = PatchEmbed(self.width, self.patch, name='patch_embed')(x)
    small = nn.initializers.normal(0.02)
    token = self.param('cls_token', small, (1, 1, self.width), jnp.float32)
    positions = self.param(
      'pos_embed', small, (1, x.shape[1] + 1, self.width), jnp.float32
    )
    first = jnp.broadcast_to(token.astype(x.dtype), (len(x), 1, self.width))
    x = jnp.concatenate([first, x], axis=1) + positions.astype(x.dtype)
    for i in range(self.depth):
      x = Block(self.heads, name=f'blocks_{i}')(x)
    x = nn.LayerNorm(epsilon=1e-6, dtype=self.dtype, name='norm')(x[:, 0])
    return self.logits(x, 'head')


class PatchEmbed(nn.Module):
  """Patches as tokens: f[N, H, W, C] -> f[N, H W / patch^2, width]."""

  width: int
  patch: int

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    return Patches(self.width, self.patch, name='proj')(x)


class Patches(nn.Module):
  """A convolution whose stride is its size, as the matrix product that it is."""

  width: int
  patch: int

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    side, (batch, height, breadth, channels) = self.patch, x.shape
    shape = (side, side, channels, self.width)
    kernel = self.param('kernel', nn.initializers.lecun_normal(), shape, jnp.float32)
    bias = self.param('bias', nn.initializers.zeros_init(), (self.width,), jnp.float32)
    rows = x.reshape(batch, height // side, side, breadth // side, side, channels)
    tokens = rows.swapaxes(2, 3).reshape(batch, -1, side * side * channels)
    y = tokens @ kernel.astype(x.dtype).reshape(-1, self.width)
    return y + bias.astype(x.dtype).reshape(1, 1, -1)


class Block(nn.Module):
  """Attention and an MLP, each behind a LayerNorm and beside a shortcut."""

  heads: int

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    norm = {'epsilon': 1e-6, 'dtype': x.dtype}
    y = nn.LayerNorm(**norm, name='norm1')(x)  # type: ignore[arg-type]
    x += Attention(self.heads, name='attn')(y)
    y = nn.LayerNorm(**norm, name='norm2')(x)  # type: ignore[arg-type]
    return x + Feedforward(name='mlp')(y)


class Attention(nn.Module):
  """Self-attention over tokens, f[N, T, D] -> f[N, T, D]."""

  heads: int

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    batch, tokens, width = x.shape
    joint = nn.Dense(3 * width, dtype=x.dtype, name='qkv')(x)
    shape = (batch, tokens, 3, self.heads, width // self.heads)
    query, key, value = jnp.moveaxis(joint.reshape(shape), 2, 0)
    y: Any = jax.nn.dot_product_attention(query, key, value)
    return nn.Dense(width, dtype=x.dtype, name='proj')(y.reshape(x.shape))


class Feedforward(nn.Module):
  """Two dense layers with a GELU between."""

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    width = x.shape[-1]
    y = nn.Dense(4 * width, dtype=x.dtype, name='fc1')(x)
    y = nn.gelu(y, approximate=False)
    return nn.Dense(width, dtype=x.dtype, name='fc2')(y)
