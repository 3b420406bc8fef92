"""What every server is, and how it looks from outside."""

import dataclasses
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from psml_jax import _validate, routers, struct
from psml_jax.core import Bill, Observation, Query, Router, Transcript
from psml_jax.defenses.reply import ReplyTransform
from psml_jax.defenses.transform import (
  MemoryRouter,
  SpecTransform,
  keeps_state,
  learns,
  num_clients,
  within,
)


@struct.dataclass(eq=False)
class State:
  """A server's state.

  Attributes:
    key: its secret; query number i of its life draws with `fold_in(key, i)`.
    log: what it has counted.
    memory: the states of its defense, of its router and of its reply.
  """

  key: jax.Array
  log: Bill
  memory: tuple[Any, Any, Any]


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
  def of(
    cls, router: Router | MemoryRouter, defense: SpecTransform, reply: ReplyTransform
  ) -> 'Front':
    for name, part in (('defense', defense), ('reply', reply)):
      struct.check(name, part)
    return cls(routers.as_pytree(router), defense, reply)

  @property
  def keeps_state(self) -> bool:
    return any(map(keeps_state, self._parts))

  @property
  def learns(self) -> bool:
    """Whether an answer depends on the queries before it."""
    return any(map(learns, self._parts))

  @property
  def clients(self) -> int:
    """How many clients its memory tells apart."""
    return num_clients(*self._parts)

  @property
  def _parts(self) -> tuple[Any, Any, Any]:
    return self.defense, self.router, self.reply

  def init(self, key: jax.Array) -> State:
    """The state before the first query."""
    _validate.key('key', key)
    secret, defense_key, reply_key, router_key = jax.random.split(key, 4)
    memory = (
      self.defense.init(defense_key),
      self.router.init(router_key) if keeps_state(self.router) else (),
      self.reply.init(reply_key),
    )
    return State(secret, Bill.zero(), memory)

  def known(self, query: Query) -> jax.Array:
    """bool[...], whose identity the memory has a place for; all where there is none."""
    if not self.keeps_state:
      return jnp.ones_like(query.sent)
    return (query.client >= 0) & (query.client <= self.clients - 1)

  def check_clients(self, query: Query) -> None:
    """Raises a ValueError for a concrete query whose client the memory cannot know."""
    unknown = query.sent & ~self.known(query)
    if _validate.is_concrete(unknown):
      _validate.reject(
        'client',
        np.asarray(query.client),
        np.asarray(unknown),
        f'an id in [0, {self.clients - 1}], for this server remembers its clients',
      )

  def route(
    self, key: jax.Array, query: Query, memory: tuple[Any, Any, Any]
  ) -> tuple[jax.Array, tuple[Any, Any, Any]]:
    """The model that answers one query, i32[], and the memory after it."""
    defense_key, route_key = jax.random.split(key)
    spec = within(self.router, query.spec)
    of_defense, of_router, of_reply = memory
    query, of_defense = self.defense.apply(
      defense_key, dataclasses.replace(query, spec=spec), of_defense
    )
    if keeps_state(self.router):
      model, of_router = self.router.route(route_key, query, of_router)
    else:
      model = self.router(route_key, query.spec).model
    return model, (of_defense, of_router, of_reply)


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
