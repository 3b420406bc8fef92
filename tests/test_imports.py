"""Importing the package is cheap, and every public name is there all the same."""

import importlib
import os
import pathlib
import subprocess
import sys

import pytest

import psml_jax
from psml_jax import experiments

ROOT = pathlib.Path(__file__).parents[1]
HEAVY = ('jax', 'matplotlib', 'orbax', 'scipy', 'sklearn', 'tensorboardX', 'torch')
SLOW = ('matplotlib', 'orbax', 'sklearn', 'scipy.stats', 'tensorboardX', 'torch')
TIMES = """
import resource, sys
def seconds():
  spent = resource.getrusage(resource.RUSAGE_SELF)
  return spent.ru_utime + spent.ru_stime
start = seconds()
import psml_jax
psml_jax.Spec
own = seconds() - start
print(own, *sys.modules)
"""


def python(code):
  return subprocess.run(
    [sys.executable, '-c', code],
    env=os.environ | {'PYTHONPATH': str(ROOT)},
    capture_output=True,
    text=True,
    timeout=120,
    check=True,
  ).stdout.split()


def test_the_package_itself_imports_nothing_heavy():
  loaded = python('import psml_jax.experiments.launcher, sys; print(*sys.modules)')
  assert not set(loaded) & set(HEAVY)


def test_its_first_name_costs_little_more_than_jax():
  jax_seconds = float(
    python(TIMES.replace('psml_jax.Spec', '').replace('psml_jax', 'jax'))[0]
  )
  seconds, *loaded = python(TIMES)
  assert not set(loaded) & set(SLOW)
  assert float(seconds) < 2 * jax_seconds + 0.2


@pytest.mark.parametrize('package', [psml_jax, experiments])
def test_every_public_name_is_there(package):
  assert set(package.__all__) <= set(dir(package))
  for name in package.__all__:
    assert getattr(package, name) is not None


def test_names_are_those_of_their_modules():
  assert psml_jax.ZooProfile is importlib.import_module('psml_jax.core').ZooProfile
  assert psml_jax.zoo is importlib.import_module('psml_jax.zoo')
  importlib.import_module('psml_jax.experiments.pipeline')
  assert callable(experiments.run)


def test_an_unknown_name_is_an_attribute_error():
  with pytest.raises(AttributeError, match="'psml_jax' has no attribute 'zoos'"):
    psml_jax.zoos  # noqa: B018
  assert not hasattr(experiments, 'os')


def test_the_version_is_that_of_setup():
  setup = (ROOT / 'setup.py').read_text('utf-8')
  assert "run_path('psml_jax/_version.py')['__version__']" in setup
  assert psml_jax.__version__.split('.')[0].isdecimal()
