"""The work directory: whole files only, and never somebody else's."""

import json

import pytest

from psml_jax.experiments import parse, workdir


@pytest.fixture
def config():
  return make_config(0)


def make_config(seed):
  return parse(
    {
      'name': 'published',
      'seed': seed,
      'seeds': 2,
      'fingerprint': {'accuracy_resolution': 0.01, 'latency_resolution': 0.01},
      'defense': {
        'mechanism': 'laplace',
        'scales': (0.1,),
        'target_goodput': 0.8,
        'workload_size': 16,
      },
      'published': {'name': 'cifar10_published'},
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
  assert stored['published']['name'] == 'cifar10_published'
  assert stored == json.loads(workdir.to_json(config))
  assert parse(stored) == config


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


def test_json_holds_no_nan(tmp_path):
  path = tmp_path / 'artifact.json'
  workdir.write_json(path, {'value': 0.1})
  for write, value in (
    (workdir.write_json, {'value': float('nan')}),
    (workdir.write_jsonl, [{'value': float('inf')}]),
  ):
    with pytest.raises(ValueError, match='not JSON compliant'):
      write(path, value)
  assert json.loads(path.read_text('utf-8')) == {'value': 0.1}


def test_records_round_trip(tmp_path):
  path = tmp_path / 'records.jsonl'
  assert workdir.read_jsonl(path) == []
  records = [{'scale': 0.1 + 0.2, 'purity': None}, {'scale': 1e-9, 'purity': 1.0}]
  workdir.write_jsonl(path, records)
  assert workdir.read_jsonl(path) == records


def test_what_a_kill_left_unfinished_is_swept(tmp_path, config):
  (tmp_path / '.unfinished-abc.json').write_text('{"half":')
  directory = workdir.open_workdir(tmp_path, config)
  assert [path.name for path in directory.iterdir()] == ['config.json']


def test_a_directory_that_cannot_be_made(tmp_path, config):
  (tmp_path / 'file').write_text('')
  with pytest.raises(ValueError, match='workdir is .* that can be made'):
    workdir.open_workdir(tmp_path / 'file' / 'run', config)
