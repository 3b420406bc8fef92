"""Whole experiments on a tiny zoo: what they write, and that a killed one continues."""

import csv
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest

from psml_jax import experiments, zoo
from psml_jax._validate import InputError
from psml_jax.experiments import extraction_stage, workdir
from psml_jax.experiments.experiment import Experiment

ROOT = pathlib.Path(__file__).parents[1]
HYPER = {'steps': 60, 'batch_size': 16, 'learning_rate': 5e-3}
DEFENSE = {
  'mechanisms': {'laplace': {'values': [0.1]}, 'refusal': {}},
  'target_goodput': 0.8,
  'workload_size': 256,
}
TINY = {
  'name': 'tiny',
  'seed': 0,
  'seeds': 2,
  'data': {'name': 'digits', 'zoo_size': 600, 'pool_size': 200, 'test_size': 200},
  'zoo': {
    'models': {
      'linear': {'family': 'linear', 'size': 2},
      'mlp': {'family': 'mlp', 'widths': [64], 'size': 4},
      'mlp-wide': {'family': 'mlp', 'widths': [1024, 1024]},
    },
    'hyper': HYPER,
  },
  'profiling': {'batch_size': 128, 'rounds': 5},
  'fingerprint': {'accuracy_resolution': 0.005, 'latency_resolution': 0.02},
  'extraction': {
    'query_budgets': [30, 40, 60],
    'surrogate': {'family': 'mlp', 'widths': [32]},
    'hyper': HYPER,
    'rows_per_chunk': 10,
    'width': 1,
  },
  'defense': DEFENSE,
  'attacks': {'explicit': {}, 'naive': {}, 'fingerprint': {}, 'informed': {}},
}
PUBLISHED = {
  'name': 'published',
  'seed': 0,
  'seeds': 2,
  'fingerprint': {'accuracy_resolution': 1e-3, 'latency_resolution': 1e-3},
  'defense': DEFENSE,
  'published': {'name': 'cifar10_published'},
}
PARTIAL = ('extraction.jsonl', 'summary.json', 'results.md', 'report.html')


def read(directory, name='summary.json'):
  return json.loads((directory / name).read_text('utf-8'))


def records(directory):
  return workdir.read_jsonl(directory / 'extraction.jsonl')


def without_time(summary):
  return {name: value for name, value in summary.items() if name != 'wall_seconds'}


@pytest.fixture(scope='session')
def tiny(once):
  def make(folder):
    experiments.run(experiments.parse(TINY), folder / 'run')

  return once('tiny', make) / 'run'


@pytest.fixture
def before_extraction(tiny, tmp_path):
  """A copy of the tiny run's work directory, as before its extraction stage."""
  directory = tmp_path / 'run'
  shutil.copytree(tiny, directory)
  for path in directory.iterdir():
    if path.name in PARTIAL or path.suffix == '.png':
      path.unlink()
  return directory


@pytest.fixture
def before_report(tiny, tmp_path):
  directory = shutil.copytree(tiny, tmp_path / 'run')
  (directory / 'report.html').unlink()
  return directory


@pytest.mark.parametrize('content', ['{"half":', '[]', '{}\n', '\x80'])
@pytest.mark.parametrize(
  ('name', 'remedy'),
  [
    ('defense.json', 'remove it, and the same command makes it anew'),
    ('fingerprint.json', 'remove it, and the same command makes it anew'),
    ('extraction.jsonl', 'remove it, and the same command makes it anew'),
    ('profile.csv', 'remove profile.csv, profile.json, .* and the same command'),
    ('profile.json', 'remove profile.csv, profile.json, .* and the same command'),
  ],
)
def test_a_damaged_artifact_is_named_with_what_mends_it(
  name, remedy, content, before_report
):
  (before_report / name).write_bytes(content.encode('latin-1'))
  with pytest.raises(InputError, match=rf'/{name} is damaged \(.+\); {remedy}'):
    experiments.run(experiments.parse(TINY), before_report)


