"""Bisection against a server that answers by chance: each step is put to a vote."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from psml_jax import _validate, struct
from psml_jax.attacks.base import ATTACKS, Entry, Phases, Resources
from psml_jax.attacks.extraction import replay
from psml_jax.attacks.fingerprint import Bisection, Corner, bisection
from psml_jax.attacks.refusals import narrow, still_open
from psml_jax.core import Knowledge, Observation, Query

__all__ = ['majority']


@struct.dataclass(eq=False)
class Majority:
  """See `majority`.

  Attributes:
    bisection: what decides on the specs.
    votes: how often each of them is asked for (static).
  """

  bisection: Bisection
  votes: int = struct.field(pytree_node=False)

  def init(self, key: jax.Array, knowledge: Knowledge) -> Any:
    return self.bisection.init(key, knowledge)

  def ask(self, state: Any) -> Query:
    one = self.bisection.ask(state)
    query: Query = jax.tree.map(lambda x: jnp.repeat(x, self.votes, axis=0), one)
    return query

  def tell(self, state: Any, query: Query, observation: Observation) -> Any:
    old = state.brackets
    accuracy_open, _ = still_open(
      old, self.bisection.accuracy_resolution, state.latency_resolution_ms
    )
    votes = jnp.sum(query.sent, dtype=jnp.int32)
    served = 2 * jnp.sum(observation.served & query.sent) > votes
    new = narrow(old, accuracy_open, served)
    new = dataclasses.replace(new, probes=old.probes + votes)
    return dataclasses.replace(state, brackets=new)

  def harvest(self, state: Any) -> Corner:
    return self.bisection.harvest(state)


def majority(
  *, votes: int, accuracy_resolution: ArrayLike, latency_resolution: ArrayLike
) -> Majority:
  """Bisection that asks for each spec several times and goes by the majority.

  Where a spec is served with probability p, the vote of r answers is wrong with
  probability P(Binomial(r, min(p, 1 - p)) > r / 2), at most
  `exp(-2 r (p - 1/2)^2)`. It ends where one half is served, which behind noise is
  the corner only where no other model is near.

  Args:
    votes: r, an odd number.
    accuracy_resolution: as in `fingerprint.bisection`.
    latency_resolution: as in `fingerprint.bisection`.

  Returns:
    The attack, r queries at a time; it reads `served` alone and harvests a
    `fingerprint.Corner`.

  Raises:
    ValueError: an even number of votes, or as in `fingerprint.bisection`.

  >>> from psml_jax import ZooProfile, routers, servers, session
  >>> zoo = ZooProfile([0.7, 0.9], [1.0, 5.0], ('small', 'large'))
  >>> server = servers.table(routers.uniform(zoo), zoo.latency_ms, jnp.ones((2, 1, 1)))
  >>> attack = majority(votes=3, accuracy_resolution=0.01, latency_resolution=0.01)
  >>> key, server_key = jax.random.split(jax.random.key(0))
  >>> found = session.run(
  ...   key, attack, server, server.init(server_key), Knowledge(8.0), budget=100)
  >>> round(float(found.harvest.spec.min_accuracy), 2), int(found.bill.queries)
  (0.9, 42)
  """
  if not _validate.positive_int('votes', votes) % 2:
    raise ValueError(f'votes is {votes}; it must be odd, so that no vote is tied')
  probing = bisection(
    accuracy_resolution=accuracy_resolution, latency_resolution=latency_resolution
  )
  return Majority(probing, votes)


def _then_replay(resources: Resources, probes: int = 0) -> Phases:
  """Five votes a step; given a number of probes, as many as it pays for."""
  resolutions = resources.accuracy_resolution, resources.latency_resolution
  steps = sum(max(0, math.ceil(-math.log2(each))) for each in resolutions)
  affordable = max(1, probes // max(1, steps))
  probing = majority(
    votes=affordable - 1 + affordable % 2 if probes else 5,
    accuracy_resolution=resources.accuracy_resolution,
    latency_resolution=resources.latency_resolution,
  )
  return Phases((probing, replay('found', resources.num_queries)))


ATTACKS.register('majority', Entry(_then_replay))
