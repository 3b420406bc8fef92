"""What a middleware lets pass, and its bounds."""

import dataclasses
import re
from collections.abc import Mapping

from psml_jax import _validate

_HEADER = re.compile(r'[!-~]([ -~]*[!-~])?')


@dataclasses.dataclass(frozen=True)
class Rules:
  """What passes a middleware; whatever is not named here or known to tell nothing, not.

  Attributes:
    most_requests: under way at once; more get 429.
    most_body: bytes of a request.
    body_seconds: that a request may take to arrive.
    most_answer: bytes of an answer in one piece.
    most_event: bytes of an event of a stream.
    most_rows: answers that a request may be for (`n` times its texts; the first number
      of a tensor's shape). One model gives them all and one query is billed, so more
      than one lets a client have more of a model than a defense counts.
    deadline_seconds: from the end of a request's body to its answer, or to the first
      piece.
    stream_seconds: from there to a stream's end.
    streams: whether the model's own pieces go to those who ask for a stream. Their
      number, length and time tell of the model, and cannot be padded. Without, a
      stream has one piece, which is made of a whole answer.
    pad: whether an answer in one piece, or a 504, goes out when the request's
      `max_latency_ms` is over, counted from there, neither before nor after:
      what is not there by then is a 504. A spec without a limit, or one beyond the
      slowest model's latency, waits as long as that model takes. A 504 tells that
      the model drawn was slower than the limit: `slack_ms` above what models vary by
      hides it of those that meet the spec; of one that does not, as defenses draw
      too, it is told to who gets no answer, and pays. Without streams.
    slack_ms: that padding adds, for models that sometimes take longer than their
      profile says.
    disclose: whether the header `x-model` of an answer names the model, as the host
      calls it.
    request_fields: fields of a request, or parameters of the Open Inference Protocol,
      that go on besides those known to steer nothing.
    response_fields: fields of an answer of OpenAI's protocol that the client sees
      besides those known to tell nothing, such as 'usage'.
    request_headers: that go on; the client's API key does not unless named.
    response_headers: that the client sees.
    added_headers: of what goes on, such as the API key of what is behind.
  """

  most_requests: int = 64
  most_body: int = 2**20
  body_seconds: float = 10.0
  most_answer: int = 2**24
  most_event: int = 2**20
  most_rows: int = 1
  deadline_seconds: float = 60.0
  stream_seconds: float = 600.0
  streams: bool = False
  pad: bool = False
  slack_ms: float = 0.0
  disclose: bool = False
  request_fields: tuple[str, ...] = ()
  response_fields: tuple[str, ...] = ()
  request_headers: tuple[str, ...] = ()
  response_headers: tuple[str, ...] = ()
  added_headers: Mapping[str, str] = dataclasses.field(default_factory=dict, repr=False)

  def until(self, max_latency_ms: float, slowest_ms: float) -> float:
    """Seconds from a request's end to its answer, where answers are padded.

    >>> Rules(slack_ms=5.0).until(float('inf'), 20.0)
    0.025
    """
    return (min(max(max_latency_ms, 0.0), slowest_ms) + self.slack_ms) / 1e3


def check(path: str, rules: Rules) -> None:
  """Raises a ValueError for a rule that is not allowed.

  Args:
    path: of the rules in a config.
    rules: the rules.
  """
  for name in ('most_requests', 'most_body', 'most_answer', 'most_event', 'most_rows'):
    _validate.positive_int(f'{path}.{name}', getattr(rules, name))
  for name in ('body_seconds', 'deadline_seconds', 'stream_seconds'):
    _validate.positive(f'{path}.{name}', getattr(rules, name))
  _validate.non_negative_number(f'{path}.slack_ms', rules.slack_ms)
  if rules.pad and rules.streams:
    raise ValueError(
      f'{path}.streams is True; with {path}.pad it must be False, for the time of a '
      'piece cannot be padded'
    )
  for name in ('request_headers', 'response_headers'):
    for each in getattr(rules, name):
      if each != each.lower() or not each.isascii():
        raise ValueError(f'{path}.{name} has {each!r}; it must be in lower case')
  for name, value in rules.added_headers.items():
    if not isinstance(value, str) or not _HEADER.fullmatch(value):
      raise ValueError(
        f"{path}.added_headers has a value of {name!r} that is no header's; it must be "
        'printable and without spaces at its ends'
      )