def test_damaged_seconds_and_summary(tiny, tmp_path, before_report):
  whole = shutil.copytree(tiny, tmp_path / 'whole')
  (whole / 'summary.json').write_text('{')
  with pytest.raises(InputError, match=r'summary\.json is damaged .* and report\.html'):
    experiments.run(experiments.parse(TINY), whole)
  (before_report / 'seconds.json').write_text('{')
  with pytest.raises(InputError, match=r'seconds\.json is damaged .*; remove it'):
    experiments.run(experiments.parse(TINY), before_report)
  (before_report / 'seconds.json').unlink()
  experiments.run(experiments.parse(TINY), before_report)
  assert set(read(before_report)['wall_seconds']) == {'extraction'}


@pytest.mark.parametrize(
  'keep', [lambda rows: rows[:-1], lambda rows: rows[2:], lambda rows: [*rows, rows[0]]]
)
def test_an_extraction_that_lacks_runs_is_not_reported(keep, before_report):
  path = before_report / 'extraction.jsonl'
  rows = keep(path.read_text('utf-8').splitlines(keepends=True))
  path.write_text(''.join(rows), 'utf-8')
  message = rf'extraction\.jsonl is damaged \(it holds {len(rows)} runs.*; remove it'
  with pytest.raises(InputError, match=message):
    experiments.run(experiments.parse(TINY), before_report)


def assert_estimate(estimate):
  low, high = estimate['ci95']
  assert 0 <= low <= estimate['mean'] <= high <= 1


@pytest.mark.slow
def test_a_zoo_trained_by_a_recipe(tmp_path):
  """A population, a model with a recipe of its own, and a RepVGG served fused."""
  small = {'widths': (4, 4, 8, 8), 'blocks': (1, 1, 1, 1)}
  changes = {
    'data': {
      'name': 'synthetic',
      'zoo_size': 64,
      'pool_size': 60,
      'test_size': 40,
      'fields': {'image_size': 8, 'difficulty': 0.2, 'num_classes': 3},
    },
    'zoo': {
      'models': {
        'linear': {'family': 'linear', 'recipe': {'epochs': 2}},
        'repvgg': {'family': 'repvgg_a0', **small},
        'cnn': {'family': 'cnn', 'widths': (4, 4), 'copies': 2},
      },
      'recipe': {'epochs': 1, 'batch_size': 16},
    },
    'profiling': {'batch_size': 8, 'rounds': 2},
  }
  config = experiments.parse(TINY | changes)
  directory = experiments.run(config, tmp_path / 'run', until='predictions')
  names = ['cnn-0', 'cnn-1', 'linear', 'repvgg']
  assert read(directory, 'zoo.json') == names
  epochs = {
    name: len(workdir.read_jsonl(directory / 'training' / name / 'metrics.jsonl'))
    for name in ('linear', 'repvgg', 'cnn')
  }
  assert epochs == {'linear': 2, 'repvgg': 1, 'cnn': 1}
  assert not list(directory.glob('training/*/checkpoints'))
  with (directory / 'profile.csv').open(newline='') as file:
    rows = {row['name']: row for row in csv.DictReader(file)}
  assert list(rows) == names
  fused = zoo.create('repvgg_a0', num_classes=3, deploy=True, **small)
  params = zoo.abstract_variables(fused, (8, 8, 3))['params']
  counted = sum(leaf.size for leaf in jax.tree.leaves(params))
  assert int(rows['repvgg']['parameters']) == counted
  with np.load(directory / 'predictions.npz') as predictions:
    assert predictions['pool'].shape == (4, 60, 3)
    members = predictions['test'][:2]
  assert not np.array_equal(*members)


def test_every_artifact_is_there(tiny):
  names = {path.name for path in tiny.iterdir()}
  assert names >= {
    'config.json',
    'zoo_metrics.jsonl',
    'zoo',
    'zoo.json',
    'profile.csv',
    'profile.json',
    'predictions.npz',
    'fingerprint.json',
    'defense.json',
    'extraction.jsonl',
    'summary.json',
    'results.md',
    'seconds.json',
    'report.html',
    'zoo.png',
    'extraction.png',
    'protection.png',
  }
  assert not [name for name in names if name.startswith('.') or '.part.' in name]
  assert {path.name for path in (tiny / 'zoo').iterdir()} == set(TINY['zoo']['models'])
  for path in tiny.glob('*.png'):
    assert path.read_bytes().startswith(b'\x89PNG')
  assert '</html>' in (tiny / 'report.html').read_text('utf-8')
  assert set(read(tiny, 'seconds.json')) == set(experiments.STAGES)


