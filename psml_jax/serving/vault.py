"""What a server must not forget: its secret, its queries' numbers, and its queries.

All lies in one folder that its owner alone can read, so that whoever is killed is
replaced by one that knows as much. The secret comes from the operating system's entropy
once. Numbers are leased in blocks that are written down before they are handed out, so
that none is given twice; what is left of a killed replica's block is skipped, which
changes no other draw. The journal holds each query before it is answered: in the order
of their numbers, and with the same secret, they give back the memory of any defense.
A process that remembers holds a lock, so that there is one memory at a time. Writes
reach the kernel and not necessarily the disk: they survive processes, and not the
machine.
"""

import concurrent.futures
import fcntl
import os
import pathlib
import secrets
import struct
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from psml_jax import _files, _validate
from psml_jax.core import Bill
from psml_jax.serving.gate import Asked

_RECORD = struct.Struct('<qiffiQ')
_SECRET, _NEXT, _SUFFIX = 'secret', 'next', '.queries'
_SECRET_BYTES = 8
"""All that a key of JAX's threefry holds."""


class Vault:
  """The secret and the numbers of a server, in a folder that its processes share.

  Args:
    directory: made where there is none.

  Raises:
    InputError: a folder that cannot be made or read, or a damaged file in it.
  """

  def __init__(self, directory: str | os.PathLike[str]) -> None:
    self.directory = _files.local('vault', directory)
    self._threads = threading.Lock()
    try:
      self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
      status = self.directory.stat()
      if status.st_mode & 0o077 or status.st_uid != os.geteuid():
        raise ValueError("it must be its owner's alone, see chmod 700")
      self._secret = self._read_or_make()
      self._turn, self._memory = self._lock('next'), self._lock('memory')
      asked = read(self.directory)
      self._least = max(self._given(), asked[-1].number + 1 if asked else 0)
    except (OSError, ValueError) as error:
      raise _validate.InputError(
        f'{self.directory} holds no secret of a server that can be read: {error}'
      ) from error

  @property
  def secret(self) -> bytes:
    """The secret, 8 bytes."""
    return self._secret

  def lease(self, count: int) -> int:
    """The first of `count` numbers, none of which is given to another."""
    with self._threads:
      fcntl.flock(self._turn, fcntl.LOCK_EX)
      try:
        first = max(self._given(), self._least)
        _files.write_text(self.directory / _NEXT, f'{first + count}\n')
      finally:
        fcntl.flock(self._turn, fcntl.LOCK_UN)
    return first

  def remember(self) -> bool:
    """Whether this object has the memory, which it then keeps until it ends."""
    try:
      fcntl.flock(self._memory, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      return False
    return True

  def _lock(self, name: str) -> int:
    handle = os.open(self.directory / f'{name}.lock', os.O_RDWR | os.O_CREAT, 0o600)
    weakref.finalize(self, os.close, handle)
    return handle

  def _read_or_make(self) -> bytes:
    path = self.directory / _SECRET
    if not path.exists():
      handle, made = tempfile.mkstemp(prefix=_files.UNFINISHED, dir=self.directory)
      with os.fdopen(handle, 'w') as file:
        file.write(secrets.token_hex(_SECRET_BYTES))
        file.flush()
        os.fsync(file.fileno())
      try:
        os.link(made, path)  # Fails where another was faster.
      except FileExistsError:
        pass
      finally:
        os.unlink(made)
    secret = bytes.fromhex(path.read_text('ascii'))
    if len(secret) != _SECRET_BYTES:
      raise ValueError(f'{path} must hold {_SECRET_BYTES} bytes')
    return secret

  def _given(self) -> int:
    """The first number that no process has leased."""
    path = self.directory / _NEXT
    return int(path.read_text('ascii')) if path.exists() else 0


def key(secret: bytes) -> jax.Array:
  """The key of a secret of 8 bytes."""
  return jax.random.wrap_key_data(jnp.asarray(np.frombuffer(secret, '<u4')))


class Leased:
  """Numbers of queries in leased blocks, the next of which is fetched ahead.

  The first is fetched when the first number is taken, so that a process that stands by
  gets none that are below those of the process before it.

  Args:
    lease: `count -> first`, such as a vault's.
    size: of a block.

  >>> import itertools
  >>> blocks = itertools.count(0, 4)
  >>> numbers = Leased(lambda count: next(blocks), size=4)
  >>> [list(numbers.take(3)) for _ in range(2)]
  [[0, 1, 2], [4, 5, 6]]
  """

  def __init__(self, lease: Callable[[int], int], size: int = 4096) -> None:
    self._lease, self._size = lease, size
    self._fetcher = concurrent.futures.ThreadPoolExecutor(1)
    self._next = self._end = 0
    self._ahead: concurrent.futures.Future[int] | None = None

  def take(self, count: int) -> Sequence[int]:
    """The next numbers, one after the other; what a block has too few of is skipped."""
    if count > self._size:
      raise ValueError(f'count is {count}; it must be at most {self._size}')
    if self._end - self._next < count:
      ahead = self._ahead or self._fetcher.submit(self._lease, self._size)
      try:
        self._next = ahead.result()
      finally:
        self._ahead = self._fetcher.submit(self._lease, self._size)
      self._end = self._next + self._size
    self._next += count
    return range(self._next - count, self._next)


class Journal:
  """The queries of one process, in a file of its own.

  Args:
    directory: of a vault.
  """

  def __init__(self, directory: str | os.PathLike[str]) -> None:
    name = f'{time.time_ns():020d}-{os.getpid()}{_SUFFIX}'
    path = pathlib.Path(directory) / name
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
    self._handle = os.open(path, flags, 0o600)

  def __call__(self, queries: Sequence[Asked]) -> None:
    """Keeps queries: all of them, in one write."""
    data = b''.join(_RECORD.pack(*query) for query in queries)
    written = os.write(self._handle, data)
    if written != len(data):
      os.ftruncate(self._handle, os.fstat(self._handle).st_size - written)
      raise OSError('the journal could not be written')


def read(directory: str | os.PathLike[str]) -> list[Asked]:
  """All queries of all journals of a vault, in the order of their numbers.

  What a killed process had half written is left out.
  """
  queries: list[Asked] = []
  for path in sorted(pathlib.Path(directory).glob(f'*{_SUFFIX}')):
    data = path.read_bytes()
    whole = len(data) - len(data) % _RECORD.size
    queries += map(Asked._make, _RECORD.iter_unpack(memoryview(data)[:whole]))
  return sorted(queries)


def bill(queries: Sequence[Asked], client: int | None = None) -> Bill:
  """What queries cost one client, or all.

  >>> found = bill([Asked(0, 3, 0.5, 9.0, 1), Asked(1, 4, 0.5, 9.0, -1)], 3)
  >>> int(found.queries), int(found.served)
  (1, 1)
  """
  own = [query for query in queries if client is None or query.client == client]
  served = sum(query.model >= 0 for query in own)
  return Bill(jnp.int32(len(own)), jnp.int32(served))
