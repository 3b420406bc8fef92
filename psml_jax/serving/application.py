"""The server as an ASGI application: who asks, what, and what goes back.

It knows the protocol and nothing of what hosts it: a `Host` decides by the gate and has
the models. Everything that a client can make it hold is bounded: the requests under
way, the length of a body, the time that it may take. What happens after a query was
decided about ends in one status, 504, whatever it was: another one would tell of the
model.
"""

import asyncio
import dataclasses
import hashlib
import logging
import math
import time
from collections.abc import Sequence
from typing import Protocol

import msgspec
import numpy as np

from psml_jax._version import __version__
from psml_jax.serving import asgi, protocol
from psml_jax.serving.accounts import Accounts
from psml_jax.serving.asgi import JSON, Headers, Receive, Reply, Scope, Send
from psml_jax.serving.gate import Decision, Replied
from psml_jax.serving.protocol import Inference, RequestError, Zoo

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
    deadline_seconds: from the end of a request's body to its answer, at most; so are
      a client's `timeout` and all that answers are held for.
    hold_ms: no answer and no refusal goes out before; 0 holds nothing. A client's
      `timeout` counts from there on alone: one before it would tell how long the model
      took, as one beyond it tells of models that take longer than is held.
    disclose: whether answers name the models that gave them.
  """

  most_requests: int = 64
  body_seconds: float = 10.0
  deadline_seconds: float = 30.0
  hold_ms: float = 0.0
  disclose: bool = False


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
    models = model, f'{model}/versions/1'
    self._get_with_key = dict.fromkeys(models, self._metadata)
    self._get_with_key |= {f'{path}/ready': self._ready for path in models}
    self._infer_paths = {f'{path}/infer' for path in models}

  async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
    if scope['type'] == 'lifespan':
      await asgi.live(receive, send)
      return
    if scope['type'] != 'http':
      return
    try:
      reply = await self._reply(scope, receive)
    except RequestError as failure:
      reply = _failed(failure)
    except asyncio.CancelledError:
      raise
    except Exception:
      _LOG.exception('a request failed')
      reply = _failed(RequestError(504, 'no answer'))
    await asgi.send_reply(reply, send)

  async def _reply(self, scope: Scope, receive: Receive) -> Reply:
    path, method = scope['path'], scope['method']
    headers: Headers = list(scope['headers'])
    if path in self._get:
      asgi.check_method(method, 'GET')
      return Reply(200, self._get[path](), [JSON])
    client = asgi.client(headers, self._accounts)
    if path in self._get_with_key:
      asgi.check_method(method, 'GET')
      return Reply(200, self._get_with_key[path](), [JSON])
    if path not in self._infer_paths:
      raise RequestError(404, 'no such path')
    asgi.check_method(method, 'POST')
    if not self._host.ready:
      raise RequestError(503, 'not ready')
    if self._under_way >= self._limits.most_requests:
      raise RequestError(429, 'too many requests')
    self._under_way += 1
    try:
      return await self._infer(client, headers, receive)
    finally:
      self._under_way -= 1

  async def _infer(self, client: int, headers: Headers, receive: Receive) -> Reply:
    limits = self._limits
    body = await asgi.read_body(
      headers, receive, self._zoo.most_bytes, limits.body_seconds
    )
    # Not before: a client would use up by a slow body what answers are held for.
    arrived = time.perf_counter()
    head = asgi.header(headers, protocol.HEAD_LENGTH.encode())
    request = protocol.decode_request(self._zoo, body, head)
    # A shorter timeout than what is held would ask how long the model took.
    seconds = max(request.timeout_s, limits.hold_ms / 1e3)
    until = asyncio.get_running_loop().time() + min(seconds, limits.deadline_seconds)
    try:
      async with asyncio.timeout_at(until):
        reply = await self._decided(client, request, arrived)
    except TimeoutError:
      reply = _failed(RequestError(504, 'no answer within the deadline'))
    await self._hold(arrived, limits.hold_ms)
    return reply

  async def _decided(self, client: int, request: Inference, arrived: float) -> Reply:
    try:
      return await self._answered(client, request, arrived)
    except (asyncio.CancelledError, TimeoutError):
      raise
    except Exception:
      _LOG.exception('what should answer a request failed')
      return _failed(RequestError(504, 'no answer'))

  async def _answered(self, client: int, request: Inference, arrived: float) -> Reply:
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
    return Reply(200, body, [(k.encode(), v.encode()) for k, v in headers.items()])

  async def _hold(self, arrived: float, latency_ms: float) -> None:
    """Waits until so much time has passed since a request had arrived."""
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


def _failed(failure: RequestError) -> Reply:
  return asgi.failed(failure, msgspec.json.encode({'error': failure.text}))
