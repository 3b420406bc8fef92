"""A model that answers: a module with its variables."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from psml_jax import training


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
    module: the architecture.
    images: f32[N, H, W, C], pixels in [0, 1].
    labels: i32[N], classes.
    num_classes: K.
    hyper: the settings.

  Returns:
    The model, and f32[steps] losses.

  Raises:
    ValueError: labels outside [0, K).
  """
  if labels.min() < 0 or labels.max() >= num_classes:
    raise ValueError(
      f'labels span [{labels.min()}, {labels.max()}]; they must be in '
      f'[0, {num_classes - 1}]'
    )

  @jax.jit
  def job(key: jax.Array, images: jax.Array, labels: jax.Array) -> Any:
    targets = jax.nn.one_hot(labels, num_classes)
    count = jnp.int32(len(labels))
    return training.fit(key, module, images, targets, count, hyper)

  variables, losses = job(key, jnp.asarray(images), jnp.asarray(labels))
  return Model(module, variables), np.asarray(losses)


def predict(model: Model, images: np.ndarray, *, batch_size: int = 256) -> np.ndarray:
  """Class probabilities of many images, batch by batch in one compiled program.

  Args:
    model: the model.
    images: f32[N, H, W, C].
    batch_size: images at a time.

  Returns:
    f32[N, K].
  """
  job = jax.jit(
    lambda images: jax.lax.map(
      lambda image: model.probabilities(image[None])[0], images, batch_size=batch_size
    )
  )
  return np.asarray(job(jnp.asarray(images)))


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
