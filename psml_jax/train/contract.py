"""What the library asks of a module that it trains or serves."""

import inspect
import warnings
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from psml_jax import _validate

_ROUNDING = 1e-6


def check_call(name: str, module: Any) -> None:
  """Checks that a module, or its class, is called as the library calls it.

  Args:
    name: of the module, for the error.
    module: the module or class.

  Raises:
    ValueError: no Flax module, or one whose `__call__` has no `train=False`.
  """
  made = module if isinstance(module, type) else type(module)
  if not issubclass(made, nn.Module):
    raise ValueError(f'{name} is {module!r}; it must be a flax.linen.Module')
  parameters = inspect.signature(made.__call__).parameters
  train = parameters.get('train')
  if train is None:
    lacks = 'has no argument train'
  elif train.kind == train.POSITIONAL_ONLY:
    lacks = 'takes train by its position alone'
  elif train.default is train.empty:
    lacks = 'has no default of train'
  else:
    return
  raise ValueError(
    f'{name}: __call__ of {made.__name__} {lacks}; it must be '
    '__call__(images, train=False)'
  )


def check_logits(
  module: nn.Module, image_shape: tuple[int, ...], num_classes: int
) -> None:
  """Checks a module's call and logits, without computing anything.

  Args:
    module: the architecture.
    image_shape: (H, W, C).
    num_classes: K.

  Raises:
    ValueError: a module that `check_call` refuses, or whose logits for f32[N, H, W, C]
      images are not f32[N, K].
  """
  check_call('module', module)
  _check_hashable(f'module {type(module).__name__}', module)
  logits = _trace(module, image_shape)
  shape, dtype = getattr(logits, 'shape', None), getattr(logits, 'dtype', None)
  if shape != (1, num_classes):
    raise ValueError(
      f'num_classes is {num_classes}; it must be that of the module, whose logits for '
      f'one image are {shape}'
    )
  if dtype != jnp.float32:
    raise ValueError(
      f'module gives logits of type {dtype}; they must be float32 (end __call__ with '
      '.astype(jnp.float32))'
    )


def check_objective(name: str, objective: Any) -> None:
  """Checks what can be told of an objective before it is called.

  Args:
    name: of the objective, for the error.
    objective: as `train.Objective` says.

  Raises:
    ValueError: it cannot be called, is not hashable, or has no whole `unlabelled` >= 0.
  """
  if not callable(objective) or isinstance(objective, type):
    raise ValueError(
      f'{name} is {objective!r}; it must be a value that can be called, as '
      'train.Objective says'
    )
  _check_hashable(name, objective)
  unlabelled: Any = getattr(objective, 'unlabelled', None)
  _validate.non_negative_int(f'unlabelled of {name}', unlabelled)


def hashable(value: Any) -> Any:
  """Lists and arrays as tuples, numbers of NumPy as Python's."""
  if isinstance(value, (np.ndarray, np.generic, jax.Array)):
    value = np.asarray(value).tolist()
  if isinstance(value, (list, tuple)):
    return tuple(hashable(entry) for entry in value)
  return value


def _check_hashable(name: str, value: Any) -> None:
  try:
    hash(value)
  except TypeError as error:
    raise ValueError(
      f'{name} has fields that are not hashable; give tuples for lists and arrays'
    ) from error


def check_data(images: np.ndarray, labels: np.ndarray, num_classes: int) -> None:
  """Checks that images, labels and classes fit each other.

  Args:
    images: f[N, H, W, C], N >= 1.
    labels: whole numbers [N], in [0, num_classes).
    num_classes: K.

  Raises:
    ValueError: they do not.
  """
  for name, value in (('images', images), ('labels', labels)):
    _check_array(name, value)
  if images.ndim != 4 or not len(images) or labels.shape != images.shape[:1]:
    raise ValueError(
      f'images are {images.shape} and labels {labels.shape}; they must be [N, H, W, C] '
      'and [N], not empty'
    )
  if images.dtype.kind != 'f' or labels.dtype.kind not in 'iu':
    raise ValueError(
      f'images are of type {images.dtype} and labels of type {labels.dtype}; they must '
      'be floats with pixels in [0, 1], and whole numbers'
    )
  check_pixels(images)
  if labels.min() < 0 or labels.max() >= num_classes:
    raise ValueError(
      f'labels span [{labels.min()}, {labels.max()}]; they must be in '
      f'[0, {num_classes - 1}]'
    )


def check_pixels(images: np.ndarray) -> None:
  """Raises a ValueError where concrete images are no floats in [0, 1]."""
  _check_array('images', images)
  if not jnp.issubdtype(images.dtype, jnp.floating):
    raise ValueError(
      f'images are of type {images.dtype}; they must be floats with pixels in [0, 1]'
    )
  if not _validate.is_concrete(images) or not images.size:
    return
  low, high = float(images.min()), float(images.max())
  if not np.isfinite([low, high]).all():
    raise ValueError('images hold NaN or infinity; pixels must be in [0, 1]')
  if low < -_ROUNDING or high > 1 + _ROUNDING:
    hint = ''
    if low < -_ROUNDING:
      hint = ' (they may be standardised: undo it)'
    elif high <= 255:
      hint = ' (divide by 255)'
    raise ValueError(
      f'images span [{low:.6g}, {high:.6g}]; pixels must be in [0, 1]{hint}'
    )


def _check_array(name: str, value: Any) -> None:
  if not isinstance(value, (np.ndarray, jax.Array)):
    raise ValueError(
      f'{name} is of type {type(value).__name__}; it must be an array (numpy.asarray '
      'makes one of a list)'
    )


def warn_of_slow_layers(module: nn.Module, image_shape: tuple[int, ...]) -> None:
  """Warns where a module that is trained on a CPU holds Flax's own convolutions.

  Args:
    module: the architecture.
    image_shape: (H, W, C).
  """
  if jax.default_backend() != 'cpu':
    return
  slow = []

  def watch(
    call: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    context: nn.module.InterceptorContext,
  ) -> Any:
    if isinstance(context.module, nn.Conv):
      slow.append('/'.join(context.module.path))
    return call(*args, **kwargs)

  with nn.intercept_methods(watch):
    _trace(module, image_shape)
  if slow:
    warnings.warn(
      f'module {type(module).__name__} holds flax.linen.Conv ({slow[0]}'
      f'{" and more" if len(slow) > 1 else ""}), which is many times slower than '
      'psml_jax.zoo.Conv when it is trained on a CPU',
      stacklevel=3,
    )


def _trace(module: nn.Module, image_shape: tuple[int, ...]) -> Any:
  image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
  logits, _ = jax.eval_shape(module.init_with_output, jax.random.key(0), image)
  return logits
