"""Specs rounded to a grid, so that a spec says less of what its client knows."""

import dataclasses

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from psml_jax import _validate, struct
from psml_jax.core import Query, Spec, ZooProfile
from psml_jax.defenses.fieldwise import Fieldwise
from psml_jax.defenses.mechanisms import MECHANISMS, Deployment, Knob, Mechanism

_MOST_CUTS = 4096


@struct.dataclass(eq=False)
class Quantised(Fieldwise):
  """See `quantised`.

  Attributes:
    start: f32[] each, the loosest spec of the zoo, where both grids begin.
    width: f32[] each, of the grid's cells; 0 leaves a field as it is.
  """

  start: Spec
  width: Spec

  def apply(
    self, key: jax.Array, query: Query, state: tuple[()]
  ) -> tuple[Query, tuple[()]]:
    _validate.key('key', key)
    spec = Spec(
      self._accuracy(query.spec.min_accuracy), self._latency(query.spec.max_latency_ms)
    )
    return dataclasses.replace(query, spec=spec), state

  def accurate(self, min_accuracy: jax.Array, accuracy: jax.Array) -> jax.Array:
    return (self._accuracy(min_accuracy) <= accuracy).astype(jnp.float32)

  def fast(self, max_latency_ms: jax.Array, latency_ms: jax.Array) -> jax.Array:
    return (self._latency(max_latency_ms) >= latency_ms).astype(jnp.float32)

  def cuts(self) -> Spec:
    steps = jnp.arange(_MOST_CUTS)
    return Spec(
      self.start.min_accuracy + self.width.min_accuracy * steps,
      self.start.max_latency_ms - self.width.max_latency_ms * steps,
    )

  def accurate_between(
    self, low: jax.Array, high: jax.Array, accuracy: jax.Array
  ) -> tuple[jax.Array, jax.Array]:
    least, most = super().accurate_between(low, high, accuracy)
    last = self.start.min_accuracy + self.width.min_accuracy * (_MOST_CUTS - 1)
    inside = self.accurate((low + high) / 2, accuracy)
    one_cell = (self.width.min_accuracy > 0) & (high <= last)
    return jnp.where(one_cell, inside, least), jnp.where(one_cell, inside, most)

  def fast_between(
    self, low: jax.Array, high: jax.Array, latency_ms: jax.Array
  ) -> tuple[jax.Array, jax.Array]:
    least, most = super().fast_between(low, high, latency_ms)
    last = self.start.max_latency_ms - self.width.max_latency_ms * (_MOST_CUTS - 1)
    inside = self.fast((low + high) / 2, latency_ms)
    one_cell = (self.width.max_latency_ms > 0) & (low >= last)
    return jnp.where(one_cell, inside, least), jnp.where(one_cell, inside, most)

  def _accuracy(self, value: jax.Array) -> jax.Array:
    start, width = self.start.min_accuracy, self.width.min_accuracy
    return _stricter(value, start, width, 1.0)

  def _latency(self, value: jax.Array) -> jax.Array:
    start, width = self.start.max_latency_ms, self.width.max_latency_ms
    return _stricter(value, start, width, -1.0)


def quantised(profile: ZooProfile, width: ArrayLike) -> Quantised:
  """Makes every field as strict as the next line of a grid asks for.

  Both grids start at the zoo's loosest spec. What is answered meets the client's spec;
  clients near the frontier are refused more. It draws nothing: a client who knows the
  grid asks for its lines, and a victim that is alone at one of them gets all of it.

  Args:
    profile: the zoo.
    width: f32[], of a cell, a share of the zoo's range; may be traced. 0 leaves specs
      as they are.

  Returns:
    The stateless transform; it does not use its key.

  Raises:
    ValueError: a concrete width that is negative, infinite or NaN.

  >>> zoo = ZooProfile([0.5, 1.0], [1.0, 5.0], ('a', 'b'))
  >>> query = Query.of([0], Spec.of(0.6, 4.5))
  >>> query, _ = quantised(zoo, 0.25).apply(jax.random.key(0), query, ())
  >>> query.spec.min_accuracy.tolist(), query.spec.max_latency_ms.tolist()
  ([0.625], [4.0])
  """
  _validate.scale('width', width)
  share = jnp.asarray(width, jnp.float32)
  return Quantised(
    Spec(jnp.min(profile.accuracy), jnp.max(profile.latency_ms)),
    Spec(share * jnp.ptp(profile.accuracy), share * jnp.ptp(profile.latency_ms)),
  )


def _stricter(
  value: jax.Array, start: jax.Array, width: jax.Array, sign: float
) -> jax.Array:
  """The value moved to the end of its cell, the same number for the whole cell."""
  safe = jnp.where(width > 0, width, 1.0)
  end = jnp.ceil(sign * (value - start) / safe) * safe + sign * start
  moved = sign * jnp.maximum(end, sign * value)
  return jnp.where((width > 0) & jnp.isfinite(value), moved, value)


def _deployed(profile: ZooProfile, width: ArrayLike) -> Deployment:
  return Deployment(defense=quantised(profile, width))


MECHANISMS.register(
  'quantised',
  Mechanism(Knob('width', "share of the zoo's range", 0.0, 2.0**-11, 1.0), _deployed),
)
