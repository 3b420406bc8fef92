"""The work directory: whole files only, and never somebody else's."""

import dataclasses
import errno
import json
import logging
import os
import pathlib
import re
import signal
import subprocess
import sys

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import psml_jax
from psml_jax import data, experiments
from psml_jax._validate import InputError
from psml_jax.experiments import artifacts, lock, parse, pipeline, provenance, workdir
from psml_jax.experiments.config import Data, Profiling
from psml_jax.experiments.experiment import Experiment

ROOT = pathlib.Path(__file__).parents[1]
DEFENSE = {
  'mechanisms': {'laplace': {'values': (0.1,)}, 'refusal': {}},
  'target_goodput': 0.8,
  'workload_size': 16,
}


@pytest.fixture
def config():
  return make_config(0)


def make_config(seed, **changes):
  return parse(
    {
      'name': 'published',
      'seed': seed,
      'seeds': 2,
      'fingerprint': {'accuracy_resolution': 0.01, 'latency_resolution': 0.01},
      'defense': DEFENSE,
      'published': {'name': 'cifar10_published'},
      **changes,
    }
  )


def contents(directory):
  return {
    path.relative_to(directory): (path.stat().st_mtime_ns, path.read_bytes())
    for path in directory.rglob('*')
    if path.is_file()
  }


def test_a_new_directory_gets_the_config(tmp_path, config):
  directory = workdir.open_workdir(tmp_path / 'runs' / 'one', config)
  stored = json.loads((directory / 'config.json').read_text('utf-8'))
  assert stored['config']['published']['name'] == 'cifar10_published'
  assert stored == json.loads(workdir.to_json(config))
  assert stored['format'] == workdir.FORMAT
  assert stored['psml_jax'] == psml_jax.__version__
  assert parse(stored['config']) == config


def test_the_same_config_reopens(tmp_path, config):
  workdir.open_workdir(tmp_path, config)
  (tmp_path / 'profile.csv').write_text('kept')
  before = contents(tmp_path)
  assert workdir.open_workdir(str(tmp_path), make_config(0)) == tmp_path
  assert contents(tmp_path) == before


def test_another_config_is_refused_and_nothing_touched(tmp_path, config):
  workdir.open_workdir(tmp_path, config)
  before = contents(tmp_path)
  message = r'workdir is .*another config \(config\.seed is 0 there and 1 here\)'
  with pytest.raises(ValueError, match=message):
    workdir.open_workdir(tmp_path, make_config(1))
  assert contents(tmp_path) == before


def test_foreign_files_are_refused_and_nothing_touched(tmp_path, config):
  (tmp_path / 'thesis.tex').write_text('mine')
  before = contents(tmp_path)
  with pytest.raises(ValueError, match=r'workdir is .*holds files but no config\.json'):
    workdir.open_workdir(tmp_path, config)
  assert contents(tmp_path) == before


def test_a_file_is_refused(tmp_path, config):
  path = tmp_path / 'file'
  path.write_text('mine')
  with pytest.raises(ValueError, match='workdir is .*a file; it must be a directory'):
    workdir.open_workdir(path, config)
  assert path.read_text() == 'mine'


def test_a_failed_write_leaves_the_old_file(tmp_path):
  path = tmp_path / 'artifact.txt'
  path.write_text('old')

  def fill(temporary):
    temporary.write_text('half of the n')
    raise RuntimeError('out of memory')

  with pytest.raises(RuntimeError, match='out of memory'):
    workdir.write(path, fill)
  assert path.read_text() == 'old'
  assert list(tmp_path.iterdir()) == [path]


def test_a_write_replaces_the_whole_file(tmp_path):
  path = tmp_path / 'artifact.txt'
  path.write_text('old and long')
  seen = []

  def fill(temporary):
    seen.append((temporary.parent, temporary.suffix, path.read_text()))
    temporary.write_text('new')

  workdir.write(path, fill)
  assert seen == [(tmp_path, '.txt', 'old and long')]
  assert path.read_text() == 'new'
  assert list(tmp_path.iterdir()) == [path]
  assert path.stat().st_mode & 0o777 == 0o644


@dataclasses.dataclass(frozen=True)
class Part:
  share: float
  loss: float | None = None


@dataclasses.dataclass(frozen=True)
class Whole:
  name: str
  count: int
  parts: list[Part]
  ends: tuple[float, float] = (0.0, 1.0)
  by_name: dict[str, Part] = dataclasses.field(default_factory=dict)


