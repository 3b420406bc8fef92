"""The protocol of OpenAI's servers, as a middleware sees it.

The spec is `min_accuracy` and `max_latency_ms` beside the other fields of the body,
where OpenAI's own client puts what it is given as `extra_body`; or the headers
`x-min-accuracy` and `x-max-latency-ms`. Of an answer the text, the calls of tools, the
reason for its end and the embedding are kept; names, times and the counts of tokens,
which tell a tokenizer, are not.
"""

import secrets
import time
from collections.abc import Callable
from typing import Any

import msgspec

from psml_jax.serving.asgi import JSON, Headers
from psml_jax.serving.dialects import (
  Answer,
  Asked,
  Fields,
  Forward,
  check_fields,
  check_rows,
  decode,
  read_answer,
  take_spec,
)

_SAMPLING = {
  'frequency_penalty',
  'max_completion_tokens',
  'max_tokens',
  'model',
  'n',
  'presence_penalty',
  'seed',
  'stop',
  'stream',
  'stream_options',
  'temperature',
  'top_p',
  'user',
}
_REQUESTS = {
  '/v1/chat/completions': _SAMPLING
  | {'messages', 'parallel_tool_calls', 'response_format', 'tool_choice', 'tools'},
  '/v1/completions': _SAMPLING | {'echo', 'prompt', 'suffix'},
  '/v1/embeddings': {'encoding_format', 'input', 'model', 'user'},
}
PATHS = tuple(_REQUESTS)
_KINDS = {
  '/v1/chat/completions': ('chatcmpl-', 'chat.completion', 'chat.completion.chunk'),
  '/v1/completions': ('cmpl-', 'text_completion', 'text_completion'),
  '/v1/embeddings': ('', 'list', 'list'),
}
_ENDS = ('stop', 'length', 'tool_calls', 'content_filter')
_Keep = Callable[[Any], Any]


class OpenAI:
  """See the module.

  Args:
    name: of the zoo, which stands for every model.
    path: one of `PATHS`.
    most_rows: answers that a request may be for.
    request_fields: of a request that go on, besides those that are known.
    response_fields: of an answer that the client sees, besides those that are known.
  """

  def __init__(
    self,
    name: str,
    path: str,
    most_rows: int = 1,
    request_fields: tuple[str, ...] = (),
    response_fields: tuple[str, ...] = (),
  ) -> None:
    self._name, self._path, self._most_rows = name, path, most_rows
    self._allowed = frozenset(_REQUESTS[path] | {*request_fields})
    self._kept = response_fields

  def error(self, status: int, text: str) -> bytes:
    kind = 'server_error' if status >= 500 else 'invalid_request_error'
    code = 'refused' if status == 412 else None
    told = {'message': text, 'type': kind, 'param': None, 'code': code}
    return msgspec.json.encode({'error': told})

  def read(self, headers: Headers, body: bytes) -> Asked:
    fields: Fields = decode(body, Fields)
    spec = take_spec(fields, headers)
    check_fields(fields, self._allowed)
    stream = _value(fields, 'stream', bool | None) or False
    check_rows(self._rows(fields), self._most_rows)

    def forward(model: str) -> Forward:
      named = {**fields, 'model': model}
      return Forward(
        self._path, self._path.encode(), [JSON], msgspec.json.encode(named)
      )

    return Asked(*spec, stream, forward, self.answer())

  def answer(self) -> Answer:
    """What becomes of the answer to one request; its pieces share a made-up name."""
    return _Answer(self._name, self._path, self._kept)

  def _rows(self, fields: Fields) -> int:
    """How many answers a request is for."""
    copies = _value(fields, 'n', int | None)
    texts = 1
    for name in ('prompt', 'input'):
      given = _value(fields, name, str | list[str] | None)
      if isinstance(given, list):
        texts = len(given)
    return texts * (1 if copies is None else copies)


class _Answer:
  """See `OpenAI.answer`."""

  def __init__(self, name: str, path: str, kept: tuple[str, ...]) -> None:
    prefix, self._object, self._chunk = _KINDS[path]
    self._about: dict[str, Any] = {'model': name}
    if prefix:
      self._about['id'] = prefix + secrets.token_hex(12)
      self._about['created'] = int(time.time())
    self._kept = kept
    self._renamed: dict[str, str] = {}
    tools = [
      {
        'index': number,
        'id': self._call,
        'type': text,
        'function': {'name': text, 'arguments': text},
      }
    ]
    said = {'role': text, 'content': text, 'refusal': text, 'tool_calls': tools}
    choice = {
      'index': number,
      'text': text,
      'message': said,
      'delta': said,
      'finish_reason': end,
    }
    item = {'object': text, 'index': number, 'embedding': numbers}
    self._main, each = ('choices', choice) if prefix else ('data', item)
    self._shape = {self._main: [each]}

  def whole(self, body: bytes, headers: Headers) -> tuple[bytes, Headers]:
    del headers
    return msgspec.json.encode(self._rewritten(body, self._object)), [JSON]

  def event(self, data: bytes) -> bytes | None:
    found = self._rewritten(data, self._chunk)
    if not any(map(says, found[self._main])) and not any(map(found.get, self._kept)):
      return None
    return msgspec.json.encode(found)

  def _rewritten(self, body: bytes, kind: str) -> dict[str, Any]:
    given = read_answer(body, dict[str, Any])
    if not isinstance(given.get(self._main), list) or given.get('error'):
      raise ValueError('the answer is not as the protocol has it')
    kept = {name: given[name] for name in self._kept if name in given}
    return {**kept, **project(self._shape, given), **self._about, 'object': kind}

  def _call(self, value: Any) -> Any:
    """A name of a call that tells no vendor; the same for all its pieces."""
    if not isinstance(value, str):
      return None
    return self._renamed.setdefault(value, f'call_{secrets.token_hex(12)}')


def project(shape: Any, value: Any) -> Any:
  """What is left of a JSON value: what a shape names, where it is of that form.

  Args:
    shape: a dictionary of shapes, a list of one, or a function of the value.
    value: any.

  >>> project({'a': [{'b': text}]}, {'a': [{'b': 'x', 'c': 'y'}, 'z'], 'd': 1})
  {'a': [{'b': 'x'}, None]}
  """
  if isinstance(shape, dict):
    if not isinstance(value, dict):
      return None
    return {
      name: project(of, value[name]) for name, of in shape.items() if name in value
    }
  if isinstance(shape, list):
    return [project(shape[0], each) for each in value] if type(value) is list else None
  return shape(value)


def text(value: Any) -> Any:
  """The value where it is text."""
  return value if isinstance(value, str) else None


def number(value: Any) -> Any:
  """The value where it is a whole number."""
  return value if type(value) is int else None


def numbers(value: Any) -> Any:
  """The value where it is text or a list of numbers."""
  if isinstance(value, list) and all(type(each) in (int, float) for each in value):
    return value
  return text(value)


def end(value: Any) -> Any:
  """Why an answer ends, in one vocabulary."""
  return value if value is None or value in _ENDS else 'stop'


def says(choice: Any) -> bool:
  """Whether a piece of an answer tells a client anything."""
  if not isinstance(choice, dict):
    return False
  said = choice.get('delta') or {}
  return bool(
    choice.get('text')
    or choice.get('finish_reason')
    or said.get('content')
    or said.get('refusal')
    or said.get('tool_calls')
    or said.get('role')
  )


def _value(fields: Fields, name: str, kind: Any) -> Any:
  raw = fields.get(name)
  return None if raw is None else decode(memoryview(raw), kind)
