"""The interface of an attack, and attacks of several phases."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from psml_jax import _registry, struct
from psml_jax.core import Knowledge, Observation, Query


class Attack(Protocol):
  """A pure program that decides on queries.

  `psml_jax.session` carries them to a server. Implement it as a
  `psml_jax.struct.dataclass`: numbers as leaves, sizes as static fields.
  """

  def init(self, key: jax.Array, knowledge: Knowledge) -> Any:
    """The state before the first query.

    Args:
      key: of the attack; each of its phases gets the same one, and what they have in
        common (the order of the pool, see `choose_inputs`) follows from it.
      knowledge: what the attacker knows beforehand.
    """

  def ask(self, state: Any) -> Query:
    """The next batch of queries, of one size throughout; none sent ends the attack."""

  def tell(self, state: Any, query: Query, observation: Observation) -> Any:
    """The state after the answer.

    Args:
      state: the one that asked.
      query: the batch as it was sent: where the budget ended, less of it.
      observation: what came back.
    """

  def harvest(self, state: Any) -> Any:
    """What the attack has found, at any time."""


@struct.dataclass(eq=False)
class Phases:
  """Attacks one after the other; the harvest is that of the last one.

  Each knows, beside the attacker's knowledge, what the one before it has harvested:
  `Knowledge.found`.

  Attributes:
    attacks: at least one.
  """

  attacks: tuple[Attack, ...]


class Resources(NamedTuple):
  """What an experiment gives to every attack that it makes.

  Attributes:
    num_queries: the most queries that it may send.
    accuracy_resolution: where a fingerprint ends, a fraction.
    latency_resolution: likewise, a share of the latency budget.
    pool: f32[P, H, W, C], the attacker's images, for those that look at them.
    training: of its surrogate, a `train.Training`, for those that train on the way.
  """

  num_queries: int
  accuracy_resolution: float
  latency_resolution: float
  pool: Any = None
  training: Any = None


@dataclasses.dataclass(frozen=True)
class Entry:
  """An entry of `ATTACKS`.

  Attributes:
    make: `(resources, **fields) -> attack`; fields are those of the config.
    knows: what it knows beforehand, in words that stand beside its results.
    role: 'attack'; or 'baseline', which attacks should beat; 'reference', a client who
      may name the model that serves it; 'informed', who is told the best spec there is
      under the defense (`Knowledge.spec`), and runs against defenses alone.
    anytime: whether it does the same however many `probes` it is made for, so that one
      program with a smaller budget serves for fewer.
  """

  make: Callable[..., Attack | Phases]
  knows: str = 'its latency budget'
  role: str = 'attack'
  anytime: bool = False

  def __post_init__(self) -> None:
    if self.role not in ROLES:
      raise ValueError(f'role is {self.role!r}; it must be one of {", ".join(ROLES)}')


ROLES = ('reference', 'attack', 'informed', 'baseline')
ATTACKS = _registry.Registry[Entry]('attack', Entry)
"""Attacks by the names that configs give them."""


def make(name: str, resources: Resources, **fields: Any) -> Attack | Phases:
  """The attack of a name.

  Args:
    name: one of `ATTACKS`.
    resources: what the experiment gives it.
    **fields: the attack's own.

  Raises:
    ValueError: an unknown name or field.
  """
  entry = ATTACKS.find(name)
  _registry.check_fields(f'attack {name!r}', entry.make, 1, fields)
  return entry.make(resources, **fields)


def configured(
  listed: Mapping[str, Mapping[str, Any]], name: str
) -> tuple[str, dict[str, Any]]:
  """An attack of a config: its name in the registry, and its own fields.

  Args:
    listed: fields by the names that the config gives; where one is not the registry's,
      the field `name` is.
    name: one of them.

  Raises:
    ValueError: no such attack in the registry, or a field that it does not take.

  >>> configured({'asking': {'name': 'naive', 'min_accuracy': 0.6}}, 'asking')
  ('naive', {'min_accuracy': 0.6})
  """
  fields = dict(listed[name])
  registered = fields.pop('name', name)
  entry = ATTACKS.find(registered)
  _registry.check_fields(f'attack {registered!r}', entry.make, 1, fields)
  return registered, fields


@struct.dataclass(eq=False)
class Trail:
  """The first queries of an attack, in their order; f32[size] or bool[size] each.

  Attributes:
    min_accuracy: what was asked for, a fraction.
    max_latency_ms: likewise, in milliseconds.
    served: what came back.
    count: i32[], how many queries there were; those beyond `size` are not kept.
  """

  min_accuracy: jax.Array
  max_latency_ms: jax.Array
  served: jax.Array
  count: jax.Array


@struct.dataclass(eq=False)
class Recorded:
  """An attack that keeps its first queries; it harvests `(harvest, Trail)`.

  Attributes:
    attack: the attack.
    size: how many queries are kept (static).
  """

  attack: Any
  size: int = struct.field(pytree_node=False)

  def init(self, key: jax.Array, knowledge: Knowledge) -> tuple[Any, Trail]:
    empty = jnp.zeros(self.size, jnp.float32)
    trail = Trail(empty, empty, jnp.zeros(self.size, bool), jnp.int32(0))
    return self.attack.init(key, knowledge), trail

  def ask(self, state: tuple[Any, Trail]) -> Query:
    query: Query = self.attack.ask(state[0])
    return query

  def tell(
    self, state: tuple[Any, Trail], query: Query, observation: Observation
  ) -> tuple[Any, Trail]:
    inner, trail = state
    sent = query.sent.astype(jnp.int32)
    place = trail.count + jnp.cumsum(sent) - sent
    place = jnp.where(query.sent, place, self.size)

    def put(column: jax.Array, values: jax.Array) -> jax.Array:
      return column.at[place].set(values, mode='drop')

    trail = dataclasses.replace(
      trail,
      min_accuracy=put(trail.min_accuracy, query.spec.min_accuracy),
      max_latency_ms=put(trail.max_latency_ms, query.spec.max_latency_ms),
      served=put(trail.served, observation.served),
      count=trail.count + jnp.sum(sent, dtype=jnp.int32),
    )
    return self.attack.tell(inner, query, observation), trail

  def harvest(self, state: tuple[Any, Trail]) -> tuple[Any, Trail]:
    return self.attack.harvest(state[0]), state[1]