WHOLE = Whole('é', 3, [Part(0.1 + 0.2), Part(1e-300, 5e-324)], by_name={'a': Part(1.0)})


@given(st.floats(allow_nan=False, allow_infinity=False))
@settings(derandomize=True, suppress_health_check=list(HealthCheck))
def test_floats_round_trip(tmp_path, value):
  workdir.write_json(tmp_path / 'artifact.json', Part(value))
  assert workdir.read_json(tmp_path / 'artifact.json', Part).share == value
  assert json.loads((tmp_path / 'artifact.json').read_text())['share'] == value


def test_a_value_round_trips_and_is_plain_json(tmp_path):
  path = tmp_path / 'artifact.json'
  workdir.write_json(path, WHOLE)
  assert workdir.read_json(path, Whole) == WHOLE
  stored = json.loads(path.read_text('utf-8'))
  assert stored == json.loads(json.dumps(dataclasses.asdict(WHOLE)))
  path.write_text(json.dumps(stored | {'later': [1]}))
  assert workdir.read_json(path, Whole) == WHOLE


@pytest.mark.parametrize(
  ('artifact', 'value'),
  [(artifacts.SECONDS, {'zoo': 'x'}), (artifacts.FINGERPRINTS, {'victims': []})],
)
def test_an_artifact_that_could_not_be_read_is_not_written(artifact, value, tmp_path):
  with pytest.raises(msgspec.ValidationError):
    artifact.write(tmp_path, value)
  assert not any(tmp_path.iterdir())


@pytest.mark.parametrize('value', [float('nan'), float('inf'), -float('inf')])
def test_json_holds_no_nan(value, tmp_path):
  path = tmp_path / 'artifact.json'
  workdir.write_json(path, Part(0.1, value))
  assert json.loads(path.read_text('utf-8')) == {'share': 0.1, 'loss': None}
  for write, bad in (
    (workdir.write_json, Part(value)),
    (workdir.write_jsonl, [Part(0.5), Part(value)]),
    (workdir.write_json, Whole('a', 0.5, [])),
  ):
    with pytest.raises(msgspec.ValidationError, match='Expected `'):
      write(path, bad)
  assert workdir.read_json(path, Part) == Part(0.1)


@pytest.mark.parametrize(
  ('change', 'reason'),
  [
    ({'count': None}, 'Expected `int`, got `null` - at `$.count`'),
    ({'count': 0.5}, 'Expected `int`, got `float` - at `$.count`'),
    ({'parts': [{}]}, 'missing required field `share` - at `$.parts[0]`'),
    ({'parts': [{'share': '1'}]}, 'got `str` - at `$.parts[0].share`'),
    ({'ends': [1.0]}, 'Expected `array` of length 2'),
  ],
)
def test_another_type_is_named_with_its_place(change, reason, tmp_path):
  path = tmp_path / 'artifact.json'
  path.write_text(json.dumps(dataclasses.asdict(WHOLE) | change))
  with pytest.raises(
    InputError, match=rf'artifact\.json is damaged .*{re.escape(reason)}'
  ):
    workdir.read_json(path, Whole)


@pytest.mark.parametrize(
  'content', [b'', b'{"share": 0.', b'\x80', b'{"a": "\xff"}', b'[]', b'{"share": NaN}']
)
def test_damaged_bytes_are_told_with_what_mends_them(content, tmp_path):
  path = tmp_path / 'artifact.json'
  path.write_bytes(content)
  with pytest.raises(InputError, match=r'artifact\.json is damaged \(.+\); mend it'):
    workdir.read_json(path, Part, 'mend it')
  if content:
    with pytest.raises(InputError, match=r'damaged \(.+\); remove it, and the same'):
      workdir.read_jsonl(path, Part)


def test_records_round_trip(tmp_path):
  path = tmp_path / 'records.jsonl'
  assert workdir.read_jsonl(path, Part) == []
  records = [Part(0.1 + 0.2), Part(1e-9, 1.0)]
  workdir.write_jsonl(path, records)
  assert workdir.read_jsonl(path, Part) == records
  assert path.read_text('utf-8').count('\n') == 2
  assert workdir.read_jsonl(path)[1] == {'share': 1e-9, 'loss': 1.0}


def test_what_a_kill_left_unfinished_is_swept_by_the_holder_alone(tmp_path, config):
  unfinished = tmp_path / '.unfinished-abc.json'
  unfinished.write_text('{"half":')
  directory = workdir.open_workdir(tmp_path, config)
  assert unfinished.exists()
  (directory / 'zoo' / '.unfinished-model').mkdir(parents=True)
  workdir.remove_unfinished(directory)
  assert {path.name for path in directory.rglob('*')} == {'config.json', 'zoo'}


