"""The HTTP listener: uvicorn, with bounds on what comes before a request's body.

Several processes of one machine listen at one port and the kernel deals connections out
to them (SO_REUSEPORT), so that an ingress replica is its own front door: what would be
a proxy's hop is the hop to the model. A client that sends a head too long, too slowly,
or not at all gets its status and loses its connection.
"""

import asyncio
import contextlib
import http
import socket
from collections.abc import Iterator
from typing import Any

from psml_jax.serving._extra import needs

with needs('serve'):
  import uvicorn
  from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MOST_CONNECTIONS = 1024
_HEAD_BYTES = 16_384
_HEAD_SECONDS = 10.0
_IDLE_SECONDS = 75


class _Protocol(HttpToolsProtocol):
  """uvicorn's, which bounds neither the length of a head nor its time.

  Nor does it bound what a chunked body has besides its bytes, such as trailers.
  """

  _in_head, _in_body = True, False
  _other_bytes = 0
  _late: asyncio.TimerHandle | None = None

  def connection_made(self, transport: Any) -> None:
    super().connection_made(transport)
    self._wait()

  def connection_lost(self, exc: Exception | None) -> None:
    self._stop_waiting()
    super().connection_lost(exc)

  def data_received(self, data: bytes) -> None:
    self._other_bytes += len(data)
    super().data_received(data)
    if self._other_bytes > _HEAD_BYTES:
      self._refuse(431)

  def on_message_begin(self) -> None:
    super().on_message_begin()
    self._in_head, self._other_bytes = True, 0
    self._wait()

  def on_body(self, body: bytes) -> None:
    self._other_bytes = 0
    super().on_body(body)

  def on_headers_complete(self) -> None:
    self._in_head, self._in_body, self._other_bytes = False, True, 0
    self._stop_waiting()
    super().on_headers_complete()

  def on_message_complete(self) -> None:
    self._in_body = False
    self._stop_waiting()
    super().on_message_complete()

  def on_response_complete(self) -> None:
    super().on_response_complete()
    if self._in_body:  # Of which nobody reads the rest.
      self._wait()

  def _wait(self) -> None:
    if self._late is None:
      self._late = self.loop.call_later(_HEAD_SECONDS, self._refuse, 408)

  def _stop_waiting(self) -> None:
    if self._late is not None:
      self._late.cancel()
      self._late = None

  def _refuse(self, status: int) -> None:
    if self.transport.is_closing():
      return
    self._stop_waiting()
    if self._in_head and (self.cycle is None or self.cycle.response_complete):
      said = f'HTTP/1.1 {status} {http.HTTPStatus(status).phrase}'
      rest = 'content-length: 0\r\nconnection: close'
      self.transport.write(f'{said}\r\n{rest}\r\n\r\n'.encode())
    self.transport.close()


class _Server(uvicorn.Server):
  """uvicorn's, whose process has signal handlers already."""

  @contextlib.contextmanager
  def capture_signals(self) -> Iterator[None]:
    yield


class Listener:
  """An ASGI application at a port.

  Args:
    application: the application.
    host: the address.
    port: the port; others may listen there too.

  Raises:
    OSError: from `start`, an address or a port that is not to be had.
  """

  def __init__(self, application: Any, host: str, port: int) -> None:
    self._address = host, port
    self._server = _Server(
      uvicorn.Config(
        application,
        http=_Protocol,
        ws='none',
        lifespan='off',
        loop='none',
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        limit_concurrency=MOST_CONNECTIONS,
        timeout_keep_alive=_IDLE_SECONDS,
        timeout_graceful_shutdown=5,
      )
    )
    self._serving: asyncio.Task[None] | None = None

  async def start(self) -> None:
    """Listens, in a task of the running loop."""
    opened = bound(*self._address)
    self._serving = asyncio.create_task(self._server.serve([opened]))
    while not self._server.started and not self._serving.done():
      await asyncio.sleep(0.01)

  async def stop(self) -> None:
    """Answers what is under way, and listens no more."""
    self._server.should_exit = True
    if self._serving is not None:
      await self._serving

  def check(self) -> None:
    """Raises a RuntimeError where it does not listen."""
    if self._serving is None or self._serving.done():
      raise RuntimeError('the listener has stopped')


def bound(host: str, port: int) -> socket.socket:
  """A socket at an address that others of this user may share."""
  family = socket.AF_INET6 if ':' in host else socket.AF_INET
  opened = socket.socket(family, socket.SOCK_STREAM)
  try:
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    opened.bind((host, port))
    opened.listen(MOST_CONNECTIONS)
  except OSError:
    opened.close()
    raise
  return opened
