"""The keeper: a named actor that hands processes of a server what they start with.

It outlives all of them, and has the defense and the models as bytes: it imports nothing
that could read them, so it is there at once.
"""

from collections.abc import Mapping
from typing import Any

import ray

NAMESPACE = 'psml_jax'


class Keeper:
  """Bytes by name.

  Args:
    held: what it hands out.
  """

  def __init__(self, held: Mapping[str, bytes]) -> None:
    self._held = held

  def get(self, name: str) -> bytes:
    """What it holds by a name."""
    return self._held[name]


def start(name: str, held: Mapping[str, Any]) -> Any:
  """Starts a keeper.

  Args:
    name: its own.
    held: what `kept` finds by name.

  Returns:
    The actor.
  """
  options = {
    'name': name,
    'namespace': NAMESPACE,
    'lifetime': 'detached',
    'max_restarts': -1,
    'num_cpus': 0,
  }
  pickled = {name: ray.cloudpickle.dumps(value) for name, value in held.items()}
  return ray.remote(Keeper).options(**options).remote(pickled)


def kept(keeper: str, name: str) -> Any:
  """What a keeper holds by a name."""
  found: Any = ray.get(ray.get_actor(keeper, namespace=NAMESPACE).get.remote(name))
  return ray.cloudpickle.loads(found)
