"""A user's own entries, named in a config, through a whole experiment."""

import json
import pathlib
import subprocess
import sys

import pytest

from psml_jax import data, experiments
from tests import toys

SCRIPT = """
import json, sys
sys.path.insert(0, sys.argv[3])
from tests import toys
from psml_jax import experiments
toys.register()
fields = json.loads(open(sys.argv[1]).read())
experiments.run(experiments.parse(fields), sys.argv[2])
"""
HYPER = {'steps': 10, 'batch_size': 16, 'learning_rate': 1e-2}
FIELDS = {
  'name': 'toys',
  'seed': 0,
  'seeds': 2,
  'data': {
    'name': 'stripes',
    'zoo_size': 400,
    'pool_size': 100,
    'test_size': 100,
    'fields': {'images': 700},
  },
  'zoo': {
    'models': {
      'linear': {'family': 'linear', 'size': 2},
      'mlp': {'family': 'mlp', 'size': 4, 'widths': [32]},
      'large': {'family': 'mlp', 'widths': [256, 256]},
    },
    'hyper': {'steps': 100, 'batch_size': 32, 'learning_rate': 1e-3},
  },
  'profiling': {'batch_size': 4, 'rounds': 3},
  'fingerprint': {'accuracy_resolution': 0.02, 'latency_resolution': 0.05},
  'extraction': {
    'query_budgets': [30, 60],
    'surrogate': {'family': 'linear'},
    'hyper': HYPER,
    'objective': {'name': 'sure', 'weight': 0.2},
    'rows_per_chunk': 64,
    'width': 1,
  },
  'attacks': {'explicit': {}, 'naive': {}, 'stopwatch': {'probes': 3}},
  'defense': {
    'target_goodput': 0.7,
    'mechanisms': {
      'leaky': {'values': [2.0]},
      'quota': {'values': [20]},
      'sharpen': {},
    },
    'workload': {'name': 'demanding', 'size': 256},
  },
}


@pytest.fixture(scope='module')
def directory(once):
  """Run by a script outside the package, as a user would."""

  def make(folder):
    (folder / 'fields.json').write_text(json.dumps(FIELDS))
    (folder / 'mine.py').write_text(SCRIPT)
    root = str(pathlib.Path(experiments.__file__).parents[2])
    subprocess.run(
      [sys.executable, 'mine.py', 'fields.json', 'run', root], cwd=folder, check=True
    )

  return once('toys', make) / 'run'


def test_every_entry_is_in_the_report(directory):
  summary = json.loads((directory / 'summary.json').read_text('utf-8'))
  assert set(summary['roles']) == set(FIELDS['attacks'])
  assert set(summary['knobs']) == set(FIELDS['defense']['mechanisms'])
  attacked = {row['attack'] for row in summary['extraction']}
  defended = {row['defense'] for row in summary['protection']}
  assert attacked == set(FIELDS['attacks'])
  assert defended == {'none', *FIELDS['defense']['mechanisms']}
  measured = {row['defense'] for row in summary['goodput']}
  assert measured == {'none', *FIELDS['defense']['mechanisms']}
  text = (directory / 'results.md').read_text('utf-8')
  for name in (*FIELDS['attacks'], *FIELDS['defense']['mechanisms']):
    assert name in text
  for phrase in (
    'epsilon',
    'queries a client',
    'of the probability',
    'sure(weight=0.2)',
  ):
    assert phrase in text


def test_claims_are_of_every_attack_and_mechanism(directory):
  summary = json.loads((directory / 'summary.json').read_text('utf-8'))
  claims = [claim['claim'] for claim in summary['claims']]
  assert sum(c.startswith('2a. The stopwatch attack') for c in claims) == 2
  assert sum(c.startswith('2b. The stopwatch attack') for c in claims) == 2
  for mechanism in ('leaky', 'quota', 'sharpen'):
    claim = f'3a. {mechanism} costs the stopwatch attack, medium victim (points)'
    assert claim in claims
  assert sum(c.startswith('4. ') for c in claims) == 3


def test_a_memory_of_clients_serves_a_thief_no_more_than_its_budget(directory):
  for line in (directory / 'extraction.jsonl').read_text('utf-8').splitlines():
    record = json.loads(line)
    if record['defense'] == 'quota':
      assert record['queries_served'] <= record['value']
      assert record['queries_billed'] == record['query_budget']


def test_a_data_set_is_named_in_a_config():
  toys.register()
  asked = {'name': 'stripes', 'zoo_size': 90, 'pool_size': 60, 'test_size': 40}
  parsed = experiments.parse(FIELDS | {'data': asked | {'fields': {'size': 4}}})
  assert parsed.data.fields == {'size': 4}
  splits = data.load(seed=0, **asked, size=4)
  assert splits.zoo_x.shape == (90, 4, 4, 1)
  assert (splits.num_classes, splits.name) == (2, 'stripes')
  with pytest.raises(ValueError, match=r"data.fields.sise is no .*did you mean 'size'"):
    experiments.parse(FIELDS | {'data': asked | {'fields': {'sise': 4}}})


def test_the_toys_are_short():
  source = pathlib.Path(toys.__file__).read_text('utf-8')
  parts = source[: source.index('def register()')].split('\n# ')[1:]
  assert len(parts) == 7
  assert all(len(part.splitlines()) <= 40 for part in parts)
