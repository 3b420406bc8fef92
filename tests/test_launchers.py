"""Launch scripts: mistakes end in one line at once, defects keep their traceback."""

import os
import pathlib
import signal
import subprocess
import sys

import pytest
from absl import flags

from psml_jax import _validate, experiments
from psml_jax.experiments import (
  command_line,
  config_file,
  launcher,
  pipeline,
  preflight,
)

ROOT = pathlib.Path(__file__).parents[1]
DIGITS = f'--config={ROOT}/configs/digits.py'
PUBLISHED = f'--config={ROOT}/configs/published_profiles.py'


def python(*arguments, **env):
  return subprocess.run(
    [sys.executable, *arguments],
    cwd=ROOT,
    env=os.environ | {'PYTHONPATH': str(ROOT)} | env,
    capture_output=True,
    text=True,
    timeout=120,
    check=False,
  )


def parse(*arguments):
  values = flags.FlagValues()
  command_line.define(values)
  return command_line.parse(['launch/reproduce.py', *arguments], values)


def write_config(path, text):
  path.write_text(text)
  return f'--config={path}'


class TestCommandLine:
  def test_what_it_says(self):
    read = parse(DIGITS, '--workdir=runs/x', '--data_dir', 'data', '--config.seed', '7')
    assert (read.workdir, read.data_dir) == ('runs/x', 'data')
    assert read.fields['seed'] == 7
    assert experiments.parse(read.fields).seeds == 64

  def test_flags_in_a_file(self, tmp_path):
    path = tmp_path / 'flags'
    path.write_text(f'{DIGITS}\n--config.seed=7\n--workdir=runs/x\n')
    assert parse(f'--flagfile={path}').fields['seed'] == 7

  @pytest.mark.parametrize(
    ('arguments', 'message'),
    [
      ([DIGITS, '--workdir=x', '--config.seedz=3'], r"config\.seedz .*mean 'seed'\?"),
      ([DIGITS, '--workdir=x', '--config.seeds=abc'], r"config\.seeds is 'abc'"),
      ([DIGITS, '--workdir=x', '--config.seeds'], r'config\.seeds has no value'),
      ([DIGITS, '--workdirr=x'], "flag 'workdirr'.*workdir"),
      ([DIGITS], '--workdir is missing'),
      ([DIGITS, '--workdir='], '--workdir is missing'),
      ([DIGITS, '--workdir=x', 'configs/digits.py'], "argument 'configs/digits.py'"),
      (['--workdir=x'], '--config is missing'),
      ([DIGITS.replace('ts.py', 'tz.py'), '--workdir=x'], r'mean .*configs/digits\.py'),
      (['--config=configs', '--workdir=x'], "--config is 'configs'; .* file"),
      ([f'{DIGITS}:large', '--workdir=x'], 'must be digits or strong'),
      (
        [f'{DIGITS}:x'.replace('digits.py', 'cifar10_small.py'), '--workdir=x'],
        r'small\.py: TypeError: .*get_config',
      ),
      (['--flagfile=nowhere'], 'nowhere'),
    ],
  )
  def test_mistakes(self, arguments, message):
    with pytest.raises(ValueError, match=message):
      parse(*arguments)

  def test_help_shows_the_fields_and_their_values(self, capsys):
    assert parse('--help', DIGITS, '--config.seed=7') is None
    shown = capsys.readouterr().out
    for text in ('--workdir', '--data_dir', '--config.seed=7', 'widths=1024,512'):
      assert text in shown
    assert 'verbosity' not in shown
    given = [line.strip() for line in shown.splitlines() if '  --config.' in line]
    again = [flag.replace("''", '') for flag in given]
    fields = parse(DIGITS, '--workdir=x', *again).fields
    assert experiments.parse(fields) == experiments.parse(
      parse(DIGITS, '--workdir=x', '--config.seed=7').fields
    )

  @pytest.mark.parametrize('flag', ['-h', '-help', '--help', '--helpshort', '-?'])
  def test_help_needs_no_other_flag(self, flag, capsys):
    assert parse(flag) is None
    assert '--config' in capsys.readouterr().out


