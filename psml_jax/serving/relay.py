"""The way back through a middleware: an answer, whole or in pieces, made anew."""

import asyncio
import contextlib
import logging
from typing import Any

from psml_jax.serving import sse
from psml_jax.serving.asgi import Headers, Message, Reply, Send
from psml_jax.serving.dialects import Answer
from psml_jax.serving.rules import Rules

_LOG = logging.getLogger('psml_jax.serving')
_WHOLE = ('application/json', 'application/octet-stream')
_PIECES = 'text/event-stream'
_STREAM: Headers = [
  (b'content-type', b'text/event-stream; charset=utf-8'),
  (b'cache-control', b'no-cache'),
]


class Relay:
  """The `send` of the application behind, for one request.

  Args:
    send: to the client.
    rules: what passes.
    answer: what becomes of the answer.
    stream: whether it may come in pieces.
    lost: the answer where there is none.
    told: headers that the operator adds to an answer.
  """

  def __init__(
    self,
    send: Send,
    rules: Rules,
    answer: Answer,
    stream: bool,
    lost: Reply,
    told: Headers,
  ) -> None:
    self._send, self._rules, self._answer = send, rules, answer
    self._stream, self._lost, self._named = stream, lost, told
    self._got = Whole(rules.most_answer)
    self._events: sse.Events | None = None
    self._sent = self._broken = False
    self._first, self._over = asyncio.Event(), asyncio.Event()

  async def __call__(self, message: Message) -> None:
    if self._over.is_set():
      return
    try:
      await self._take(message)
    except BaseException:
      self._stop(broken=True)
      raise

  async def result(self, app: asyncio.Task[Any], seconds: float) -> Reply | None:
    """Waits for the answer.

    Args:
      app: the application behind, whose `send` this is; it is cancelled where it has
        not answered in time.
      seconds: to the answer, or to its first piece.

    Returns:
      An answer in one piece; None where it was sent in pieces.
    """
    app.add_done_callback(self._done)
    try:
      async with asyncio.timeout(seconds):
        await self._first.wait()
      async with asyncio.timeout(max(0.0, self._rules.stream_seconds - seconds)):
        await self._over.wait()
    except TimeoutError:
      _LOG.warning('no answer within the deadline')
      self._stop(broken=True)
    finally:
      if self._broken or not self._over.is_set():
        app.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
          await app
    if not self._sent:
      return self._lost if self._broken else self._whole()
    if self._broken:
      await self._piece(sse.event(self._lost.body), more=False)
    return None

  async def _take(self, message: Message) -> None:
    self._got.take(message)
    if message['type'] == 'http.response.start':
      if self._stream and self._got.status == 200 and self._got.kind == _PIECES:
        self._events = sse.Events(self._rules.most_event)
    elif self._events is not None:
      piece = self._got.empty()
      found = self._events.feed(piece)
      if self._got.ended:
        found += self._events.end()
      told = [self._seen(data) for data in found]
      await self._piece(b''.join(told), more=not self._got.ended)
    if self._got.ended:
      self._stop()

  def _seen(self, data: bytes) -> bytes:
    """An event as the client sees it; nothing where it says nothing."""
    if data == sse.DONE:
      return sse.event(data)
    seen = self._answer.event(data)
    return b'' if seen is None else sse.event(seen)

  async def _piece(self, data: bytes, more: bool) -> None:
    if not data and more:
      return
    with contextlib.suppress(OSError):  # A client who has gone wants no answer.
      if not self._sent:
        self._sent = True
        headers = [*_STREAM, *self._kept()]
        await self._send(
          {'type': 'http.response.start', 'status': 200, 'headers': headers}
        )
      await self._send({'type': 'http.response.body', 'body': data, 'more_body': more})
    self._first.set()

  def _whole(self) -> Reply:
    got = self._got
    if got.status != 200 or got.kind not in _WHOLE or got.encoded:
      _LOG.warning('what should answer a request gave %d, %s', got.status, got.kind)
      return self._lost
    try:
      body, headers = self._answer.whole(got.body, got.headers)
    except ValueError as error:
      _LOG.warning('%s', error)
      return self._lost
    return Reply(200, body, [*headers, *self._kept()])

  def _kept(self) -> Headers:
    names = self._rules.response_headers
    kept = [each for each in self._got.headers if each[0].decode('latin-1') in names]
    return [*kept, *self._named]

  def _done(self, app: asyncio.Task[Any]) -> None:
    """The application has ended, with its answer or without."""
    error = None if app.cancelled() else app.exception()
    if error is not None:
      _LOG.error('what should answer a request failed', exc_info=error)
    self._stop(broken=not self._got.ended)

  def _stop(self, broken: bool = False) -> None:
    if not self._over.is_set():
      self._broken = broken
    self._first.set()
    self._over.set()


class Whole:
  """Takes an answer's messages.

  Args:
    most: bytes that are kept.
  """

  def __init__(self, most: int) -> None:
    self._most = most
    self._parts: list[bytes] = []
    self._size = 0
    self.status = 0
    self.headers: Headers = []
    self.ended = False

  def take(self, message: Message) -> None:
    """Keeps a message.

    Raises:
      ValueError: the answer is too long.
    """
    if message['type'] == 'http.response.start':
      self.status = message['status']
      self.headers = [(k.lower(), v) for k, v in message.get('headers', ())]
    elif message['type'] == 'http.response.body':
      part = message.get('body', b'')
      self._size += len(part)
      if self._size > self._most:
        raise ValueError(f'the answer has more than {self._most} bytes')
      self._parts.append(part)
      self.ended = not message.get('more_body', False)

  def empty(self) -> bytes:
    """What was kept since the last time."""
    body, self._parts, self._size = self.body, [], 0
    return body

  @property
  def body(self) -> bytes:
    """What was kept."""
    return b''.join(self._parts)

  @property
  def kind(self) -> str:
    """The type of the body."""
    value = dict(self.headers).get(b'content-type', b'')
    return value.partition(b';')[0].strip().lower().decode('latin-1')

  @property
  def encoded(self) -> bool:
    """Whether the body is compressed."""
    return dict(self.headers).get(b'content-encoding', b'identity') != b'identity'
