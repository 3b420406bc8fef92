"""The examples in the docstrings of all modules."""

import doctest
import importlib
import pkgutil

import pytest

import psml_jax

MODULES = sorted(
  module.name for module in pkgutil.walk_packages(psml_jax.__path__, 'psml_jax.')
)
MIN_EXAMPLES = 21


@pytest.fixture(scope='module')
def attempted():
  return {}


@pytest.mark.parametrize('name', MODULES)
def test_examples(name, attempted):
  outcome = doctest.testmod(importlib.import_module(name))
  attempted[name] = outcome.attempted
  assert outcome.failed == 0


def test_examples_were_found(attempted):
  if set(attempted) != set(MODULES):
    pytest.skip('not all modules were selected')
  assert sum(attempted.values()) >= MIN_EXAMPLES