class TestConfigFile:
  @pytest.mark.parametrize(
    ('text', 'message'),
    [
      ('def get_config(:\n  pass', r'bad\.py, line 1: SyntaxError'),
      ('\n\nimport nonsense_module\n', r'bad\.py, line 3: ModuleNotFoundError: No mod'),
      ('def get_config():\n  return {}["x"]\n', r"bad\.py, line 2: KeyError: 'x'"),
      ('import json\njson.loads("{")\n', r'bad\.py, line 2: JSONDecodeError'),
      ('seed = 0\n', r'bad\.py: ValueError: it must define get_config\(\)'),
      ('def get_config():\n  pass\n', r'bad\.py: get_config\(\) returns None'),
    ],
  )
  def test_mistakes_are_named_with_their_line(self, text, message, tmp_path):
    with pytest.raises(ValueError, match=message):
      parse(write_config(tmp_path / 'bad.py', text), '--workdir=x')

  @pytest.mark.parametrize(
    ('path', 'text', 'value'),
    [
      ('a.number', '3', 3),
      ('a.number', '1e-3', 1e-3),
      ('a.text', '3', '3'),
      ('a.text', '', ''),
      ('a.switch', 'true', True),
      ('a.switch', None, True),
      ('a.switch', 'False', False),
      ('a.nothing', '3', 3),
      ('a.nothing', 'word', 'word'),
      ('a.ints', '(32,)', (32,)),
      ('a.ints', '[32, 16]', (32, 16)),
      ('a.ints', '32', (32,)),
      ('a.floats', '0.1,0.2', (0.1, 0.2)),
      ('a.floats', '()', ()),
      ('a.names', 'b,c', ('b', 'c')),
      ('a.names', 'b', ('b',)),
      ('a.mixed', '[(1, 2), None]', ((1, 2), None)),
      ('a.b-1.5.size', '4', 4),
      ('a.b-1', '{"size": 9}', {'size': 9}),
    ],
  )
  def test_overrides_have_the_type_of_the_field(self, path, text, value):
    fields = self.fields()
    config_file.override(fields, path, text)
    where = fields['a']
    if path == 'a.b-1.5.size':
      found = where['b-1.5']['size']
    else:
      found = where[path.removeprefix('a.')]
    assert found == value
    assert type(found) is type(value)

  @pytest.mark.parametrize(
    ('path', 'text', 'message'),
    [
      ('a.number', 'x', r"config\.a\.number is 'x'; it must be a number"),
      ('a.switch', 'maybe', 'must be true or false'),
      ('a.number', None, 'has no value'),
      ('a.ints', '1,x', 'must be numbers .* 1,2'),
      ('a.names', '1,2', 'must be names .* x,y'),
      ('a', '3', r'must be a mapping, or .*--config\.a\.number'),
      ('a.number.b', '3', r"config\.a\.number is 1, which has no field 'b'"),
      ('a.numbr', '3', r"config\.a\.numbr is no field \(did you mean 'number'\?\)"),
      ('', '3', 'is no field'),
    ],
  )
  def test_wrong_overrides(self, path, text, message):
    with pytest.raises(ValueError, match=message):
      config_file.override(self.fields(), path, text)

  @staticmethod
  def fields():
    return {
      'a': {
        'number': 1,
        'text': 'x',
        'switch': False,
        'nothing': None,
        'ints': [1, 2],
        'floats': (0.5,),
        'names': ('x', 'y'),
        'mixed': [(1, 2), 'x'],
        'b-1': {'size': 2},
        'b-1.5': {'size': 2},
      }
    }


REPORTED = """
import runpy, sys
sys.argv = ['launch/reproduce.py', *sys.argv[1:]]
try:
  runpy.run_path('launch/reproduce.py', run_name='__main__')
finally:
  print('imported' if 'jax' in sys.modules else 'not imported')
"""


