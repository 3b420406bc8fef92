"""Server-sent events, as they come in pieces and as they go out."""

import re

DONE = b'[DONE]'
_END = re.compile(rb'\r\n|\n|\r')


class Events:
  r"""Reads the data of events from pieces of a stream; comments and the rest are left.

  Args:
    most: bytes that an event may have.

  >>> events = Events()
  >>> events.feed(b'data: {"a":'), events.feed(b' 1}\r\n\r'), events.feed(b'\n:hm\n\n')
  ([], [], [b'{"a": 1}'])
  """

  def __init__(self, most: int = 2**20) -> None:
    self._most = most
    self._rest = b''
    self._data: list[bytes] = []

  def feed(self, piece: bytes) -> list[bytes]:
    """The data of the events that a piece ends.

    Raises:
      ValueError: an event that is too long.
    """
    text = self._rest + piece
    # A line may end in \r\n, whose second half is yet to come.
    whole = len(text) - text.endswith(b'\r')
    *lines, rest = _END.split(text[:whole])
    self._rest = rest + text[whole:]
    found = self._events(lines)
    if len(self._rest) + sum(map(len, self._data)) > self._most:
      raise ValueError(f'an event has more than {self._most} bytes')
    return found

  def end(self) -> list[bytes]:
    """What the end of the stream ends; some servers leave out the last empty line."""
    lines, self._rest = _END.split(self._rest), b''
    return self._events([*lines, b''])

  def _events(self, lines: list[bytes]) -> list[bytes]:
    found = []
    for line in lines:
      if line:
        field, _, value = line.partition(b':')
        if field == b'data':
          self._data.append(value.removeprefix(b' '))
      elif self._data:
        found.append(b'\n'.join(self._data))
        self._data = []
    return found


def event(data: bytes) -> bytes:
  r"""An event of data without line ends.

  >>> event(b'{}')
  b'data: {}\n\n'
  """
  return b'data: ' + data + b'\n\n'
