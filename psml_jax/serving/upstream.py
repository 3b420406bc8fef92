"""Servers elsewhere as an ASGI application: what a middleware has behind it.

Each model has the address of the server that has it; requests go there as they come.
"""

import contextlib
import urllib.parse
from collections.abc import AsyncIterator, Mapping
from typing import Any

import msgspec

from psml_jax.serving._extra import needs
from psml_jax.serving.asgi import Message, Receive, Scope, Send

with needs('http'):
  import httpx

_HOPS = {
  b'connection',
  b'content-length',
  b'host',
  b'keep-alive',
  b'te',
  b'trailer',
  b'transfer-encoding',
  b'upgrade',
}


class _Named(msgspec.Struct):
  model: str = ''


class Upstream:
  """Passes requests on to the server of the model that they name.

  Args:
    servers: addresses by model; '' for all that names none of them.
    client: that is used; its owner closes it.

  A request names a model in its path, as the Open Inference Protocol has it, or in the
  field `model` of its body. An answer comes in the pieces that it arrives in, and is
  not unpacked.
  """

  def __init__(self, servers: Mapping[str, str], client: httpx.AsyncClient) -> None:
    self._servers = {name: url.rstrip('/') for name, url in servers.items()}
    self._client = client

  async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
    if scope['type'] != 'http':
      raise ValueError(f'scope is of type {scope["type"]}; it must be http')
    body = await _body(receive)
    url = self._url(scope, body)
    if url is None:
      await send({'type': 'http.response.start', 'status': 404, 'headers': []})
      await send({'type': 'http.response.body', 'body': b''})
      return
    headers = [each for each in scope['headers'] if each[0].lower() not in _HOPS]
    async with self._client.stream(
      scope['method'], url, headers=headers, content=body
    ) as got:
      kept = [each for each in got.headers.raw if each[0].lower() not in _HOPS]
      await send(
        {'type': 'http.response.start', 'status': got.status_code, 'headers': kept}
      )
      async for piece in got.aiter_raw():
        await send({'type': 'http.response.body', 'body': piece, 'more_body': True})
    await send({'type': 'http.response.body', 'body': b''})

  def _url(self, scope: Scope, body: bytes) -> str | None:
    raw: bytes = scope.get('raw_path') or scope['path'].encode()
    path, query = raw.decode('ascii'), scope.get('query_string', b'').decode('ascii')
    server = self._servers.get(_model(path, body), self._servers.get(''))
    return None if server is None else f'{server}{path}{"?" if query else ""}{query}'


async def _body(receive: Receive) -> bytes:
  parts, more = [], True
  while more:
    message: Message = await receive()
    if message['type'] == 'http.disconnect':
      break
    parts.append(message.get('body', b''))
    more = message.get('more_body', False)
  return b''.join(parts)


def _model(path: str, body: bytes) -> str:
  parts = path.split('/')
  if parts[1:3] == ['v2', 'models'] and len(parts) > 3:
    return urllib.parse.unquote(parts[3])
  with contextlib.suppress(msgspec.MsgspecError, RecursionError):
    return msgspec.json.decode(body, type=_Named).model
  return ''


@contextlib.asynccontextmanager
async def upstream(
  servers: Mapping[str, str], most_connections: int = 256, seconds: float = 600.0
) -> AsyncIterator[Upstream]:
  """An `Upstream` with a client of its own.

  Args:
    servers: addresses by model.
    most_connections: at once.
    seconds: that a server may say nothing.
  """
  limits = httpx.Limits(max_connections=most_connections)
  own: dict[str, Any] = {'limits': limits, 'timeout': seconds, 'trust_env': False}
  async with httpx.AsyncClient(**own) as client:
    yield Upstream(servers, client)
