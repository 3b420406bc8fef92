"""Rates by asking a server: for any server at all, with the noise of sampling."""

import jax
import jax.numpy as jnp
import numpy as np

from psml_jax import _validate
from psml_jax.core import Query, Spec, ZooProfile
from psml_jax.servers.base import Server

_STEPS = 2.0 ** np.linspace(-9, 0, 14)
_STEPS = np.concatenate([-_STEPS[:12:2], [0.0], _STEPS])
_SAMPLES, _FINALISTS = 512, 21


@jax.jit
def rates(key: jax.Array, server: Server, spec: Spec, victim: jax.Array) -> jax.Array:
  """The share of queries with each spec that a victim answers, refusals included.

  Args:
    key: consumed; each spec meets a server of its own, from its first query to its
      512th.
    server: the server; its image 0 is asked for.
    spec: S specs.
    victim: i32[], index into the zoo.

  Returns:
    f32[S].
  """

  def rate(secret: jax.Array, one: Spec) -> jax.Array:
    query = Query.of(jnp.zeros(_SAMPLES, jnp.int32), one, client=0)
    _, _, transcript = server.serve(server.init(secret), query)
    return jnp.mean(transcript.model == victim, dtype=jnp.float32)

  return jax.vmap(rate)(jax.random.split(key, len(spec.min_accuracy)), spec)


def best_spec(key: jax.Array, profile: ZooProfile, server: Server, victim: int) -> Spec:
  """The spec with which a client gets most answers of one model from a defended server.

  That is seldom the model's corner: behind noise it pays to ask for a little less.
  Looks at steps of both signs from the corner, geometric up to the zoo's range, and
  measures the best ones again.

  Args:
    key: consumed.
    profile: the zoo; concrete values.
    server: of the zoo, defended; a pytree whose `serve` is pure.
    victim: index into the zoo.

  Returns:
    A spec of shape [].

  >>> from psml_jax import ZooProfile, routers, servers
  >>> zoo = ZooProfile([0.7, 0.9], [1.0, 5.0], ('small', 'large'))
  >>> server = servers.table(routers.uniform(zoo), zoo.latency_ms, jnp.ones((2, 1, 1)))
  >>> spec = best_spec(jax.random.key(0), zoo, server, 1)
  >>> zoo.meets(spec).tolist()
  [False, True]
  """
  _validate.key('key', key)
  key, final_key = jax.random.split(key)
  down, slack = (grid.ravel() for grid in np.meshgrid(_STEPS, _STEPS))
  accuracy, latency = (
    np.asarray(field, np.float64) for field in (profile.accuracy, profile.latency_ms)
  )
  spec = Spec.of(
    accuracy[victim] - down * np.ptp(accuracy),
    latency[victim] + slack * np.ptp(latency),
  )
  model = jnp.int32(victim)
  best = jnp.argsort(-rates(key, server, spec, model), stable=True)[:_FINALISTS]
  spec = jax.tree.map(lambda field: jnp.tile(field[best], _FINALISTS), spec)
  again = rates(final_key, server, spec, model).reshape(_FINALISTS, _FINALISTS)
  chosen = jnp.argmax(jnp.mean(again, axis=0))
  return jax.tree.map(lambda field: field[chosen], spec)
