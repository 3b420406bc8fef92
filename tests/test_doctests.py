"""The examples in the docstrings of all modules."""

import doctest
import importlib
import pkgutil

import pytest

import psml_jax

MODULES = sorted(
  module.name for module in pkgutil.walk_packages(psml_jax.__path__, 'psml_jax.')
)
MIN_EXAMPLES = 40


def written(name):
  """How many examples a module's docstrings hold."""
  found = doctest.DocTestFinder().find(importlib.import_module(name))
  return sum(len(test.examples) for test in found)


@pytest.mark.parametrize('name', MODULES)
def test_examples(name):
  outcome = doctest.testmod(importlib.import_module(name))
  assert outcome.failed == 0
  assert outcome.attempted == written(name)


def test_examples_were_found():
  assert sum(map(written, MODULES)) >= MIN_EXAMPLES