def test_summary_schema(tiny):
  summary = read(tiny)
  assert summary['seeds'] == 2
  assert summary['dataset'] == 'tiny'
  assert set(summary['wall_seconds']) == set(experiments.STAGES) - {'report'}
  assert {model['name'] for model in summary['zoo']} == set(TINY['zoo']['models'])
  assert set(summary['victims']) == {'small', 'medium', 'large'}
  for entry in summary['extraction']:
    served = entry['queries_served']['mean']
    assert served <= entry['queries_billed'] <= entry['query_budget']
    assert entry['seeds'] == 2
    assert (entry['defense'] == 'none') == (entry['value'] == 0)
    for name in ('accuracy', 'fidelity'):
      assert_estimate(entry[name])
  for entry in summary['protection']:
    assert entry['victim'] == summary['victims']['medium']
    for name in ('accuracy', 'fidelity', 'goodput'):
      assert_estimate(entry[name])
  for entry in summary['goodput']:
    assert_estimate(entry['goodput'])
    assert set(entry['classes']) == {'corner', 'fast', 'slow'}
  assert summary['target_goodput'] == 0.8
  assert summary['provenance']['seed'] == '0'
  assert summary['twins'] == []
  assert [claim['claim'].split('.')[0] for claim in summary['claims']] == [
    '1',
    *['2a'] * 3,
    *['2b'] * 2,
    *['3a', '3b', '3c'] * 2,
    '4',
  ]
  assert all(isinstance(claim['holds'], bool) for claim in summary['claims'])


def test_every_model_of_the_frontier_is_fingerprinted(tiny):
  summary = read(tiny)
  optimal = {model['name'] for model in summary['zoo'] if model['pareto']}
  assert len(optimal) >= 2
  assert {entry['victim'] for entry in summary['fingerprint']} == optimal
  for entry in summary['fingerprint']:
    assert entry['identified'], entry['victim']
    assert entry['bound'] <= entry['probes'] <= entry['bound'] + 2
  for entry in summary['probes']:
    assert len(entry['served']) == len(entry['min_accuracy'])


def test_every_cell_has_every_seed(tiny):
  summary, runs = read(tiny), records(tiny)
  assert len(runs) == 2 * len(summary['extraction'])
  found = {
    (r['victim'], r['attack'], r['defense'], r['value'], r['query_budget'], r['seed'])
    for r in runs
  }
  assert len(found) == len(runs)
  for victim in summary['victims'].values():
    for attack in ('explicit', 'naive', 'fingerprint'):
      for budget in (30, 40, 60):
        for seed in (0, 1):
          assert (victim, attack, 'none', 0.0, budget, seed) in found


def test_the_bill_is_the_server_log(tiny):
  for run in records(tiny):
    assert run['queries_billed'] == run['queries_logged'] == run['query_budget'], run
    assert 0 <= run['queries_served'] <= run['queries_billed']


def test_undefended_answers_come_from_the_victim(tiny):
  shares = {'explicit': [], 'fingerprint': [], 'naive': []}
  for run in records(tiny):
    if run['defense'] == 'none':
      shares[run['attack']].append(run['victim_purity'])
  assert set(shares['explicit']) == {1.0}
  assert set(shares['fingerprint']) == {1.0}
  assert min(shares['naive']) < 0.9


def test_the_explicit_attack_has_every_query_answered(tiny):
  for run in records(tiny):
    if run['attack'] == 'explicit':
      assert run['queries_served'] == run['query_budget']


