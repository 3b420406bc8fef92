"""Entries of a user's own, one of each kind: what a config can name after `register`.

Each is what its documentation asks for and no more; tests/test_toys.py runs them
through a whole experiment, tests/test_registries.py holds them to the contracts.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from psml_jax import data, struct
from psml_jax.attacks import ATTACKS, Entry, Phases, extraction
from psml_jax.core import Query, Route, Spec
from psml_jax.defenses import MECHANISMS, Deployment, Knob, Mechanism
from psml_jax.train import CROSS_ENTROPY, OBJECTIVES
from psml_jax.workloads import WORKLOADS


# A policy with epsilon: infeasible models answer too, less often the larger it is.
@struct.dataclass(eq=False)
class Leaky:
  profile: object
  epsilon: jax.Array

  def __call__(self, key, spec):
    met = self.profile.meets(spec)
    logits = jnp.where(met, 0.0, -self.epsilon)
    model = jax.random.categorical(key, logits).astype(jnp.int32)
    count = jnp.sum(met, axis=-1, dtype=jnp.int32)
    served = (count > 0) | jnp.isfinite(self.epsilon)
    return Route(jnp.where(served, model, -1), count)


def leaky(profile, epsilon):
  return Deployment(router=Leaky(profile, jnp.float32(epsilon)))


# A memory of each client: after so many queries the next ones are refused.
@struct.dataclass(eq=False)
class Quota:
  most: jax.Array
  clients: int = struct.field(pytree_node=False, default=4096)

  def init(self, key):
    del key
    return jnp.zeros(self.clients, jnp.int32)

  def apply(self, key, query, state):
    del key
    who = query.client % self.clients
    over = state[who].astype(jnp.float32) >= self.most
    accuracy = jnp.where(over, jnp.inf, query.spec.min_accuracy)
    spec = Spec(accuracy, query.spec.max_latency_ms)
    return dataclasses.replace(query, spec=spec), state.at[who].add(1)


def quota(profile, most):
  del profile
  return Deployment(defense=Quota(jnp.float32(most)))


# A transform of replies: some of each answer's probability moves to the top class.
@struct.dataclass(eq=False)
class Sharpen:
  share: jax.Array

  def init(self, key):
    del key
    return ()

  def apply(self, key, query, observation, state):
    del key, query
    outputs = observation.outputs
    top = jax.nn.one_hot(jnp.argmax(outputs, -1), outputs.shape[-1])
    top = jnp.where(observation.served[..., None], top, 0)
    mixed = (1 - self.share) * outputs + self.share * top
    return dataclasses.replace(observation, outputs=mixed), state


def sharpen(profile, share):
  del profile
  return Deployment(reply=Sharpen(jnp.float32(share)))


# An attack of two phases: how fast are the answers, and then all queries at that.
@struct.dataclass(eq=False)
class Stopwatch:
  probes: int = struct.field(pytree_node=False)

  def init(self, key, knowledge):
    inputs = extraction.choose_inputs(key, knowledge.pool_size, self.probes)
    spec = Spec.of(0.0, knowledge.latency_budget_ms)
    return inputs, spec, jnp.bool_(False)

  def ask(self, state):
    inputs, spec, done = state
    return Query.of(inputs, spec, sent=~done)

  def tell(self, state, query, observation):
    inputs, spec, _ = state
    slowest = jnp.maximum(jnp.max(observation.latency_ms), 1e-6)
    return inputs, Spec(spec.min_accuracy, slowest), jnp.any(query.sent)

  def harvest(self, state):
    return Seen(state[1])


@struct.dataclass(eq=False)
class Seen:
  spec: Spec


def stopwatch(resources, probes=4):
  then = extraction.replay('found', resources.num_queries)
  return Phases((Stopwatch(probes), then))


# A workload: every client asks for the best half of the zoo, at any latency.
def demanding(size):
  def workload(key, profile):
    del key
    best = jnp.full(size, jnp.median(profile.accuracy))
    return Spec.of(best, jnp.max(profile.latency_ms))

  return workload


# An objective: be right where answers are known, and sure of all other images.
@dataclasses.dataclass(frozen=True)
class Sure:
  weight: float = 0.1
  unlabelled: int = 2

  def __call__(self, learner, params, rest, labelled, unlabelled, key):
    key, augment_key, other_key = jax.random.split(key, 3)
    loss, aux = CROSS_ENTROPY(learner, params, rest, labelled, None, key)
    images = learner.augment(augment_key, unlabelled)
    logits, rest = learner.apply(params, aux.rest, images, other_key)
    surprise = -jnp.sum(jax.nn.softmax(logits) * jax.nn.log_softmax(logits), -1)
    return loss + self.weight * surprise.mean(), aux._replace(rest=rest)


# A data set: noisy stripes; their direction is the class.
def stripes(data_dir, size=8, images=300):
  del data_dir
  rng = np.random.default_rng(0)
  y = rng.integers(0, 2, images)
  wave = rng.integers(0, 256, (images, 1, size)) // 2 + 64
  x = np.repeat(wave, size, axis=1) + rng.integers(-64, 64, (images, size, size))
  x[y == 1] = x[y == 1].transpose(0, 2, 1)
  return data.Images(x.astype(np.uint8), y)


def register():
  """Once a process, as a user's script would at its top."""
  if 'leaky' in MECHANISMS:
    return
  epsilon = Knob('epsilon', 'nats', float('inf'), 30.0, 1e-3)
  MECHANISMS.register('leaky', Mechanism(epsilon, leaky))
  budget = Knob('budget', 'queries a client', float('inf'), 1e6, 1.0)
  MECHANISMS.register('quota', Mechanism(budget, quota))
  share = Knob('share', 'of the probability', 0.0, 1e-3, 1.0)
  MECHANISMS.register('sharpen', Mechanism(share, sharpen))
  ATTACKS.register('stopwatch', Entry(stopwatch))
  WORKLOADS.register('demanding', demanding)
  OBJECTIVES.register('sure', Sure)
  data.DATASETS.register('stripes', data.Entry(stripes))
