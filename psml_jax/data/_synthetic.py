"""Images made up from a seed: as many and as hard as a test at scale needs."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from psml_jax import _keys, _validate
from psml_jax.data._splits import DATASETS, SIZES, Entry, MakeSplits, Splits

_WAVES = 2  # A smooth field has waves of up to this many periods along each axis.
_LEAST_SIZE = 2 * _WAVES
_CONTRAST = 0.15
_NOISE = 0.3  # Of the pixels, in units of the contrast.
_SHIFT = 0.5  # Of the image's size, at difficulty 1.
_CHUNK = 256


def read(
  data_dir: pathlib.Path | None,
  image_size: int = 32,
  channels: int = 3,
  num_classes: int = 10,
  difficulty: float = 0.5,
) -> MakeSplits:
  """Images of smooth class prototypes under smooth distractors and noise.

  With difficulty d, a standard smooth field f_k for each class and g_i for each image,
  a cyclic shift s_i of up to d / 2 of the image's size along both axes, and white
  noise n_i,

    x_i = clip(1/2 + 0.15 ((1 - d) shift(f_k, s_i) + d g_i + 0.3 n_i), 0, 1).

  At d = 0 the nearest prototype tells the class; at d = 1 the images do not depend on
  it, and no model beats guessing. In between, a model does the better the more shifts
  it allows for and the more it averages out.

  Image i of a split depends on the seed, the split, i and the last four arguments
  alone: a larger split starts with the images of a smaller one.

  Args:
    data_dir: not used.
    image_size: H and W, at least 4.
    channels: C.
    num_classes: K, at least 2; all are equally likely.
    difficulty: d, in [0, 1].

  Returns:
    What makes the splits, images f32[., image_size, image_size, channels].

  Raises:
    ValueError: an argument that is out of range.
  """
  del data_dir
  if _validate.positive_int('image_size', image_size) < _LEAST_SIZE:
    raise ValueError(f'image_size is {image_size}; it must be at least {_LEAST_SIZE}')
  _validate.positive_int('channels', channels)
  num_classes = _validate.at_least_two('num_classes', num_classes)
  if isinstance(difficulty, bool) or np.ndim(difficulty):
    raise ValueError(f'difficulty is {difficulty!r}; it must be a fraction in [0, 1]')
  difficulty = float(_validate.fractions('difficulty', difficulty))

  def make(name: str, *, seed: int, **sizes: int) -> Splits:
    prototype_key, *keys = jax.random.split(_keys.purpose(seed, 'data'), 5)
    prototypes = _prototypes(prototype_key, num_classes, image_size, channels)
    made = {
      size: _make(key, sizes[size], prototypes, difficulty)
      for key, size in zip(keys, SIZES, strict=True)
    }
    return Splits(
      *made['zoo_size'],
      made['pool_size'][0],
      *made['test_size'],
      *made['profile_size'],
      num_classes=num_classes,
      name=name,
    )

  return make


def _smooth(weights: jax.Array, image_size: int) -> jax.Array:
  """The periodic field f32[H, W, C] of weights [M, M, C], M = 1 + 2 _WAVES.

  Standard normal weights give every pixel mean 0 and variance 1.
  """
  angles = 2 * np.pi * np.outer(np.arange(image_size) / image_size, range(1 + _WAVES))
  waves = np.concatenate([np.cos(angles), np.sin(angles[:, 1:])], axis=1)
  waves[:, 1:] *= np.sqrt(2)
  basis = jnp.asarray(waves / np.sqrt(1 + 2 * _WAVES), jnp.float32)
  return jnp.einsum('hi,wj,ijc->hwc', basis, basis, weights, precision='highest')


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def _prototypes(
  key: jax.Array, num_classes: int, image_size: int, channels: int
) -> jax.Array:
  """The field of each class, f32[K, H, W, C]."""
  keys = jax.vmap(functools.partial(jax.random.fold_in, key))(jnp.arange(num_classes))
  shape = (1 + 2 * _WAVES, 1 + 2 * _WAVES, channels)
  return jax.vmap(
    lambda k: _smooth(jax.random.normal(k, shape, jnp.float32), image_size)
  )(keys)


def _image(
  key: jax.Array, prototypes: jax.Array, difficulty: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """One image f32[H, W, C] and its class i32[]; consumes the key."""
  num_classes, image_size, _, channels = prototypes.shape
  # Few draws: each adds half a second to the compilation.
  choice_key, normal_key = jax.random.split(key)
  choices = jax.random.uniform(choice_key, (3,), jnp.float32)
  label = (num_classes * choices[0]).astype(jnp.int32)
  most = jnp.round(_SHIFT * difficulty * image_size)
  shift = jnp.floor((2 * most + 1) * choices[1:] - most).astype(jnp.int32)
  signal = jnp.roll(prototypes[label], shift, axis=(0, 1))
  num_weights = channels * (1 + 2 * _WAVES) ** 2
  normal = jax.random.normal(normal_key, (num_weights + signal.size,), jnp.float32)
  weights = normal[:num_weights].reshape(1 + 2 * _WAVES, 1 + 2 * _WAVES, channels)
  distractor = _smooth(weights, image_size)
  noise = normal[num_weights:].reshape(signal.shape)
  mixed = (1 - difficulty) * signal + difficulty * distractor + _NOISE * noise
  return jnp.clip(0.5 + _CONTRAST * mixed, 0, 1), label


@jax.jit
def _chunk(
  key: jax.Array, first: jax.Array, prototypes: jax.Array, difficulty: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Images `first` to `first + _CHUNK - 1`; the same program makes all of them."""
  keys = jax.vmap(functools.partial(jax.random.fold_in, key))(
    first + jnp.arange(_CHUNK, dtype=jnp.int32)
  )
  return jax.vmap(_image, in_axes=(0, None, None))(keys, prototypes, difficulty)


def _make(
  key: jax.Array, size: int, prototypes: jax.Array, difficulty: float
) -> tuple[np.ndarray, np.ndarray]:
  """The first `size` images of a split, f32[N, H, W, C], and classes i32[N]."""
  x = np.empty((size, *prototypes.shape[1:]), np.float32)
  y = np.empty(size, np.int32)
  for first in range(0, size, _CHUNK):
    images, labels = _chunk(key, jnp.int32(first), prototypes, jnp.float32(difficulty))
    x[first : first + _CHUNK] = images[: size - first]
    y[first : first + _CHUNK] = labels[: size - first]
  return x, y


DATASETS.register('synthetic', Entry(read))