def test_predictions_agree_with_the_profile(tiny):
  from psml_jax import data

  sizes = {'zoo_size': 450, 'profile_size': 150, 'pool_size': 200, 'test_size': 200}
  images = data.load('digits', seed=0, **sizes)
  with np.load(tiny / 'predictions.npz') as outputs:
    assert outputs['pool'].shape == (3, 200, 10)
    on_test = (outputs['test'].argmax(-1) == images.test_y).mean(-1)
  profile = np.array([model['accuracy'] for model in read(tiny)['zoo']])
  for i, (name, fields) in enumerate(TINY['zoo']['models'].items()):
    module = zoo.create(num_classes=10, **fields)
    variables = zoo.restore(
      tiny / 'zoo' / name, zoo.abstract_variables(module, (8, 8, 1))
    )
    answers = zoo.predict(zoo.Model(module, variables), images.profile_x)
    assert profile[i] == pytest.approx(np.mean(answers.argmax(-1) == images.profile_y))
  assert (on_test != profile).any()


def test_a_finished_run_is_left_alone(tiny):
  before = {path: path.stat().st_mtime_ns for path in tiny.rglob('*')}
  experiments.run(experiments.parse(TINY), tiny)
  assert {path: path.stat().st_mtime_ns for path in tiny.rglob('*')} == before


def test_another_config_is_refused(tiny):
  other = experiments.parse(TINY | {'seed': 1})
  before = {path: path.stat().st_mtime_ns for path in tiny.rglob('*')}
  with pytest.raises(ValueError, match=r'config\.seed is 0 there and 1 here'):
    experiments.run(other, tiny)
  assert {path: path.stat().st_mtime_ns for path in tiny.rglob('*')} == before


def test_a_mapping_is_no_config(tmp_path):
  with pytest.raises(InputError, match='config is of type dict; .*experiments.parse'):
    experiments.run(TINY, tmp_path / 'run')
  assert not (tmp_path / 'run').exists()


def test_the_share_to_profile_on_is_told_with_errors_of_sizes_alone(tmp_path):
  sizes = {'name': 'synthetic', 'zoo_size': 8, 'pool_size': 100, 'test_size': 8}
  for fields, told in (({'num_classes': 1}, False), ({}, True)):
    changes = {**sizes, 'fields': fields, 'test_size': 8 if fields else -1}
    config = experiments.parse(TINY | {'data': changes})
    with pytest.raises(InputError) as caught:
      experiments.run(config, tmp_path / 'run')
    assert ('to profile on' in str(caught.value)) == told


def test_unknown_stage(tmp_path):
  with pytest.raises(ValueError, match="until is 'attack'; this experiment has .*zoo"):
    experiments.run(experiments.parse(TINY), tmp_path / 'run', until='attack')
  with pytest.raises(ValueError, match="until is 'extraction'; .*profile, fingerprint"):
    experiments.run(experiments.parse(PUBLISHED), tmp_path / 'run', until='extraction')
  assert not (tmp_path / 'run').exists()


def test_an_interrupted_extraction_continues(tiny, before_extraction, monkeypatch):
  calls = []

  def interrupt(path, written):
    calls.append(path.name)
    if len(calls) > 1:
      raise KeyboardInterrupt
    write(path, written)

  write = workdir.write_jsonl
  monkeypatch.setattr(workdir, 'write_jsonl', interrupt)
  config = experiments.parse(TINY)
  with pytest.raises(KeyboardInterrupt):
    experiments.run(config, before_extraction)
  monkeypatch.undo()
  assert calls == ['extraction.part.jsonl'] * 2
  assert len(workdir.read_jsonl(before_extraction / 'extraction.part.jsonl')) == 10
  assert not (before_extraction / 'extraction.jsonl').exists()
  experiments.run(config, before_extraction)
  assert without_time(read(before_extraction)) == without_time(read(tiny))
  spent = read(before_extraction)['wall_seconds']
  assert spent['zoo'] == read(tiny)['wall_seconds']['zoo']


