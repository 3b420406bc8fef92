"""What the architectures are made of."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from psml_jax import _validate
from psml_jax.zoo.conv import conv

_KERNEL = nn.initializers.variance_scaling(2.0, 'fan_out', 'normal')


class Conv(nn.Module):
  """A convolution that trains fast on CPUs too, for modules of your own.

  Maps f[N, H, W, C] images to f[N, ceil(H / stride), ceil(W / stride), features] of
  type `dtype`: a square kernel of odd size, zero padding of half its size. Its
  parameters are named as those of `flax.linen.Conv`: `kernel`, f32[size, size, C,
  features] (f32[size, size, 1, C] where `depthwise`), and `bias`, f32[features].
  Kernels begin as He et al. (2015) draw them, normal with variance
  2 / (size^2 features).

  Attributes:
    features: of the result; where `depthwise`, they must equal C.
    size: of the kernel, odd.
    stride: in both directions.
    depthwise: whether each channel has its own kernel.
    use_bias: whether to add one.
    dtype: of the computation; parameters are float32.

  Raises:
    ValueError: an even size, or other features than channels where `depthwise`.

  >>> layer = Conv(features=8, stride=2, use_bias=True)
  >>> images = jnp.zeros((4, 9, 9, 3))
  >>> result, variables = layer.init_with_output(jax.random.key(0), images)
  >>> result.shape, variables['params']['kernel'].shape
  ((4, 5, 5, 8), (3, 3, 3, 8))
  """

  features: int
  size: int = 3
  stride: int = 1
  depthwise: bool = False
  use_bias: bool = False
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, images: jax.Array) -> jax.Array:
    if self.size < 1 or not self.size % 2:
      raise ValueError(f'size is {self.size}; it must be odd')
    if self.depthwise and self.features != images.shape[-1]:
      raise ValueError(
        f'features is {self.features}; of a depthwise convolution it must be the '
        f'number of channels, {images.shape[-1]}'
      )
    channels = 1 if self.depthwise else images.shape[-1]
    shape = (self.size, self.size, channels, self.features)
    kernel = self.param('kernel', _KERNEL, shape, jnp.float32).astype(self.dtype)
    x = conv(images.astype(self.dtype), kernel, stride=self.stride)
    if self.use_bias:
      bias = self.param(
        'bias', nn.initializers.zeros_init(), (self.features,), jnp.float32
      )
      x += bias.astype(self.dtype).reshape(1, 1, 1, -1)
    return x


class Classifier(nn.Module, kw_only=True):
  """What every published architecture shares: its classes and how it sees pixels.

  `__call__(images, train=False)` maps f32[N, H, W, C] images with pixels in [0, 1]
  to f32[N, num_classes] logits. With `train=True` BatchNorm uses the batch's
  statistics and updates the collection `batch_stats`, and dropout draws from the
  stream `dropout`.

  Attributes:
    num_classes: K.
    mean: of each channel, subtracted first; its length is C, and its numbers are in
      [0, 1], as pixels are.
    std: of each channel, divided by; numbers in (0, 1].
    size: averages square blocks until images have this size; 0 keeps them.
    dtype: of the computation ('bfloat16' for mixed precision); parameters,
      statistics and logits are float32.

  Raises:
    ValueError: a mean or std that is no list of numbers in their range.
  """

  num_classes: int
  mean: Sequence[float] = (0.5, 0.5, 0.5)
  std: Sequence[float] = (0.25, 0.25, 0.25)
  size: int = 0
  dtype: Any = jnp.float32

  def __post_init__(self) -> None:
    self.mean = _channels('mean', self.mean, '[0, 1]')
    self.std = _channels('std', self.std, '(0, 1]')
    super().__post_init__()

  @property
  def input_shape(self) -> tuple[int, int, int]:
    """(H, W, C) of the images it was published for."""
    return (32, 32, len(self.mean))

  def standardise(
    self, images: jax.Array, *, multiple: int = 1, exactly: int = 0
  ) -> jax.Array:
    """Pools and standardises images, once they are known to fit.

    Args:
      images: f32[N, H, W, C], pixels in [0, 1].
      multiple: what H and W must be divisible by.
      exactly: what H and W must be, where it is not 0.

    Returns:
      f[N, H', W', C] in the module's dtype.

    Raises:
      ValueError: images of a size or number of channels that the model cannot take.
    """
    channels = images.shape[-1]
    if not channels == len(self.mean) == len(self.std):
      raise ValueError(
        f'images have {channels} channels; {type(self).__name__} has a mean of '
        f'{len(self.mean)} and a std of {len(self.std)} channels, so they must have '
        'as many (or set the fields mean and std)'
      )
    images = pool(images, self.size)
    height, width = images.shape[1:3]
    if exactly and (height, width) != (exactly, exactly):
      raise ValueError(
        f'images are {height} x {width}; {type(self).__name__} takes {exactly} x '
        f'{exactly}'
      )
    if height % multiple or width % multiple:
      raise ValueError(
        f'images are {height} x {width}; {type(self).__name__} takes sizes that are '
        f'divisible by {multiple}'
      )
    mean, std = (
      jnp.asarray(each, images.dtype).reshape(1, 1, 1, -1)
      for each in (self.mean, self.std)
    )
    return ((images - mean) / std).astype(self.dtype)

  def norm(self, train: bool) -> Callable[..., nn.BatchNorm]:
    """Makes the model's BatchNorm layers, with epsilon and momentum of PyTorch.

    The running variance follows the batch's own, without PyTorch's factor n / (n - 1).
    """
    return functools.partial(
      nn.BatchNorm,
      use_running_average=not train,
      momentum=0.9,
      epsilon=1e-5,
      dtype=self.dtype,
    )

  def dense(self, features: int, name: str) -> nn.Dense:
    """A dense layer in the model's dtype."""
    return nn.Dense(features, dtype=self.dtype, name=name)

  def logits(self, features: jax.Array, name: str) -> jax.Array:
    """The last dense layer, as float32."""
    return self.dense(self.num_classes, name)(features).astype(jnp.float32)


