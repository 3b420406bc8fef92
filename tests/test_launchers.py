"""The launch scripts: a mistake on the command line ends them at once, by its name."""

import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[1]


def launch(script, *arguments):
  return subprocess.run(
    [sys.executable, ROOT / 'launch' / script, *arguments],
    cwd=ROOT,
    env=os.environ | {'PYTHONPATH': str(ROOT)},
    capture_output=True,
    text=True,
    timeout=120,
    check=False,
  )


def test_a_foreign_workdir_is_named(tmp_path):
  (tmp_path / 'thesis.tex').write_text('mine')
  done = launch(
    'reproduce.py', f'--config={ROOT}/configs/digits.py', f'--workdir={tmp_path}'
  )
  assert done.returncode != 0
  assert 'workdir is' in done.stdout + done.stderr
  assert 'Traceback' not in done.stderr
  assert [path.name for path in tmp_path.iterdir()] == ['thesis.tex']


def test_an_unknown_override_is_named(tmp_path):
  workdir = tmp_path / 'run'
  done = launch(
    'train_zoo.py',
    f'--config={ROOT}/configs/digits.py',
    '--config.seedz=3',
    f'--workdir={workdir}',
  )
  assert done.returncode != 0
  assert 'seedz' in done.stdout + done.stderr
  assert not workdir.exists()


def test_a_missing_workdir_is_named():
  done = launch('fingerprint.py', f'--config={ROOT}/configs/digits.py')
  assert done.returncode != 0
  assert '--workdir' in done.stdout + done.stderr
  assert 'Traceback' not in done.stderr
