"""The config for accelerators in small, killed twice: what it saves, how it ends."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest

from psml_jax import experiments
from psml_jax.experiments import config_file, extraction_stage, pieces, workdir
from psml_jax.experiments.experiment import Experiment

ROOT = pathlib.Path(__file__).parents[1]
SOURCE = 'configs/cifar10_paper.py:tiny'
CONFIG = experiments.parse(config_file.load(SOURCE))
STALLED = """
import runpy, sys, time
from psml_jax.experiments import pieces
from psml_jax.train.log import Log

where = sys.argv.pop(1)
calls = []

def stall_in(holder, name, ready):
  usual = getattr(holder, name)

  def counted(*arguments):
    calls.append(name)
    if len(calls) < 2:
      return usual(*arguments)
    ready(*arguments)
    print('halfway', flush=True)
    time.sleep(600)

  setattr(holder, name, counted)

if where == 'zoo':
  stall_in(Log, 'write', lambda log, *_: log._manager.wait_until_finished())
else:
  stall_in(pieces, '_write', lambda *_: None)
sys.argv = ['reproduce.py', *sys.argv[1:]]
runpy.run_path('launch/reproduce.py', run_name='__main__')
"""
FINISHED = """
import sys
from psml_jax import experiments
from psml_jax.experiments import config_file, pieces

calls = []
advance = pieces.advance

def count(*arguments):
  calls.append(arguments)
  return advance(*arguments)

pieces.advance = count
config = experiments.parse(config_file.load(sys.argv[1]))
for directory in sys.argv[2:]:
  experiments.run(config, directory)
  print('calls', len(calls))
"""


def python(*arguments):
  """A process that compiles quickly, as all of the test do."""
  return subprocess.Popen(
    [sys.executable, '-c', *arguments],
    cwd=ROOT,
    env=os.environ
    | {
      'PYTHONPATH': str(ROOT),
      'JAX_NUM_CPU_DEVICES': '2',
      'XLA_FLAGS': '--xla_backend_optimization_level=0',
    },
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def kill_in(where, directory):
  """kill -9 in the second epoch of the zoo, or the second piece of surrogates."""
  arguments = f'--config={SOURCE}', f'--workdir={directory}'
  with python(STALLED, where, *arguments) as process:
    reached = process.stdout.readline()
    process.kill()
    _, errors = process.communicate()
  assert reached == 'halfway\n', errors
  assert process.returncode == -9


def epochs(directory, name):
  lines = (directory / 'training' / name / 'metrics.jsonl').read_text().splitlines()
  return [json.loads(line)['epoch'] for line in lines]


def scores(directory):
  records = workdir.read_jsonl(directory / 'extraction.jsonl')
  return [{k: v for k, v in record.items() if k != 'seconds'} for record in records]


@pytest.mark.slow
def test_killed_twice_it_ends_as_a_whole_run(tmp_path):
  run, whole = tmp_path / 'run', tmp_path / 'whole'
  (name,) = CONFIG.zoo.models
  kill_in('zoo', run)
  assert epochs(run, name) == [1]
  assert (run / 'training' / name / 'checkpoints' / '1').is_dir()
  assert not (run / 'zoo').exists()

  kill_in('extraction', run)
  assert epochs(run, name) == [1, 2]
  assert (run / 'zoo' / name).is_dir()
  with np.load(run / pieces.STATE) as under_way:
    assert int(under_way['done']) == 1
    rows = str(under_way['label']).splitlines()
    steps = under_way['leaf0']
  assert len(rows) == len(steps) == CONFIG.extraction.rows_per_chunk
  assert set(steps) == {2}
  assert not (run / 'extraction.part.jsonl').exists()

  shutil.copytree(run, whole)
  (whole / pieces.STATE).unlink()
  with python(FINISHED, SOURCE, str(run), str(whole)) as process:
    said, errors = process.communicate(timeout=900)
  assert process.returncode == 0, errors
  cells = extraction_stage.cells(Experiment(CONFIG, run))
  count = CONFIG.seeds * len(cells)
  chunks = -(-count // CONFIG.extraction.rows_per_chunk)
  calls = [line for line in said.splitlines() if line.startswith('calls')]
  each = CONFIG.extraction.pieces * chunks
  assert calls == [f'calls {each - 1}', f'calls {2 * each - 1}']
  for directory in (run, whole):
    assert not (directory / pieces.STATE).exists()
    assert (directory / 'report.html').exists()
  assert len(scores(run)) == count
  assert not any(record['diverged'] for record in scores(run))
  assert scores(run) == scores(whole)
