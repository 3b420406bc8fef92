"""The Open Inference Protocol, version 2, as pure functions between bytes and arrays.

JSON and the binary tensor extension; a request is checked in full before anything is
made of it, and what it can make this process hold is a fixed multiple of its length.

A request has one tensor, `images`, FP32 [B, H, W, C] with pixels in [0, 1], and the
parameters `min_accuracy` and `max_latency_ms`, of all its images (0 and infinite unless
given), and `timeout`, microseconds. Its images are B queries. An answer has
`probabilities`, FP32 [B, K], zeros where a query was refused, and `served`, BOOL [B].

| status | what it means | billed |
|---|---|---|
| 200 | at least one query was answered | all queries |
| 400 | the request is malformed | |
| 401 | no API key, or an unknown one | |
| 404, 405 | no such path or model; another method | |
| 408 | the request did not arrive in time | |
| 412 | refused: no model meets the spec, or the defense refuses | all queries |
| 413, 415, 431 | body too long; compressed; head too long | |
| 429 | too many requests at once; try again | |
| 503 | not ready | |
| 504 | the deadline passed, or what should answer failed | all queries |

No text tells which model was chosen, or tried.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np

INPUT, OUTPUT, SERVED = 'images', 'probabilities', 'served'
HEAD_LENGTH = 'inference-header-content-length'
_PARAMETERS = ('binary_data_output', 'max_latency_ms', 'min_accuracy', 'timeout')
LONGEST_ID = 128
_NUMBER_BYTES = 24
_HEAD_BYTES = 16_384

_Value = bool | int | float | str
_Nested = list[list[list[list[float]]]]


class RequestError(Exception):
  """A request that gets no tensors; `status` and `text` are all that a client sees."""

  def __init__(self, status: int, text: str) -> None:
    super().__init__(text)
    self.status = status
    self.text = text


class Zoo(NamedTuple):
  """What clients may know of a zoo.

  Attributes:
    name: in the paths.
    image_shape: (H, W, C).
    num_classes: K.
    most_rows: images in a request, at most.
  """

  name: str
  image_shape: tuple[int, int, int]
  num_classes: int
  most_rows: int = 32

  @property
  def most_bytes(self) -> int:
    """The longest body that a request can need."""
    numbers = self.most_rows * math.prod(self.image_shape)
    return _HEAD_BYTES + _NUMBER_BYTES * numbers


class Inference(NamedTuple):
  """A request.

  Attributes:
    images: f32[B, H, W, C].
    min_accuracy: a fraction.
    max_latency_ms: milliseconds; may be infinite.
    id: the client's own, '' where it gave none.
    timeout_s: seconds; infinite where it gave none.
    binary: of each output, by name, whether it is wanted in binary.
  """

  images: np.ndarray
  min_accuracy: float
  max_latency_ms: float
  id: str
  timeout_s: float
  binary: dict[str, bool]


class _Tensor(msgspec.Struct, forbid_unknown_fields=True):
  name: str
  shape: list[int]
  datatype: str
  parameters: dict[str, _Value] = {}
  data: msgspec.Raw = msgspec.Raw(b'')


class _Wanted(msgspec.Struct, forbid_unknown_fields=True):
  name: str
  parameters: dict[str, _Value] = {}


class _Request(msgspec.Struct, forbid_unknown_fields=True):
  inputs: list[_Tensor]
  id: str = ''
  parameters: dict[str, _Value] = {}
  outputs: list[_Wanted] = []


class _Answer(msgspec.Struct):
  outputs: list[_Tensor]
  model_name: str = ''
  id: str = ''
  parameters: dict[str, _Value] = {}


def decode_request(zoo: Zoo, body: bytes, head_length: str | None) -> Inference:
  """Reads a request.

  Args:
    zoo: what it is sent to.
    body: of the HTTP request.
    head_length: its header `Inference-Header-Content-Length`; None where it has none.

  Returns:
    The request.

  Raises:
    RequestError: 400, a request that is not as the protocol and the zoo have it.

  >>> zoo = Zoo('zoo', (1, 2, 1), 3)
  >>> body, headers = encode_request(np.ones((1, 1, 2, 1), np.float32), 0.5, 20.0)
  >>> found = decode_request(zoo, body, headers[HEAD_LENGTH])
  >>> found.images.shape, found.min_accuracy, found.max_latency_ms
  ((1, 1, 2, 1), 0.5, 20.0)
  """
  length = head_size(head_length, len(body))
  try:
    request = msgspec.json.decode(memoryview(body)[:length], type=_Request)
  except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
    raise RequestError(
      400, f'the request is not as it must be: {_said(error)}'
    ) from None
  if len(request.id) > LONGEST_ID:
    raise RequestError(400, f'id is longer than {LONGEST_ID} characters')
  for name in request.parameters:
    if name not in _PARAMETERS:
      raise RequestError(400, f'parameters must be of {", ".join(_PARAMETERS)}')
  wanted = request.outputs or [_Wanted(OUTPUT), _Wanted(SERVED)]
  binary = _flag(request.parameters, 'binary_data_output')
  return Inference(
    images=_images(zoo, request.inputs, memoryview(body)[length:]),
    min_accuracy=_number(request.parameters, 'min_accuracy', 0.0),
    max_latency_ms=_number(request.parameters, 'max_latency_ms', math.inf),
    id=request.id,
    timeout_s=_timeout(request.parameters),
    binary={each.name: _wanted_binary(each, binary) for each in wanted},
  )


def encode_request(
  images: np.ndarray, min_accuracy: float, max_latency_ms: float, id: str = ''
) -> tuple[bytes, dict[str, str]]:
  """A request in binary, and its headers.

  Args:
    images: f32[B, H, W, C].
    min_accuracy: a fraction; not NaN.
    max_latency_ms: milliseconds; left out where infinite.
    id: of the request.
  """
  data = np.ascontiguousarray(images, '<f4').tobytes()
  limits = {'min_accuracy': min_accuracy, 'max_latency_ms': max_latency_ms}
  parameters: dict[str, _Value] = {
    name: float(value) for name, value in limits.items() if math.isfinite(value)
  }
  tensor = {
    'name': INPUT,
    'shape': list(images.shape),
    'datatype': 'FP32',
    'parameters': {'binary_data_size': len(data)},
  }
  head = msgspec.json.encode(
    {
      'id': id,
      'inputs': [tensor],
      'parameters': {**parameters, 'binary_data_output': True},
    }
  )
  return head + data, {
    'content-type': 'application/octet-stream',
    HEAD_LENGTH: str(len(head)),
  }


def encode_answer(
  zoo: Zoo,
  request: Inference,
  served: np.ndarray,
  outputs: np.ndarray,
  parameters: dict[str, _Value] | None = None,
) -> tuple[bytes, dict[str, str]]:
  """An answer, and its headers.

  Args:
    zoo: what answers.
    request: what is answered.
    served: bool[B].
    outputs: f32[B, K].
    parameters: what else the operator tells; nothing unless given.
  """
  values: dict[str, tuple[str, np.ndarray]] = {
    OUTPUT: ('FP32', np.ascontiguousarray(outputs, '<f4')),
    SERVED: ('BOOL', np.ascontiguousarray(served, np.bool_)),
  }
  tensors, parts = [], []
  for name, binary in request.binary.items():
    datatype, value = values[name]
    tensor: dict[str, Any] = {
      'name': name,
      'shape': list(value.shape),
      'datatype': datatype,
    }
    if binary:
      parts.append(value.tobytes())
      tensor['parameters'] = {'binary_data_size': len(parts[-1])}
    else:
      tensor['data'] = value.ravel().tolist()
    tensors.append(tensor)
  answer: dict[str, Any] = {'model_name': zoo.name, 'model_version': '1'}
  if request.id:
    answer['id'] = request.id
  if parameters:
    answer['parameters'] = parameters
  head = msgspec.json.encode({**answer, 'outputs': tensors})
  if not parts:
    return head, {'content-type': 'application/json'}
  return b''.join([head, *parts]), {
    'content-type': 'application/octet-stream',
    HEAD_LENGTH: str(len(head)),
  }


def decode_answer(
  body: bytes, head_length: str | None
) -> tuple[np.ndarray, np.ndarray]:
  """Reads an answer: bool[B] served, and f32[B, K] probabilities.

  Raises:
    ValueError: one that is not as the protocol has it.
  """
  try:
    length = head_size(head_length, len(body))
    answer = msgspec.json.decode(memoryview(body)[:length], type=_Answer)
    found, rest = {}, memoryview(body)[length:]
    for tensor in answer.outputs:
      size = tensor.parameters.get('binary_data_size')
      if size is None:
        found[tensor.name] = np.asarray(msgspec.json.decode(tensor.data))
      else:
        kind = np.dtype({'FP32': '<f4', 'BOOL': '?'}[tensor.datatype])
        found[tensor.name] = np.frombuffer(rest[: int(size)], kind)
        rest = rest[int(size) :]
      found[tensor.name] = found[tensor.name].reshape(tensor.shape)
    return found[SERVED].astype(bool), found[OUTPUT].astype(np.float32)
  except (RequestError, KeyError, TypeError, ValueError, msgspec.MsgspecError) as error:
    raise ValueError(f'the answer is not as it must be: {error}') from error


def metadata(zoo: Zoo) -> dict[str, Any]:
  """What `GET /v2/models/NAME` tells."""
  shape = [-1, *zoo.image_shape]
  return {
    'name': zoo.name,
    'versions': ['1'],
    'platform': 'psml_jax',
    'inputs': [{'name': INPUT, 'datatype': 'FP32', 'shape': shape}],
    'outputs': [
      {'name': OUTPUT, 'datatype': 'FP32', 'shape': [-1, zoo.num_classes]},
      {'name': SERVED, 'datatype': 'BOOL', 'shape': [-1]},
    ],
  }


def _images(zoo: Zoo, inputs: Sequence[_Tensor], rest: memoryview) -> np.ndarray:
  """The one tensor of a request, f32[B, H, W, C]."""
  if [tensor.name for tensor in inputs] != [INPUT]:
    raise RequestError(400, f'inputs must be one tensor, {INPUT}')
  (tensor,) = inputs
  if tensor.datatype != 'FP32':
    raise RequestError(400, f'the datatype of {INPUT} must be FP32')
  shape = tuple(tensor.shape)
  if len(shape) != 4 or shape[1:] != zoo.image_shape:
    raise RequestError(
      400, f'the shape of {INPUT} must be [B, {_listed(zoo.image_shape)}]'
    )
  if not 1 <= shape[0] <= zoo.most_rows:
    raise RequestError(400, f'{INPUT} must hold 1 to {zoo.most_rows} images')
  if tensor.parameters.keys() - {'binary_data_size'}:
    raise RequestError(400, f'{INPUT} has no other parameter than binary_data_size')
  count, data = math.prod(shape), bytes(tensor.data)
  size = tensor.parameters.get('binary_data_size')
  if size is None:
    if len(rest):
      raise RequestError(400, 'what follows the JSON belongs to no tensor')
    values = _from_json(data, shape)
  else:
    if data:
      raise RequestError(400, f'{INPUT} has data and binary_data_size')
    if type(size) is not int or size != 4 * count or size != len(rest):
      raise RequestError(
        400, f'binary_data_size and what follows must be {4 * count} bytes'
      )
    values = np.frombuffer(rest, '<f4')
  # False for NaN too.
  if not (np.min(values) >= 0 and np.max(values) <= 1):
    raise RequestError(400, f'{INPUT} must hold numbers in [0, 1]')
  return values.astype(np.float32).reshape(shape)


def _from_json(data: bytes, shape: tuple[int, ...]) -> np.ndarray:
  """f64[N] of a flat list, or one nested as the images are."""
  count, lists = math.prod(shape), sum(math.prod(shape[:i]) for i in range(len(shape)))
  problem = (
    f'the data of {INPUT} must be numbers, {count} in all, as the shape has them'
  )
  if data.count(b'[') > lists:  # They would cost more than the numbers.
    raise RequestError(400, problem)
  for kind in (list[float], _Nested):
    try:
      values = np.asarray(msgspec.json.decode(data, type=kind), np.float64)
    except (ValueError, msgspec.MsgspecError, RecursionError):
      continue
    if values.size != count:
      break
    return values.ravel()
  raise RequestError(400, problem)


def head_size(given: str | None, total: int) -> int:
  """Bytes of the JSON at the begin of a body.

  Args:
    given: the header `Inference-Header-Content-Length`; None where there is none.
    total: bytes of the body.

  Raises:
    RequestError: 400, no whole number, or one larger than the body.

  >>> head_size('7', 9), head_size(None, 9)
  (7, 9)
  """
  if given is None:
    return total
  if not given.isascii() or not given.isdigit() or len(given) > 12:
    raise RequestError(400, f'{HEAD_LENGTH} must be a whole number')
  if int(given) > total:
    raise RequestError(400, f'{HEAD_LENGTH} is larger than the body')
  return int(given)


def _number(parameters: dict[str, _Value], name: str, default: float) -> float:
  value = parameters.get(name, default)
  if isinstance(value, (bool, str)):
    raise RequestError(400, f'{name} must be a number')
  try:
    return float(value)
  except OverflowError:
    raise RequestError(400, f'{name} must be a number that a double holds') from None


def _timeout(parameters: dict[str, _Value]) -> float:
  value = parameters.get('timeout')
  if value is None:
    return math.inf
  if type(value) is not int or value <= 0:
    raise RequestError(400, 'timeout must be a whole number of microseconds > 0')
  return min(value, 2**63) / 1e6


def _flag(parameters: dict[str, _Value], name: str) -> bool:
  value = parameters.get(name, False)
  if not isinstance(value, bool):
    raise RequestError(400, f'{name} must be true or false')
  return value


def _wanted_binary(wanted: _Wanted, default: bool) -> bool:
  if wanted.name not in (OUTPUT, SERVED):
    raise RequestError(400, f'outputs must be of {OUTPUT}, {SERVED}')
  if wanted.parameters.keys() - {'binary_data'}:
    raise RequestError(400, 'an output has no other parameter than binary_data')
  if not wanted.parameters:
    return default
  return _flag(wanted.parameters, 'binary_data')


def _listed(shape: Sequence[int]) -> str:
  return ', '.join(map(str, shape))


def _said(error: Exception) -> str:
  """What msgspec says, without what the request held."""
  if isinstance(error, RecursionError):
    return 'it is nested too deeply'
  return str(error)[:200]