def test_a_chunk_holds_no_more_rows_than_there_are(before_extraction, monkeypatch):
  many = {**TINY['extraction'], 'rows_per_chunk': 10**5}
  config = experiments.parse(TINY | {'extraction': many})
  (before_extraction / 'config.json').write_text(workdir.to_json(config))
  sizes = []

  def count(training, tables, keys, *others):
    sizes.append(keys.size)
    raise KeyboardInterrupt

  monkeypatch.setattr(extraction_stage, 'scores', count)
  with pytest.raises(KeyboardInterrupt):
    experiments.run(config, before_extraction)
  cells = extraction_stage.cells(Experiment(config, before_extraction))
  assert sizes == [2 * len(cells)]


KILLED = """
import runpy, sys, time
from psml_jax.experiments import workdir

writes = []

def stall(path, records):
  writes.append(path)
  if len(writes) < 3:
    return write(path, records)

  def half(temporary):
    temporary.write_text('{"victim": ')
    print('halfway', flush=True)
    time.sleep(600)

  workdir.write(path, half)

write, workdir.write_jsonl = workdir.write_jsonl, stall
sys.argv = ['reproduce.py', *sys.argv[1:]]
runpy.run_path('launch/reproduce.py', run_name='__main__')
"""


def test_a_killed_extraction_continues(tiny, before_extraction, tmp_path):
  """SIGKILL while the third chunk is being written."""
  config = tmp_path / 'config.py'
  config.write_text(
    'from ml_collections import ConfigDict\n'
    f'def get_config():\n  return ConfigDict({TINY!r})\n'
  )
  with subprocess.Popen(
    [
      sys.executable,
      '-c',
      KILLED,
      f'--config={config}',
      f'--workdir={before_extraction}',
    ],
    cwd=ROOT,
    env=os.environ
    | {'PYTHONPATH': str(ROOT), 'JAX_NUM_CPU_DEVICES': str(len(jax.devices()))},
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  ) as process:
    reached = process.stdout.readline()
    process.kill()
    _, errors = process.communicate()
  assert reached == 'halfway\n', errors
  assert process.returncode == -9
  assert len(workdir.read_jsonl(before_extraction / 'extraction.part.jsonl')) == 20
  experiments.run(experiments.parse(TINY), before_extraction)
  assert without_time(read(before_extraction)) == without_time(read(tiny))


def test_a_published_zoo_runs_to_its_report(tmp_path):
  directory = experiments.run(experiments.parse(PUBLISHED), tmp_path / 'run')
  summary = read(directory)
  assert len(summary['zoo']) == 22
  assert summary['extraction'] == summary['protection'] == []
  assert all(entry['identified'] for entry in summary['fingerprint'])
  assert summary['frontier']['corners_found'] == summary['frontier']['corners']
  assert [claim['claim'][0] for claim in summary['claims']] == ['1', '4']
  assert all(claim['holds'] for claim in summary['claims'])
  for entry in summary['goodput']:
    assert_estimate(entry['goodput'])
  assert '</html>' in (directory / 'report.html').read_text('utf-8')
  assert (directory / 'zoo.png').exists()
  assert not (directory / 'zoo').exists()


@pytest.mark.parametrize(
  ('part', 'field', 'value', 'message'),
  [
    ('data', 'name', 'cifar1000', "name is 'cifar1000'"),
    ('data', 'test_size', 5000, r'test_size \(5000\)|5000'),
    ('profiling', 'rounds', 0, r'config\.profiling\.rounds is 0'),
    ('profiling', 'batch_size', 201, r'config\.profiling\.batch_size is 201'),
    (
      'extraction',
      'surrogate',
      {'family': 'mlp', 'widths': [8], 'size': 3},
      r'config\.extraction\.surrogate .* size is 3',
    ),
    (
      'extraction',
      'surrogate',
      {'family': 'mlp', 'widths': [10**6, 10**6]},
      r'config\.extraction\.surrogate .* a model of 1e\+12 numbers; .* at most 2e\+09',
    ),
    ('defense', 'workload_csv', 'nowhere.csv', 'nowhere.csv'),
  ],
)
def test_bad_input_is_told_before_anything_is_written(
  part, field, value, message, tmp_path
):
  fields = {**TINY, part: {**TINY[part], field: value}}
  with pytest.raises(ValueError, match=message):
    experiments.run(experiments.parse(fields), tmp_path / 'new')
  assert not (tmp_path / 'new').exists()


