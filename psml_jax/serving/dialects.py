"""What a middleware must know of a protocol: the spec in a request, the model in both.

A request is read in full before it is decided about, and only what is known to steer
nothing goes on: a field that could name a model, a provider or a route is not allowed.
An answer is made anew of what is known to tell nothing.
"""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import msgspec

from psml_jax.serving.asgi import Headers, header
from psml_jax.serving.protocol import RequestError

ACCURACY, LATENCY = 'min_accuracy', 'max_latency_ms'
HEADERS = {ACCURACY: b'x-min-accuracy', LATENCY: b'x-max-latency-ms'}
_NUMBER = re.compile(r'[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?')
_BROKEN = (
  msgspec.MsgspecError,
  OverflowError,
  RecursionError,
  TypeError,
  UnicodeError,
  ValueError,
)

Fields = dict[str, msgspec.Raw]


class Forward(NamedTuple):
  """A request as it goes on.

  Attributes:
    path: of its URL, unquoted.
    raw_path: quoted.
    headers: of its own, with the type of the body.
    body: all of it.
  """

  path: str
  raw_path: bytes
  headers: Headers
  body: bytes


class Answer(Protocol):
  """What becomes of the answer to one request."""

  def whole(self, body: bytes, headers: Headers) -> tuple[bytes, Headers]:
    """An answer in one piece as the client sees it: its body and its own headers.

    Raises:
      ValueError: one that is not as the protocol has it.
    """

  def event(self, data: bytes) -> bytes | None:
    """An event of a stream as the client sees it; None where it says nothing.

    Raises:
      ValueError: one that is not as the protocol has it.
    """


class Asked(NamedTuple):
  """A request.

  Attributes:
    min_accuracy: a fraction; 0 unless given.
    max_latency_ms: milliseconds; infinite unless given.
    stream: whether the answer may come in pieces.
    forward: the request to a model of that name.
    answer: what becomes of the answer.
  """

  min_accuracy: float
  max_latency_ms: float
  stream: bool
  forward: Callable[[str], Forward]
  answer: Answer


class Dialect(Protocol):
  """A protocol."""

  def error(self, status: int, text: str) -> bytes:
    """The body of an error."""

  def read(self, headers: Headers, body: bytes) -> Asked:
    """Reads a request.

    Raises:
      RequestError: 400, a request that is not as it must be.
    """


def decode(body: bytes | memoryview, kind: Any) -> Any:
  """Reads JSON of a request.

  Raises:
    RequestError: 400, it is not as it must be.
  """
  try:
    return msgspec.json.decode(body, type=kind)
  except RecursionError:
    raise RequestError(400, 'the request is nested too deeply') from None
  except _BROKEN as error:
    raise RequestError(
      400, f'the request is not as it must be: {str(error)[:200]}'
    ) from None


def read_answer(body: bytes | memoryview, kind: Any) -> Any:
  """Reads JSON of an answer.

  Raises:
    ValueError: it is not as it must be.
  """
  try:
    return msgspec.json.decode(body, type=kind)
  except _BROKEN:
    raise ValueError('the answer is not as the protocol has it') from None


def take_spec(fields: Fields, headers: Headers) -> tuple[float, float]:
  """Takes the spec out of the fields of a request, or reads it in its headers.

  Args:
    fields: of the request, which lose it.
    headers: of the request.

  Returns:
    Accuracy, a fraction, and latency in milliseconds; 0 and infinite unless given.

  Raises:
    RequestError: 400, no number, or a limit that is there twice.

  >>> take_spec({'min_accuracy': msgspec.Raw(b'0.5')}, [(b'x-max-latency-ms', b'9')])
  (0.5, 9.0)
  """
  return _limit(fields, headers, ACCURACY, 0.0), _limit(
    fields, headers, LATENCY, math.inf
  )


def _limit(fields: Fields, headers: Headers, name: str, default: float) -> float:
  raw, text = fields.pop(name, None), header(headers, HEADERS[name])
  if raw is not None and text is not None:
    raise RequestError(400, f'{name} is in the body and in a header')
  if raw is not None:
    value = decode(memoryview(raw), Any)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
      raise RequestError(400, f'{name} must be a number')
    return _float(name, value)
  if text is None:
    return default
  if len(text) > 64 or not _NUMBER.fullmatch(text.strip()):
    raise RequestError(400, f'{name} must be a number')
  return _float(name, text)


def _float(name: str, value: float | str) -> float:
  try:
    return float(value)
  except OverflowError:
    raise RequestError(400, f'{name} must be a number') from None


def check_fields(fields: Mapping[str, Any], allowed: frozenset[str]) -> None:
  """Raises a RequestError, 400, for a field of a request that is not allowed."""
  for name in fields:
    if name not in allowed:
      shown = ''.join(c for c in name[:64] if c.isalnum() or c in '_-.')
      raise RequestError(400, f'the field {shown} is not allowed')


def check_rows(rows: int, most: int) -> None:
  """Raises a RequestError, 400, for a request of too many answers."""
  if not 1 <= rows <= most:
    raise RequestError(400, f'a request must be for 1 to {most} answers')
