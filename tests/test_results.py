"""Runs as flat records, and two experiments compared by hand-made numbers."""

import json

import numpy as np
import pytest

from psml_jax import metrics
from psml_jax.experiments import results, workdir

FIELDS = {
  'victim': 'mlp4',
  'attack': 'fingerprint',
  'defense': 'laplace',
  'value': 0.1,
  'query_budget': 400,
  'seed': 0,
  'accuracy': 0.8,
  'fidelity': 0.7,
  'victim_purity': None,
  'probes': 18,
  'queries_billed': 400,
  'queries_served': 311,
  'queries_logged': 400,
  'loss': 0.25,
  'diverged': False,
  'seconds': 1.5,
}


@pytest.fixture
def make(tmp_path):
  """Makes a work directory of records; returns its path."""

  def directory(name, records, **config):
    path = tmp_path / name
    path.mkdir()
    config = {'name': 'digits', 'seed': 7, 'published': None} | config
    content = {'config': config, 'format': workdir.FORMAT}
    (path / 'config.json').write_text(json.dumps(content))
    if records is not None:
      lines = [json.dumps(FIELDS | record) + '\n' for record in records]
      (path / 'extraction.jsonl').write_text(''.join(lines))
    return path

  return directory


def runs(accuracy, **fields):
  """A run a seed."""
  return [
    fields | {'seed': seed, 'accuracy': value, 'fidelity': value / 2}
    for seed, value in enumerate(accuracy)
  ]


def test_load_is_flat(make):
  directory = make('a', [{'extra': [1]}, {'seed': 1, 'diverged': True, 'loss': None}])
  records = results.load(directory)
  origin = {'config': 'digits', 'config_seed': 7}
  assert records == [
    origin | FIELDS,
    origin | FIELDS | {'seed': 1, 'diverged': True, 'loss': None},
  ]
  assert all(
    value is None or type(value) in (str, int, float, bool)
    for record in records
    for value in record.values()
  )


def test_load_expands_home(make, tmp_path, monkeypatch):
  make('a', [{}])
  monkeypatch.setenv('HOME', str(tmp_path))
  assert len(results.load('~/a')) == 1


def test_load_of_what_has_no_runs(make, tmp_path):
  with pytest.raises(ValueError, match=r"'.*none'; it holds no config\.json"):
    results.load(tmp_path / 'none')
  with pytest.raises(
    ValueError, match='is of a published zoo, which has no surrogates'
  ):
    results.load(make('published', None, published={'name': 'cifar10_published'}))
  with pytest.raises(ValueError, match=r'holds no extraction\.jsonl; run the exper'):
    results.load(make('unfinished', None))
  with pytest.raises(ValueError, match='workdir is empty'):
    results.load('')


def test_load_of_damaged_files(make):
  directory = make('old', [{}, {}])
  (directory / 'extraction.jsonl').write_text(
    json.dumps(FIELDS) + '\n' + json.dumps({'victim': 'mlp4'}) + '\n'
  )
  message = r'extraction\.jsonl is damaged \(.* `attack` .*\$\[1\].*; another version'
  with pytest.raises(ValueError, match=message):
    results.load(directory)
  (directory / 'extraction.jsonl').write_text('5\n')
  with pytest.raises(ValueError, match=r'jsonl is damaged \(Expected `object`, got'):
    results.load(directory)
  (directory / 'extraction.jsonl').write_text(json.dumps(FIELDS) + '\n{"victim": "ml')
  with pytest.raises(ValueError, match=r'jsonl is damaged \(Input data was truncated'):
    results.load(directory)
  (directory / 'config.json').write_text('{')
  with pytest.raises(ValueError, match=r'config\.json is damaged \(Expecting'):
    results.load(directory)
  (directory / 'config.json').write_text('[]')
  with pytest.raises(ValueError, match=r'config\.json is damaged .* got `array`'):
    results.load(directory)
  (directory / 'config.json').write_text('{"config": {"name": "x", "seed": 0}}')
  with pytest.raises(ValueError, match='of format 1 .* reads and writes format 3'):
    results.load(directory)
  (directory / 'config.json').write_text('{"format": 3}')
  with pytest.raises(ValueError, match=r'config\.json is damaged .*no name and seed'):
    results.load(directory)


@pytest.mark.parametrize(
  ('records', 'reason'),
  [
    ([], 'it holds no runs'),
    ([{'accuracy': 7.0}], r'<= 1\.0 .*accuracy'),
    ([{'fidelity': -0.1}], r'>= 0\.0 .*fidelity'),
    ([{'seed': -3}], '>= 0 .*seed'),
    ([{'accuracy': None}], 'no accuracy or fidelity, and has not diverged'),
  ],
)
def test_load_of_values_that_no_run_has(make, records, reason):
  with pytest.raises(ValueError, match=rf'extraction\.jsonl is damaged .*{reason}'):
    results.load(make('a', records))


