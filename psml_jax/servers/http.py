"""A server at the other end of a wire, as its client sees it.

Every attempt that may have reached the server's decision is billed, retries included:
an answer, a refusal, a missed deadline, and a connection that broke before the status
came, or came with one that is not the server's (502 of a proxy). Those of the last kind
are in doubt: the server's own count lies between the bill without them and with them.
"""

import collections
import concurrent.futures
import dataclasses
import os
import threading
import time
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from psml_jax import _validate
from psml_jax.core import Bill, Observation, Query
from psml_jax.serving import protocol
from psml_jax.serving._extra import needs

_BUSY, _DEADLINE = 429, 504
_NOT_READY = 503
_AGAIN_SECONDS = 0.05


class UnansweredError(OSError):
  """A query that the server neither answered nor refused, whatever was tried."""


class _Answer(NamedTuple):
  served: bool
  outputs: np.ndarray | None
  latency_ms: float


@dataclasses.dataclass
class Ledger:
  """What a client has sent, attempt by attempt.

  Attributes:
    served: answered.
    refused: by the server's router or defense.
    missed: billed, and not answered in time.
    in_doubt: broken off before a status came; billed here, perhaps not there.
    turned_away: not billed: the server was busy or not ready.
  """

  served: int = 0
  refused: int = 0
  missed: int = 0
  in_doubt: int = 0
  turned_away: int = 0

  @property
  def billed(self) -> int:
    """Attempts that are billed."""
    return self.served + self.refused + self.missed + self.in_doubt


