"""The devices that JAX computes on: started, counted, and what they are called."""

import os
import pathlib
import platform
import re

import jax
from absl import logging

_FLAG = 'xla_force_host_platform_device_count'


def start() -> None:
  """Starts JAX with every CPU core as a device, unless the user chose how many.

  Where JAX runs already with fewer, a warning says once what to do.

  Raises:
    ValueError: JAX has no device of the platforms that JAX_PLATFORMS names.
  """
  chosen = jax.config.values['jax_num_cpu_devices'] != -1 or _FLAG in os.environ.get(
    'XLA_FLAGS', ''
  )
  if not chosen:
    try:
      jax.config.update('jax_num_cpu_devices', _cores())
    except RuntimeError:  # JAX has started.
      if jax.devices()[0].platform == 'cpu' and jax.local_device_count() < _cores():
        logging.log_first_n(
          logging.WARNING,
          'JAX runs with %d of %d CPU cores as devices. For all of them, call '
          "jax.config.update('jax_num_cpu_devices', %d) right after `import jax`.",
          1,
          jax.local_device_count(),
          _cores(),
          _cores(),
        )
  try:
    jax.devices()
  except (AssertionError, RuntimeError) as error:
    platforms = jax.config.values['jax_platforms']
    if not platforms:
      raise
    raise ValueError(
      f'JAX_PLATFORMS is {platforms!r}; this machine, or this installation of JAX, has '
      f'no such device{f" ({error})" if str(error) else ""}'
    ) from error


def name() -> str:
  """The first device's kind; of a CPU, which JAX calls just that, model and cores.

  >>> name() == name() != ''
  True
  """
  device = jax.devices()[0]
  if device.platform != 'cpu':
    return device.device_kind
  model = platform.processor() or platform.machine()
  cpus = pathlib.Path('/proc/cpuinfo')
  if cpus.is_file():
    found = re.search(r'^model name\s*: *(.+)$', cpus.read_text('utf-8'), re.MULTILINE)
    model = found[1].strip() if found else model
  return f'{model}, {os.cpu_count()} cores'


def _cores() -> int:
  if hasattr(os, 'sched_getaffinity'):
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1
