"""The Open Inference Protocol of any server, as a middleware sees it.

The spec is in the `parameters` of a request, as in `protocol`, or in the headers
`x-min-accuracy` and `x-max-latency-ms`. Tensors go through, in JSON and in binary;
their names must be those of every model.
"""

import urllib.parse
from collections.abc import Mapping
from typing import Any

import msgspec

from psml_jax.serving import protocol
from psml_jax.serving.asgi import JSON, Headers, header
from psml_jax.serving.dialects import (
  Asked,
  Fields,
  Forward,
  check_fields,
  check_rows,
  decode,
  read_answer,
  take_spec,
)
from psml_jax.serving.protocol import RequestError, head_size
from psml_jax.serving.rules import Rules

_HEAD_LENGTH = protocol.HEAD_LENGTH.encode()
_REQUEST = {'id', 'inputs', 'outputs', 'parameters'}
_PARAMETERS = {'binary_data_output'}


class _Input(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True):
  name: str
  shape: list[int]
  datatype: str
  parameters: dict[str, int] = {}
  data: Any = msgspec.UNSET


class _Wanted(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True):
  name: str
  parameters: dict[str, bool] = {}


class _Output(msgspec.Struct, omit_defaults=True):
  name: str
  shape: list[int]
  datatype: str
  parameters: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET
  data: Any = msgspec.UNSET


class _Given(msgspec.Struct):
  outputs: list[_Output]


class _Tensor(msgspec.Struct):
  name: str
  datatype: str
  shape: list[int]


class _About(msgspec.Struct):
  inputs: list[_Tensor]
  outputs: list[_Tensor]


class OpenInference:
  """See the module.

  Args:
    name: of the zoo, which stands for every model.
    rules: what passes.
  """

  def __init__(self, name: str, rules: Rules) -> None:
    self._name, self._most_rows = name, rules.most_rows
    self._allowed = frozenset(_PARAMETERS | {*rules.request_fields})

  @property
  def paths(self) -> tuple[str, ...]:
    """Where requests go."""
    return f'/v2/models/{self._name}/infer', f'/v2/models/{self._name}/versions/1/infer'

  def error(self, status: int, text: str) -> bytes:
    del status
    return msgspec.json.encode({'error': text})

  def read(self, headers: Headers, body: bytes) -> Asked:
    length = header(headers, _HEAD_LENGTH)
    whole = memoryview(body)
    size = head_size(length, len(body))
    fields: Fields = decode(whole[:size], Fields)
    check_fields(fields, frozenset(_REQUEST))
    parameters: Fields = {}
    if 'parameters' in fields:
      parameters = decode(memoryview(fields.pop('parameters')), Fields)
    spec = take_spec(parameters, headers)
    check_fields(parameters, self._allowed)
    if 'inputs' not in fields:
      raise RequestError(400, 'the request has no inputs')
    # Made anew of what is known: of a field that is there twice, or that is meant for
    # the host itself, what is behind might make something else.
    inputs = decode(memoryview(fields['inputs']), list[_Input])
    for each in inputs:
      _check_parameters(each.parameters, 'binary_data_size')
    known: dict[str, Any] = {'inputs': inputs, 'parameters': parameters}
    if 'outputs' in fields:
      known['outputs'] = decode(memoryview(fields['outputs']), list[_Wanted])
      for wanted in known['outputs']:
        _check_parameters(wanted.parameters, 'binary_data')
    rows = max((max(each.shape[:1], default=1) for each in inputs), default=1)
    check_rows(rows, self._most_rows)
    id = decode(memoryview(fields.get('id', msgspec.Raw(b'""'))), str)
    if len(id) > protocol.LONGEST_ID:
      raise RequestError(400, f'id is longer than {protocol.LONGEST_ID} characters')
    if id:
      known['id'] = id
    rest, made = bytes(whole[size:]), msgspec.json.encode(known)

    def forward(model: str) -> Forward:
      paths = model_path(model, '/infer')
      if length is None:
        return Forward(*paths, [JSON], made)
      return Forward(*paths, _binary(made), made + rest)

    return Asked(*spec, False, forward, _Answer(self._name, id))

  def about(self, body: bytes) -> bytes:
    """What a server tells of a model, as clients may know it of the zoo.

    Raises:
      ValueError: it is not as the protocol has it.
    """
    found = read_answer(body, _About)
    known = {'name': self._name, 'versions': ['1'], 'platform': 'psml_jax'}
    tensors = {'inputs': found.inputs, 'outputs': found.outputs}
    return msgspec.json.encode({**known, **tensors})


class _Answer:
  def __init__(self, name: str, id: str) -> None:
    self._about: dict[str, Any] = {'model_name': name, 'model_version': '1'}
    if id:
      self._about['id'] = id

  def whole(self, body: bytes, headers: Headers) -> tuple[bytes, Headers]:
    try:
      length = header(headers, _HEAD_LENGTH)
      size = head_size(length, len(body))
    except RequestError:
      raise ValueError('the answer is not as the protocol has it') from None
    found = read_answer(memoryview(body)[:size], _Given)
    for output in found.outputs:
      if output.parameters is not msgspec.UNSET:
        size_only = {
          k: v for k, v in output.parameters.items() if k == 'binary_data_size'
        }
        output.parameters = size_only or msgspec.UNSET
      if output.data is not msgspec.UNSET:
        output.data = _plain(output.data, output.datatype)
    head = msgspec.json.encode({**self._about, 'outputs': found.outputs})
    if length is None:
      return head, [JSON]
    return head + body[size:], _binary(head)

  def event(self, data: bytes) -> bytes | None:
    raise ValueError('the protocol has no streams')


def _check_parameters(given: Mapping[str, Any], allowed: str) -> None:
  if given.keys() - {allowed}:
    raise RequestError(400, f'a tensor has no other parameter than {allowed}')


def _plain(data: Any, datatype: str) -> list[Any]:
  """The numbers of a tensor, in one way to write them down."""
  if not isinstance(data, list):
    raise ValueError('the answer is not as the protocol has it')
  found: list[Any] = []
  for each in data:
    if isinstance(each, list):
      found += _plain(each, datatype)
    else:
      found.append(float(each) if datatype.startswith('FP') else each)
  return found


def model_path(model: str, rest: str = '') -> tuple[str, bytes]:
  """The path of a model, and as it is in a URL.

  >>> model_path('a/b', '/ready')
  ('/v2/models/a/b/ready', b'/v2/models/a%2Fb/ready')
  """
  quoted = urllib.parse.quote(model, safe='')
  return f'/v2/models/{model}{rest}', f'/v2/models/{quoted}{rest}'.encode()


def _binary(head: bytes) -> Headers:
  return [
    (b'content-type', b'application/octet-stream'),
    (_HEAD_LENGTH, str(len(head)).encode()),
  ]
