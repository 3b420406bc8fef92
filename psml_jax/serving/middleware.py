"""The defense in front of others' servers: an ASGI middleware.

It reads the spec of a request, decides, puts the name of the model drawn into the body
(`openai`) or the path (`inference`), and makes the answer anew of what tells nothing of
the model. What it does not know does not pass: another path, a field or a header of a
request that might steer, a field or a header of an answer that might tell.

| status | what it means | billed |
|---|---|---|
| 200 | an answer | yes |
| 400 | the request is malformed, or has a field that is not allowed | |
| 401 | no API key, or an unknown one | |
| 404, 405 | no such path; another method | |
| 408, 413, 415 | the body took too long, is too long, or is compressed | |
| 412 | refused: no model meets the spec, or the defense refuses | yes |
| 429 | too many requests at once; try again | |
| 504 | the deadline passed, or what should answer failed, in whatever way | yes |

A stream that fails after its start ends with an event that has the error of a 504.
"""

import asyncio
import logging
import time
from typing import Any

import msgspec

from psml_jax.serving import asgi, openai
from psml_jax.serving.accounts import Accounts
from psml_jax.serving.asgi import Asgi, Headers, Message, Receive, Reply, Scope, Send
from psml_jax.serving.dialects import Asked, Dialect, Forward
from psml_jax.serving.guard import Guard
from psml_jax.serving.inference import OpenInference, model_path
from psml_jax.serving.protocol import RequestError
from psml_jax.serving.relay import Relay, Whole
from psml_jax.serving.rules import Rules, check
from psml_jax.serving.shadow import watched

_LOG = logging.getLogger('psml_jax.serving')
_HEALTH = ('/health', '/v2/health/live', '/v2/health/ready')


