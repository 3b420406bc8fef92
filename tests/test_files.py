"""Paths as users write them, files that stand in another's place, whole writes."""

import hashlib
import pathlib

import pytest

from psml_jax import _files


@pytest.mark.parametrize(
  ('path', 'wanted'),
  [
    ('runs/x', 'runs/x'),
    ('~/runs/x', '/home/someone/runs/x'),
    (pathlib.Path('~'), '/home/someone'),
    ('a~b/~', 'a~b/~'),
    ('C:/data', 'C:/data'),
    ('10:30/run', '10:30/run'),
    ('with space:x', 'with space:x'),
  ],
)
def test_local(path, wanted, monkeypatch):
  monkeypatch.setenv('HOME', '/home/someone')
  assert _files.local('workdir', path) == pathlib.Path(wanted)


@pytest.mark.parametrize(
  ('path', 'message'),
  [
    ('', 'workdir is empty'),
    (None, 'workdir is None; it must be a path'),
    (3, 'workdir is 3; it must be a path'),
    (b'runs', "workdir is b'runs'; it must be a path"),
    ('a\0b', r"workdir is 'a\\x00b'; it must be a path"),
    ('gs://bucket/x', "workdir is 'gs://bucket/x', a URL; .* .mount or copy it"),
    ('HTTPS://host/x', 'a URL'),
    ('file:///tmp/x', 'a URL'),
    (pathlib.Path('gs://bucket/x'), 'a URL'),
    ('~no-such-user-here/x', r'workdir is .*; .* home'),
  ],
)
def test_local_rejects(path, message):
  with pytest.raises(ValueError, match=message):
    _files.local('workdir', path)


@pytest.mark.parametrize(
  ('head', 'message'),
  [
    (b'version https://git-lfs.github.com/spec/v1\n', 'x.npz is a Git LFS pointer'),
    (b'version https://hawser.github.com/spec/v1\n', 'x.npz is a Git LFS pointer'),
    (b'/annex/objects/SHA256E-s9--0', 'x.npz is a git-annex pointer'),
    (b'<!DOCTYPE html>', 'x.npz is an HTML or XML page'),
    (b'\xef\xbb\xbf\n <HTML>', 'an HTML or XML page'),
    (b'<!-- moved -->', 'an HTML or XML page'),
    (b'<?xml version="1.0"?><Error>', 'an HTML or XML page'),
  ],
)
def test_check_content(head, message):
  with pytest.raises(ValueError, match=message):
    _files.check_content(pathlib.Path('x.npz'), head)


@pytest.mark.parametrize(
  'head', [b'', b'PK\x03\x04', b'a,<html>', b'version,1', b'<8 ']
)
def test_check_content_accepts(head):
  _files.check_content(pathlib.Path('x'), head)


def test_digest_is_of_the_content(tmp_path):
  for name, content in (('a', b'1'), ('b', b'1'), ('c', b'2')):
    (tmp_path / name).write_bytes(content)
  a, b, c = (_files.digest(tmp_path / name) for name in 'abc')
  assert a == b == hashlib.blake2b(b'1', digest_size=16).hexdigest()
  assert a != c


def test_write_is_whole_or_nothing(tmp_path):
  path = tmp_path / 'x.json'
  _files.write_text(path, 'é')
  assert path.read_bytes() == 'é'.encode()
  assert path.stat().st_mode & 0o777 == 0o644

  def fail(temporary):
    assert temporary.name.startswith(_files.UNFINISHED)
    assert temporary.suffix == '.json'
    temporary.write_text('half')
    raise OSError('disk full')

  with pytest.raises(OSError, match='disk full'):
    _files.write(path, fail)
  assert path.read_text('utf-8') == 'é'
  assert list(tmp_path.iterdir()) == [path]
