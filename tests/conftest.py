"""Strict settings for all tests: two CPU devices, and no silent promotion of rank.

Every program is compiled once: what one test, worker or process of a test compiled, the
others read from a folder of the checkout, or from the one that the environment names.
"""

import fcntl
import os
import pathlib

import jax
import pytest

FOLDER = pathlib.Path(__file__).parents[1] / '.jax_cache'
CACHE = {
  'jax_compilation_cache_dir': os.environ.get('JAX_COMPILATION_CACHE_DIR', str(FOLDER)),
  'jax_persistent_cache_min_compile_time_secs': 0,
  'jax_persistent_cache_min_entry_size_bytes': -1,
}

jax.config.update('jax_num_cpu_devices', 2)
jax.config.update('jax_numpy_rank_promotion', 'raise')
for name, value in CACHE.items():
  jax.config.update(name, value)
  os.environ[name.upper()] = str(value)


MOST_GROWTH = 2**30


def resident():
  """Bytes of memory that this process has."""
  pages = int(pathlib.Path('/proc/self/statm').read_text().split()[1])
  return pages * os.sysconf('SC_PAGE_SIZE')


@pytest.fixture(scope='module')
def held():
  """Memory after the last time that programs were forgotten; those of a module serve
  few others."""
  yield [resident()]
  jax.clear_caches()


@pytest.fixture(autouse=True)
def forget(held):
  """Compiled programs took five gigabytes of a process in the end."""
  yield
  if resident() > held[0] + MOST_GROWTH:
    jax.clear_caches()
    held[0] = resident()


@pytest.fixture
def reported():
  """What JAX reports of durations while the test runs: (event, details) pairs."""
  events = []

  def listen(event, seconds, **details):
    events.append((event, details))

  jax.monitoring.register_event_duration_secs_listener(listen)
  yield events
  # JAX 0.8 cannot forget a listener.
  if hasattr(jax.monitoring, 'unregister_event_duration_listener'):
    jax.monitoring.unregister_event_duration_listener(listen)


@pytest.fixture
def strict():
  """No silent promotion of types either; Flax's layers of half precision need it."""
  with jax.numpy_dtype_promotion('strict'):
    yield


@pytest.fixture(scope='session')
def once(tmp_path_factory):
  """`(name, make) -> folder`: makes a folder once for the workers of a session."""
  root = tmp_path_factory.getbasetemp()
  if 'PYTEST_XDIST_WORKER' in os.environ:
    root = root.parent

  def made(name, make):
    folder = root / name
    with (root / f'{name}.lock').open('w') as lock:
      fcntl.flock(lock, fcntl.LOCK_EX)
      if not folder.exists():
        folder.mkdir()
        make(folder)
    return folder

  return made