def test_a_directory_that_cannot_be_made(tmp_path, config):
  (tmp_path / 'file').write_text('')
  with pytest.raises(ValueError, match='workdir is .* that can be made'):
    workdir.open_workdir(tmp_path / 'file' / 'run', config)


@pytest.mark.parametrize(
  ('content', 'message'),
  [
    (
      {'format': workdir.FORMAT + 1, 'psml_jax': '9.8', 'config': {}},
      r'\(psml_jax 9\.8',
    ),
    ({'name': 'published', 'seed': 0}, r'of format 1 \(psml_jax 0\.1\.0 or older'),
  ],
)
def test_another_format_is_refused(content, message, tmp_path, config):
  (tmp_path / 'config.json').write_text(json.dumps(content))
  (tmp_path / 'profile.csv').write_text('old')
  before = contents(tmp_path)
  with pytest.raises(ValueError, match=f'{message}.*writes format {workdir.FORMAT}'):
    workdir.open_workdir(tmp_path, config)
  assert contents(tmp_path) == before


@pytest.mark.parametrize('content', ['{"format":', '[]', '{"format": "1"}'])
def test_a_damaged_config_is_named(content, tmp_path, config):
  (tmp_path / 'config.json').write_text(content)
  with pytest.raises(ValueError, match=r'config\.json is damaged'):
    workdir.open_workdir(tmp_path, config)


def test_paths(tmp_path, config, monkeypatch):
  monkeypatch.setenv('HOME', str(tmp_path))
  assert workdir.open_workdir('~/run', config) == tmp_path / 'run'
  with pytest.raises(ValueError, match='workdir is .*a URL'):
    workdir.open_workdir('gs://bucket/run', config)


def test_a_directory_that_cannot_be_written(tmp_path, config, monkeypatch):
  def refuse(path, text):
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

  monkeypatch.setattr(workdir._files, 'write_text', refuse)
  with pytest.raises(ValueError, match='workdir is .* written: .*Permission denied'):
    workdir.open_workdir(tmp_path, config)


def test_the_lock_is_held_once_and_left_behind_by_nobody(tmp_path):
  with lock.hold(tmp_path) as held:
    assert held
    with (
      pytest.raises(ValueError, match=rf'process {os.getpid()} on .* is at work'),
      lock.hold(tmp_path),
    ):
      pass
    assert (tmp_path / '.lock').exists()
  assert not list(tmp_path.iterdir())
  with pytest.raises(RuntimeError), lock.hold(tmp_path):
    raise RuntimeError
  with lock.hold(tmp_path):
    pass


HOLDER = """
import pathlib, sys, time
from psml_jax.experiments import lock
with lock.hold(pathlib.Path(sys.argv[1])):
  print('held', flush=True)
  time.sleep(600)
"""


def test_another_process_holds_it_until_it_is_killed(tmp_path, config):
  workdir.open_workdir(tmp_path, config)
  with subprocess.Popen(
    [sys.executable, '-c', HOLDER, tmp_path],
    env=os.environ | {'PYTHONPATH': str(ROOT)},
    stdout=subprocess.PIPE,
    text=True,
  ) as process:
    assert process.stdout.readline() == 'held\n'
    (tmp_path / '.unfinished-x').touch()
    with pytest.raises(ValueError, match=rf'process {process.pid} on .*-c'):
      experiments.run(config, tmp_path, until='profile')
    assert (tmp_path / '.unfinished-x').exists()
    process.send_signal(signal.SIGKILL)
  assert (tmp_path / '.lock').exists()
  experiments.run(config, tmp_path, until='profile')
  assert {path.name for path in tmp_path.iterdir()} == {
    'config.json',
    'inputs.json',
    'profile.csv',
    'seconds.json',
  }


def test_a_file_system_without_locks(tmp_path, monkeypatch, caplog):
  def refuse(handle, operation):
    raise OSError(code, os.strerror(code))

  monkeypatch.setattr(lock.fcntl, 'flock', refuse)
  code = errno.ENOSYS
  with caplog.at_level(logging.WARNING), lock.hold(tmp_path) as held:
    assert not held
  assert 'has no locks' in caplog.text
  code = errno.EIO
  with pytest.raises(ValueError, match='workdir is'), lock.hold(tmp_path):
    pass


@pytest.fixture
def table(tmp_path):
  path = tmp_path / 'zoo.csv'
  path.write_text('model,top1_percent,latency_ms\na,70,1\nb,80,2\n')
  return path