class Http:
  """See `http`."""

  def __init__(
    self,
    url: str,
    key: str,
    *,
    concurrency: int,
    timeout_s: float,
    retries: int,
  ) -> None:
    with needs('http'):
      import httpx
    self._url, self._retries = url.rstrip('/'), retries
    self._errors = httpx.TransportError
    self._client = httpx.Client(
      headers={'authorization': f'Bearer {key}'},
      timeout=timeout_s,
      trust_env=False,
      limits=httpx.Limits(
        max_connections=concurrency, max_keepalive_connections=concurrency
      ),
    )
    self._threads = concurrent.futures.ThreadPoolExecutor(concurrency)
    self._lock = threading.Lock()
    self._run, self._sent = os.urandom(6).hex(), 0
    try:
      self._shape = self._describe()
    except BaseException:
      self.close()
      raise
    self.ledger = Ledger()
    self.in_doubt: collections.deque[str] = collections.deque(maxlen=10_000)

  @property
  def num_classes(self) -> int:
    """How many classes the server tells apart."""
    return self._shape[1]

  @property
  def image_shape(self) -> tuple[int, ...]:
    """(H, W, C) of the images that it takes."""
    return self._shape[0]

  @property
  def bill(self) -> Bill:
    """What this client has been charged for."""
    return Bill(jnp.int32(self.ledger.billed), jnp.int32(self.ledger.served))

  def __call__(self, query: Query) -> Observation:
    images, sent = np.asarray(query.inputs, np.float32), np.asarray(query.sent)
    accuracy = np.asarray(query.spec.min_accuracy)
    latency = np.asarray(query.spec.max_latency_ms)
    rows = np.flatnonzero(sent)
    found = list(
      self._threads.map(
        lambda i: self._ask(images[i], float(accuracy[i]), float(latency[i])), rows
      )
    )
    served = np.zeros(len(sent), bool)
    outputs = np.zeros((len(sent), self.num_classes), np.float32)
    latency_ms = np.zeros(len(sent), np.float32)
    for i, answer in zip(rows, found, strict=True):
      served[i], latency_ms[i] = answer.served, answer.latency_ms
      if answer.outputs is not None:
        outputs[i] = answer.outputs
    return Observation(
      jnp.asarray(served), jnp.asarray(outputs), jnp.asarray(latency_ms)
    )

  def close(self) -> None:
    """Closes all connections."""
    self._threads.shutdown()
    self._client.close()

  def _ask(self, image: np.ndarray, accuracy: float, latency: float) -> _Answer:
    """One query, with its retries."""
    last = ''
    for _ in range(self._retries + 1):
      with self._lock:
        self._sent += 1
        name = f'{self._run}-{self._sent}'
      body, headers = protocol.encode_request(image[None], accuracy, latency, name)
      began = time.perf_counter()
      try:
        response = self._client.post(
          f'{self._url}/infer', content=body, headers=headers
        )
      except self._errors as error:
        self._count('in_doubt', name)
        last = type(error).__name__
        continue
      spent = 1e3 * (time.perf_counter() - began)
      status = response.status_code
      if status == 200:
        self._count('served')
        head = response.headers.get(protocol.HEAD_LENGTH)
        _, outputs = protocol.decode_answer(response.content, head)
        return _Answer(True, outputs[0], spent)
      if status == 412:
        self._count('refused')
        return _Answer(False, None, 0.0)
      last = f'status {status}'
      if status == _DEADLINE:
        self._count('missed')
      elif status >= 500 and status != _NOT_READY:  # Of a proxy, say.
        self._count('in_doubt', name)
      elif status in (_BUSY, _NOT_READY):
        self._count('turned_away')
        time.sleep(_AGAIN_SECONDS)
      else:
        raise ValueError(f'the server says {status}: {_text(response)}')
    raise UnansweredError(
      f'{self._url} answered none of {self._retries + 1} attempts, the last: {last}'
    )

  def _count(self, what: str, name: str = '') -> None:
    with self._lock:
      setattr(self.ledger, what, getattr(self.ledger, what) + 1)
      if name:
        self.in_doubt.append(name)

  def _describe(self) -> tuple[tuple[int, ...], int]:
    """The shapes that the server's metadata tells."""
    try:
      response = self._client.get(self._url)
    except self._errors as error:
      raise UnansweredError(f'{self._url} does not answer: {error}') from error
    if response.status_code != 200:
      mend = (
        'the key must be one of that server'
        if response.status_code == 401
        else 'the URL must be the address of a zoo, such as '
        'http://127.0.0.1:8000/v2/models/zoo'
      )
      raise ValueError(
        f'{self._url} says {response.status_code}: {_text(response)}; {mend}'
      )
    try:
      told = response.json()
      images, outputs = (
        next(each['shape'] for each in told[part] if each['name'] == name)
        for part, name in (('inputs', protocol.INPUT), ('outputs', protocol.OUTPUT))
      )
      return tuple(map(int, images[1:])), int(outputs[-1])
    except (KeyError, StopIteration, TypeError, ValueError) as error:
      raise ValueError(f'{self._url} is no server of this protocol') from error


def http(
  url: str,
  key: str,
  *,
  concurrency: int = 1,
  timeout_s: float = 30.0,
  retries: int = 2,
) -> Http:
  """A server that is reached by HTTP, as its client sees it.

  Args:
    url: of the zoo, such as 'http://127.0.0.1:8000/v2/models/zoo'.
    key: the client's API key; it, and not `Query.client`, says who asks.
    concurrency: requests under way at once, each of one query; more than one gives up
      the order of a batch.
    timeout_s: of an attempt.
    retries: attempts after the first, for a query that is not answered; billed, unless
      the server turned them away.

  Returns:
    `Query -> Observation`, for queries whose inputs are images; latencies are those of
    the wire. It keeps its `bill` and its `ledger`. `session.run_live` talks to it.

  Raises:
    ValueError: no server of the protocol at the address, or numbers out of range; from
      a query, a status that no retry mends.
    UnansweredError: nothing answers; from a query, none of its attempts was answered.
    InputError: the extra `http` is missing.
  """
  _validate.positive_int('concurrency', concurrency)
  _validate.positive('timeout_s', timeout_s)
  _validate.non_negative_int('retries', retries)
  return Http(url, key, concurrency=concurrency, timeout_s=timeout_s, retries=retries)


def _text(response: Any) -> str:
  """What an error of the server says."""
  try:
    return str(response.json()['error'])[:200]
  except (KeyError, TypeError, ValueError):
    return response.text[:200].strip() or 'nothing more'
