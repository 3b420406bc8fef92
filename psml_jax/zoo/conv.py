"""Convolutions that are fast inside loops on CPUs too.

XLA's CPU backend hands a convolution to a fast library only in one arrangement: batch
first, channels last, kernels HWIO, nothing reversed. Outside loops it rewrites others
into that; inside loops, where every training here happens, it does not, and a gradient
takes 20 to 40 times as long (jax issue 12868); a depthwise one takes seconds. On CPUs
the gradients are therefore written out in that arrangement, a 1 x 1 convolution is a
matrix product, a depthwise one a sum of shifted images, and one whose kernel is larger
than its images, which no library takes, a matrix product of shifted images. Elsewhere
all are XLA's own.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

_LAYOUT = ('NHWC', 'HWIO', 'NHWC')


def conv(images: jax.Array, kernel: jax.Array, *, stride: int = 1) -> jax.Array:
  """Convolves with a square kernel of odd size, zero padding of half its size.

  Args:
    images: f[N, H, W, C].
    kernel: f[S, S, C, F], or f[S, S, 1, C] for a depthwise convolution (each channel
      with its own kernel).
    stride: in both directions.

  Returns:
    f[N, ceil(H / stride), ceil(W / stride), F]. Differentiable, in reverse mode.
  """
  channels = images.shape[-1]
  depthwise = channels > 1 and kernel.shape[2] == 1
  if depthwise:
    on_cpu = _shifted
  elif len(kernel) == 1:
    on_cpu = _pointwise
  elif min(images.shape[1:3]) < len(kernel):
    on_cpu = _unfolded
  else:
    on_cpu = _arranged
  return lax.platform_dependent(
    images,
    kernel,
    cpu=functools.partial(on_cpu, stride=stride),
    default=functools.partial(direct, stride=stride),
  )


def direct(images: jax.Array, kernel: jax.Array, *, stride: int) -> jax.Array:
  """XLA's convolution, with the arguments and result of `conv`."""
  half = kernel.shape[0] // 2
  return lax.conv_general_dilated(
    images,
    kernel,
    (stride, stride),
    ((half, half), (half, half)),
    dimension_numbers=_LAYOUT,
    feature_group_count=images.shape[-1] // kernel.shape[2],
  )


def _pointwise(images: jax.Array, kernel: jax.Array, *, stride: int) -> jax.Array:
  images = images[:, ::stride, ::stride]
  product = images.reshape(-1, images.shape[-1]) @ kernel[0, 0]
  return product.reshape(*images.shape[:3], -1)


def _shifted(images: jax.Array, kernel: jax.Array, *, stride: int) -> jax.Array:
  taps = kernel.reshape(-1, 1, 1, 1, kernel.shape[-1])
  total = jnp.zeros((), images.dtype)
  for view, tap in zip(_views(images, len(kernel), stride), taps, strict=True):
    total += view * tap
  return total


def _unfolded(images: jax.Array, kernel: jax.Array, *, stride: int) -> jax.Array:
  views = jnp.concatenate(_views(images, len(kernel), stride), axis=-1)
  product = views.reshape(-1, views.shape[-1]) @ kernel.reshape(-1, kernel.shape[-1])
  return product.reshape(*views.shape[:3], -1)


def _views(images: jax.Array, size: int, stride: int) -> list[jax.Array]:
  """What every entry of a kernel sees, row by row."""
  _, height, width, _ = images.shape
  half = size // 2
  padded = jnp.pad(images, ((0, 0), (half, half), (half, half), (0, 0)))
  return [
    padded[:, i : i + height : stride, j : j + width : stride]
    for i in range(size)
    for j in range(size)
  ]


def _arranged(images: jax.Array, kernel: jax.Array, *, stride: int) -> jax.Array:
  return _with_arranged_gradients(images, kernel, stride)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _with_arranged_gradients(
  images: jax.Array, kernel: jax.Array, stride: int
) -> jax.Array:
  return direct(images, kernel, stride=stride)


def _forward(
  images: jax.Array, kernel: jax.Array, stride: int
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
  return direct(images, kernel, stride=stride), (images, kernel)


def _backward(
  stride: int, residuals: tuple[jax.Array, jax.Array], cotangent: jax.Array
) -> tuple[jax.Array, jax.Array]:
  images, kernel = residuals
  size = kernel.shape[0]
  half = size // 2
  zero = jnp.zeros((), cotangent.dtype)
  lengths = zip(images.shape[1:3], cotangent.shape[1:3], strict=True)
  # What the forward strides left uncovered at the far end, in rows and columns.
  missing = [whole - (part - 1) * stride - 1 for whole, part in lengths]

  edges = [(size - 1 - half, half + rest, stride - 1) for rest in missing]
  spread = lax.pad(cotangent, zero, ((0, 0, 0), *edges, (0, 0, 0)))
  flipped = lax.rev(kernel, (0, 1)).transpose(0, 1, 3, 2)
  to_images = _valid(spread, flipped, ((0, 0), (0, 0)))

  inside = ((0, 0, stride - 1), (0, 0, stride - 1), (0, 0, 0), (0, 0, 0))
  as_kernel = lax.pad(cotangent.transpose(1, 2, 0, 3), zero, inside)
  padding = [(half, size - 1 - half - rest) for rest in missing]
  to_kernel = _valid(images.transpose(3, 1, 2, 0), as_kernel, padding)
  return to_images, to_kernel.transpose(1, 2, 0, 3)


def _valid(images: jax.Array, kernel: jax.Array, padding: object) -> jax.Array:
  return lax.conv_general_dilated(
    images,
    kernel,
    (1, 1),
    padding,  # type: ignore[arg-type]
    dimension_numbers=_LAYOUT,
  )


_with_arranged_gradients.defvjp(_forward, _backward)
