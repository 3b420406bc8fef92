"""A model that answers: a module with its variables."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.errors
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from psml_jax import _compile, _validate, training
from psml_jax.zoo import contract

_ROUNDING = 1e-6


class Model(NamedTuple):
  """A trained model.

  Attributes:
    module: maps f32[N, H, W, C] images to f32[N, K] logits.
    variables: its Flax variables.
  """

  module: nn.Module
  variables: Any

  def probabilities(self, images: jax.Array) -> jax.Array:
    """Class probabilities, f32[N, K]; traceable."""
    logits = self.module.apply(self.variables, images)
    assert isinstance(logits, jax.Array)
    return jax.nn.softmax(logits)


def train(
  key: jax.Array,
  module: nn.Module,
  images: np.ndarray,
  labels: np.ndarray,
  *,
  num_classes: int,
  hyper: training.Hyper,
) -> tuple[Model, np.ndarray]:
  """Trains a model of the zoo on labelled images, in one compiled program.

  Args:
    key: consumed.
    module: the architecture, called as `zoo.register` says.
    images: f32[N, H, W, C], pixels in [0, 1].
    labels: i32[N], classes.
    num_classes: K.
    hyper: the settings.

  Returns:
    The model, and f32[steps] losses.

  Raises:
    ValueError: no key, a module that cannot be trained, images, labels or classes that
      do not fit each other or the module, or a loss that is no longer finite.

  Warns:
    UserWarning: the module holds Flax's own convolutions, and the device is a CPU.
  """
  _validate.key('key', key)
  check_data(images, labels, num_classes)
  contract.check_logits(module, images.shape[1:], num_classes)
  contract.warn_of_slow_layers(module, images.shape[1:])

  def job(key: jax.Array, images: jax.Array, labels: jax.Array) -> Any:
    targets = jax.nn.one_hot(labels, num_classes, dtype=jnp.float32)
    count = jnp.int32(len(labels))
    return training.fit(key, module, images, targets, count, hyper)

  program = jax.jit(job, compiler_options=_compile.options('training'))
  variables, losses = program(
    key, jnp.asarray(images, jnp.float32), jnp.asarray(labels)
  )
  losses = np.asarray(losses)
  if not np.isfinite(losses).all():
    step = int(np.argmin(np.isfinite(losses)))
    raise _validate.InputError(
      f'the loss is {losses[step]} in step {step}; lower hyper.learning_rate'
    )
  return Model(module, variables), losses


def check_data(images: np.ndarray, labels: np.ndarray, num_classes: int) -> None:
  """Checks that images, labels and classes fit each other.

  Args:
    images: f[N, H, W, C], N >= 1.
    labels: whole numbers [N], in [0, num_classes).
    num_classes: K.

  Raises:
    ValueError: they do not.
  """
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


def predict(model: Model, images: np.ndarray, *, batch_size: int = 256) -> np.ndarray:
  """Class probabilities of many images, batch by batch in one compiled program.

  Args:
    model: the model.
    images: f32[N, H, W, C], N >= 1, pixels in [0, 1].
    batch_size: images at a time.

  Returns:
    f32[N, K].

  Raises:
    ValueError: no images, images that are no floats in [0, 1] or of a shape that the
      model does not take, or a batch size that is no whole number >= 1.
  """
  return predictor(model.module, images, batch_size=batch_size)(model.variables)


def predictor(
  module: nn.Module, images: np.ndarray, *, batch_size: int = 256
) -> Callable[[Any], np.ndarray]:
  """Makes a function of variables that is compiled once; arguments as `predict`.

  Returns:
    Maps the module's variables to f32[N, K] class probabilities of the images.
  """
  size = min(_validate.positive_int('batch_size', batch_size), len(images))
  check_pixels(images)
  if images.ndim != 4 or not size:
    raise ValueError(f'images are {images.shape}; they must be [N, H, W, C], not empty')
  padded = np.concatenate([images, images[: -len(images) % size]])
  batches = jnp.asarray(padded.reshape(-1, size, *images.shape[1:]))

  def job(variables: Any, batches: jax.Array) -> jax.Array:
    return jax.lax.map(Model(module, variables).probabilities, batches)

  program = jax.jit(job, compiler_options=_compile.options('serving'))

  def answer(variables: Any) -> np.ndarray:
    try:
      answers = np.asarray(program(variables, batches))
    except flax.errors.ScopeParamShapeError as error:
      raise ValueError(
        f'images are of shape {images.shape[1:]}, which the model does not take: '
        f'{error}'
      ) from error
    return answers.reshape(len(padded), -1)[: len(images)]

  return answer


def abstract_variables(module: nn.Module, image_shape: Sequence[int]) -> Any:
  """Shapes and dtypes of a module's variables, without allocating them.

  Args:
    module: the architecture.
    image_shape: (H, W, C).

  Returns:
    A tree of `jax.ShapeDtypeStruct`.
  """
  image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
  return jax.eval_shape(module.init, jax.random.key(0), image)