def test_clients_who_ask_too_much_leave_no_room_for_noise(tmp_path):
  path = tmp_path / 'specs.csv'
  path.write_text('min_accuracy,max_latency_ms\n0.9,50\n0.99,1\n')
  fields = {**PUBLISHED, 'defense': {**DEFENSE, 'workload_csv': str(path)}}
  directory = experiments.run(
    experiments.parse(fields), tmp_path / 'run', until='defense'
  )
  mechanisms = read(directory, 'defense.json')['mechanisms']
  assert [found['calibrated'] for found in mechanisms.values()] == [None, None]


def test_a_mechanism_more_changes_no_others_numbers(tmp_path):
  found = []
  for listed in ({'laplace': {}}, {'gaussian': {}, 'laplace': {}}):
    fields = {**PUBLISHED, 'defense': {**DEFENSE, 'mechanisms': listed}}
    directory = tmp_path / str(len(listed))
    experiments.run(experiments.parse(fields), directory, until='defense')
    found.append(read(directory, 'defense.json')['mechanisms']['laplace'])
  assert found[0] == found[1]


def test_stored_latencies_are_taken(tiny, tmp_path):
  """A new zoo, its own accuracies, the latencies of the run before."""
  stored = {**TINY['profiling'], 'stored': str(tiny / 'profile.csv')}
  config = experiments.parse(TINY | {'seed': 1, 'profiling': stored})
  directory = experiments.run(config, tmp_path / 'run', until='profile')
  rows = []
  for folder in (tiny, directory):
    with (folder / 'profile.csv').open(newline='') as file:
      rows.append(list(csv.DictReader(file)))
  for before, after in zip(*rows, strict=True):
    assert before['name'] == after['name']
    assert float(before['latency_ms']) == pytest.approx(float(after['latency_ms']))
  assert any(a['accuracy'] != b['accuracy'] for a, b in zip(*rows, strict=True))
  assert read(directory, 'profile.json')['stored'] == 'profile.csv'


def test_stored_latencies_of_other_models_are_refused(tmp_path):
  (tmp_path / 'old.csv').write_text('name,accuracy,latency_ms\nlinear,0.5,1.0\n')
  stored = {**TINY['profiling'], 'stored': str(tmp_path / 'old.csv')}
  message = r'config\.profiling\.stored: .*old\.csv.*mlp'
  with pytest.raises(ValueError, match=message):
    experiments.run(experiments.parse(TINY | {'profiling': stored}), tmp_path / 'run')
  assert not (tmp_path / 'run').exists()


def test_a_stored_zoo_is_taken(tiny, tmp_path):
  """Another thief against the same models, of which none is trained again."""
  fields = TINY | {
    'zoo': {**TINY['zoo'], 'stored': str(tiny)},
    'extraction': {**TINY['extraction'], 'surrogate': {'family': 'linear'}},
    'attacks': {'explicit': {}},
  }
  directory = experiments.run(experiments.parse(fields), tmp_path / 'run')
  for name in ('profile.csv', 'profile.json', 'predictions.npz', 'zoo_metrics.jsonl'):
    assert (directory / name).read_bytes() == (tiny / name).read_bytes()
  summary = read(directory, 'summary.json')
  assert summary['provenance']['zoo taken from'] == tiny.name
  for name in read(tiny, 'zoo.json'):
    assert (directory / 'zoo' / name).is_dir()


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'seed': 1}, r'config\.seed is 0 there and 1 here'),
    (
      {'profiling': {**TINY['profiling'], 'rounds': 4}},
      r'config\.profiling\.rounds is \d there and 4 here',
    ),
    ({'zoo': {**TINY['zoo'], 'stored': 'nowhere'}}, r'nowhere.*made predictions\.npz'),
  ],
)
def test_a_stored_zoo_of_other_fields_is_refused(tiny, tmp_path, change, message):
  fields = TINY | {'zoo': {**TINY['zoo'], 'stored': str(tiny)}} | change
  with pytest.raises(ValueError, match=message):
    experiments.run(experiments.parse(fields), tmp_path / 'run')
  assert not (tmp_path / 'run').exists()


