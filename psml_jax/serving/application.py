"""The server as an ASGI application: who asks, what, and what goes back.

It knows the protocol and nothing of what hosts it: a `Host` decides by the gate and has
the models. Everything that a client can make it hold is bounded: the requests under
way, the length of a body, the time that it may take. What happens after a query was
decided about ends in one status, 504, whatever it was: another one would tell of the
model.
"""

import asyncio
import contextlib
import dataclasses
import hashlib
import logging
import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import msgspec
import numpy as np

from psml_jax._version import __version__
from psml_jax.serving import protocol
from psml_jax.serving.accounts import Accounts
from psml_jax.serving.gate import Decision, Replied
from psml_jax.serving.protocol import Inference, RequestError, Zoo

Message = Mapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
_Headers = dict[bytes, bytes]
_JSON = {'content-type': 'application/json'}
_DRAIN_SECONDS = 1.0
_LOG = logging.getLogger('psml_jax.serving')


class Host(Protocol):
  """What decides and what answers."""

  @property
  def ready(self) -> bool:
    """Whether every model can answer."""

  async def decide(
    self, client: int, request: Inference, name: int
  ) -> Sequence[Decision]:
    """A decision for each image of a request; see `gate.Gate.decide`."""

  async def answer(self, model: int, images: np.ndarray) -> np.ndarray:
    """f32[B, K], what a model says of f32[B, H, W, C] images."""

  async def reply(
    self,
    decision: Decision,
    client: int,
    request: Inference,
    outputs: np.ndarray,
    latency_ms: float,
  ) -> Replied:
    """What the client may see of an answer; see `gate.Gate.reply`."""


@dataclasses.dataclass(frozen=True)
class Limits:
  """What a client can ask of the server.

  Attributes:
    most_requests: under way at once; more get 429.
    body_seconds: that a body may take to arrive.
    deadline_seconds: from a request's arrival to its answer, at most.
    hold_ms: no answer and no refusal goes out before; 0 holds nothing.
    disclose: whether answers name the models that gave them.
  """

  most_requests: int = 64
  body_seconds: float = 10.0
  deadline_seconds: float = 30.0
  hold_ms: float = 0.0
  disclose: bool = False


class _Reply(NamedTuple):
  status: int
  body: bytes
  headers: dict[str, str]
  close: bool = False


