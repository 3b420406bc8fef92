"""The config for accelerators in small, killed twice: what it saves, how it ends."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import jax
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


def kill_in(where, directory):
  """kill -9 in the second epoch of the zoo, or the second piece of surrogates."""
  with subprocess.Popen(
    [
      *(sys.executable, '-c', STALLED, where),
      *(f'--config={SOURCE}', f'--workdir={directory}'),
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


def epochs(directory, name):
  lines = (directory / 'training' / name / 'metrics.jsonl').read_text().splitlines()
  return [json.loads(line)['epoch'] for line in lines]


def scores(directory):
  records = workdir.read_jsonl(directory / 'extraction.jsonl')
  return [{k: v for k, v in record.items() if k != 'seconds'} for record in records]


@pytest.fixture(scope='module')
def killed(once):
  """The work directories after the two kills, the first one without a zoo."""

  def make(folder):
    kill_in('zoo', folder / 'run')
    shutil.copytree(folder / 'run', folder / 'first')
    kill_in('extraction', folder / 'run')

  return once('paper', make)


@pytest.mark.slow
def test_a_killed_zoo_has_the_epochs_that_it_trained(killed):
  first, name = killed / 'first', next(iter(CONFIG.zoo.models))
  assert epochs(first, name) == [1]
  assert (first / 'training' / name / 'checkpoints' / '1').is_dir()
  assert not list((first / 'zoo').glob('*'))
  for model in CONFIG.zoo.models:
    assert epochs(killed / 'run', model) == [1, 2]
    assert (killed / 'run' / 'zoo' / model).is_dir()


@pytest.mark.slow
def test_a_killed_training_of_surrogates_continues_to_the_same_bits(
  killed, tmp_path, monkeypatch
):
  run = shutil.copytree(killed / 'run', tmp_path / 'run')
  whole = shutil.copytree(killed / 'run', tmp_path / 'whole')
  with np.load(run / pieces.STATE) as under_way:
    assert int(under_way['done']) == 1
    rows = str(under_way['label']).splitlines()
    steps = under_way['leaf0']
  assert len(rows) == len(steps) == CONFIG.extraction.rows_per_chunk
  assert set(steps) == {2}
  assert not (run / 'extraction.part.jsonl').exists()

  calls = []

  def count(*arguments):
    calls.append(arguments)
    return advance(*arguments)

  advance = pieces.advance
  monkeypatch.setattr(pieces, 'advance', count)
  experiments.run(CONFIG, run)
  cells = extraction_stage.cells(Experiment(CONFIG, run))
  assert len(scores(run)) == CONFIG.seeds * len(cells)
  chunks = -(-CONFIG.seeds * len(cells) // CONFIG.extraction.rows_per_chunk)
  assert len(calls) == CONFIG.extraction.pieces * chunks - 1
  assert not (run / pieces.STATE).exists()
  assert (run / 'report.html').exists()
  assert not any(record['diverged'] for record in scores(run))

  (whole / pieces.STATE).unlink()
  experiments.run(CONFIG, whole)
  assert scores(run) == scores(whole)
  assert len(calls) == 2 * CONFIG.extraction.pieces * chunks - 1
