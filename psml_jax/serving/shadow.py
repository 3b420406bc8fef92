"""A shadow of a middleware: it reads what passes, decides, and changes nothing."""

import logging

from psml_jax.serving import asgi
from psml_jax.serving.accounts import Accounts
from psml_jax.serving.asgi import Message, Receive, Scope
from psml_jax.serving.dialects import Dialect
from psml_jax.serving.guard import Guard
from psml_jax.serving.protocol import RequestError

_LOG = logging.getLogger('psml_jax.serving')


def watched(
  scope: Scope,
  receive: Receive,
  dialect: Dialect,
  guard: Guard,
  accounts: Accounts,
  most: int,
) -> Receive:
  """The messages of a client as they are; when a body is whole, it is decided about.

  What the application answers without reading it is not seen.

  Args:
    scope: of the request.
    receive: of ASGI.
    dialect: of the path.
    guard: decides and logs.
    accounts: who the clients are.
    most: bytes of a body; of a longer one nothing is kept.

  Returns:
    In the place of `receive`.
  """
  parts: list[bytes] = []
  size, ended = 0, False

  async def watching() -> Message:
    nonlocal size, ended
    message = await receive()
    if ended or message['type'] != 'http.request':
      return message
    part = message.get('body', b'')
    size += len(part)
    parts.append(part)
    if size > most:
      parts.clear()
    if not message.get('more_body', False):
      ended = True
      _note(scope, None if size > most else b''.join(parts), dialect, guard, accounts)
      parts.clear()
    return message

  return watching


def _note(
  scope: Scope,
  body: bytes | None,
  dialect: Dialect,
  guard: Guard,
  accounts: Accounts,
) -> None:
  """Decides about a body; whatever goes wrong is a line of the log alone."""
  client = None
  try:
    try:
      headers = list(scope['headers'])
      client = asgi.client(headers, accounts)
      if body is None:
        raise RequestError(413, 'the body is too long')
      asked = dialect.read(headers, body)
      guard.decide(client, asked.min_accuracy, asked.max_latency_ms)
    except RequestError as failure:
      guard.reject(failure.status, client)
  except Exception:
    _LOG.exception('a shadow failed')
