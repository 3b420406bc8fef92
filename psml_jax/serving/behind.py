"""The application behind a middleware, and what it is sent."""

import asyncio
import logging

from psml_jax.serving.asgi import Asgi, Message, Receive, Scope, Send
from psml_jax.serving.dialects import Forward
from psml_jax.serving.relay import Whole
from psml_jax.serving.rules import Rules

_LOG = logging.getLogger('psml_jax.serving')


class Behind:
  """An application that sees of its clients what the rules let pass.

  Args:
    app: the application.
    rules: what passes.
  """

  def __init__(self, app: Asgi, rules: Rules) -> None:
    self._app, self._rules = app, rules

  async def send(
    self, scope: Scope, sent: Forward, receive: Receive, send: Send
  ) -> None:
    """Sends a request on.

    Args:
      scope: of the client's request.
      sent: what goes on of it.
      receive: of the client, whose body was read already.
      send: takes the answer.
    """
    await self._app(self._inner(scope, sent), _replayed(sent.body, receive), send)

  async def get(self, scope: Scope, path: str, raw_path: bytes) -> bytes | None:
    """What is at a path, for a client's request; None unless it is 200."""
    inner = self._inner(scope, Forward(path, raw_path, [], b''))
    whole = Whole(self._rules.most_answer)

    async def take(message: Message) -> None:
      whole.take(message)

    try:
      async with asyncio.timeout(self._rules.deadline_seconds):
        await self._app({**inner, 'method': 'GET'}, _replayed(b'', _never), take)
      return whole.body if whole.status == 200 else None
    except Exception:
      _LOG.exception('what is behind failed')
      return None

  def _inner(self, scope: Scope, sent: Forward) -> Scope:
    kept = [
      (name.lower(), value)
      for name, value in scope['headers']
      if name.lower().decode('latin-1') in self._rules.request_headers
    ]
    added = [(k.encode(), v.encode()) for k, v in self._rules.added_headers.items()]
    length = (b'content-length', str(len(sent.body)).encode())
    return {
      **scope,
      'path': sent.path,
      'raw_path': sent.raw_path,
      'root_path': '',
      'query_string': b'',
      'headers': [*sent.headers, length, *kept, *added],
      'extensions': {},
      'state': dict(scope.get('state') or {}),
    }


def _replayed(body: bytes, receive: Receive) -> Receive:
  """A body in one piece, then what the client does: it can only leave."""
  pieces = [body]

  async def replay() -> Message:
    if pieces:
      return {'type': 'http.request', 'body': pieces.pop(), 'more_body': False}
    while True:
      message = await receive()
      if message['type'] == 'http.disconnect':
        return message

  return replay


async def _never() -> Message:
  await asyncio.Event().wait()
  return {'type': 'http.disconnect'}
