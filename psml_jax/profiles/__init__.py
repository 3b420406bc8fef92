"""Zoos without models to run: published profiles, and made-up ones of any size.

`cifar10_published` and `cifar100_published` hold 22 models each, as measured by a
public PSML serving implementation; parameter counts are those of the public
repository chenyaofo/pytorch-cifar-models (none for the ViTs).
"""

import importlib.resources

import jax
import jax.numpy as jnp

from psml_jax import _validate
from psml_jax.core import ZooProfile

__all__ = ['load', 'names', 'synthetic']


def names() -> tuple[str, ...]:
  """The published profiles that ship with the package.

  >>> names()
  ('cifar100_published', 'cifar10_published')
  """
  files = importlib.resources.files(__name__).iterdir()
  return tuple(sorted(f.name[:-4] for f in files if f.name.endswith('.csv')))


def load(name: str) -> ZooProfile:
  """Reads a published profile.

  Args:
    name: one of `names()`.

  Returns:
    The profile.

  Raises:
    ValueError: a name that does not ship with the package.

  >>> len(load('cifar10_published'))
  22
  """
  _validate.one_of('name', name, names())
  with importlib.resources.as_file(
    importlib.resources.files(__name__) / f'{name}.csv'
  ) as path:
    return ZooProfile.from_csv(
      path,
      name_column='model',
      accuracy_column='top1_percent',
      latency_column='latency_ms',
      accuracy_unit='percent',
    )


def synthetic(key: jax.Array, num_models: int) -> ZooProfile:
  """Makes up a zoo of any size, for tests and measurements at scale.

  Latencies are log-uniform between 1 and 100 ms. Accuracy saturates with the logarithm
  of latency, `0.5 + 0.45 (1 - exp(-3 log(latency) / log(100)))`, less an exponential
  shortfall of 0.03 on average, so that most models are dominated, as in tables of
  real ones. Accuracies are multiples of 1e-4, as of 10,000 test images, and latencies
  of 1e-3 ms.

  Args:
    key: consumed.
    num_models: at least 1.

  Returns:
    The profile; its models are named model-0, model-1, ...

  Raises:
    ValueError: `num_models` is not a whole number >= 1, or no key of jax.random.key.

  >>> len(synthetic(jax.random.key(0), 1000))
  1000
  """
  _validate.key('key', key)
  _validate.positive_int('num_models', num_models)
  size_key, shortfall_key = jax.random.split(key)
  size = jax.random.uniform(size_key, (num_models,), jnp.float32)
  best = 0.5 + 0.45 * (1 - jnp.exp(-3 * size))
  shortfall = jax.random.exponential(shortfall_key, (num_models,), jnp.float32)
  accuracy = best - 0.03 * shortfall
  return ZooProfile(
    jnp.round(jnp.clip(accuracy, 0.1, 1.0), 4),
    jnp.round(100**size, 3),
    tuple(f'model-{i}' for i in range(num_models)),
  )
