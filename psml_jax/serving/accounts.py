"""Clients and their API keys: a table of digests, so that it holds no key.

A line of the table is `client,sha256`: the client's number, which budgets and sticky
noise go by, and the digest of a key. A key is 256 random bits, so a plain digest is
enough; a client may have several. Numbers are given out by the operator alone: nobody
mints an identity by asking.
"""

import csv
import hashlib
import os
import secrets
from collections.abc import Mapping

from psml_jax import _files, _validate

HEADER = ('client', 'sha256')


class Accounts:
  """Clients by the digests of their keys.

  >>> key = new_key()
  >>> accounts = Accounts({digest(key): 3})
  >>> accounts.client(key), accounts.client('guess')
  (3, None)
  """

  def __init__(self, clients: Mapping[str, int]) -> None:
    self._clients = dict(clients)

  @property
  def largest(self) -> int:
    """The largest number of a client; -1 where there is none."""
    return max(self._clients.values(), default=-1)

  def client(self, key: str) -> int | None:
    """The client of a key; None of an unknown one.

    The digest is looked up, so the time that it takes tells nothing of the key.
    """
    return self._clients.get(digest(key))


def digest(key: str) -> str:
  """What the table holds of a key."""
  return hashlib.sha256(key.encode()).hexdigest()


def new_key() -> str:
  """A key, from the operating system's entropy."""
  return secrets.token_urlsafe(32)


def read(path: str | os.PathLike[str]) -> Accounts:
  """Reads a table.

  Args:
    path: of the file.

  Returns:
    The accounts.

  Raises:
    ValueError: no such file, another header, or a line that is not as it must be.
  """
  file = _files.local('keys', path)
  try:
    with file.open(newline='', encoding='utf-8') as opened:
      rows = list(csv.reader(opened))
  except (OSError, UnicodeDecodeError) as error:
    raise ValueError(f'keys is {str(path)!r}; it must be a table: {error}') from None
  if not rows or tuple(rows[0]) != HEADER:
    raise ValueError(f'{file} must begin with the line {",".join(HEADER)}')
  clients: dict[str, int] = {}
  for number, row in enumerate(rows[1:], 2):
    hexadecimal = len(row) == 2 and len(row[1]) == 64
    if not hexadecimal or set(row[1]) - set('0123456789abcdef'):
      raise ValueError(f'{file}, line {number}: it must be a client and a sha256')
    if not row[0].isascii() or not row[0].isdigit() or int(row[0]) >= 2**31:
      raise ValueError(f'{file}, line {number}: the client must be a number < 2**31')
    if clients.setdefault(row[1], int(row[0])) != int(row[0]):
      raise ValueError(f'{file}, line {number}: the key is of another client above')
  return Accounts(clients)


def add(path: str | os.PathLike[str], client: int) -> str:
  """Gives a client a new key.

  Args:
    path: of the table, which is made where there is none.
    client: its number, >= 0.

  Returns:
    The key, which nothing else holds.

  Raises:
    ValueError: a client that is no whole number >= 0, or a table that cannot be read.
  """
  _validate.non_negative_int('client', client)
  file = _files.local('keys', path)
  before = ','.join(HEADER) + '\n'
  if file.exists():
    read(file)
    before = file.read_text('utf-8')
  key = new_key()
  _files.write_text(file, f'{before.rstrip()}\n{client},{digest(key)}\n')
  return key