def test_compare_keeps_small_values_apart(make):
  one, two = (
    runs([0.1, 0.2], value=1e-7) + runs(scores, value=3e-7)
    for scores in ([0.5, 0.6], [0.7, 0.8])
  )
  rows = results.compare(make('a', one), make('b', two))
  assert [row['value'] for row in rows] == [1e-7, 3e-7]
  np.testing.assert_allclose([row['accuracy'] for row in rows], [0, 0.2], atol=1e-9)


def test_compare_pairs_by_seed(make):
  a = make('a', runs([0.5, 0.6, 0.7]))
  b = make('b', runs([0.6, 0.8, 0.8, 0.1])[::-1], seed=8)
  (row,) = results.compare(a, b)
  wanted = metrics.interval([0.1, 0.2, 0.1])
  assert {name: row[name] for name in ('victim', 'attack', 'defense', 'value')} == {
    'victim': 'mlp4',
    'attack': 'fingerprint',
    'defense': 'laplace',
    'value': 0.1,
  }
  assert (row['query_budget'], row['pairs'], row['diverged']) == (400, 3, 0)
  found = [row['accuracy'], row['accuracy_low'], row['accuracy_high']]
  np.testing.assert_allclose(found, wanted, rtol=1e-9)
  found = [row['fidelity'], row['fidelity_low'], row['fidelity_high']]
  np.testing.assert_allclose(found, np.asarray(wanted) / 2, rtol=1e-9)
  (back,) = results.compare(b, a)
  np.testing.assert_allclose(back['accuracy'], -row['accuracy'], rtol=1e-9)
  assert all(
    value is None or type(value) in (str, int, float, bool) for value in row.values()
  )


def test_compare_leaves_out_and_counts_diverged_runs(make):
  a = runs([0.5, 0.6, 0.7, 0.1])
  a[3] |= {'diverged': True, 'accuracy': None, 'fidelity': None}
  b = runs([0.6, 0.1, 0.8, 0.9])
  b[1]['diverged'] = True
  (row,) = results.compare(make('a', a), make('b', b))
  assert (row['pairs'], row['diverged']) == (2, 2)
  np.testing.assert_allclose(row['accuracy'], 0.1, rtol=1e-9)
  b[0]['diverged'] = True
  (row,) = results.compare(make('c', a), make('d', b))
  assert (row['pairs'], row['diverged'], row['accuracy']) == (1, 3, None)
  assert row['accuracy_low'] is row['fidelity'] is row['fidelity_high'] is None


def test_compare_takes_common_cells_alone(make):
  a = runs([0.5, 0.6], value=0.1) + runs([0.5, 0.6], value=0.2)
  a += runs([0.1, 0.2], attack='naive')
  b = runs([0.3, 0.2], attack='naive') + runs([0.5, 0.6], value=0.1 + 1e-8)
  b += runs([0.5, 0.6], value=0.2, defense='gaussian')
  b += runs([0.5, 0.6], value=0.2, query_budget=200)
  with pytest.warns(
    UserWarning, match='1 cells of workdir_a and 2 of workdir_b have no'
  ):
    rows = results.compare(make('a', a), make('b', b))
  assert [(row['attack'], row['value']) for row in rows] == [
    ('fingerprint', 0.1),
    ('naive', 0.1),
  ]
  assert rows[0]['accuracy'] == 0


def test_compare_errors(make, tmp_path):
  a = make('a', runs([0.5, 0.6, 0.7]))
  other = make('other', runs([0.5, 0.6], victim='cnn8'))
  with pytest.raises(ValueError, match=r"no cell .*: the first has \('mlp4'.*'cnn8'"):
    results.compare(a, other)
  twice = make('twice', [*runs([0.5, 0.6]), *runs([0.9])])
  with pytest.raises(ValueError, match=r"workdir_b is .*two runs of seed 0 .*'mlp4'"):
    results.compare(a, twice)
  with pytest.raises(ValueError, match=r"1 seed\(s\) in common in the cell .*'mlp4'"):
    results.compare(a, make('one', runs([0.5])))
  with pytest.raises(ValueError, match=r"workdir_b is '.*none'; it holds no config"):
    results.compare(a, tmp_path / 'none')
  with pytest.raises(ValueError, match=r"workdir_a is '.*none'; it holds no config"):
    results.compare(tmp_path / 'none', a)
