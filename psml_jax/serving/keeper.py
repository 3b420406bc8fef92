"""The keeper: a named actor that hands processes of a server what they start with.

It outlives all of them, and has the defense and the models as bytes: it imports nothing
that could read them, so it is there at once.
"""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from psml_jax.serving._extra import needs

with needs('serve'):
  import ray

NAMESPACE = 'psml_jax'


class Keeper:
  """Bytes by name.

  Args:
    stored: a pickled reference to them.
  """

  def __init__(self, stored: bytes) -> None:
    self._held: Mapping[str, bytes] = ray.get(ray.cloudpickle.loads(stored))

  def get(self, name: str) -> bytes:
    """What it holds by a name."""
    return self._held[name]


@contextlib.contextmanager
def keeping(name: str, held: Mapping[str, Any]) -> Iterator[None]:
  """A keeper from its start to its end; one that dies in between starts again.

  Args:
    name: its own.
    held: what `kept` finds by name.
  """
  options = {
    'name': name,
    'namespace': NAMESPACE,
    'lifetime': 'detached',
    'max_restarts': -1,
    'num_cpus': 0,
  }
  # A keeper that starts again finds this, for it is held here as long as the keeper is.
  stored = ray.put({key: ray.cloudpickle.dumps(each) for key, each in held.items()})
  made: Any = ray.remote(Keeper).options(**options)
  keeper = made.remote(ray.cloudpickle.dumps(stored))
  try:
    yield
  finally:
    ray.kill(keeper)


def kept(keeper: str, name: str) -> Any:
  """What a keeper holds by a name."""
  found: Any = ray.get(ray.get_actor(keeper, namespace=NAMESPACE).get.remote(name))
  return ray.cloudpickle.loads(found)
