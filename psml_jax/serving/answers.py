"""What a client sees of an answer of OpenAI's protocol: of one form, whoever answered.

The text, the calls of tools, the reason for the end and the embedding are kept; what
one vendor leaves out and another says with an empty value is the same here.
"""

import secrets
import time
from typing import Any

import msgspec

from psml_jax.serving import sse
from psml_jax.serving.asgi import JSON, Headers
from psml_jax.serving.dialects import read_answer

_NAMES = {
  '/v1/chat/completions': ('chatcmpl-', 'chat.completion', 'chat.completion.chunk'),
  '/v1/completions': ('cmpl-', 'text_completion', 'text_completion'),
  '/v1/embeddings': ('', 'list', 'list'),
}
_ENDS = (None, 'stop', 'length', 'tool_calls', 'content_filter')
_STREAM = (b'content-type', b'text/event-stream; charset=utf-8')


class Completion:
  """What a client sees of the answer to one request, whole or in pieces.

  Args:
    name: of the zoo.
    path: of the request.
    kept: fields besides those that are known to tell nothing.
    stream: whether the client waits for pieces; a whole answer is made one then.

  >>> made = Completion('zoo', '/v1/completions')
  >>> body = b'{"model": "gpt", "choices": [{"text": "Hi", "logprobs": null}]}'
  >>> sorted(msgspec.json.decode(made.whole(body, [])[0]))
  ['choices', 'created', 'id', 'model', 'object']
  """

  def __init__(
    self, name: str, path: str, kept: tuple[str, ...] = (), stream: bool = False
  ) -> None:
    self._path, self._kept, self._stream = path, kept, stream
    prefix, self._object, self._chunk = _NAMES[path]
    self._about: dict[str, Any] = {'model': name}
    if prefix:
      self._about['id'] = prefix + secrets.token_hex(12)
      self._about['created'] = int(time.time())
    self._renamed: dict[str, str] = {}
    self._begun: set[int] = set()

  def whole(self, body: bytes, headers: Headers) -> tuple[bytes, Headers]:
    del headers
    given = self._given(body)
    if self._stream:
      piece = self._encoded(given, [self._piece(each) for each in given[self._list]])
      return sse.event(piece) + sse.event(sse.DONE), [_STREAM]
    made = [self._item(i, each) for i, each in enumerate(given[self._list])]
    return self._encoded(given, made, self._object), [JSON]

  def event(self, data: bytes) -> bytes | None:
    given = self._given(data)
    made = [self._piece(each) for each in given[self._list] if _says(each)]
    if not made and not any(map(given.get, self._kept)):
      return None
    return self._encoded(given, made)

  @property
  def _list(self) -> str:
    return 'data' if self._path == '/v1/embeddings' else 'choices'

  def _given(self, body: bytes) -> dict[str, Any]:
    given: dict[str, Any] = read_answer(body, dict[str, Any])
    items = given.get(self._list)
    if given.get('error') or not isinstance(items, list):
      raise ValueError('the answer is not as the protocol has it')
    if not all(isinstance(each, dict) for each in items):
      raise ValueError('the answer is not as the protocol has it')
    return given

  def _encoded(
    self, given: dict[str, Any], made: list[Any], kind: str | None = None
  ) -> bytes:
    kept = {name: given[name] for name in self._kept if name in given}
    about = {**self._about, 'object': kind or self._chunk}
    return msgspec.json.encode({**kept, **about, self._list: made})

  def _item(self, index: int, given: dict[str, Any]) -> dict[str, Any]:
    """A choice, or an embedding, of a whole answer."""
    if self._list == 'data':
      value = given.get('embedding')
      return {'object': 'embedding', 'index': index, 'embedding': value}
    found: dict[str, Any] = {'index': index, 'finish_reason': _end(given)}
    if 'chat' not in self._path:
      return {**found, 'text': _text(given, 'text') or ''}
    said = self._said(given.get('message'))
    for call in said.get('tool_calls', ()):
      del call['index']
    return {**found, 'message': {'role': 'assistant', 'content': None, **said}}

  def _piece(self, given: dict[str, Any]) -> dict[str, Any]:
    """A choice of a piece, or one of a whole answer as if it were a piece."""
    index = given.get('index')
    index = index if type(index) is int else 0
    found: dict[str, Any] = {'index': index, 'finish_reason': _end(given)}
    if 'chat' not in self._path:
      return {**found, 'text': _text(given, 'text') or ''}
    said = self._said(given.get('delta') or given.get('message'))
    first = {} if index in self._begun else {'role': 'assistant'}
    self._begun.add(index)
    return {**found, 'delta': {**first, **said}}

  def _said(self, given: Any) -> dict[str, Any]:
    if not isinstance(given, dict):
      return {}
    found: dict[str, Any] = {
      name: text for name in ('content', 'refusal') if (text := _text(given, name))
    }
    calls = given.get('tool_calls')
    made = [self._call(i, each) for i, each in enumerate(calls or ())]
    return {**found, 'tool_calls': made} if made else found

  def _call(self, index: int, given: Any) -> dict[str, Any]:
    """A call of a tool, under a name that tells no vendor and stays in all pieces."""
    if not isinstance(given, dict):
      raise ValueError('the answer is not as the protocol has it')
    at, name, of = given.get('index'), _text(given, 'id'), given.get('function')
    found: dict[str, Any] = {'index': at if type(at) is int else index}
    if name:
      made = self._renamed.setdefault(name, f'call_{secrets.token_hex(12)}')
      found |= {'id': made, 'type': 'function'}
    if isinstance(of, dict):
      texts = {name: _text(of, name) for name in ('name', 'arguments')}
      found['function'] = {k: v for k, v in texts.items() if v is not None}
    return found


def _says(choice: dict[str, Any]) -> bool:
  """Whether a choice of a piece tells a client anything."""
  said = choice.get('delta') or {}
  return bool(
    choice.get('text')
    or choice.get('finish_reason')
    or any(map(said.get, ('content', 'refusal', 'tool_calls')))
  )


def _text(given: dict[str, Any], name: str) -> str | None:
  value = given.get(name)
  return value if isinstance(value, str) else None


def _end(given: dict[str, Any]) -> str | None:
  """Why an answer ends, in one vocabulary."""
  value = given.get('finish_reason')
  return value if value in _ENDS else 'stop'
