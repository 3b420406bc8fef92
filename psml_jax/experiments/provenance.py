"""Where the numbers of a work directory come from."""

import datetime
import importlib.metadata
import pathlib
import platform
import subprocess
from collections.abc import Mapping
from typing import Any

import psml_jax
from psml_jax import _device
from psml_jax.experiments.artifacts import PROFILE
from psml_jax.experiments.config import Config

_LIBRARIES = ('jax', 'jaxlib', 'flax', 'numpy')


def collect(config: Config, directory: pathlib.Path) -> dict[str, str]:
  """What a reader needs to make the same numbers again.

  Args:
    config: of the experiment.
    directory: its work directory, with profile.json where a zoo was measured.

  Returns:
    Label -> text.
  """
  facts = {
    'config': config.name,
    'seed': str(config.seed),
    'seeds': str(config.seeds),
    'revision': revision(),
    'psml_jax': psml_jax.__version__,
    **{name: importlib.metadata.version(name) for name in _LIBRARIES},
    'python': platform.python_version(),
    'device': _device.name(),
    'date': datetime.datetime.now(datetime.UTC).date().isoformat(),
  }
  if (surrogates := config.extraction) is not None:
    facts['surrogates'] = _written(surrogates.surrogate, 'family')
    facts['recipe of surrogates'] = repr(surrogates.hyper or surrogates.recipe)
    facts['objective of surrogates'] = _written(surrogates.objective, 'name')
  if config.zoo is not None and config.zoo.stored:
    facts['zoo taken from'] = pathlib.Path(config.zoo.stored).name
  if measured := PROFILE.found(directory):
    told = {
      'images in a request': measured.request_images,
      'latencies measured on': measured.device,
      'latencies measured at': measured.date,
      'latencies taken from': measured.stored,
    }
    facts |= {label: str(value) for label, value in told.items() if value is not None}
  return facts


def _written(fields: Mapping[str, Any], name: str) -> str:
  """The name of an entry and its fields, as a call."""
  rest = ', '.join(f'{k}={v}' for k, v in fields.items() if k != name)
  return f'{fields[name]}({rest})'


def revision() -> str:
  """The package's git revision, `-dirty` where files differ; else its version.

  >>> revision() != ''
  True
  """
  root = pathlib.Path(psml_jax.__file__).parents[1]
  if not (root / '.git').exists():
    return psml_jax.__version__
  command = ['git', '-C', str(root), 'describe', '--always', '--dirty']
  try:
    done = subprocess.run(
      command, capture_output=True, text=True, timeout=60, check=True
    )
  except (OSError, subprocess.SubprocessError):
    return psml_jax.__version__
  return done.stdout.strip()
