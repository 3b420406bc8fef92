"""One run at a time in a work directory."""

import contextlib
import dataclasses
import datetime
import errno
import fcntl
import os
import pathlib
import shlex
import socket
import sys
from collections.abc import Iterator

import msgspec
from absl import logging

NAME = '.lock'
_UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


@dataclasses.dataclass(frozen=True)
class _Holder:
  """The process that holds a lock."""

  pid: int
  host: str
  started: str
  command: str


@contextlib.contextmanager
def hold(directory: pathlib.Path) -> Iterator[bool]:
  """Holds a directory's lock, a file that names the process.

  The kernel drops the lock when the process ends, however it ends; a file that a killed
  one left behind locks nothing.

  Args:
    directory: the work directory.

  Yields:
    Whether it is held; False, with a warning, where the file system has no locks.

  Raises:
    ValueError: another run holds it (the message names it), or the directory cannot be
      written.
  """
  try:
    handle = _open(directory / NAME)
  except OSError as error:
    raise ValueError(
      f'workdir is {str(directory)!r}; it must be a directory that can be written: '
      f'{error}'
    ) from error
  if handle is None:
    logging.warning(
      'The file system of %s has no locks; a second run there would not be noticed.',
      directory,
    )
    yield False
    return
  try:
    os.ftruncate(handle, 0)
    os.pwrite(handle, msgspec.json.encode(_self()), 0)
    yield True
  finally:
    # Removed before it is unlocked: _open looks whether the file is still the one.
    (directory / NAME).unlink(missing_ok=True)
    os.close(handle)


def _open(path: pathlib.Path) -> int | None:
  while True:
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
      fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
      if path.exists() and os.path.samestat(os.fstat(handle), path.stat()):
        return handle
    except BlockingIOError:
      holder = os.pread(handle, 10_000, 0)
      os.close(handle)
      raise ValueError(
        f'workdir is {str(path.parent)!r}, where {_described(holder)} is at work; wait '
        'for it, or give another directory'
      ) from None
    except OSError as error:
      os.close(handle)
      if error.errno in _UNSUPPORTED:
        return None
      raise
    os.close(handle)


def _self() -> _Holder:
  started = datetime.datetime.now().astimezone().isoformat(timespec='seconds')
  command = shlex.join([sys.executable, *sys.argv])
  return _Holder(os.getpid(), socket.gethostname(), started, command)


def _described(holder: bytes) -> str:
  try:
    found = msgspec.json.decode(holder, type=_Holder)
  except (msgspec.MsgspecError, ValueError):  # It has not written itself down yet.
    return 'another process'
  return f'process {found.pid} on {found.host} (since {found.started}: {found.command})'
