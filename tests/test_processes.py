"""Two processes on one experiment, over loopback."""

import json
import pathlib
import shutil
import socket
import subprocess
import sys

import pytest

from psml_jax import experiments
from psml_jax.experiments import processes

ROOT = pathlib.Path(__file__).parents[1]
FIELDS = {
  'name': 'two',
  'seed': 0,
  'seeds': 3,
  'data': {'name': 'digits', 'zoo_size': 300, 'pool_size': 100, 'test_size': 100},
  'zoo': {
    'models': {
      'small': {'family': 'linear', 'size': 2},
      'middle': {'family': 'linear', 'size': 4},
      'large': {'family': 'mlp', 'widths': [512, 512]},
    },
    'recipe': {'epochs': 2, 'batch_size': 32, 'learning_rate': 0.02, 'flip': False},
  },
  'profiling': {'batch_size': 4, 'rounds': 3},
  'fingerprint': {'accuracy_resolution': 0.02, 'latency_resolution': 0.05},
  'extraction': {
    'query_budgets': [30],
    'surrogate': {'family': 'linear'},
    'hyper': {'steps': 10, 'batch_size': 16, 'learning_rate': 1e-2},
    'rows_per_chunk': 8,
    'width': 1,
  },
  'attacks': {'explicit': {}, 'fingerprint': {}, 'naive': {}},
  'defense': {'target_goodput': 0.8, 'mechanism': 'laplace', 'workload_size': 256},
}
JOB = """
import json, sys
coordinator, number, folder, fault, fields = sys.argv[1:]
import jax
jax.config.update('jax_num_cpu_devices', 2)
from psml_jax import experiments
from psml_jax.experiments import extraction_stage, pipeline, processes
processes.join(coordinator, 2, int(number))

def fail(*arguments):
  raise OSError(f'a fault of process {number}')

if fault == 'alone':
  pipeline._STAGES['zoo'] = ('zoo.json', fail)
if fault == 'together' and number == '0':
  extraction_stage.scores = fail
experiments.run(experiments.parse(json.loads(fields)), folder)
assert len(jax.devices()) == 4
print('processes', jax.process_count())
"""


def two_processes(folder, fault=''):
  with socket.socket() as probe:
    probe.bind(('localhost', 0))
    port = probe.getsockname()[1]
  started = [
    subprocess.Popen(
      [
        *(sys.executable, '-c', JOB, f'localhost:{port}', str(i)),
        *(str(folder), fault, json.dumps(FIELDS)),
      ],
      cwd=ROOT,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )
    for i in range(2)
  ]
  ended = [process.communicate(timeout=240) for process in started]
  return [(p.returncode, *texts) for p, texts in zip(started, ended, strict=True)]


def without_time(folder):
  summary = json.loads((folder / 'summary.json').read_text('utf-8'))
  return {k: v for k, v in summary.items() if k not in ('wall_seconds', 'provenance')}


@pytest.fixture(scope='module')
def directory(once):
  """A whole run of two processes."""

  def make(folder):
    first, second = two_processes(folder / 'run')
    assert first[0] == second[0] == 0, first[2] + second[2]
    assert 'processes 2' in second[1]
    assert '2a. ' in first[1]
    assert '2a. ' not in second[1]
    assert 'extraction:' in first[2]
    assert 'extraction:' not in second[2]

  return once('two', make) / 'run'


@pytest.mark.slow
def test_two_processes_give_the_summary_of_one(directory, tmp_path):
  """One process goes on where latencies have been measured."""
  one = tmp_path / 'one'
  shutil.copytree(directory, one)
  for name in ('extraction.jsonl', 'summary.json', 'report.html'):
    (one / name).unlink()
  experiments.run(experiments.parse(FIELDS), one)
  assert without_time(one) == without_time(directory)
  assert not list(one.glob('.*'))


@pytest.mark.slow
def test_what_fails_in_the_first_process_ends_the_others(tmp_path):
  first, second = two_processes(tmp_path, 'alone')
  assert first[0] != 0
  assert 'a fault of process 0' in first[2]
  assert second[0] != 0
  assert 'the stage zoo failed in the first process' in second[2]


@pytest.mark.slow
def test_what_fails_in_a_stage_of_all_ends_all(directory, tmp_path):
  for name in ('config.json', 'inputs.json', 'profile.csv', 'profile.json', 'zoo.json'):
    shutil.copy(directory / name, tmp_path)
  for name in ('predictions.npz', 'fingerprint.json', 'defense.json'):
    shutil.copy(directory / name, tmp_path)
  first, second = two_processes(tmp_path, 'together')
  assert first[0] == 1
  assert 'a fault of process 0' in first[2]
  assert 'the stage extraction failed in process 0' in first[2]
  assert second[0] != 0


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (('localhost:1', None, 0), 'give all three, or coordinator auto'),
    (('localhost:1', 2, None), 'process_id None; give all three'),
    (('localhost:1', 2, 2), r'process_id is 2; it must be in \[0, 2\)'),
    (('localhost:1', 2, -1), 'process_id is -1'),
    (('auto', 2, None), 'auto stands alone'),
    ((None, 2, 0), 'coordinator is None'),
  ],
)
def test_what_joins_nobody(arguments, message):
  with pytest.raises(ValueError, match=message):
    processes.join(*arguments)


def test_a_single_process_is_the_first_and_waits_for_nobody():
  assert processes.is_first()
  done = []
  processes.wait('here')
  processes.on_first('something', lambda: done.append(1))
  assert done == [1]
  with pytest.raises(KeyError):
    processes.on_first('something', lambda: {}['x'])
  with pytest.raises(KeyError):
    processes.together('something', lambda: {}['x'])
