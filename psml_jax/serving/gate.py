"""The gate: all that decides about one query, as one small object.

Spec and client go in, a model or a refusal comes out; then the answer goes in, and what
the client may see of it comes out. It knows nothing of networks, so that every host
(an ingress, a middleware, a plug-in) has the same defense. It is the library's own
`servers.base.Front`: query number i draws with `fold_in(secret, i)`, so that a gate
with a server's secret decides as that server does.

Programs are compiled when it is made, and a decision is one call of one of them with
one small array. Secret and memory are arguments of the programs and never constants in
them, for a compilation cache writes constants to the disk. One lock makes decisions
serial.
"""

import math
import struct
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from psml_jax import _validate
from psml_jax.core import Bill, Observation, Query, Spec
from psml_jax.defenses.reply import ReplyTransform, untouched
from psml_jax.servers.base import Front, kept

MOST_QUERIES = 2**31 - 1
"""How many queries one secret serves."""
_WIDTHS = (1, 32)
_PACKED = struct.Struct('=iiff')
_NUMBER_BYTES = 4
_NOBODY = _PACKED.pack(-1, -1, 0.0, 0.0)
_MOST_AHEAD = 256
_LARGEST = float(np.finfo(np.float32).max)


class Decision(NamedTuple):
  """What becomes of one query.

  Attributes:
    number: which query of the server's life it is.
    model: that answers; -1 for a refusal.
  """

  number: int
  model: int


class Asked(NamedTuple):
  """One query that was decided about, as a log keeps it.

  Attributes:
    number: which query of the server's life it is.
    client: who asked.
    min_accuracy: a fraction; infinite where float32 cannot hold it.
    max_latency_ms: milliseconds, likewise.
    model: that answers; -1 for a refusal.
    request: 64 bits of the client's own name of the request; 0 where it gave none.
  """

  number: int
  client: int
  min_accuracy: float
  max_latency_ms: float
  model: int
  request: int = 0


class Replied(NamedTuple):
  """What a client may see of an answer.

  Attributes:
    outputs: f32[K].
    latency_ms: when it may see it, from the query's arrival.
  """

  outputs: np.ndarray
  latency_ms: float


class Numbers(Protocol):
  """Where the numbers of queries come from."""

  def take(self, count: int) -> Sequence[int]:
    """The next ones, each given once in a server's life."""


class Counted:
  """Numbers from a start on.

  >>> numbers = Counted(5)
  >>> list(numbers.take(2)), list(numbers.take(1))
  ([5, 6], [7])
  """

  def __init__(self, start: int = 0) -> None:
    self._next = start

  def take(self, count: int) -> Sequence[int]:
    first, self._next = self._next, self._next + count
    return range(first, self._next)