class Application:
  """The ASGI application.

  Args:
    zoo: what clients may know of the zoo.
    host: decides and answers.
    accounts: who the clients are.
    limits: what they can ask.
    names: of the models, to disclose.
  """

  def __init__(
    self,
    zoo: Zoo,
    host: Host,
    accounts: Accounts,
    limits: Limits | None = None,
    names: Sequence[str] = (),
  ) -> None:
    self._zoo, self._host, self._accounts = zoo, host, accounts
    self._limits = limits or Limits()
    self._names = names
    self._under_way = 0
    model = f'/v2/models/{zoo.name}'
    self._get = {
      '/v2': self._server,
      '/v2/health/live': lambda: b'',
      '/v2/health/ready': self._ready,
    }
    self._get_with_key = {model: self._metadata, f'{model}/ready': self._ready}
    self._infer_at = f'{model}/infer'
    for version in (f'{model}/versions/1',):
      self._get_with_key |= {
        version: self._metadata,
        f'{version}/ready': self._ready,
      }
    self._infer_paths = {self._infer_at, f'{model}/versions/1/infer'}

  async def __call__(
    self, scope: Mapping[str, Any], receive: Receive, send: Send
  ) -> None:
    if scope['type'] == 'lifespan':
      await _lifespan(receive, send)
      return
    if scope['type'] != 'http':
      return
    arrived = time.perf_counter()
    try:
      reply = await self._reply(scope, receive, arrived)
    except RequestError as failure:
      reply = _failed(failure)
    except asyncio.CancelledError:
      raise
    except Exception:
      _LOG.exception('a request failed')
      reply = _failed(RequestError(504, 'no answer'))
    await _send(reply, send)

  async def _reply(
    self, scope: Mapping[str, Any], receive: Receive, arrived: float
  ) -> _Reply:
    path, method = scope['path'], scope['method']
    headers: _Headers = dict(scope['headers'])
    if path in self._get:
      _check_method(method, 'GET')
      return _Reply(200, self._get[path](), _JSON)
    client = self._client(headers)
    if path in self._get_with_key:
      _check_method(method, 'GET')
      return _Reply(200, self._get_with_key[path](), _JSON)
    if path not in self._infer_paths:
      raise RequestError(404, 'no such path')
    _check_method(method, 'POST')
    if not self._host.ready:
      raise RequestError(503, 'not ready')
    if self._under_way >= self._limits.most_requests:
      raise RequestError(429, 'too many requests')
    self._under_way += 1
    try:
      return await self._infer(client, headers, receive, arrived)
    finally:
      self._under_way -= 1

  def _client(self, headers: _Headers) -> int:
    scheme, _, key = headers.get(b'authorization', b'').partition(b' ')
    client = None
    if scheme.lower() == b'bearer' and key.isascii():
      client = self._accounts.client(key.strip().decode())
    if client is None:
      raise RequestError(
        401, 'the header Authorization must be: Bearer, and an API key'
      )
    return client

  async def _infer(
    self, client: int, headers: _Headers, receive: Receive, arrived: float
  ) -> _Reply:
    if headers.get(b'content-encoding', b'identity') != b'identity':
      raise RequestError(415, 'the body must not be compressed')
    body = await self._body(headers, receive)
    head = headers.get(protocol.HEAD_LENGTH.encode())
    request = protocol.decode_request(
      self._zoo, body, None if head is None else head.decode('latin-1')
    )
    seconds = min(request.timeout_s, self._limits.deadline_seconds)
    left = arrived + seconds - time.perf_counter()
    if left <= 0:
      raise RequestError(408, 'the request took longer to arrive than its deadline')
    until = asyncio.get_running_loop().time() + left
    try:
      async with asyncio.timeout_at(until):
        reply = await self._decided(client, request, arrived)
    except TimeoutError:
      reply = _failed(RequestError(504, 'no answer within the deadline'))
    await self._hold(arrived, self._limits.hold_ms)
    return reply

  async def _decided(self, client: int, request: Inference, arrived: float) -> _Reply:
    try:
      return await self._answered(client, request, arrived)
    except (asyncio.CancelledError, TimeoutError):
      raise
    except Exception:
      _LOG.exception('what should answer a request failed')
      return _failed(RequestError(504, 'no answer'))

  async def _answered(self, client: int, request: Inference, arrived: float) -> _Reply:
    decisions = await self._host.decide(client, request, name(request.id))
    models = np.array([decision.model for decision in decisions])
    if (models < 0).all():
      return _failed(RequestError(412, 'refused'))
    outputs = np.zeros((len(models), self._zoo.num_classes), np.float32)
    places = [
      np.flatnonzero(models == model) for model in np.unique(models[models >= 0])
    ]
    found = await asyncio.gather(
      *(
        self._host.answer(int(models[place[0]]), request.images[place])
        for place in places
      )
    )
    for place, answers in zip(places, found, strict=True):
      outputs[place] = answers
    spent, held = 1e3 * (time.perf_counter() - arrived), 0.0
    for i, decision in enumerate(decisions):
      seen = await self._host.reply(decision, client, request, outputs[i], spent)
      outputs[i], held = seen.outputs, max(held, seen.latency_ms)
    await self._hold(arrived, held)
    told: dict[str, bool | int | float | str] = {}
    if self._limits.disclose:
      told = {'models': ','.join(self._names[m] if m >= 0 else '' for m in models)}
    body, headers = protocol.encode_answer(
      self._zoo, request, models >= 0, outputs, told
    )
    return _Reply(200, body, headers)

  async def _body(self, headers: _Headers, receive: Receive) -> bytes:
    most = self._zoo.most_bytes
    given = headers.get(b'content-length', b'0')
    too_long = not given.isdigit() or len(given) > 12 or int(given) > most
    parts: list[bytes] = []
    size, more = 0, True
    try:
      async with asyncio.timeout(self._limits.body_seconds) as limit:
        while more:
          if size > most or too_long:
            # Read on for a while and keep nothing, or many clients see no answer.
            parts, too_long = [], True
            end = asyncio.get_running_loop().time() + _DRAIN_SECONDS
            if (limit.when() or end) > end:
              limit.reschedule(end)
          message = await receive()
          if message['type'] == 'http.disconnect':
            raise RequestError(400, 'the body ended early')
          part, more = message.get('body', b''), message.get('more_body', False)
          size += len(part)
          if not too_long:
            parts.append(part)
    except TimeoutError:
      if not too_long:
        raise RequestError(408, 'the body took too long') from None
    if too_long or size > most:
      raise RequestError(413, f'the body must have at most {most} bytes')
    return b''.join(parts)

  async def _hold(self, arrived: float, latency_ms: float) -> None:
    """Waits until so much time has passed since a request arrived."""
    left = latency_ms / 1e3 - (time.perf_counter() - arrived)
    if left > 0 and math.isfinite(left):
      await asyncio.sleep(left)

  def _server(self) -> bytes:
    extensions = ['binary_tensor_data']
    return msgspec.json.encode(
      {'name': 'psml_jax', 'version': __version__, 'extensions': extensions}
    )

  def _ready(self) -> bytes:
    if not self._host.ready:
      raise RequestError(503, 'not ready')
    return b''

  def _metadata(self) -> bytes:
    return msgspec.json.encode(protocol.metadata(self._zoo))


def name(id: str) -> int:
  """64 bits of a request's name, for the journal; 0 where it has none."""
  if not id:
    return 0
  return int.from_bytes(hashlib.blake2b(id.encode(), digest_size=8).digest(), 'little')


def _check_method(method: str, allowed: str) -> None:
  if method != allowed and not (method == 'HEAD' and allowed == 'GET'):
    raise RequestError(405, f'the method must be {allowed}')


def _failed(failure: RequestError) -> _Reply:
  body = msgspec.json.encode({'error': failure.text})
  headers = dict(_JSON)
  if failure.status == 429:
    headers['retry-after'] = '1'
  if failure.status == 401:
    headers['www-authenticate'] = 'Bearer'
  return _Reply(failure.status, body, headers, failure.status in (408, 413))


async def _send(reply: _Reply, send: Send) -> None:
  headers = {**reply.headers, 'content-length': str(len(reply.body))}
  if reply.close:
    headers['connection'] = 'close'
  encoded = [(name.encode(), value.encode()) for name, value in headers.items()]
  # A client who has gone wants no answer.
  with contextlib.suppress(OSError):
    await send(
      {'type': 'http.response.start', 'status': reply.status, 'headers': encoded}
    )
    await send({'type': 'http.response.body', 'body': reply.body})


async def _lifespan(receive: Receive, send: Send) -> None:
  while True:
    message = await receive()
    await send({'type': f'{message["type"]}.complete'})
    if message['type'] == 'lifespan.shutdown':
      return
