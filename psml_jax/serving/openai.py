"""The protocol of OpenAI's servers, as a middleware sees it.

The spec is `min_accuracy` and `max_latency_ms` beside the other fields of the body,
where OpenAI's own client puts what it is given as `extra_body`; or the headers
`x-min-accuracy` and `x-max-latency-ms`. Of an answer the text, the calls of tools, the
reason for its end and the embedding are kept; names, times and the counts of tokens,
which tell a tokenizer, are not, see `answers`. A stream's pieces are as long as the
model's tokens: unless the rules allow them it has one, made of a whole answer.
"""

from typing import Any

import msgspec

from psml_jax.serving.answers import Completion
from psml_jax.serving.asgi import JSON, Headers
from psml_jax.serving.dialects import (
  Asked,
  Fields,
  Forward,
  check_fields,
  check_rows,
  decode,
  take_spec,
)
from psml_jax.serving.protocol import RequestError
from psml_jax.serving.rules import Rules

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
_PARTS = ('text', 'refusal', 'image_url', 'input_audio')


class OpenAI:
  """See the module.

  Args:
    name: of the zoo, which stands for every model.
    path: one of `PATHS`.
    rules: what passes.
  """

  def __init__(self, name: str, path: str, rules: Rules) -> None:
    self._name, self._path, self._rules = name, path, rules
    self._allowed = frozenset(_REQUESTS[path] | {*rules.request_fields})

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
    check_rows(_rows(fields), self._rules.most_rows)
    _check_calls(fields)
    if stream and not self._rules.streams:
      fields = {
        k: v for k, v in fields.items() if k not in ('stream', 'stream_options')
      }

    # Of a field that is there twice another parser might take the other one.
    known = {name: decode(memoryview(raw), Any) for name, raw in fields.items()}

    def forward(model: str) -> Forward:
      named = msgspec.json.encode({**known, 'model': model})
      return Forward(self._path, self._path.encode(), [JSON], named)

    kept = self._rules.response_fields
    answer = Completion(self._name, self._path, kept, stream)
    return Asked(*spec, stream and self._rules.streams, forward, answer)


class _Link(msgspec.Struct):
  url: str


class _Part(msgspec.Struct):
  type: str
  image_url: _Link | None = None


class _Message(msgspec.Struct):
  content: str | list[_Part] | None = None


class _Tool(msgspec.Struct):
  type: str


def _check_calls(fields: Fields) -> None:
  """Raises a RequestError for what would have the model's vendor call an address."""
  for message in _value(fields, 'messages', list[_Message]) or ():
    for part in message.content if isinstance(message.content, list) else ():
      if part.type not in _PARTS:
        raise RequestError(400, f'a part of a message must be of {", ".join(_PARTS)}')
      if part.image_url and not part.image_url.url.startswith('data:'):
        raise RequestError(400, 'an image_url must be its data')
  for tool in _value(fields, 'tools', list[_Tool] | None) or ():
    if tool.type != 'function':
      raise RequestError(400, 'a tool must be a function')


def _rows(fields: Fields) -> int:
  """How many answers a request is for."""
  copies = _value(fields, 'n', int | None)
  texts = 1
  for name in ('prompt', 'input'):
    given = _value(fields, name, str | list[str] | None)
    if isinstance(given, list):
      texts = len(given)
  return texts * (1 if copies is None else copies)


def _value(fields: Fields, name: str, kind: Any) -> Any:
  raw = fields.get(name)
  return None if raw is None else decode(memoryview(raw), kind)