def with_table(path):
  return make_config(0, published={'csv': str(path)})


def run(path, directory):
  return experiments.run(with_table(path), directory, until='profile')


def test_inputs_are_remembered(tmp_path, table):
  directory = run(table, tmp_path / 'run')
  stored = json.loads((directory / 'inputs.json').read_text('utf-8'))
  assert list(stored) == ['config.published.csv']
  before = contents(directory)
  assert run(table, directory) == directory
  assert contents(directory) == before


def test_a_moved_input_is_the_same(tmp_path, table):
  directory = run(table, tmp_path / 'run')
  moved = table.rename(tmp_path / 'moved.csv')
  assert run(moved, directory) == directory


@pytest.mark.parametrize('finished', [True, False])
def test_a_changed_input_is_refused_by_name(finished, tmp_path, table):
  directory = run(table, tmp_path / 'run')
  table.write_text(table.read_text() + 'c,90,3\n')
  if not finished:
    (directory / 'profile.csv').unlink()
    (directory / 'fingerprint.json').write_text('{}')
  before = contents(directory)
  with pytest.raises(ValueError, match=r'zoo\.csv changed, which is config\.published'):
    run(table, directory)
  assert contents(directory) == before


def test_a_missing_input_is_refused_by_name(tmp_path, table):
  directory = run(table, tmp_path / 'run')
  table.unlink()
  with pytest.raises(ValueError, match=r'config\.published\.csv is .*zoo\.csv'):
    run(table, directory)


def test_inputs_that_come_and_go(tmp_path, table):
  directory = tmp_path / 'run'
  directory.mkdir()
  workdir.check_inputs(directory, {'data_dir': table})
  with pytest.raises(ValueError, match=r'made with data_dir, .*zoo\.csv, which is not'):
    workdir.check_inputs(directory, {})
  with pytest.raises(ValueError, match=r'was made without other, which is .*zoo\.csv'):
    workdir.check_inputs(directory, {'data_dir': table, 'other': table})


def test_a_damaged_record_of_inputs(tmp_path, table):
  directory = run(table, tmp_path / 'run')
  (directory / 'inputs.json').write_text('{"config')
  with pytest.raises(
    InputError, match=r'inputs\.json is damaged .*give an empty or new'
  ):
    run(table, directory)


def test_results_without_a_record_of_inputs(tmp_path, table):
  directory = run(table, tmp_path / 'run')
  (directory / 'inputs.json').unlink()
  with pytest.raises(ValueError, match=r'was made without config\.published\.csv'):
    run(table, directory)


def test_provenance(tmp_path, config):
  facts = provenance.collect(config, tmp_path)
  assert facts['config'] == 'published'
  assert (facts['seed'], facts['seeds']) == ('0', '2')
  assert facts['psml_jax'] == psml_jax.__version__
  assert {'revision', 'jax', 'jaxlib', 'flax', 'numpy', 'python', 'device', 'date'} <= (
    facts.keys()
  )
  assert all(isinstance(text, str) and text for text in facts.values())
  assert 'images in a request' not in facts
  profile = {'request_images': 64, 'device': 'a card', 'date': '2025-01-01'}
  (tmp_path / 'profile.json').write_text(json.dumps(profile))
  measured = provenance.collect(config, tmp_path)
  assert measured['images in a request'] == '64'
  assert measured['latencies measured on'] == 'a card'


def test_the_revision_of_a_package_that_is_no_checkout(tmp_path, monkeypatch):
  (tmp_path / 'psml_jax').mkdir()
  monkeypatch.setattr(psml_jax, '__file__', str(tmp_path / 'psml_jax' / '__init__.py'))
  assert provenance.revision() == psml_jax.__version__
  (tmp_path / '.git').mkdir()  # git refuses it
  assert provenance.revision() == psml_jax.__version__


def test_the_claims_are_printed(config, monkeypatch, tmp_path, capsys):
  def finish(experiment):
    (experiment.directory / 'report.html').touch()
    pipeline.SUMMARY.write(experiment.directory, {'claims': 'yes'})

  stages = {name: ('config.json', None) for name in experiments.STAGES}
  stages['report'] = ('report.html', finish)
  monkeypatch.setattr(pipeline, '_STAGES', stages)
  monkeypatch.setattr(pipeline, 'SUMMARY', artifacts.Artifact('summary.json', dict))
  monkeypatch.setattr(pipeline.report, 'claims_table', str)
  directory = tmp_path / 'run'
  experiments.run(config, directory, until='defense')
  assert capsys.readouterr().out == ''
  for _ in ('made', 'finished'):
    experiments.run(config, directory)
    assert capsys.readouterr().out == "{'claims': 'yes'}\n"


