"""An open-loop load: queries go out when they are due, whatever the server does.

Every offered query is counted, and its latency runs from the moment that it was due, so
that a slow server, or a client that falls behind, makes no query look fast (no
coordinated omission). What bounds it is the number of queries, of connections, and the
time that an answer may take.
"""

import asyncio
import contextlib
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import msgspec
import numpy as np

from psml_jax import _validate
from psml_jax.core import Spec
from psml_jax.servers.http import Ledger
from psml_jax.serving import protocol
from psml_jax.serving._extra import needs
from psml_jax.serving.application import name
from psml_jax.serving.gate import Asked

BROKEN = 0
"""The status of a query whose connection broke, or that took too long."""
UNDECIDED = -2
"""The model of a query that the operator has not decided about."""
_ATTEMPTS = {200: 'served', 412: 'refused', 504: 'missed', BROKEN: 'in_doubt'}
_TURNED_AWAY = (429, 503)
_AGAIN_SECONDS = 0.05


class Offered(NamedTuple):
  """What a load offers: N queries of one image.

  Attributes:
    images: f32[N, H, W, C].
    spec: f32[N] each.
    due_s: f64[N], when each goes out, seconds from the start.
    timeout_s: f64[N], what the client asks the server to keep; infinite for none.
  """

  images: np.ndarray
  spec: Spec
  due_s: np.ndarray
  timeout_s: np.ndarray

  @classmethod
  def of(
    cls, images: np.ndarray, spec: Spec, due_s: np.ndarray, timeout_s: float = np.inf
  ) -> 'Offered':
    """Of images that are used in turns, and specs that are those of all or of each."""
    count = len(due_s)
    return cls(
      np.asarray(images)[np.arange(count) % len(images)],
      jax.tree.map(lambda field: np.broadcast_to(field, (count,)), spec),
      np.asarray(due_s, np.float64),
      np.full(count, timeout_s),
    )


class Seen(NamedTuple):
  """What a client sees of a load.

  Attributes:
    name: its own names of the N queries.
    status: i32[N], of HTTP; `BROKEN` where none came.
    outputs: f32[N, K]; zeros where a query was not answered.
    sent_ms: f64[N], when it really went out, milliseconds from the start.
    latency_ms: f64[N], from when it was due to its answer's last byte.
    headers: of the answers, one text each, sorted.
    text: of the errors.
    broken: names of attempts whose connection broke, and that were followed by another.
  """

  name: list[str]
  status: np.ndarray
  outputs: np.ndarray
  sent_ms: np.ndarray
  latency_ms: np.ndarray
  headers: list[str]
  text: list[str]
  broken: Sequence[str] = ()


async def offer(
  url: str,
  key: str,
  offered: Offered,
  *,
  num_classes: int,
  connections: int = 128,
  patience_s: float = 30.0,
  retries: int = 0,
) -> Seen:
  """Offers a load to a server.

  Args:
    url: of the zoo, such as 'http://127.0.0.1:8000/v2/models/zoo'.
    key: the client's API key.
    offered: the load.
    num_classes: K, of the answers.
    connections: at once, at most; a query that is due and finds none free waits, and
      the wait is part of its latency.
    patience_s: after which a query is given up, counted from when it went out.
    retries: attempts after one whose connection broke, at most, each under a name of
      its own, for the server may have decided about the one before.

  Returns:
    What came back of every query.

  Raises:
    ValueError: numbers out of range.
    InputError: the extra `serve` is missing.
  """
  _validate.positive_int('connections', connections)
  _validate.positive('patience_s', patience_s)
  _validate.non_negative_int('retries', retries)
  with needs('serve'):
    import aiohttp
  count, run = len(offered.due_s), os.urandom(6).hex()
  broken: list[str] = []
  seen = Seen(
    [f'{run}-{i:08d}-0' for i in range(count)],  # Of one length, for they are echoed.
    np.full(count, BROKEN, np.int32),
    np.zeros((count, num_classes), np.float32),
    np.zeros(count),
    np.full(count, np.nan),
    [''] * count,
    [''] * count,
    broken,
  )
  bodies = [_request(offered, i, seen.name[i]) for i in range(count)]
  async with aiohttp.ClientSession(
    connector=aiohttp.TCPConnector(limit=connections),
    headers={'authorization': f'Bearer {key}'},
    timeout=aiohttp.ClientTimeout(total=patience_s),
  ) as client:
    # As many connections as a burst may need are there before the clock starts.
    await asyncio.gather(*(_get(client, url) for _ in range(min(connections, 16))))
    # What waits for a connection waits here, for patience begins when it has one.
    free = asyncio.Semaphore(connections)
    began = time.perf_counter()

    async def attempts(i: int) -> Any:
      for attempt in range(retries + 1):
        if attempt:
          broken.append(seen.name[i])
          seen.name[i] = f'{run}-{i:08d}-{attempt}'
          bodies[i] = _request(offered, i, seen.name[i])
          await asyncio.sleep(_AGAIN_SECONDS)
        body, headers = bodies[i]
        with contextlib.suppress(aiohttp.ClientError):
          async with client.post(f'{url}/infer', data=body, headers=headers) as reply:
            return reply.status, reply.headers, await reply.read()
      return None

    async def ask(i: int) -> None:
      await asyncio.sleep(began + offered.due_s[i] - time.perf_counter())
      reply = None
      async with free:
        seen.sent_ms[i] = 1e3 * (time.perf_counter() - began)
        with contextlib.suppress(TimeoutError):
          async with asyncio.timeout(patience_s):
            reply = await attempts(i)
      ended = time.perf_counter() - began - offered.due_s[i]
      seen.latency_ms[i] = 1e3 * ended
      if reply is not None:
        _keep(seen, i, *reply)

    await asyncio.gather(*(ask(i) for i in range(count)))
  return seen


