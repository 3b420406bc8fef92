"""A model that is compiled for a few sizes of requests, and warm."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from psml_jax import _compile
from psml_jax.train.model import Model


class Compiled:
  """A model that is compiled for a few sizes of requests, and warm.

  Args:
    model: the model.
    image_shape: (H, W, C).
    sizes: how many images a request may have, ascending.

  >>> from psml_jax import zoo
  >>> module = zoo.create('linear', num_classes=3, size=2)
  >>> images = np.ones((5, 4, 4, 1), np.float32)
  >>> model = zoo.Model(module, module.init(jax.random.key(0), images))
  >>> Compiled(model, (4, 4, 1), (1, 4))(images).shape
  (5, 3)
  """

  def __init__(
    self, model: Model, image_shape: tuple[int, ...], sizes: Sequence[int]
  ) -> None:
    device = jax.local_devices()[0]
    variables = jax.device_put(model.variables, device)
    self._programs = {}
    for size in sizes:
      request = jnp.zeros((size, *image_shape), jnp.float32)
      lowered = jax.jit(_answer, static_argnums=0).lower(
        model.module, variables, request
      )
      program = lowered.compile(_compile.options('serving'))
      self._programs[size] = functools.partial(program, variables)
    for size in sizes:
      self(np.zeros((size, *image_shape), np.float32))

  def __call__(self, images: np.ndarray) -> np.ndarray:
    """f32[N, K], class probabilities of f32[N, H, W, C] images."""
    largest, answers = max(self._programs), []
    for start in range(0, len(images), largest):
      part = images[start : start + largest]
      size = next(size for size in self._programs if size >= len(part))
      whole = np.zeros((size, *images.shape[1:]), np.float32)
      whole[: len(part)] = part
      answers.append(np.asarray(self._programs[size](whole))[: len(part)])
    return answers[0] if len(answers) == 1 else np.concatenate(answers)


def _answer(module: Any, variables: Any, images: jax.Array) -> jax.Array:
  return Model(module, variables).probabilities(images)
