"""The servers of an experiment: its zoo behind a defense that the config names."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from psml_jax import defenses, routers, servers
from psml_jax.core import Query, Route, Router, Spec, ZooProfile
from psml_jax.experiments.config import Config
from psml_jax.experiments.plan import NONE


def serve(
  config: Config,
  profile: ZooProfile,
  defense: str,
  value: ArrayLike,
  outputs: jax.Array | None = None,
  samples_ms: jax.Array | None = None,
) -> servers.Table:
  """The zoo behind a defense.

  Args:
    config: of the experiment: its policy, and the mechanism's fields.
    profile: the zoo, M models; concrete values.
    defense: 'none' or one of the config's mechanisms.
    value: of its knob, f32[]; may be traced.
    outputs: f32[M, N, K], the models' answers; unless given, one image and one class.
    samples_ms: f32[M, S], what a client measures; the profile's latency unless given.

  Returns:
    A pure server.
  """
  deployed = defenses.Deployment()
  if defense != NONE:
    fields = config.defense.fields(defense)
    deployed = defenses.deploy(defense, profile, value, **fields)
  if outputs is None:
    outputs = jnp.ones((len(profile), 1, 1), jnp.float32)
  return servers.table(
    deployed.router or routers.POLICIES[config.policy](profile),
    profile.latency_ms if samples_ms is None else samples_ms,
    outputs,
    defense=deployed.defense,
    reply=deployed.reply,
  )


def as_router(server: servers.Table) -> Router:
  """A server as its honest clients see it, each query another's.

  Args:
    server: from `serve`.

  Returns:
    `(key, spec) -> Route` of f32[Q] specs, of which only `model` is meant. Where the
    server keeps no state its draws are those of a batch, which are faster. A memory of
    fewer than Q clients has them take turns.
  """
  front = server.front
  if not front.keeps_state:
    return defenses.defend(front.router, front.defense)

  def route(key: jax.Array, spec: Spec) -> Route:
    queries = jnp.arange(len(spec.min_accuracy), dtype=jnp.int32)
    clients = queries % min(front.clients, max(len(queries), 1))
    query = Query.of(jnp.zeros_like(queries), spec, client=clients)
    _, _, transcript = server.serve(server.init(key), query)
    return Route(transcript.model, jnp.full_like(clients, -1))

  return route