def ledger(seen: Seen) -> Ledger:
  """What became of every offered query.

  Raises:
    ValueError: a status that no well-formed query gets.
  """
  counted = Ledger()
  for status, text in zip(seen.status.tolist(), seen.text, strict=True):
    what = 'turned_away' if status in _TURNED_AWAY else _ATTEMPTS.get(status)
    if what is None and status >= 500:
      what = 'in_doubt'  # A proxy's.
    if what is None:
      raise ValueError(f'the server says {status}: {text[:200]}')
    setattr(counted, what, getattr(counted, what) + 1)
  return counted


def models(names: Sequence[str], journal: Sequence[Asked]) -> np.ndarray:
  """Which model answered queries, by the operator's journal.

  Args:
    names: the client's own, each of one query.
    journal: of the operator, see `vault.read`.

  Returns:
    i32[N], models; -1 for a refusal, `UNDECIDED` for a query that the journal has not.

  Raises:
    ValueError: a name that the journal has twice: a query was decided about twice.

  >>> models(['a', 'b'], [Asked(7, 0, 0.5, 9.0, 2, name('a'))]).tolist()
  [2, -2]
  """
  wanted = {name(each): i for i, each in enumerate(names)}
  found = np.full(len(names), UNDECIDED, np.int32)
  for asked in journal:
    at = wanted.get(asked.request)
    if at is None:
      continue
    if found[at] != UNDECIDED:
      raise ValueError(f'names has {names[at]!r}, which the journal has twice')
    found[at] = asked.model
  return found


def _request(offered: Offered, i: int, id: str) -> tuple[bytes, dict[str, str]]:
  spec = offered.spec
  accuracy, latency = float(spec.min_accuracy[i]), float(spec.max_latency_ms[i])
  image = offered.images[i][None]
  body, headers = protocol.encode_request(image, accuracy, latency, id)
  if not np.isfinite(offered.timeout_s[i]):
    return body, headers
  length = int(headers[protocol.HEAD_LENGTH])
  head: dict[str, Any] = msgspec.json.decode(body[:length])
  head['parameters']['timeout'] = int(1e6 * offered.timeout_s[i])
  changed = msgspec.json.encode(head)
  return changed + body[length:], headers | {protocol.HEAD_LENGTH: str(len(changed))}


async def _get(client: Any, url: str) -> None:
  async with client.get(url) as reply:
    await reply.read()


def _keep(
  seen: Seen, i: int, status: int, headers: Mapping[str, str], content: bytes
) -> None:
  seen.status[i] = status
  seen.headers[i] = '\n'.join(sorted(f'{k.lower()}: {v}' for k, v in headers.items()))
  if status != 200:
    seen.text[i] = content.decode(errors='replace')
    return
  _, outputs = protocol.decode_answer(content, headers.get(protocol.HEAD_LENGTH))
  seen.outputs[i] = outputs[0]