def relu(x: jax.Array) -> jax.Array:
  """Rectifies in float32 at least, and returns the type given; exact for bfloat16.

  Where one fusion holds two rectifiers of bfloat16, XLA's CPU backend of jaxlib 0.12
  loses their result. In float32 the values are the same, and so is the speed there.
  """
  wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
  return nn.relu(wide).astype(x.dtype)


def pool(images: jax.Array, size: int) -> jax.Array:
  """Averages square blocks so that images become smaller.

  Args:
    images: f32[N, H, W, C].
    size: a divisor of H and W; 0 keeps the images' size.

  Returns:
    f32[N, size, size, C].

  Raises:
    ValueError: `size` does not divide the image.
  """
  if not size:
    return images
  batch, height, width, channels = images.shape
  if height % size or width % size:
    raise ValueError(
      f'size is {size}; it must divide the image height {height} and width {width}'
    )
  rows = images.reshape(batch, size, height // size, width * channels).mean(2)
  return rows.reshape(batch, size, size, width // size, channels).mean(3)


def _channels(name: str, value: Any, interval: str) -> tuple[float, ...]:
  """A number for each channel, as a tuple, for modules must have a hash."""
  numbers = _validate.floats(name, value)
  if numbers.ndim != 1 or not numbers.size:
    raise ValueError(f'{name} is {value!r}; it must list one number for each channel')
  hint = ''
  if np.any(numbers > 1) and np.all((numbers >= 0) & (numbers <= 255)):
    hint = ' (these look like pixels of 0 to 255: divide by 255)'
  fit = (numbers >= 0) & (numbers <= 1) & ((numbers > 0) | (interval[0] == '['))
  _validate.reject(name, numbers, ~fit, f'numbers in {interval}{hint}')
  return tuple(numbers.tolist())
