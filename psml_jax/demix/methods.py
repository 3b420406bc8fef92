"""De-mixing by name: what a thief does with its harvest before it trains."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from psml_jax import _registry, struct, train
from psml_jax.core import Harvest
from psml_jax.demix.latency import by_known_latency, by_latency
from psml_jax.demix.outputs import by_confidence, by_surrogates


@struct.dataclass
class View:
  """What the thief has, and what it knows of the responders.

  Attributes:
    pool: f32[P, H, W, C], its images.
    latency_budget_ms: f32[], the victim is the most accurate model within it.
    samples_ms: f32[M, S], every model's latencies; only who knows the zoo reads it.
    prior: f32[M], how often each answers the spec that is sent; likewise.
    victim: i32[], index into the zoo; likewise.
    training: of its surrogate (static).
  """

  pool: jax.Array
  latency_budget_ms: jax.Array
  samples_ms: jax.Array
  prior: jax.Array
  victim: jax.Array
  training: train.Training = struct.field(pytree_node=False)


class Method(NamedTuple):
  """An entry of `METHODS`.

  Attributes:
    believe: `(key, harvest, view) -> f32[B]`, how probably each answer is the victim's;
      traceable.
    informed: whether it reads what only an informed attacker is told of the zoo, so
      that no other may have it.
  """

  believe: Callable[[jax.Array, Harvest, View], jax.Array]
  informed: bool = False


METHODS = _registry.Registry[Method]('de-mixing', Method)
"""De-mixing by the names that configs give it."""


def _none(key: jax.Array, harvest: Harvest, view: View) -> jax.Array:
  del key, view
  return jnp.ones(len(harvest.inputs))


def _latencies(harvest: Harvest) -> jax.Array:
  if harvest.latency_ms is None:
    raise ValueError('harvest has no latency_ms; its attack must keep what it measured')
  return harvest.latency_ms


def _latency(key: jax.Array, harvest: Harvest, view: View) -> jax.Array:
  del key
  return by_latency(_latencies(harvest), harvest.count, view.latency_budget_ms)


def _known_latency(key: jax.Array, harvest: Harvest, view: View) -> jax.Array:
  del key
  took = _latencies(harvest)
  return by_known_latency(took, view.samples_ms, view.prior, view.victim)


def _confidence(key: jax.Array, harvest: Harvest, view: View) -> jax.Array:
  del key, view
  return by_confidence(harvest.targets, harvest.count)


def _surrogates(key: jax.Array, harvest: Harvest, view: View) -> jax.Array:
  start = by_confidence(harvest.targets, harvest.count)
  return by_surrogates(key, harvest, view.pool, view.training, start)


METHODS.register('none', Method(_none))
METHODS.register('latency', Method(_latency))
METHODS.register('known_latency', Method(_known_latency, informed=True))
METHODS.register('confidence', Method(_confidence))
METHODS.register('surrogates', Method(_surrogates))
