"""The log of a guard: a line of JSON a query, and the goodput that such a file tells.

It holds specs, clients' numbers and models' names; no API key, no secret, nothing of
what was asked or answered.
"""

import os
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from psml_jax import _files
from psml_jax._validate import InputError
from psml_jax.metrics import Interval


class Record(msgspec.Struct, frozen=True, omit_defaults=True):
  """A line of the log.

  Attributes:
    time: seconds since 1970.
    client: who asked; None where nobody knows.
    min_accuracy: a fraction; None where infinite.
    max_latency_ms: milliseconds; None where infinite.
    number: which query of the server's life it is; -1 where it is none.
    model: that answers, or would; None for a refusal.
    feasible: whether a model meets the spec.
    met: whether the model drawn meets it.
    enforced: whether the decision was carried out.
    status: of a request that is no query, for it is malformed or of nobody; else 0.
  """

  time: float
  client: int | None = None
  min_accuracy: float | None = None
  max_latency_ms: float | None = None
  number: int = -1
  model: str | None = None
  feasible: bool = False
  met: bool = False
  enforced: bool = False
  status: int = 0


class Log:
  """A file of records, a line each, that its owner alone can read.

  Args:
    path: of the file; lines are added to one that is there.

  Raises:
    InputError: a file that cannot be written.
  """

  def __init__(self, path: str | os.PathLike[str]) -> None:
    file = _files.local('log', path)
    try:
      flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
      self._handle = os.open(file, flags, 0o600)
    except OSError as error:
      raise InputError(f'log is {str(path)!r}; it must be a file: {error}') from error

  def __call__(self, record: Record) -> None:
    line = msgspec.json.encode(record) + b'\n'
    if os.write(self._handle, line) != len(line):
      raise OSError('the log could not be written')


class Goodput(NamedTuple):
  """What a log says.

  Attributes:
    goodput: the share of all queries whose model meets the spec, with its 95 % interval
      (Wilson's, of independent queries; those of a client whom the defense remembers
      are not quite).
    feasible: the share that some model meets: the goodput without a defense.
    queries: how many.
    rejected: requests that were no queries: malformed, or of nobody.
  """

  goodput: Interval
  feasible: float
  queries: int
  rejected: int


def read(path: str | os.PathLike[str]) -> list[Record]:
  """Reads a log.

  Args:
    path: of the file; a last line that was cut off is left out.

  Raises:
    InputError: no such file, or a line that is not as it must be.
  """
  file = _files.local('log', path)
  try:
    lines = file.read_bytes().split(b'\n')
    return [msgspec.json.decode(line, type=Record) for line in lines[:-1]]
  except (OSError, msgspec.MsgspecError) as error:
    raise InputError(f'log is {str(path)!r}; it must be a log: {error}') from error


def goodput(records: Sequence[Record]) -> Goodput:
  """The goodput that a log predicts, or, of one that enforced, tells.

  Args:
    records: of a log, see `read`.

  Raises:
    ValueError: no query among them.

  >>> lines = [Record(0.0, 0, number=i, feasible=True, met=i < 8) for i in range(10)]
  >>> found = goodput([*lines, Record(0.0, status=401)])
  >>> found.goodput.mean, found.queries, found.rejected
  (0.8, 10, 1)
  """
  from scipy import stats

  queries = [record for record in records if not record.status]
  if not queries:
    raise ValueError(f'records are {len(records)}, none of a query; there must be one')
  met = sum(record.met for record in queries)
  ends = stats.binomtest(met, len(queries)).proportion_ci(0.95, 'wilson')
  return Goodput(
    Interval(met / len(queries), float(ends.low), float(ends.high)),
    sum(record.feasible for record in queries) / len(queries),
    len(queries),
    len(records) - len(queries),
  )
