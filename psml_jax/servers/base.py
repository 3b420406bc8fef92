"""What every server is, and how it looks from outside."""

import dataclasses
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from psml_jax import _validate, routers
from psml_jax.core import Bill, Observation, Query, Router, Transcript
from psml_jax.defenses.reply import ReplyTransform
from psml_jax.defenses.transform import SpecTransform, keeps_state, within


@struct.dataclass(eq=False)
class State:
  """A server's state.

  Attributes:
    key: its secret; query number i of its life draws with `fold_in(key, i)`.
    log: what it has counted.
    memory: the states of its defenses, of specs and of replies.
  """

  key: jax.Array
  log: Bill
  memory: tuple[Any, Any]


class Server(Protocol):
  """The operator's side."""

  @property
  def num_models(self) -> int:
    """Models in its zoo."""

  def init(self, key: jax.Array) -> State:
    """The state before the first query; the key is consumed and becomes the secret."""

  def serve(self, state: State, query: Query) -> tuple[State, Observation, Transcript]:
    """Answers a batch of queries, one after the other.

    Args:
      state: as `init` or the last `serve` left it.
      query: B queries; those that were not sent change nothing.

    Returns:
      The new state, what the client gets back, and the truth for the operator.
    """


class Client:
  """A server as a client sees it: queries go out, observations come back.

  Args:
    server: the operator's side.
    key: consumed: the server's secret, for the state that is kept here.

  >>> from psml_jax import Spec, ZooProfile, routers, servers
  >>> zoo = ZooProfile([0.7, 0.9], [1.0, 5.0], ('small', 'large'))
  >>> outputs = jnp.full((2, 100, 10), 0.1)  # models, images, class probabilities
  >>> server = servers.table(routers.uniform(zoo), zoo.latency_ms, outputs)
  >>> ask = Client(server, jax.random.key(0))
  >>> ask(Query.of([4, 5], Spec.of([0.8, 0.95], 9.0))).served.tolist()
  [True, False]
  >>> int(ask.log.queries)
  2
  """

  def __init__(self, server: Server, key: jax.Array) -> None:
    self._server = server
    self._state = server.init(key)

  def __call__(self, query: Query) -> Observation:
    self._state, observation, _ = self._server.serve(self._state, query)
    return observation

  @property
  def log(self) -> Bill:
    """What the server has counted."""
    return self._state.log


@struct.dataclass(eq=False)
class Front:
  """What stands between the wire and the models: the defenses and the router.

  Attributes:
    router: the router.
    defense: of the query, in front of the router.
    reply: of the answer, behind the model.
  """

  router: Any
  defense: Any
  reply: Any

  @classmethod
  def of(cls, router: Router, defense: SpecTransform, reply: ReplyTransform) -> 'Front':
    return cls(routers.as_pytree(router), defense, reply)

  @property
  def keeps_state(self) -> bool:
    return keeps_state(self.defense) or keeps_state(self.reply)

  def init(self, key: jax.Array) -> State:
    """The state before the first query."""
    _validate.key('key', key)
    secret, defense_key, reply_key = jax.random.split(key, 3)
    memory = (self.defense.init(defense_key), self.reply.init(reply_key))
    return State(secret, Bill.zero(), memory)

  def route(self, key: jax.Array, query: Query, memory: Any) -> tuple[jax.Array, Any]:
    """The model that answers one query, i32[], and the defense's memory after it."""
    defense_key, route_key = jax.random.split(key)
    spec = within(self.router, query.spec)
    query, memory = self.defense.apply(
      defense_key, dataclasses.replace(query, spec=spec), memory
    )
    return self.router(route_key, query.spec).model, memory


def numbers(state: State, query: Query) -> jax.Array:
  """i32[B]: which query of the server's life each one is; of one not sent, the next."""
  sent = query.sent.astype(jnp.int32)
  return state.log.queries + jnp.cumsum(sent) - sent


def kept(sent: jax.Array, new: Any, old: Any) -> Any:
  """The new memory where the query was sent, the old one otherwise."""
  return jax.tree.map(lambda a, b: jnp.where(sent, a, b), new, old)


def check_models(model: jax.Array, num_models: int) -> None:
  """Raises a ValueError for a concrete route to a model that the server lacks."""
  if _validate.is_concrete(model):
    _validate.reject(
      'the route',
      np.asarray(model),
      np.asarray(model) >= num_models,
      f"a model below the server's {num_models}; router and server are of other zoos",
    )