@pytest.mark.parametrize('field', ['csv', 'workload_csv', 'stored'])
def test_a_pipe_is_no_input(field, tmp_path):
  pipe = tmp_path / 'pipe'
  os.mkfifo(pipe)
  if field == 'csv':
    config = with_table(pipe)
  elif field == 'workload_csv':
    config = make_config(0, defense={**DEFENSE, 'workload_csv': str(pipe)})
  else:
    config = make_config(0)
    stored = Profiling(batch_size=1, rounds=1, stored=str(pipe))
    config = dataclasses.replace(config, profiling=stored)
  with pytest.raises(InputError, match=rf"{field} is '.*pipe', a pipe.*regular file"):
    experiments.run(config, tmp_path / 'run')
  assert not (tmp_path / 'run').exists()


def edit(path):
  path.write_text(path.read_text().replace('70', '71'))


@pytest.mark.parametrize('when', ['before a stage', 'before it is read', 'as it fails'])
def test_an_input_that_changes_under_way_makes_nothing(
  when, tmp_path, table, monkeypatch
):
  directory = run(table, tmp_path / 'run')
  (directory / 'profile.csv').unlink()
  artifact, profile = pipeline._STAGES['profile']

  def change(experiment):
    if when != 'before a stage':
      edit(table)
    if when == 'as it fails':
      table.write_text('half a')
    profile(experiment)
    edit(table)

  monkeypatch.setitem(pipeline._STAGES, 'profile', (artifact, change))
  with pytest.raises(InputError, match=r'zoo\.csv changed, which is config\.published'):
    experiments.run(with_table(table), directory, until='fingerprint')
  made = {path.name for path in directory.iterdir()} - {'seconds.json'}
  unfinished = {'config.json', 'inputs.json'}
  assert made == unfinished | ({'profile.csv'} if when == 'before a stage' else set())


def test_clients_that_change_under_way_make_nothing(tmp_path, monkeypatch):
  path = tmp_path / 'clients.csv'
  path.write_text('min_accuracy,max_latency_ms\n0.70,20\n')
  defense = {**DEFENSE, 'workload_csv': str(path)}
  config = make_config(0, defense=defense)
  directory = experiments.run(config, tmp_path / 'run', until='fingerprint')
  artifact, measure = pipeline._STAGES['defense']

  def change(experiment):
    edit(path)
    measure(experiment)

  monkeypatch.setitem(pipeline._STAGES, 'defense', (artifact, change))
  with pytest.raises(InputError, match=r'changed, which is config\.defense'):
    experiments.run(config, directory, until='defense')
  assert not (directory / 'defense.json').exists()


@pytest.mark.parametrize('kind', [str, pathlib.Path])
def test_files_of_one_name_are_told_apart(kind, tmp_path, config, monkeypatch):
  def files(data_dir):
    return [kind(data_dir / file) for file in ('a/x.bin', 'b/x.bin', 'b/y.bin', 'z')]

  entries = {'mine': data.Entry(lambda data_dir: None, files)}
  monkeypatch.setattr(data.DATASETS, '_entries', entries)
  for file in files(tmp_path)[:3]:
    pathlib.Path(file).parent.mkdir(exist_ok=True)
    pathlib.Path(file).touch()
  config = dataclasses.replace(config, data=Data('mine', 1, 1, 1))
  assert Experiment(config, tmp_path / 'run', str(tmp_path)).inputs() == {
    'data_dir/a/x.bin': tmp_path / 'a/x.bin',
    'data_dir/b/x.bin': tmp_path / 'b/x.bin',
    'data_dir/y.bin': tmp_path / 'b/y.bin',
  }


def test_files_that_the_run_itself_downloads_are_its_inputs(tmp_path, monkeypatch):
  file = tmp_path / 'images.bin'

  def download(experiment):
    file.write_text('pixels')

  def found(experiment):
    return {'data_dir/images.bin': file} if file.exists() else {}

  monkeypatch.setattr(pipeline.preflight, 'check', download)
  monkeypatch.setattr(pipeline.Experiment, 'inputs', found)
  directory = experiments.run(make_config(0), tmp_path / 'run', until='profile')
  assert list(json.loads((directory / 'inputs.json').read_text())) == [
    'data_dir/images.bin'
  ]
