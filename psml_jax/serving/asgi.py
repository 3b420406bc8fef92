"""What an ASGI application needs of HTTP: bodies with bounds, API keys, answers."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, NamedTuple

from psml_jax.serving.accounts import Accounts
from psml_jax.serving.protocol import RequestError

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Asgi = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]
JSON = (b'content-type', b'application/json')
_DRAIN_SECONDS = 1.0


class Reply(NamedTuple):
  """A whole answer.

  Attributes:
    status: of HTTP.
    body: all of it.
    headers: without its length.
    close: whether the connection ends with it.
  """

  status: int
  body: bytes
  headers: Headers
  close: bool = False


def header(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> str | None:
  """The value of a header; None where there is none.

  Raises:
    RequestError: 400, a header that is there twice.

  >>> header([(b'Accept', b'*/*')], b'accept')
  '*/*'
  """
  found = [value for key, value in headers if key.lower() == name]
  if len(found) > 1:
    raise RequestError(400, f'the header {name.decode()} is there twice')
  return found[0].decode('latin-1') if found else None


def client(headers: Iterable[tuple[bytes, bytes]], accounts: Accounts) -> int:
  """Who asks, by the API key.

  Raises:
    RequestError: 401, no key or an unknown one.
  """
  scheme, _, key = (header(headers, b'authorization') or '').partition(' ')
  found = None
  if scheme.lower() == 'bearer' and key.isascii():
    found = accounts.client(key.strip())
  if found is None:
    raise RequestError(401, 'the header Authorization must be: Bearer, and an API key')
  return found


async def read_body(
  headers: Headers, receive: Receive, most: int, seconds: float
) -> bytes:
  """The body of a request.

  Args:
    headers: of the request.
    receive: of ASGI.
    most: bytes that it may have.
    seconds: that it may take.

  Raises:
    RequestError: 400, it ended early; 408, it took too long; 413, it is too long; 415,
      it is compressed.
  """
  if header(headers, b'content-encoding') not in (None, 'identity'):
    raise RequestError(415, 'the body must not be compressed')
  given = header(headers, b'content-length') or '0'
  too_long = not given.isdigit() or len(given) > 12 or int(given) > most
  parts: list[bytes] = []
  size, more = 0, True
  try:
    async with asyncio.timeout(seconds) as limit:
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


async def send_reply(reply: Reply, send: Send) -> None:
  """Sends a whole answer; a client who has gone wants none."""
  headers = [*reply.headers, (b'content-length', str(len(reply.body)).encode())]
  if reply.close:
    headers.append((b'connection', b'close'))
  with contextlib.suppress(OSError):
    await send(
      {'type': 'http.response.start', 'status': reply.status, 'headers': headers}
    )
    await send({'type': 'http.response.body', 'body': reply.body})


def failed(failure: RequestError, body: bytes) -> Reply:
  """The answer of an error.

  Args:
    failure: its status and text.
    body: JSON that has the text.
  """
  headers: Headers = [JSON]
  if failure.status == 429:
    headers.append((b'retry-after', b'1'))
  if failure.status == 401:
    headers.append((b'www-authenticate', b'Bearer'))
  return Reply(failure.status, body, headers, failure.status in (408, 413))


def check_method(method: str, allowed: str) -> None:
  """Raises a RequestError, 405, for another method; HEAD is a GET.

  >>> check_method('HEAD', 'GET')
  """
  if method != allowed and not (method == 'HEAD' and allowed == 'GET'):
    raise RequestError(405, f'the method must be {allowed}')


async def live(receive: Receive, send: Send) -> None:
  """Answers the messages of a server's life where there is nothing to start or stop."""
  while True:
    message = await receive()
    await send({'type': f'{message["type"]}.complete'})
    if message['type'] == 'lifespan.shutdown':
      return
