"""Two processes on one experiment, over loopback."""

import json
import pathlib
import socket
import subprocess
import sys

import pytest

from psml_jax.experiments import processes
from tests.test_run_values import run  # noqa: F401

ROOT = pathlib.Path(__file__).parents[1]
JOB = """
import pathlib, sys
folder, coordinator, number, fault = sys.argv[1:]
sys.path.insert(0, sys.argv[0].rpartition('/')[0] or '.')
import jax
jax.config.update('jax_num_cpu_devices', 2)
from psml_jax import experiments
from psml_jax.experiments import extraction_stage, fingerprint_stage, processes
from tests import test_run_values
processes.join(coordinator, 2, int(number))
assert len(jax.devices()) == 4
if fault:
  def fail(experiment):
    raise OSError('a fault of the first process')
  from psml_jax.experiments import pipeline
  pipeline._STAGES['fingerprint'] = ('fingerprint.json', fail)
test_run_values.make_run(pathlib.Path(folder))
print('processes', jax.process_count())
"""


def two_processes(folder, fault=''):
  with socket.socket() as probe:
    probe.bind(('localhost', 0))
    port = probe.getsockname()[1]
  started = [
    subprocess.Popen(
      [sys.executable, '-c', JOB, str(folder), f'localhost:{port}', str(i), fault],
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
  summary = json.loads((folder / 'run' / 'summary.json').read_text('utf-8'))
  return {k: v for k, v in summary.items() if k not in ('wall_seconds', 'provenance')}


@pytest.mark.slow
def test_two_processes_give_the_summary_of_one(run, tmp_path):  # noqa: F811
  first, second = two_processes(tmp_path)
  assert first[0] == second[0] == 0, first[2] + second[2]
  assert 'processes 2' in second[1]
  assert 'extraction' in first[2]
  assert 'extraction:' not in second[2]
  assert without_time(tmp_path) == without_time(run.directory.parent)
  assert not list((tmp_path / 'run').glob('.*'))


@pytest.mark.slow
def test_what_fails_in_the_first_process_ends_the_others(tmp_path):
  first, second = two_processes(tmp_path, 'fault')
  assert first[0] != 0
  assert 'a fault of the first process' in first[2]
  assert second[0] != 0
  assert 'the stage fingerprint failed in the first process' in second[2]


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (('localhost:1', None, 0), 'give all three, or coordinator auto'),
    (('localhost:1', 2, None), 'process_id None; give all three'),
    (('localhost:1', 2, 2), r'process_id is 2; it must be in \[0, 2\)'),
    (('localhost:1', 2, -1), 'process_id is -1'),
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