class Gate:
  """All that decides about queries.

  Args:
    front: router, defense and reply, such as `servers.table(...).front`.
    key: consumed; it becomes the secret.
    num_classes: K, of the answers.
    numbers: of the queries; from 0 on unless given.
    journal: called with every batch of queries before its decisions are returned, so
      that what it keeps survives this object.

  Raises:
    ValueError: no typed key, or a number of classes that is no whole number >= 1.

  >>> from psml_jax import ZooProfile, routers, servers
  >>> zoo = ZooProfile([0.7, 0.9], [1.0, 5.0], ('small', 'large'))
  >>> server = servers.table(routers.uniform(zoo), zoo.latency_ms, jnp.ones((2, 1, 3)))
  >>> gate = Gate(server.front, jax.random.key(0), num_classes=3)
  >>> gate.decide(0, 0.8, 9.0), gate.decide(0, 0.95, 9.0)
  ([Decision(number=0, model=1)], [Decision(number=1, model=-1)])
  >>> int(gate.log().queries), int(gate.log().served)
  (2, 1)
  """

  def __init__(
    self,
    front: Front,
    key: jax.Array,
    *,
    num_classes: int,
    numbers: Numbers | None = None,
    journal: Callable[[Sequence[Asked]], None] | None = None,
  ) -> None:
    _validate.positive_int('num_classes', num_classes)
    self._front, self._clients, self._learns = front, front.clients, front.learns
    self._numbers: Numbers = numbers or Counted()
    self._journal = journal
    self._lock = threading.Lock()
    self._bills: dict[int, list[int]] = {}
    self._ahead: dict[bytes, tuple[int, list[int]]] = {}
    state = front.init(key)
    self._secret = state.key
    self._memory, self._reply_memory = state.memory[:2], state.memory[2]
    self._decide = jax.jit(self._deciding, donate_argnums=1)
    self._reply = jax.jit(self._replying, donate_argnums=1)
    self._untouched = type(front.reply) is type(untouched())  # Others derive from it.
    for width in _WIDTHS:
      self._models([_NOBODY] * width)
    if not self._untouched:
      self._transform(0, 0, 0.0, 0.0, np.zeros(num_classes, np.float32), 0.0, False)

  @property
  def clients(self) -> int:
    """How many clients it tells apart: their ids are below it."""
    return self._clients

  @property
  def learns(self) -> bool:
    """Whether an answer depends on the queries before it: then there is one gate."""
    return self._learns

  @property
  def changes_replies(self) -> bool:
    """Whether `reply` does anything."""
    return not self._untouched

  def decide(
    self,
    client: int,
    min_accuracy: float,
    max_latency_ms: float,
    rows: int = 1,
    request: int = 0,
  ) -> list[Decision]:
    """Decides about queries of one client and one spec, one after the other.

    Args:
      client: in [0, `clients`).
      min_accuracy: a fraction; infinite where float32 cannot hold it.
      max_latency_ms: milliseconds; may be infinite.
      rows: how many queries.
      request: for the journal.

    Returns:
      A decision for each.

    Raises:
      ValueError: NaN, an unknown client, or no whole number of queries >= 1.
      OverflowError: the secret has served as many queries as it can.
    """
    if client < 0 or client >= self.clients:
      raise ValueError(f'client is {client}; it must be in [0, {self.clients - 1}]')
    if min_accuracy != min_accuracy or max_latency_ms != max_latency_ms:
      raise ValueError('the spec holds NaN; it must hold numbers')
    _validate.positive_int('rows', rows)
    with self._lock:
      numbers = self._numbers.take(rows)
      if numbers[-1] > MOST_QUERIES:
        raise OverflowError(f'a secret serves {MOST_QUERIES} queries; take a new one')
      spec = _float32(min_accuracy), _float32(max_latency_ms)
      models = self._models_of(numbers, client, spec)
      if self._journal:
        asked = client, *spec
        self._journal(
          [Asked(i, *asked, model, request) for i, model in zip(numbers, models)]
        )
      bill = self._bills.setdefault(client, [0, 0])
      bill[0] += rows
      bill[1] += sum(model >= 0 for model in models)
    return [Decision(*each) for each in zip(numbers, models, strict=True)]

  def reply(
    self,
    decision: Decision,
    client: int,
    min_accuracy: float,
    max_latency_ms: float,
    outputs: np.ndarray,
    latency_ms: float,
  ) -> Replied:
    """What a client may see of an answer.

    Args:
      decision: about its query.
      client: who asked.
      min_accuracy: of the query.
      max_latency_ms: of the query.
      outputs: f32[K], the model's.
      latency_ms: since the query arrived.

    Returns:
      The answer behind the reply transform, whose `latency_ms` is not below that of the
      argument; who sends it waits for the difference.
    """
    if self._untouched:
      return Replied(outputs, latency_ms)
    outputs, held = self._transform(
      decision.number,
      client,
      min_accuracy,
      max_latency_ms,
      outputs,
      latency_ms,
      decision.model >= 0,
    )
    return Replied(outputs, max(held, latency_ms))

  def log(self, client: int | None = None) -> Bill:
    """What was counted: of one client, or of all."""
    with self._lock:
      bills = [self._bills.get(client, [0, 0])] if client is not None else None
      counts = np.sum([[0, 0], *(bills or self._bills.values())], axis=0)
    return Bill(*(jnp.int32(count) for count in counts))

  def recall(self, queries: Iterable[Asked]) -> None:
    """Puts memory and counts to where a journal says that they were.

    Args:
      queries: all that were decided about, in their order.
    """
    with self._lock:
      batch: list[Asked] = []
      for query in queries:
        bill = self._bills.setdefault(query.client, [0, 0])
        bill[0] += 1
        bill[1] += query.model >= 0
        batch.append(query)
        if len(batch) == _WIDTHS[-1]:
          self._remember(batch)
          batch = []
      self._remember(batch)

  def _remember(self, queries: Sequence[Asked]) -> None:
    if queries and self.learns:
      self._models([_PACKED.pack(*query[:4]) for query in queries])

  def _models_of(
    self, numbers: Sequence[int], client: int, spec: tuple[float, float]
  ) -> list[int]:
    """Decides about queries of one client and spec.

    Where that needs no memory, a spec that is asked again is decided about for the next
    numbers as well, which costs no more: a client who repeats it then seldom waits for
    a program.
    """
    if self.learns or len(numbers) > 1:
      return self._models([_PACKED.pack(number, client, *spec) for number in numbers])
    (number,) = numbers
    asked = _PACKED.pack(number, client, *spec)[_NUMBER_BYTES:]
    first, models = self._ahead.get(asked, (number, []))
    if not 0 <= number - first < len(models):
      width = _WIDTHS[bool(models)]
      numbers = range(number, min(number + width, MOST_QUERIES + 1))
      models = self._models([_PACKED.pack(i, client, *spec) for i in numbers])
      first, self._ahead[asked] = number, (number, models)
      if len(self._ahead) > _MOST_AHEAD:
        del self._ahead[next(iter(self._ahead))]
    return [models[number - first]]

  def _models(self, queries: Sequence[bytes]) -> list[int]:
    """Decides about packed queries, and remembers them."""
    models: list[int] = []
    for start in range(0, len(queries), _WIDTHS[-1]):
      part = queries[start : start + _WIDTHS[-1]]
      width = next(width for width in _WIDTHS if width >= len(part))
      packed = b''.join(part) + _NOBODY * (width - len(part))
      found, self._memory = self._decide(
        self._secret, self._memory, np.frombuffer(packed, np.int32).reshape(width, 4)
      )
      models += np.asarray(found).tolist()[: len(part)]
    return models

  def _deciding(
    self, secret: jax.Array, memory: Any, packed: jax.Array
  ) -> tuple[jax.Array, Any]:
    """i32[B] models of packed queries, i32[B, 4]; those of number -1 do not exist."""
    query = _unpacked(packed)
    reply_memory: tuple[()] = ()

    def one(memory: Any, each: tuple[Query, jax.Array]) -> tuple[Any, jax.Array]:
      asked, number = each
      key, _ = jax.random.split(jax.random.fold_in(secret, number))
      model, (*routed, _) = self._front.route(key, asked, (*memory, reply_memory))
      allowed = asked.sent & self._front.known(asked)
      if self.learns:
        memory = kept(allowed, tuple(routed), memory)
      return memory, jnp.where(allowed, model, -1)

    each = (query, packed[:, 0])
    if self.learns:
      memory, models = jax.lax.scan(one, memory, each)
      return models, memory
    return jax.vmap(lambda each: one(memory, each)[1])(each), memory

  def _transform(
    self,
    number: int,
    client: int,
    min_accuracy: float,
    max_latency_ms: float,
    outputs: np.ndarray,
    latency_ms: float,
    served: bool,
  ) -> tuple[np.ndarray, float]:
    packed = np.empty(5, np.int32)
    packed[:2] = number, client
    packed[4] = served
    packed[2:4].view(np.float32)[:] = _float32(min_accuracy), _float32(max_latency_ms)
    measured = np.asarray(latency_ms, np.float32)
    with self._lock:
      seen, self._reply_memory = self._reply(
        self._secret, self._reply_memory, packed, np.asarray(outputs), measured
      )
    return np.asarray(seen.outputs), float(seen.latency_ms)

  def _replying(
    self,
    secret: jax.Array,
    memory: Any,
    packed: jax.Array,
    outputs: ArrayLike,
    latency_ms: ArrayLike,
  ) -> tuple[Observation, Any]:
    query = jax.tree.map(lambda field: field[0], _unpacked(packed[None, :4]))
    _, key = jax.random.split(jax.random.fold_in(secret, packed[0]))
    observation = Observation(
      packed[4] > 0, jnp.asarray(outputs), jnp.asarray(latency_ms)
    )
    reply: ReplyTransform = self._front.reply
    return reply.apply(key, query, observation, memory)


def _float32(value: float) -> float:
  """What float32 holds of a number: infinite beyond its largest."""
  return value if abs(value) <= _LARGEST else math.copysign(math.inf, value)


def _unpacked(packed: jax.Array) -> Query:
  """A batch of B queries of i32[B, 4]: number, client, and the spec's bits."""
  spec = jax.lax.bitcast_convert_type(packed[:, 2:4], jnp.float32)
  return Query(
    inputs=jnp.zeros_like(packed[:, 0]),
    spec=Spec(spec[:, 0], spec[:, 1]),
    client=packed[:, 1],
    sent=packed[:, 0] >= 0,
  )
