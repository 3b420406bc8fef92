"""A server that runs the chosen model and measures its latency."""

import time
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from psml_jax import defenses
from psml_jax.core import Observation, Query, Router, Transcript
from psml_jax.defenses.reply import ReplyTransform, untouched
from psml_jax.defenses.transform import MemoryRouter, SpecTransform
from psml_jax.servers.base import Front, State, check_models, numbers

Model = Callable[[jax.Array], jax.Array]


class Live:
  """See `live`."""

  def __init__(self, front: Front, models: Sequence[Model], num_classes: int) -> None:
    self._front = front
    self._models = models
    self._num_classes = num_classes

  @property
  def num_models(self) -> int:
    return len(self._models)

  def init(self, key: jax.Array) -> State:
    return self._front.init(key)

  def serve(self, state: State, query: Query) -> tuple[State, Observation, Transcript]:
    self._front.check_clients(query)
    keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(
      state.key, numbers(state, query)
    )
    memory, observations, models = state.memory, [], []
    for i in range(len(query.sent)):
      one = jax.tree.map(lambda field, i=i: field[i], query)
      front_key, reply_key = jax.random.split(keys[i])
      model, outputs, latency_ms = -1, np.zeros(self._num_classes, np.float32), 0.0
      if one.sent:
        routed, memory = self._front.route(front_key, one, memory)
        check_models(routed, self.num_models)
        model = int(routed)
      if model >= 0:
        start = time.perf_counter()
        outputs = np.asarray(self._models[model](one.inputs[None]))[0]
        latency_ms = (time.perf_counter() - start) * 1e3
      observation = Observation(
        jnp.asarray(model >= 0), jnp.asarray(outputs), jnp.float32(latency_ms)
      )
      if one.sent:
        observation, reply_memory = self._front.reply.apply(
          reply_key, one, observation, memory[2]
        )
        memory = (*memory[:2], reply_memory)
      observations.append(observation)
      models.append(model)
    observation = jax.tree.map(lambda *each: jnp.stack(each), *observations)
    log = state.log.charge(query.sent, observation.served)
    transcript = Transcript(jnp.asarray(models, jnp.int32), query.sent)
    return State(state.key, log, memory), observation, transcript


def live(
  router: Router | MemoryRouter,
  models: Sequence[Model],
  num_classes: int,
  *,
  defense: SpecTransform | None = None,
  reply: ReplyTransform | None = None,
) -> Live:
  """A server that runs the chosen model and measures its latency.

  Args:
    router: the router, with memory or without.
    models: one callable a model of the zoo, `f32[1, H, W, C] -> f32[1, K]` images
      to class probabilities; compile them and call them once before.
    num_classes: K.
    defense: in front of the router; none unless given.
    reply: what is done to answers; nothing unless given.

  Returns:
    The server, for queries whose inputs are images. It measures wall-clock time, so it
    is not pure and cannot be traced: `session.run_live` talks to it.

  Raises:
    ValueError: no models; from `serve`, a route to a model that is not there, or a
      client that the memory of a server with one has no place for.
  """
  if not models:
    raise ValueError('models is empty; a server needs at least one model')
  front = Front.of(router, defense or defenses.identity(), reply or untouched())
  return Live(front, models, num_classes)
