"""A model that answers: a module with its variables."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.errors
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from psml_jax import _compile, _validate
from psml_jax.train import contract


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
  _validate.positive_int('batch_size', batch_size)
  contract.check_pixels(images)
  if images.ndim != 4 or not len(images):
    raise ValueError(f'images are {images.shape}; they must be [N, H, W, C], not empty')
  # Fewer are filled up to a power of two, so that few programs serve all numbers.
  size = min(batch_size, 1 << (len(images) - 1).bit_length())
  padded = np.pad(
    np.asarray(images, np.float32), ((0, -len(images) % size), (0, 0), (0, 0), (0, 0))
  )
  batches = padded.reshape(-1, size, *images.shape[1:])
  variables = jax.device_put(model.variables)
  try:
    answers: list[Any] = []
    for batch in batches:
      answers.append(_answer(model.module, variables, batch))
      # So that at most two batches lie on the device.
      answers[-2:-1] = jax.device_get(answers[-2:-1])
  except flax.errors.ScopeParamShapeError as error:
    raise ValueError(
      f'images are of shape {images.shape[1:]}, which the model does not take: {error}'
    ) from error
  return np.concatenate(jax.device_get(answers))[: len(images)]


@_compile.jit('serving', static_argnames='module')
def _answer(module: nn.Module, variables: Any, images: jax.Array) -> jax.Array:
  return Model(module, variables).probabilities(images)


def in_batches(
  function: Callable[[jax.Array], jax.Array], images: jax.Array, batch_size: int
) -> jax.Array:
  """Maps a function over batches of images, one after the other, to save memory.

  Args:
    function: of f32[B, H, W, C].
    images: f32[N, H, W, C].
    batch_size: B; N where that is less.

  Returns:
    Its results, [N, ...]. Traceable.

  >>> in_batches(lambda x: x.sum((1, 2, 3)), jnp.ones((3, 2, 2, 1)), 2).tolist()
  [4.0, 4.0, 4.0]
  """
  size = min(batch_size, len(images))
  padding = ((0, -len(images) % size), *[(0, 0)] * (images.ndim - 1))
  batches = jnp.pad(images, padding).reshape(-1, size, *images.shape[1:])
  results = jax.lax.map(function, batches)
  return results.reshape(-1, *results.shape[2:])[: len(images)]


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
