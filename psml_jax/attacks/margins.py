"""What an attacker believes of one number of its victim, from served and refused."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from psml_jax import struct
from psml_jax.core import Spec

_CEILINGS, _FLOORS = (1.0, 0.75, 0.5), (0.0, 0.05, 0.15)
_OTHERS = np.array([(c, f) for c in _CEILINGS for f in _FLOORS], np.float32)
_SURE = 2e-3
_PARTICLES, _STEPS, _EDGES = 32, 48, 192


class Noise(NamedTuple):
  """The noise as the attacker takes it to be.

  Attributes:
    told: a defense with `accurate` and `fast`; None for a Laplace law.
    accuracy_scale: f32[S], the scales that may be, a fraction; not read if told.
    latency_scale_ms: f32[S], likewise in milliseconds.
  """

  told: Any
  accuracy_scale: jax.Array
  latency_scale_ms: jax.Array

  def accurate(self, asked: jax.Array, accuracy: jax.Array) -> jax.Array:
    """f32[..., S]: the chance that a model of an accuracy meets what was asked for."""
    asked, accuracy = jnp.broadcast_arrays(*_aligned(asked, accuracy))
    if self.told is None:
      return _laplace(accuracy - asked, self.accuracy_scale)
    law: jax.Array = self.told.accurate(asked, accuracy)
    return law[..., None]

  def fast(self, asked: jax.Array, latency_ms: jax.Array) -> jax.Array:
    """f32[..., S]: the chance that a model of a latency does."""
    asked, latency_ms = jnp.broadcast_arrays(*_aligned(asked, latency_ms))
    if self.told is None:
      return _laplace(asked - latency_ms, self.latency_scale_ms)
    law: jax.Array = self.told.fast(asked, latency_ms)
    return law[..., None]


@struct.dataclass(eq=False)
class Belief:
  """A posterior over a grid of values, and over what blurs the answers.

  A spec is served with probability `floor + (ceiling - floor) law`: other models serve
  where the victim does not meet it, and a part is refused whatever is asked for.

  Attributes:
    values: f32[N], ascending and evenly spaced.
    log_weight: f32[N, C, S], by value, pair of ceiling and floor, and scale.
  """

  values: jax.Array
  log_weight: jax.Array

  @classmethod
  def flat(cls, values: jax.Array, scales: int) -> 'Belief':
    """Before the first answer."""
    return cls(values, jnp.zeros((len(values), len(_OTHERS), scales)))

  @property
  def weight(self) -> jax.Array:
    """f32[N, S], of sum 1."""
    whole = jax.nn.softmax(self.log_weight.ravel()).reshape(self.log_weight.shape)
    return jnp.sum(whole, axis=1)

  def quantiles(self, shares: jax.Array) -> jax.Array:
    """The values below which shares of the posterior lie."""
    return _quantiles(self.values, jnp.sum(self.weight, axis=-1), shares)

  def told(self, law: jax.Array, served: jax.Array) -> 'Belief':
    """After an answer to a query whose law at each value was f32[N, S]."""
    met = _served(law)
    more = jnp.log(jnp.where(served, met, 1 - met))
    return dataclasses.replace(self, log_weight=self.log_weight + more)

  def information(self, law: jax.Array) -> jax.Array:
    """What answers would tell of all that is unknown, to second order and times two.

    The variance of the chance to be served, over that of the answer.

    Args:
      law: f32[Q, N, S], of Q queries.

    Returns:
      f32[Q].
    """
    whole = jax.nn.softmax(self.log_weight.ravel()).reshape(self.log_weight.shape)
    floor, slope = _OTHERS[:, 1], _OTHERS[:, 0] - _OTHERS[:, 1]
    powers = np.stack([floor, slope, floor**2, 2 * floor * slope, slope**2])
    f, g, ff, fg, gg = jnp.einsum('ncs,pc->pns', whole, powers)

    def mean(constant: jax.Array, *terms: jax.Array) -> jax.Array:
      rest = [jnp.tensordot(law**k, term, 2) for k, term in enumerate(terms, 1)]
      return sum(rest, jnp.sum(constant))

    served = mean(f, g)
    variance = mean(ff, fg, gg) - served**2
    return variance / jnp.maximum(served * (1 - served), _SURE)


def _served(law: jax.Array) -> jax.Array:
  ceiling, floor = (_OTHERS[None, :, i, None] for i in (0, 1))
  return jnp.clip(floor + (ceiling - floor) * law[:, None], _SURE, 1 - _SURE)


def _aligned(*each: jax.Array) -> list[jax.Array]:
  """Arrays of one rank: axes of length 1 in front of those that have fewer."""
  rank = max(jnp.ndim(x) for x in each)
  return [jnp.reshape(x, (1,) * (rank - jnp.ndim(x)) + jnp.shape(x)) for x in each]


def _laplace(room: jax.Array, scale: jax.Array) -> jax.Array:
  z = room[..., None] / scale.reshape((1,) * room.ndim + (-1,))
  tail = jnp.exp(-jnp.abs(z)) / 2
  return jnp.where(z < 0, tail, 1 - tail)


def _quantiles(values: jax.Array, weight: jax.Array, shares: jax.Array) -> jax.Array:
  below = jnp.cumsum(weight) / jnp.maximum(jnp.sum(weight), 1e-30)
  place = jnp.searchsorted(below, shares)
  return values[jnp.minimum(place, len(values) - 1)]


def width(values: jax.Array, law: jax.Array) -> jax.Array:
  """The mean distance of a noise from its median, f32[S]; at least a step of the grid.

  Args:
    values: f32[N], evenly spaced.
    law: f32[N, S], its distribution function at each, rising or falling.
  """
  step = values[1] - values[0]
  return jnp.maximum(step * jnp.sum(jnp.minimum(law, 1 - law), axis=0), step)


def best_spec(
  accuracy: Belief, latency: Belief, noise: Noise, neighbours: jax.Array
) -> Spec:
  r"""The spec that the victim is most likely to answer, as far as is known.

  Of a query whose noised spec is `(a', l')` a victim at `(a, l)` answers one in
  `1 + n`, n the models that meet it too. How dense they lie is not known; they are
  taken to be spread evenly over what is less accurate than the victim,
  `n = r (a - a') / w * l' / l`, with w the mean size of the noise:

  .. math:: \max_{spec} E\big[P(l' \ge l) \, E[1(a' \le a) / (1 + n)]\big]

  Args:
    accuracy: what is believed of the victim's accuracy.
    latency: of its latency; the last value is the budget.
    noise: the noise.
    neighbours: f32[], r, how many models lie within w of the victim.
  """
  shares = (jnp.arange(_PARTICLES, dtype=jnp.float32) + 0.5) / _PARTICLES
  middle, budget = accuracy.quantiles(jnp.array([0.5])), latency.values[-1]
  typical = latency.quantiles(jnp.array([0.5]))
  limits = typical + (budget - typical) * jnp.linspace(0.0, 1.0, 17)
  law = noise.fast(limits[:, None], latency.values)
  quick = jnp.einsum('lns,ns->l', law, latency.weight)
  widths = width(accuracy.values, noise.accurate(middle, accuracy.values))
  weight = accuracy.weight
  by_scale = jnp.sum(weight, axis=0)
  step = accuracy.values[1] - accuracy.values[0]
  low, high = accuracy.quantiles(jnp.array([0.1, 0.9]))
  spread = jnp.dot(by_scale, widths)
  asked = jnp.linspace(low - 8 * spread - step, high + 2 * spread, _STEPS)

  def gain(scale: jax.Array) -> jax.Array:
    """f32[_STEPS, 17], at one scale."""
    values = _quantiles(accuracy.values, weight[:, scale], shares)
    edges = jnp.linspace(asked[0] - 4 * widths[scale], values[-1], _EDGES)
    inner = (edges[1:] + edges[:-1]) / 2
    below = values[:, None] - inner[None]
    crowd = neighbours * jnp.maximum(below, 0) / widths[scale]
    more = jnp.maximum(limits / typical, 1)
    others = crowd[None] * more[:, None, None]
    kept = jnp.mean(jnp.where(below[None] >= 0, 1 / (1 + others), 0.0), axis=1)
    law = noise.accurate(asked[:, None], edges)[..., scale]
    return jnp.diff(law, axis=-1) @ kept.T

  gains = jax.vmap(gain)(jnp.arange(len(by_scale)))
  rate = jnp.einsum('s,sal,l->al', by_scale, gains, quick)
  best = jnp.unravel_index(jnp.argmax(rate), rate.shape)
  return Spec(asked[best[0]], limits[best[1]])
