"""What outlives the processes of a server, and hands them what they start with.

It holds bytes and imports nothing that could read them, so it is there at once.
"""

from collections.abc import Mapping


class Keeper:
  """Bytes by name.

  Args:
    held: what it hands out.

  >>> Keeper({'front': b'...'}).get('front')
  b'...'
  """

  def __init__(self, held: Mapping[str, bytes]) -> None:
    self._held = held

  def get(self, name: str) -> bytes:
    """What it holds by a name."""
    return self._held[name]
