"""De-mixing by name: what a thief does with its harvest before it trains."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from psml_jax import _registry
from psml_jax.core import Harvest
from psml_jax.demix.latency import by_known_latency, by_latency


class View(NamedTuple):
  """What the thief knows of the responders.

  Attributes:
    latency_budget_ms: f32[], the victim is the most accurate model within it.
    samples_ms: f32[M, S], every model's latencies; only who knows the zoo reads it.
    prior: f32[M], how often each answers the spec that is sent; likewise.
    victim: i32[], index into the zoo; likewise.
  """

  latency_budget_ms: jax.Array
  samples_ms: jax.Array
  prior: jax.Array
  victim: jax.Array


class Method(NamedTuple):
  """An entry of `METHODS`.

  Attributes:
    believe: `(harvest, view) -> f32[B]`, how probably each answer is the victim's;
      traceable.
    informed: whether it reads what only an informed attacker is told of the zoo, so
      that no other may have it.
  """

  believe: Callable[[Harvest, View], jax.Array]
  informed: bool = False


METHODS = _registry.Registry[Method]('de-mixing', Method)
"""De-mixing by the names that configs give it."""


def _none(harvest: Harvest, view: View) -> jax.Array:
  del view
  return jnp.ones(len(harvest.inputs))


def _latencies(harvest: Harvest) -> jax.Array:
  if harvest.latency_ms is None:
    raise ValueError('harvest has no latency_ms; its attack must keep what it measured')
  return harvest.latency_ms


def _latency(harvest: Harvest, view: View) -> jax.Array:
  return by_latency(_latencies(harvest), harvest.count, view.latency_budget_ms)


def _known_latency(harvest: Harvest, view: View) -> jax.Array:
  took = _latencies(harvest)
  return by_known_latency(took, view.samples_ms, view.prior, view.victim)


METHODS.register('none', Method(_none))
METHODS.register('latency', Method(_latency))
METHODS.register('known_latency', Method(_known_latency, informed=True))
