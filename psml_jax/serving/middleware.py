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
import urllib.parse
from typing import Any

import msgspec

from psml_jax.serving import asgi, openai
from psml_jax.serving.accounts import Accounts
from psml_jax.serving.asgi import Asgi, Receive, Reply, Scope, Send
from psml_jax.serving.behind import Behind
from psml_jax.serving.dialects import Asked, Dialect
from psml_jax.serving.guard import Guard
from psml_jax.serving.inference import OpenInference, model_path
from psml_jax.serving.protocol import RequestError
from psml_jax.serving.relay import Relay
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
    self._guard, self._accounts = guard, accounts
    self._rules = rules = rules or Rules()
    check('rules', rules)
    self._app, self._behind = app, Behind(app, rules)
    self._name = name
    self._inference = OpenInference(name, rules)
    self._dialects: dict[str, Dialect] = {
      path: openai.OpenAI(name, path, rules) for path in openai.PATHS
    } | dict.fromkeys(self._inference.paths, self._inference)
    self._model = f'/v2/models/{name}'
    self._under_way = 0
    self._running: set[asyncio.Future[Any]] = set()
    self._asking: dict[str, asyncio.Future[bytes | None]] = {}

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
    other = self._inference.paths if path.startswith('/v2') else openai.PATHS
    dialect = self._dialects.get(path) or self._dialects[other[0]]
    try:
      reply = await self._reply(scope, path, receive, send)
    except RequestError as failure:
      reply = _failed(dialect, failure)
    except asyncio.CancelledError:
      raise
    except Exception:
      _LOG.exception('a request failed')
      reply = _failed(dialect, RequestError(504, 'no answer'))
    if reply is not None:
      await asgi.send_reply(reply, send)

  async def _reply(
    self, scope: Scope, path: str, receive: Receive, send: Send
  ) -> Reply | None:
    """A whole answer; None where it was sent in pieces."""
    method, headers = scope['method'], list(scope['headers'])
    if path in _HEALTH:
      asgi.check_method(method, 'GET')
      return await self._health(scope, path)
    dialect = self._dialects.get(path)
    client = None
    try:
      client = asgi.client(headers, self._accounts)
      if dialect is None:
        return await self._told(scope, path, method)
      asgi.check_method(method, 'POST')
      if self._under_way >= self._rules.most_requests:
        raise RequestError(429, 'too many requests')
      self._under_way += 1
      try:
        rules = self._rules
        body = await asgi.read_body(
          headers, receive, rules.most_body, rules.body_seconds
        )
        # Not before: a client would use up by a slow body what answers are held for.
        arrived = time.perf_counter()
        asked = dialect.read(headers, body)
        return await self._answered(
          scope, receive, send, arrived, client, dialect, asked
        )
      finally:
        self._under_way -= 1
    except RequestError as failure:
      if dialect is not None and client is not None:
        self._guard.reject(failure.status, client)
      raise

  async def _answered(
    self,
    scope: Scope,
    receive: Receive,
    send: Send,
    arrived: float,
    client: int,
    dialect: Dialect,
    asked: Asked,
  ) -> Reply | None:
    """Decides about a query, and what comes of it."""
    rules, held = self._rules, 0.0
    model = self._guard.decide(client, asked.min_accuracy, asked.max_latency_ms)
    if model is None:
      return _failed(dialect, RequestError(412, 'refused'))
    seconds = rules.deadline_seconds
    if rules.pad:
      held = rules.until(asked.max_latency_ms, self._guard.slowest_ms)
      seconds = held = min(held, seconds)
    told = [(b'x-model', urllib.parse.quote(model).encode())] if rules.disclose else []
    lost = _failed(dialect, RequestError(504, 'no answer'))
    relay = Relay(send, rules, asked.answer, asked.stream, lost, told)
    app = asyncio.ensure_future(
      self._behind.send(scope, asked.forward(model), receive, relay)
    )
    self._running.add(app)  # The loop itself holds tasks weakly.
    app.add_done_callback(self._running.discard)
    reply = await relay.result(app, arrived + seconds - time.perf_counter())
    await asyncio.sleep(max(0.0, arrived + held - time.perf_counter()))
    return reply

  async def _told(self, scope: Scope, path: str, method: str) -> Reply:
    """What a client may know of the zoo."""
    known = {'id': self._name, 'object': 'model', 'created': 0, 'owned_by': 'psml_jax'}
    listed = {'object': 'list', 'data': [known]}
    answers = {'/v1/models': listed, f'/v1/models/{self._name}': known}
    if path in answers:
      asgi.check_method(method, 'GET')
      return _json(msgspec.json.encode(answers[path]))
    if path == f'{self._model}/ready':
      asgi.check_method(method, 'GET')
      return await self._health(scope, '/v2/health/ready')
    if path == self._model:
      asgi.check_method(method, 'GET')
      body = await self._behind.get(scope, *model_path(self._guard.backends[0]))
      try:
        return _json(self._inference.about(body or b''))
      except ValueError:
        raise RequestError(504, 'no answer') from None
    raise RequestError(404, 'no such path')

  async def _health(self, scope: Scope, path: str) -> Reply:
    """Whether what is behind is healthy, and nothing else; asked once at a time."""
    if path not in self._asking:
      asking = asyncio.ensure_future(self._behind.get(scope, path, path.encode()))
      self._asking[path] = asking
      asking.add_done_callback(lambda _: self._asking.pop(path))
    body = await asyncio.shield(self._asking[path])
    return Reply(503 if body is None else 200, b'', [])


def _failed(dialect: Dialect, failure: RequestError) -> Reply:
  return asgi.failed(failure, dialect.error(failure.status, failure.text))


def _json(body: bytes) -> Reply:
  return Reply(200, body, [asgi.JSON])


def _path(scope: Any) -> str:
  path: str = scope.get('path', '')
  return path.removeprefix(scope.get('root_path', '')) or '/'
