"""Published zoos: accuracy and latency of models that others measured.

`cifar10_published` and `cifar100_published` hold 22 models each, as measured by a
public PSML serving implementation; parameter counts are those of the public
repository chenyaofo/pytorch-cifar-models (none for the ViTs).
"""

import importlib.resources

from psml_jax import _validate
from psml_jax.core import ZooProfile

__all__ = ['load', 'names']


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
