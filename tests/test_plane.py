"""A leakage study from a table to its report."""

import copy
import json

import numpy as np
import pytest

from psml_jax import _validate, leakage, profiles
from psml_jax.experiments import config_file, plane
from psml_jax.experiments.plane import curves

TABLE = 'model,accuracy,latency\na,0.6,1\nb,0.7,2\nc,0.75,4\nd,0.9,5\ne,0.72,6\n'
KEYS = {
  'defense', 'knob', 'value', 'workload', 'target_goodput', 'goodput', 'worst_rate',
  'worst_victim', 'purity', 'bound_rate', 'exact',
}  # fmt: skip


@pytest.fixture
def fields(tmp_path):
  (tmp_path / 'zoo.csv').write_text(TABLE)
  return {
    'name': 'small',
    'published': {
      'csv': str(tmp_path / 'zoo.csv'),
      'accuracy_column': 'accuracy',
      'latency_column': 'latency',
      'accuracy_unit': 'fraction',
    },
    'defenses': {
      name: {}
      for name in ('capped', 'laplace', 'refusal', 'exponential', 'best_effort')
    },
    'workloads': {'uniform': {'size': 64}, 'frontier': {'size': 64}},
    'targets': (0.8,),
    'points': 4,
    'attackers': {
      'defenses': {'laplace': ('fingerprint',), 'capped': ('bandit',)},
      'attacks': {'fingerprint': {}, 'bandit': {}},
      'probes': (40,),
      'seeds': 2,
    },
    'memory': {
      'defenses': {
        'budget': {'value': 5.0, 'cap': 0.25, 'clients': 16},
        'sticky': {'value': 0.05},
      },
      'accounts': (1, 4),
      'queries': 60,
      'seeds': 8,
      'clients': 16,
      'each': 10,
    },
  }


def test_a_study_holds_the_law_and_goes_on_where_it_stopped(fields, tmp_path, capsys):
  config, workdir = plane.parse(fields), tmp_path / 'run'
  plane.run(config, workdir)
  rows = json.loads((workdir / 'leakage.json').read_text())
  assert {(row['defense'], row['workload']) for row in rows} == {
    (d, w) for d in fields['defenses'] for w in fields['workloads']
  }
  for row in rows:
    assert row.keys() >= KEYS
    assert row['exact'] is True
    assert row['goodput'] >= 0.8 - 1e-4
    assert row['worst_rate'] >= row['bound_rate'] - 1e-4
    assert row['worst_rate'] <= row['ceiling'] + 1e-6
  found = {(row['defense'], row['workload']): row for row in rows}
  capped, refusal = found['capped', 'uniform'], found['refusal', 'uniform']
  assert capped['worst_rate'] == pytest.approx(capped['bound_rate'], abs=1e-4)
  assert refusal['worst_rate'] == pytest.approx(0.8, abs=1e-4)
  assert found['laplace', 'uniform']['worst_rate'] > capped['worst_rate'] + 0.05
  study = json.loads((workdir / 'study.json').read_text())
  assert {one['defense'] for one in study['attacked']} == {'laplace', 'capped'}
  for one in study['attacked']:
    assert max(one['rate']) <= one['best'] + 2e-3
  for one in study['accounts']:
    # That of sticky noise is on a mean over secrets, of which there are few here.
    if one['defense'] == 'budget':
      assert one['answers_high'] <= one['bound']
  assert 'choose capped' in capsys.readouterr().out
  for name in ('plane.png', 'attackers.png', 'accounts.png', 'report.html'):
    assert (workdir / name).stat().st_size > 1000
  markdown = (workdir / 'results.md').read_text()
  assert markdown.index('clients: uniform') < markdown.index('clients: frontier')

  # Killed before its last two jobs, it makes them alone, and ends the same.
  whole = (workdir / 'study.json').read_text()
  for name in ('attackers', 'accounts'):
    lines = (workdir / f'{name}.jsonl').read_text().splitlines(keepends=True)
    (workdir / f'{name}.jsonl').write_text(''.join(lines[:-1]))
  (workdir / 'report.html').unlink()
  plane.run(config, workdir)
  assert capsys.readouterr().out.count(' s\n') == 2
  again = json.loads((workdir / 'study.json').read_text())
  assert again | {'seconds': 0} == json.loads(whole) | {'seconds': 0}

  (tmp_path / 'zoo.csv').write_text(TABLE + 'f,0.95,9\n')
  with pytest.raises(_validate.InputError, match=r'zoo\.csv changed'):
    plane.run(config, workdir)


def test_a_target_that_is_missed_says_the_best():
  zoo = profiles.load('digits')
  clients = curves.Clients({'uniform': leakage.uniform(zoo)})
  curve = curves.Curve(zoo, clients, 'capped_corners', {}, None, 1e-2)
  size = len(clients.spec.min_accuracy)
  curve._kept = {float(s): np.full(size, 0.7 - s) for s in np.linspace(0, 1, 21)}
  with pytest.raises(ValueError, match=r'target is 0\.9; .* at most 0\.7000, the best'):
    curve.at_goodput('uniform', 0.9)


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'points': 1}, r'config\.points is 1; it must be a whole number >= 2'),
    ({'gap': 0.0}, r'config\.gap is 0\.0; it must be a finite'),
    ({'targets': (1.5,)}, r'config\.targets is 1\.5; it must be in \(0, 1\]'),
    ({'defenses': {'laplac': {}}}, r"config\.defenses\.laplac: .*'laplac' \(did you"),
    ({'defenses': {'laplace': {'x': 1}}}, r'config\.defenses\.laplace: .*x'),
    ({'workloads': {'unifrm': {}}}, r"config\.workloads is 'unifrm' \(did you mean"),
    ({'workload': 'classes'}, r"config\.workload is 'classes'; it must be one of"),
    ({'published': {'name': 'digit'}}, r"config\.published\.name is 'digit' \(did you"),
    ({'published': {}}, r"has name '' and csv ''; give exactly one"),
    ({'attackers': {'target': 0.7}}, r'target is 0\.7; it must be one of'),
    ({'attackers': {'seeds': 1}}, r'seeds is 1; it must be a whole number >= 2'),
    (
      {'attackers': {'defenses': {'laplace': ('bandi',)}}},
      r"defenses\.laplace is 'bandi' \(did you mean 'bandit'",
    ),
    ({'memory': {'defenses': {'budget': {}}}}, r'budget is \{\}; it must have a value'),
    ({'memory': {'queries': 0}}, r'memory\.queries is 0; it must be a whole number'),
  ],
)
def test_mistakes_are_named(fields, change, message):
  changed = copy.deepcopy(fields)
  for name, value in change.items():
    nested = name in ('attackers', 'memory')
    changed[name] = changed[name] | value if nested else value
  with pytest.raises(ValueError, match=message):
    plane.parse(changed)


def test_nothing_is_written_for_a_zoo_that_cannot_be_read(fields, tmp_path):
  fields['published']['accuracy_unit'] = 'percent'
  with pytest.raises(_validate.InputError, match='accuracy'):
    plane.run(plane.parse(fields), tmp_path / 'run')
  assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize('name', profiles.names())
def test_the_packaged_zoos_have_configs(name):
  config = plane.parse(config_file.load(f'configs/leakage.py:{name}'))
  assert config.published.name == name
  assert len(config.workloads) == 4