def test_clients_none_of_whom_can_be_met_are_refused(tmp_path):
  """Seconds read as milliseconds."""
  path = tmp_path / 'specs.csv'
  path.write_text('min_accuracy,max_latency_ms\n0.9,0.05\n0.8,0.02\n')
  fields = {**PUBLISHED, 'defense': {**DEFENSE, 'workload_csv': str(path)}}
  with pytest.raises(ValueError, match='workload_latency_unit'):
    experiments.run(experiments.parse(fields), tmp_path / 'run')
  assert not (tmp_path / 'run').exists()
  fields['defense']['workload_latency_unit'] = 's'
  experiments.run(experiments.parse(fields), tmp_path / 'run', until='defense')


def test_clients_whom_no_model_keeps_waiting_are_reported(tmp_path):
  """Milliseconds read as seconds."""
  path = tmp_path / 'specs.csv'
  path.write_text('min_accuracy,max_latency_ms\n0.9,50\n0.8,20\n')
  workload = {'workload_csv': str(path), 'workload_latency_unit': 's'}
  config = experiments.parse({**PUBLISHED, 'defense': {**DEFENSE, **workload}})
  with pytest.warns(UserWarning, match=r'exclude no model: .* 2e\+04 to 5e\+04 ms'):
    experiments.run(config, tmp_path / 'run', until='defense')


def test_a_damaged_table_of_answers_is_named(before_extraction):
  whole = (before_extraction / 'predictions.npz').read_bytes()
  (before_extraction / 'predictions.npz').write_bytes(whole[: len(whole) // 2])
  with pytest.raises(ValueError, match=r'predictions\.npz is damaged .* remove it'):
    experiments.run(experiments.parse(TINY), before_extraction)


def test_twins_are_one_corner_and_are_named(tmp_path):
  table = tmp_path / 'zoo.csv'
  table.write_text('model,top1,ms\na,50,1\nb,70,2\nc,70,2\nd,90,4\n')
  columns = {'accuracy_column': 'top1', 'latency_column': 'ms'}
  published = {'csv': str(table), **columns}
  config = experiments.parse({**PUBLISHED, 'published': published})
  directory = experiments.run(config, tmp_path / 'run')
  summary = read(directory)
  assert summary['twins'] == [['b', 'c']]
  assert [entry['victim'] for entry in summary['fingerprint']] == ['a', 'b', 'd']
  assert all(entry['identified'] for entry in summary['fingerprint'])
  assert summary['frontier']['corners_found'] == summary['frontier']['corners'] == 3
  assert re.search('b.*c', (directory / 'results.md').read_text('utf-8'))


def test_surrogates_that_diverge_are_reported_and_support_no_claim(before_extraction):
  """The same zoo, surrogates trained at an absurd rate."""
  hyper = {**HYPER, 'learning_rate': 1e38}
  fields = {**TINY, 'extraction': {**TINY['extraction'], 'hyper': hyper}}
  config = experiments.parse(fields)
  (before_extraction / 'config.json').write_text(workdir.to_json(config))
  with pytest.warns(UserWarning, match='surrogates diverged'):
    experiments.run(config, before_extraction)
  summary = read(before_extraction)
  for entry in summary['extraction']:
    nothing = {'mean': None, 'ci95': None}
    if entry['diverged'] == entry['seeds']:
      assert entry['accuracy'] == entry['fidelity'] == nothing
  # One that was answered little, or with one class alone, may stay finite.
  rows = summary['extraction']
  assert sum(row['diverged'] for row in rows) > 0.8 * 2 * len(rows)
  for claim in summary['claims']:
    if claim['claim'][0] in '23':
      assert not claim['holds']
      assert 'diverged' in claim['measured']
  assert 'diverged' in (before_extraction / 'results.md').read_text('utf-8')