@pytest.mark.parametrize(
  ('arguments', 'code', 'said'),
  [
    (
      ['--config=configs/digits.py', '--config.seedz=3'],
      2,
      'error: config.seedz is no',
    ),
    (['--help'], 0, 'The whole experiment: train a zoo'),
  ],
)
def test_flags_are_read_before_jax_is_imported(arguments, code, said):
  done = python('-c', REPORTED, *arguments)
  assert done.returncode == code
  assert (done.stderr + done.stdout).startswith(said)
  assert done.stdout.endswith('not imported\n')
  assert len(done.stderr.splitlines()) == (code == 2)


@pytest.mark.parametrize(
  ('script', 'known'),
  [('serve', ('--port', 'limits.hold_ms')), ('attack', ('--target', 'data.pool_size'))],
)
def test_scripts_of_servers_list_flags_and_fields(script, known):
  done = python(f'launch/{script}.py', '--help')
  assert done.returncode == 0
  assert all(each in done.stdout for each in known)


@pytest.mark.parametrize(
  ('flags', 'message'),
  [
    ([], 'error: --target is missing'),
    (['--target=http://127.0.0.1:9/v2'], 'error: --latency_budget_ms is missing'),
    (
      ['--target=http://127.0.0.1:9/v2', '--latency_budget_ms=-1'],
      'error: --latency_budget_ms is -1.0; it must be > 0',
    ),
    (
      ['--target=http://127.0.0.1:9/v2', '--latency_budget_ms=1'],
      'holds the results of a raid; take another',
    ),
  ],
)
def test_a_raid_is_refused_before_it_asks(flags, message, tmp_path):
  (tmp_path / 'attack.json').write_text('{}')
  done = python('launch/attack.py', *flags, f'--workdir={tmp_path}')
  assert done.returncode == 2
  assert message in done.stderr
  assert len(done.stderr.splitlines()) == 1


def test_no_such_platform(tmp_path):
  done = python(
    'launch/profile_zoo.py',
    PUBLISHED,
    f'--workdir={tmp_path}/run',
    JAX_PLATFORMS='nonsense',
  )
  assert done.returncode == 2
  assert done.stderr.startswith("error: JAX_PLATFORMS is 'nonsense'")
  assert len(done.stderr.splitlines()) == 1
  assert not (tmp_path / 'run').exists()


def launch(*arguments, until='report'):
  read = parse(*arguments)
  assert read is not None
  launcher._run(until, read)


def error_of(capsys):
  lines = capsys.readouterr().err.splitlines()
  assert len(lines) == 1
  return lines[0]


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    ([DIGITS, '--config.seeds=1'], 'error: config.seeds is 1;'),
    (
      [DIGITS, '--config.data.name=cifar1000'],
      "error: config.data.name is 'cifar1000'",
    ),
    ([DIGITS, '--data_dir=s3://bucket'], "error: data_dir is 's3://bucket', a URL"),
  ],
)
def test_mistakes_in_values(arguments, message, tmp_path, capsys):
  with pytest.raises(SystemExit) as stopped:
    launch(*arguments, f'--workdir={tmp_path}/run')
  assert stopped.value.code == 2
  assert error_of(capsys).startswith(message)
  assert not (tmp_path / 'run').exists()


def test_a_foreign_workdir_is_named(tmp_path, capsys):
  (tmp_path / 'thesis.tex').write_text('mine')
  with pytest.raises(SystemExit):
    launch(PUBLISHED, f'--workdir={tmp_path}')
  assert error_of(capsys).startswith('error: workdir is')
  assert [path.name for path in tmp_path.iterdir()] == ['thesis.tex']


@pytest.mark.parametrize(
  ('error', 'line'),
  [
    (_validate.InputError('the zoo\n is damaged'), 'error: the zoo is damaged'),
    (OSError(28, 'No space left', '/x'), "error: [Errno 28] No space left: '/x'"),
  ],
)
def test_mistakes_that_show_later(error, line, monkeypatch, tmp_path, capsys):
  fail_in_a_stage(error, monkeypatch)
  with pytest.raises(SystemExit) as stopped:
    launch(PUBLISHED, f'--workdir={tmp_path}/run', until='profile')
  assert stopped.value.code == 2
  assert error_of(capsys) == line


