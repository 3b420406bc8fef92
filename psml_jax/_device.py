"""What the device is called that numbers were measured on."""

import os
import pathlib
import platform
import re

import jax


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
