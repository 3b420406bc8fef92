"""A gate with the names of its zoo and a log, for hosts in front of others' models.

It enforces, or it is a shadow, which decides as it would and changes nothing. Either
writes a line of JSON for each query, so that the goodput of a defense is known before
it is turned on: `goodput` reads such a file. It holds specs, clients' numbers and
models' names; no API key, no secret, nothing of what was asked or answered.
"""

import os
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec
import numpy as np

from psml_jax import _files
from psml_jax._validate import InputError
from psml_jax.core import ZooProfile
from psml_jax.metrics import Interval
from psml_jax.serving.gate import Decision, Gate


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


class Guard:
  """Decides about queries by a gate, names the model, and keeps the log.

  Args:
    profile: of the zoo, in the order of the gate's router.
    gate: decides.
    enforce: whether the host carries decisions out; a shadow does not.
    log: takes every record.
    backends: the models' names where they are served; those of the profile unless
      given.

  Raises:
    ValueError: another number of backends than models, or one name twice.

  >>> import jax
  >>> from psml_jax import routers, servers
  >>> zoo = ZooProfile([0.7, 0.9], [1.0, 5.0], ('small', 'large'))
  >>> front = servers.table(routers.uniform(zoo), zoo.latency_ms, np.ones((2, 1, 1)))
  >>> lines = []
  >>> gate = Gate(front.front, jax.random.key(0), num_classes=1)
  >>> guard = Guard(zoo, gate, log=lines.append)
  >>> guard.decide(0, 0.8, 9.0), guard.decide(0, 0.95, 9.0)
  ('large', None)
  >>> lines[0].met, lines[1].feasible
  (True, False)
  """

  def __init__(
    self,
    profile: ZooProfile,
    gate: Gate,
    *,
    enforce: bool = True,
    log: Callable[[Record], None] | None = None,
    backends: Sequence[str] = (),
  ) -> None:
    self.backends = tuple(backends) or profile.names
    if len(self.backends) != len(profile.names) or len({*self.backends}) != len(
      self.backends
    ):
      raise ValueError(
        f'backends are {self.backends}; they must be {len(profile.names)} names, one '
        'of each model'
      )
    self.enforce = enforce
    self.clients = gate.clients
    self._names, self._gate, self._log = profile.names, gate, log
    self._accuracy = np.asarray(profile.accuracy, np.float32)
    self._latency = np.asarray(profile.latency_ms, np.float32)

  @property
  def slowest_ms(self) -> float:
    """The latency of the slowest model: what a spec without a limit may wait for."""
    return float(self._latency.max())

  @property
  def changes_replies(self) -> bool:
    """Whether the defense changes answers, which a host cannot do to text."""
    return self._gate.changes_replies

  def decide(
    self, client: int, min_accuracy: float, max_latency_ms: float, request: int = 0
  ) -> str | None:
    """Decides about a query; see `gate.Gate.decide`.

    Returns:
      The backend that answers, or would; None for a refusal.
    """
    spec = min_accuracy, max_latency_ms
    (decision,) = self._gate.decide(client, *spec, request=request)
    if self._log:
      self._log(self._record(client, *spec, decision))
    return None if decision.model < 0 else self.backends[decision.model]

  def reject(self, status: int, client: int | None = None) -> None:
    """Logs a request that is no query."""
    if self._log:
      self._log(Record(time.time(), client, status=status, enforced=self.enforce))

  def _record(
    self, client: int, accuracy: float, latency: float, decision: Decision
  ) -> Record:
    with np.errstate(over='ignore'):
      meets = (self._accuracy >= np.float32(accuracy)) & (
        self._latency <= np.float32(latency)
      )
    served = decision.model >= 0
    return Record(
      time.time(),
      client,
      accuracy if np.isfinite(accuracy) else None,
      latency if np.isfinite(latency) else None,
      decision.number,
      self._names[decision.model] if served else None,
      bool(meets.any()),
      served and bool(meets[decision.model]),
      self.enforce,
    )


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