@pytest.mark.parametrize(
  'error', [MemoryError('array too large'), RuntimeError('RESOURCE_EXHAUSTED: 9 TB')]
)
def test_memory_that_does_not_suffice(error, monkeypatch, tmp_path, capsys):
  fail_in_a_stage(error, monkeypatch)
  with pytest.raises(SystemExit):
    launch(PUBLISHED, f'--workdir={tmp_path}/run', until='profile')
  assert error_of(capsys).startswith(
    f'error: the stage profile needs more memory than there is ({error})'
  )


@pytest.mark.parametrize(
  'error', [ValueError('defect'), KeyError('defect'), RuntimeError('defect')]
)
def test_defects_keep_their_traceback(error, monkeypatch, tmp_path):
  fail_in_a_stage(error, monkeypatch)
  with pytest.raises(type(error), match='defect') as caught:
    launch(PUBLISHED, f'--workdir={tmp_path}/run', until='profile')
  assert caught.value is error


def fail_in_a_stage(error, monkeypatch):
  def fail(experiment):
    raise error

  monkeypatch.setitem(pipeline._STAGES, 'profile', ('profile.csv', fail))


def test_what_preflight_rejects_is_a_mistake(monkeypatch, tmp_path):
  def refuse(experiment):
    raise ValueError('does not fit')

  monkeypatch.setattr(preflight, 'check', refuse)
  config = experiments.parse(parse(PUBLISHED, '--workdir=x').fields)
  with pytest.raises(_validate.InputError, match='does not fit'):
    experiments.run(config, tmp_path / 'run')


STALLED = """
import runpy, signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # some shells ignore it
from psml_jax.experiments import pipeline

def stall(experiment):
  print('at work', flush=True)
  try:
    time.sleep(600)
  except BaseException:  # as a callback of JAX does
    pass
  time.sleep(600)

pipeline._STAGES['fingerprint'] = ('fingerprint.json', stall)
sys.argv = ['fingerprint.py', *sys.argv[1:]]
runpy.run_path('launch/fingerprint.py', run_name='__main__')
"""


def test_an_interrupt_ends_in_one_line_and_the_same_command_continues(tmp_path):
  directory = tmp_path / 'run'
  with subprocess.Popen(
    [sys.executable, '-c', STALLED, PUBLISHED, f'--workdir={directory}'],
    cwd=ROOT,
    env=os.environ | {'PYTHONPATH': str(ROOT)},
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  ) as process:
    assert process.stdout.readline() == 'at work\n'
    process.send_signal(signal.SIGINT)
    try:
      printed, errors = process.communicate(timeout=60)
    finally:
      process.kill()
  assert process.returncode == 130
  assert printed == ''
  assert errors.strip() == 'interrupted; the same command continues'
  assert {path.name for path in directory.iterdir()} == {
    'config.json',
    'inputs.json',
    'profile.csv',
    'seconds.json',
  }
  made = (directory / 'profile.csv').stat().st_mtime_ns
  launch(PUBLISHED, f'--workdir={directory}', until='fingerprint')
  assert (directory / 'profile.csv').stat().st_mtime_ns == made


CORES = """
import sys
import jax
from psml_jax import _device
if 'late' in sys.argv:
  jax.devices()
_device._cores = lambda: 3
_device.start()
_device.start()
print(jax.local_device_count())
"""


@pytest.mark.parametrize(
  ('when', 'env', 'devices', 'warnings'),
  [
    ('early', {}, 3, 0),
    ('early', {'JAX_NUM_CPU_DEVICES': '1'}, 1, 0),
    ('late', {}, 1, 1),
  ],
)
def test_every_core_is_a_device_unless_chosen_or_too_late(when, env, devices, warnings):
  env = {'JAX_NUM_CPU_DEVICES': '-1', 'XLA_FLAGS': '', 'JAX_PLATFORMS': 'cpu'} | env
  done = python('-c', CORES, when, **env)
  assert done.stdout == f'{devices}\n', done.stderr
  assert done.stderr.count("jax.config.update('jax_num_cpu_devices', 3)") == warnings
