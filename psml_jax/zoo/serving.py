"""Whether a compiled model of half precision still answers as it should."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from psml_jax._validate import InputError
from psml_jax.train.model import Model, predict

_OF_SPREAD = 0.7
_OF_SIZE = 2.0**-5
_LEAST = 1e-6
_ROUNDING = 1e-6


class Reference:
  """A model's answers in float32, to judge the answers of its own precision by.

  Answers are compared as log-probabilities (of 1e-6 at least) less their mean over
  classes. Their error, root mean square, must stay below seven tenths of their spread
  over the images plus a thirty-second of their size: right answers in bfloat16 err by
  hundredths of the spread, in the deepest networks with random weights by up to half of
  it, while those that do not depend on the image err by all of it.
  """

  def __init__(self, name: str, model: Model, images: np.ndarray) -> None:
    """Computes the answers.

    Args:
      name: of the model, for the error.
      model: the model.
      images: f32[N, H, W, C], N >= 1.
    """
    self._name = name
    self._dtype = jnp.dtype(model.module.dtype).name
    exact: nn.Module = model.module.clone(dtype=jnp.float32)
    self._logits = _centred(predict(Model(exact, model.variables), images))
    others = self._logits.mean(0, keepdims=True) if len(images) > 1 else 0.0
    spread = _size(self._logits - others)
    self._allowed = _OF_SPREAD * spread + _OF_SIZE * _size(self._logits)
    self._allowed += _ROUNDING

  def check(self, answers: np.ndarray) -> None:
    """Checks answers to the first images.

    Args:
      answers: f32[n, K], class probabilities, n <= N.

    Raises:
      InputError: they are not finite, or too far from float32's.
    """
    error = _size(_centred(answers) - self._logits[: len(answers)])
    if not error <= self._allowed:
      raise InputError(
        f'{self._name} answers otherwise in {self._dtype} than in float32 when it is '
        f'compiled (log-probabilities differ by {error:.3g}, {self._allowed:.3g} is '
        'allowed); serve it in float32, or with another version of JAX'
      )


def check_served(model: Model, images: np.ndarray, *, name: str = 'model') -> None:
  """Checks that a compiled model answers as the same model in float32.

  A compiler may go wrong over half precision and give outputs that hold nothing of the
  image. Models whose module has no `dtype`, or float32, pass unchecked.

  Args:
    model: the model, as it will be served.
    images: f32[N, H, W, C], pixels in [0, 1]; a few are enough, N >= 1.
    name: of the model, for the error.

  Raises:
    InputError: the answers are not finite, or too far from float32's.
    ValueError: no images.

  >>> import jax, psml_jax.zoo as zoo
  >>> images = np.random.default_rng(0).random((4, 8, 8, 3), np.float32)
  >>> module = zoo.create('resnet', num_classes=3, depth=8, width=2, dtype='bfloat16')
  >>> model = zoo.Model(module, module.init(jax.random.key(0), images))
  >>> zoo.check_served(model, images)
  """
  if halves(model.module):
    Reference(name, model, images).check(predict(model, images))


def halves(module: Any) -> bool:
  """Whether a module computes in another precision than float32."""
  dtype = getattr(module, 'dtype', None)
  return dtype is not None and jnp.dtype(dtype) != jnp.float32


def _centred(probabilities: np.ndarray) -> np.ndarray:
  logs = np.log(np.maximum(np.asarray(probabilities, np.float64), _LEAST))
  return logs - logs.mean(-1, keepdims=True)


def _size(values: np.ndarray) -> float:
  return float(np.sqrt(np.mean(values**2)))