class Middleware:
  """See the module.

  Args:
    app: the ASGI application behind, whose models the guard's backends name.
    guard: decides; where it does not enforce, requests and answers pass as they are.
    accounts: who the clients are.
    name: of the zoo, which stands for every model.
    rules: what passes, and its bounds.

  Raises:
    ValueError: a client whom the defense has no place for, a defense that changes
      answers, or a rule that is not allowed.
  """

  def __init__(
    self,
    app: Asgi,
    guard: Guard,
    accounts: Accounts,
    *,
    name: str = 'zoo',
    rules: Rules | None = None,
  ) -> None:
    if accounts.largest >= guard.clients:
      raise ValueError(
        f'accounts have a client {accounts.largest}; this defense tells '
        f'{guard.clients} clients apart, from 0 on'
      )
    if guard.changes_replies:
      raise ValueError(
        'guard changes answers; a middleware passes them on, so its defense must be '
        'one of queries or of routing'
      )
    self._app, self._guard, self._accounts = app, guard, accounts
    self._rules = rules = rules or Rules()
    check('rules', rules)
    self._name = name
    rows = rules.most_rows
    self._inference = OpenInference(name, rows, rules.request_fields)
    self._plain = openai.OpenAI(name, openai.PATHS[0])
    self._dialects: dict[str, Dialect] = {
      path: openai.OpenAI(name, path, rows, rules.request_fields, rules.response_fields)
      for path in openai.PATHS
    } | dict.fromkeys(self._inference.paths, self._inference)
    self._model = f'/v2/models/{name}'
    self._under_way = 0
    self._running: set[asyncio.Future[Any]] = set()

  async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
    if scope['type'] == 'lifespan':
      await self._app(scope, receive, send)
    elif not self._guard.enforce:
      await self._app(scope, self._watched(scope, receive), send)
    elif scope['type'] == 'http':
      await self._http(scope, receive, send)
    elif scope['type'] == 'websocket':
      await receive()
      await send({'type': 'websocket.close', 'code': 1008})

  def _watched(self, scope: Scope, receive: Receive) -> Receive:
    """The client's messages, of which the shadow takes note."""
    dialect = self._dialects.get(_path(scope))
    if scope['type'] != 'http' or dialect is None or scope['method'] != 'POST':
      return receive
    return watched(
      scope, receive, dialect, self._guard, self._accounts, self._rules.most_body
    )

  async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
    path = _path(scope)
    dialect = self._dialects.get(path) or (
      self._inference if path.startswith('/v2') else self._plain
    )
    try:
      reply = await self._reply(scope, path, receive, send)
    except RequestError as failure:
      reply = failed(dialect, failure)
    except asyncio.CancelledError:
      raise
    except Exception:
      _LOG.exception('a request failed')
      reply = failed(dialect, RequestError(504, 'no answer'))
    if reply is not None:
      await asgi.send_reply(reply, send)

  async def _reply(
    self, scope: Scope, path: str, receive: Receive, send: Send
  ) -> Reply | None:
    """A whole answer; None where it was sent in pieces."""
    arrived = time.perf_counter()
    method, headers = scope['method'], list(scope['headers'])
    if path in _HEALTH:
      _check_method(method, 'GET')
      return await self._health(scope, path)
    dialect = self._dialects.get(path)
    client = None
    try:
      client = asgi.client(headers, self._accounts)
      if dialect is None:
        return await self._told(scope, path, method)
      _check_method(method, 'POST')
      if self._under_way >= self._rules.most_requests:
        raise RequestError(429, 'too many requests')
      self._under_way += 1
      try:
        rules = self._rules
        body = await asgi.read_body(
          headers, receive, rules.most_body, rules.body_seconds
        )
        asked = dialect.read(headers, body)
        if asked.stream and not rules.streams:
          raise RequestError(400, 'stream must be false')
        model = self._guard.decide(client, asked.min_accuracy, asked.max_latency_ms)
        if model is None:
          return failed(dialect, RequestError(412, 'refused'))
        return await self._answered(
          scope,
          receive,
          send,
          arrived,
          asked,
          asked.forward(model),
          failed(dialect, RequestError(504, 'no answer')),
        )
      finally:
        self._under_way -= 1
    except RequestError as failure:
      if dialect is not None:
        self._guard.reject(failure.status, client)
      raise

  async def _answered(
    self,
    scope: Scope,
    receive: Receive,
    send: Send,
    arrived: float,
    asked: Asked,
    sent: Forward,
    lost: Reply,
  ) -> Reply | None:
    """What comes of a query that was decided about; `lost` where nothing does."""
    rules, held = self._rules, 0.0
    seconds = rules.deadline_seconds
    if rules.pad:
      held = rules.until(asked.max_latency_ms, self._guard.slowest_ms)
      seconds = held = min(held, seconds)
    relay = Relay(send, rules, asked.answer, asked.stream, lost)
    inner = self._app(self._inner(scope, sent), _replayed(sent.body, receive), relay)
    app = asyncio.ensure_future(inner)
    self._running.add(app)  # The loop itself holds tasks weakly.
    app.add_done_callback(self._running.discard)
    reply = await relay.result(app, arrived + seconds - time.perf_counter())
    await asyncio.sleep(max(0.0, arrived + held - time.perf_counter()))
    return reply

  def _inner(self, scope: Scope, sent: Forward) -> Scope:
    """The scope for the application behind: of the client, what the rules let pass."""
    length = (b'content-length', str(len(sent.body)).encode())
    kept = [
      (name.lower(), value)
      for name, value in scope['headers']
      if name.lower().decode('latin-1') in self._rules.request_headers
    ]
    added = [(k.encode(), v.encode()) for k, v in self._rules.added_headers.items()]
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

  async def _told(self, scope: Scope, path: str, method: str) -> Reply:
    """What a client may know of the zoo."""
    known = {'id': self._name, 'object': 'model', 'created': 0, 'owned_by': 'psml_jax'}
    listed = {'object': 'list', 'data': [known]}
    answers = {'/v1/models': listed, f'/v1/models/{self._name}': known}
    if path in answers:
      _check_method(method, 'GET')
      return _json(msgspec.json.encode(answers[path]))
    if path == f'{self._model}/ready':
      _check_method(method, 'GET')
      return await self._health(scope, '/v2/health/ready')
    if path == self._model:
      _check_method(method, 'GET')
      body = await self._asked(scope, *model_path(self._guard.backends[0]))
      try:
        return _json(self._inference.about(body or b''))
      except ValueError:
        raise RequestError(504, 'no answer') from None
    raise RequestError(404, 'no such path')

  async def _health(self, scope: Scope, path: str) -> Reply:
    """Whether what is behind is healthy, and nothing else."""
    body = await self._asked(scope, path, path.encode())
    return Reply(503 if body is None else 200, b'', [])

  async def _asked(self, scope: Scope, path: str, raw_path: bytes) -> bytes | None:
    """What is behind a path; None unless it is 200."""
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


def failed(dialect: Dialect, failure: RequestError) -> Reply:
  """The answer of an error."""
  headers: Headers = [(b'content-type', b'application/json')]
  if failure.status == 429:
    headers.append((b'retry-after', b'1'))
  if failure.status == 401:
    headers.append((b'www-authenticate', b'Bearer'))
  body = dialect.error(failure.status, failure.text)
  return Reply(failure.status, body, headers, failure.status in (408, 413))


def _json(body: bytes) -> Reply:
  return Reply(200, body, [(b'content-type', b'application/json')])


def _path(scope: Any) -> str:
  path: str = scope.get('path', '')
  return path.removeprefix(scope.get('root_path', '')) or '/'


def _check_method(method: str, allowed: str) -> None:
  if method != allowed and not (method == 'HEAD' and allowed == 'GET'):
    raise RequestError(405, f'the method must be {allowed}')


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
