"""A server over a table of every model's answer to every image."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from psml_jax import _validate, defenses, struct
from psml_jax.core import Observation, Query, Router, Transcript
from psml_jax.defenses.reply import ReplyTransform, untouched
from psml_jax.defenses.transform import MemoryRouter, SpecTransform
from psml_jax.servers.base import Front, State, check_models, kept, numbers


@struct.dataclass(eq=False)
class Table:
  """See `table`.

  Attributes:
    front: the router and the defenses.
    latency_ms: f32[M, S], samples.
    outputs: f32[M, N, K].
  """

  front: Front
  latency_ms: jax.Array
  outputs: jax.Array

  @property
  def num_models(self) -> int:
    return len(self.latency_ms)

  def init(self, key: jax.Array) -> State:
    return self.front.init(key)

  def serve(self, state: State, query: Query) -> tuple[State, Observation, Transcript]:
    known = (query.inputs >= 0) & (query.inputs < self.outputs.shape[1])
    if _validate.is_concrete(known, query.sent):
      _validate.reject(
        'inputs',
        np.asarray(query.inputs),
        np.asarray(query.sent & ~known),
        f'image indices in [0, {self.outputs.shape[1] - 1}]',
      )
    self.front.check_clients(query)
    state, observation, transcript = _serve(self, state, query)
    check_models(transcript.model, self.num_models)
    model = jnp.where(transcript.model < self.num_models, transcript.model, -1)
    return state, observation, Transcript(model, transcript.sent)

  def _one(
    self, key: jax.Array, query: Query, memory: tuple[Any, Any, Any]
  ) -> tuple[tuple[Any, Any, Any], Observation, jax.Array]:
    """Answers one query of shape []."""
    front_key, reply_key, latency_key = jax.random.split(key, 3)
    model, routed = self.front.route(front_key, query, memory)
    num_models, num_images, _ = self.outputs.shape
    known = (query.inputs >= 0) & (query.inputs < num_images)
    allowed = query.sent & self.front.known(query)
    model = jnp.where(allowed & known, model, -1)
    served = (model >= 0) & (model < num_models)
    answering = jnp.where(served, model, 0)
    drawn = jax.random.randint(latency_key, (), 0, self.latency_ms.shape[1])
    observation = Observation(
      served=served,
      outputs=jnp.where(served, self.outputs[answering, query.inputs], 0),
      latency_ms=jnp.where(served, self.latency_ms[answering, drawn], 0),
    )
    observation, reply_memory = self.front.reply.apply(
      reply_key, query, observation, routed[2]
    )
    if self.front.learns:
      memory = kept(allowed, (*routed[:2], reply_memory), memory)
    return memory, observation, model


def table(
  router: Router | MemoryRouter,
  latency_ms: ArrayLike,
  outputs: ArrayLike,
  *,
  defense: SpecTransform | None = None,
  reply: ReplyTransform | None = None,
) -> Table:
  """A server over a table of every model's answer to every image.

  Pure, so that whole populations of attacks run under jit and vmap; servers whose
  arrays have equal shapes share their compiled program.

  Args:
    router: the router, with memory or without.
    latency_ms: f32[M], what a client measures when model m answers; or f32[M, S],
      samples of it, one of which is drawn for each answer.
    outputs: f32[M, N, K], class probabilities of model m for image n.
    defense: in front of the router; none unless given.
    reply: what is done to answers; nothing unless given.

  Returns:
    The server, for queries whose inputs are image indices. Traced, a query with an
    index past the images, routed to a model past the table, or, where the server has
    memory, of a client that it has no place for, is refused; it is billed as all are,
    and that client's changes no memory.

  Raises:
    ValueError: arrays that do not fit each other; from `serve`, a concrete index
      past the images, a route to a model past the table, or, where the server has
      memory, a client below 0, who names no identity, or past the memory.

  >>> from psml_jax import Spec, ZooProfile, routers
  >>> zoo = ZooProfile([0.7, 0.9], [1.0, 5.0], ('small', 'large'))
  >>> server = table(routers.uniform(zoo), zoo.latency_ms, jnp.full((2, 8, 10), 0.1))
  >>> state = server.init(jax.random.key(0))
  >>> query = Query.of(jnp.arange(2), Spec.of([0.8, 0.95], 9.0))
  >>> state, observation, transcript = server.serve(state, query)
  >>> transcript.model.tolist(), int(state.log.queries)
  ([1, -1], 2)
  """
  latency_ms, outputs = jnp.asarray(latency_ms), jnp.asarray(outputs)
  samples = latency_ms[:, None] if latency_ms.ndim == 1 else latency_ms
  if samples.ndim != 2 or outputs.ndim != 3 or len(samples) != len(outputs):
    raise ValueError(
      f'latency_ms has shape {latency_ms.shape} and outputs {outputs.shape}; they must '
      'be [M] or [M, S], and [M, N, K]'
    )
  if not samples.shape[1]:
    raise ValueError('latency_ms holds no samples; give at least one a model')
  front = Front.of(router, defense or defenses.identity(), reply or untouched())
  return Table(front, samples, outputs)


@jax.jit
def _serve(
  server: Table, state: State, query: Query
) -> tuple[State, Observation, Transcript]:
  """As `Table.serve`, with routes past the table still in the transcript."""
  fold_in = jax.vmap(jax.random.fold_in, in_axes=(None, 0))
  keys = fold_in(state.key, numbers(state, query))
  if server.front.learns:

    def step(memory: Any, each: tuple[jax.Array, Query]) -> tuple[Any, Any]:
      memory, observation, model = server._one(each[0], each[1], memory)
      return memory, (observation, model)

    memory, (observation, model) = jax.lax.scan(step, state.memory, (keys, query))
  else:
    memory = state.memory
    _, observation, model = jax.vmap(server._one, in_axes=(0, 0, None))(
      keys, query, memory
    )
  log = state.log.charge(query.sent, observation.served)
  return State(state.key, log, memory), observation, Transcript(model, query.sent)
