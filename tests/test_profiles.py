"""Published profiles: all load, and each has its source, licence and doubts."""

import importlib.resources
import runpy

import numpy as np
import pytest
import setuptools

from psml_jax import pareto, profiles
from psml_jax.core import ZooProfile
from tests import references

FILES = importlib.resources.files(profiles)
SIZES = {
  'cifar100_published': (22, 7),
  'cifar10_published': (22, 7),
  'digits': (8, 6),
  'imagenet_timm': (900, 33),
  'llm_aider_polyglot': (51, 9),
  'llm_aider_polyglot_cost': (51, 8),
  'llm_stats_gpqa': (157, 7),
  'llm_stats_gpqa_price': (157, 10),
}
FACTS = {  # model, quality, cost; from the sources
  'digits': ('cnn4', 0.8769, 0.0175),
  'imagenet_timm': ('test_vit2@160', 0.4225, 0.0069),
  'llm_aider_polyglot': ('claude-3-5-sonnet-20241022', 0.516, 21400),
  'llm_aider_polyglot_cost': ('claude-3-5-sonnet-20241022', 0.516, 0.064028),
  'llm_stats_gpqa': ('claude-3-5-haiku-20241022@google', 0.416, 12305),
  'llm_stats_gpqa_price': ('claude-3-5-haiku-20241022@google', 0.416, 4),
}


def test_all_are_here():
  assert set(SIZES) == set(profiles.names())
  tables = {f.name[:-4] for f in FILES.iterdir() if f.name.endswith('.csv')}
  read = {columns.table for columns in profiles._PROFILES.values()}
  assert tables == read


@pytest.mark.parametrize('name', profiles.names())
@pytest.mark.filterwarnings('error')
def test_size_and_frontier(name):
  zoo = profiles.load(name)
  assert (len(zoo), len(pareto.frontier(zoo))) == SIZES[name]
  assert references.pareto_mask(zoo).sum() == SIZES[name][1]
  assert (np.asarray(zoo.latency_ms) > 0).all()


@pytest.mark.parametrize('name', FACTS)
def test_numbers_are_the_sources(name):
  zoo = profiles.load(name)
  model, quality, cost = FACTS[name]
  index = zoo.index(model)
  assert float(zoo.accuracy[index]) == pytest.approx(quality, rel=1e-6)
  assert float(zoo.latency_ms[index]) == pytest.approx(cost, rel=1e-6)


@pytest.mark.parametrize('name', profiles.names())
def test_each_says_what_it_is(name):
  told = profiles.about(name)
  for field, text in told._asdict().items():
    assert text.strip(), field
  assert len(told.source) > 40
  assert len(told.doubts) > 40
  dollars = name.endswith(('_cost', '_price'))
  assert told.cost_unit.startswith('USD' if dollars else 'ms')
  assert ('milliseconds' in told.cost) == (not dollars)


@pytest.mark.parametrize(
  ('name', 'licence'),
  [
    ('digits', "this package's own"),
    ('imagenet_timm', 'Apache-2.0'),
    ('llm_aider_polyglot_cost', 'Apache-2.0'),
    ('llm_stats_gpqa', 'CC-BY-4.0'),
  ],
)
def test_licences(name, licence):
  assert profiles.about(name).licence.startswith(licence)
  text = (FILES / 'LICENSE-APACHE-2.0.txt').read_text('utf-8')
  assert 'Version 2.0, January 2004' in text


def test_sources_says_the_counts():
  for name, (models, optimal) in SIZES.items():
    source = profiles.about(name).source
    assert str(models) in source, name
    if 'published' not in name:
      assert f'{optimal} ' in source, name


def test_unknown_names():
  for function in (profiles.load, profiles.about):
    with pytest.raises(ValueError, match="name is 'digit' .did you mean 'digits'"):
      function('digit')


def test_price_and_seconds_are_of_the_same_models():
  seconds, dollars = map(profiles.load, ('llm_stats_gpqa', 'llm_stats_gpqa_price'))
  assert isinstance(seconds, ZooProfile)
  assert seconds.names == dollars.names
  np.testing.assert_array_equal(seconds.accuracy, dollars.accuracy)
  assert (np.asarray(seconds.latency_ms) != np.asarray(dollars.latency_ms)).any()


def test_everything_is_package_data(monkeypatch):
  given = {}
  monkeypatch.setattr(setuptools, 'setup', lambda **fields: given.update(fields))
  monkeypatch.chdir(FILES.parent.parent)
  runpy.run_path('setup.py')
  patterns = given['package_data']['psml_jax.profiles']
  for file in FILES.iterdir():
    if file.is_file() and file.suffix != '.py':
      assert any(file.match(pattern) for pattern in patterns), file.name
