"""Additive noise on both fields of the spec (paper, section 6)."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import struct
from jax.typing import ArrayLike

from psml_jax import _validate
from psml_jax.core import Query, Spec, ZooProfile
from psml_jax.defenses.mechanisms import MECHANISMS, Deployment, Knob, Mechanism
from psml_jax.defenses.transform import Stateless


@struct.dataclass(eq=False)
class Noise(Stateless):
  """Independent noise of one distribution on each field of the spec.

  Attributes:
    accuracy_scale: f32[], a fraction.
    latency_scale_ms: f32[], milliseconds.
    draw: `(key, shape, dtype) -> noise` of scale 1 (static).
  """

  accuracy_scale: jax.Array
  latency_scale_ms: jax.Array
  draw: Callable[..., jax.Array] = struct.field(pytree_node=False)

  @classmethod
  def of(
    cls,
    draw: Callable[..., jax.Array],
    accuracy_scale: ArrayLike,
    latency_scale_ms: ArrayLike,
  ) -> 'Noise':
    _validate.scale('accuracy_scale', accuracy_scale)
    _validate.scale('latency_scale_ms', latency_scale_ms)
    return cls(
      jnp.asarray(accuracy_scale, jnp.float32),
      jnp.asarray(latency_scale_ms, jnp.float32),
      draw,
    )

  def apply(
    self, key: jax.Array, query: Query, state: tuple[()]
  ) -> tuple[Query, tuple[()]]:
    _validate.key('key', key)
    spec = Spec.of(query.spec.min_accuracy, query.spec.max_latency_ms)
    accuracy_key, latency_key = jax.random.split(key)

    def noisy(key: jax.Array, field: jax.Array, scale: jax.Array) -> jax.Array:
      return field + scale * self.draw(key, field.shape, field.dtype)

    noised = Spec(
      noisy(accuracy_key, spec.min_accuracy, self.accuracy_scale),
      noisy(latency_key, spec.max_latency_ms, self.latency_scale_ms),
    )
    return dataclasses.replace(query, spec=noised), state


def laplace(accuracy_scale: ArrayLike, latency_scale_ms: ArrayLike) -> Noise:
  """Adds independent Laplace noise of density `exp(-|x| / b) / 2b` to each field.

  Args:
    accuracy_scale: b of the minimum accuracy, a fraction, f32[]; may be traced.
    latency_scale_ms: b of the maximum latency in milliseconds, f32[]; may be traced.

  Returns:
    The stateless transform. The key is consumed; query i's noise depends on the
    key and i alone.

  Raises:
    ValueError: a concrete scale that is negative, infinite or NaN, a concrete spec
      that holds NaN, or a key that is not typed.

  >>> query = Query.of([0], Spec.of(0.8, 20.0))
  >>> query, _ = laplace(0.05, 2.0).apply(jax.random.key(0), query, ())
  >>> bool(query.spec.min_accuracy[0] != 0.8)
  True
  """
  return Noise.of(jax.random.laplace, accuracy_scale, latency_scale_ms)


def gaussian(accuracy_scale: ArrayLike, latency_scale_ms: ArrayLike) -> Noise:
  """Adds independent Gaussian noise to each field.

  Args:
    accuracy_scale: standard deviation of the minimum accuracy, a fraction, f32[];
      may be traced.
    latency_scale_ms: standard deviation of the maximum latency in milliseconds,
      f32[]; may be traced.

  Returns:
    The stateless transform. The key is consumed; query i's noise depends on the
    key and i alone.

  Raises:
    ValueError: as in `laplace`.
  """
  return Noise.of(jax.random.normal, accuracy_scale, latency_scale_ms)


def relative_scale(
  profile: ZooProfile, scale: ArrayLike
) -> tuple[jax.Array, jax.Array]:
  """A scale given as a share of the zoo's range.

  Args:
    profile: the zoo.
    scale: f32[], share of the distance between the zoo's lowest and highest
      accuracy and of that between its lowest and highest latency; may be traced.

  Returns:
    f32[] the accuracy scale, f32[] the latency scale in milliseconds.

  Raises:
    ValueError: a concrete scale that is negative, infinite or NaN.

  >>> zoo = ZooProfile([0.5, 0.75], [1.0, 5.0], ('a', 'b'))
  >>> [float(b) for b in relative_scale(zoo, 0.5)]
  [0.125, 2.0]
  """
  _validate.scale('scale', scale)
  share = jnp.asarray(scale, jnp.float32)
  return share * jnp.ptp(profile.accuracy), share * jnp.ptp(profile.latency_ms)


def _mechanism(make: Callable[[ArrayLike, ArrayLike], Noise]) -> Mechanism:
  def deployed(profile: ZooProfile, scale: ArrayLike) -> Deployment:
    return Deployment(defense=make(*relative_scale(profile, scale)))

  knob = Knob('scale', "share of the zoo's range", 0.0, 2.0**-20, 64.0)
  return Mechanism(knob, deployed)


MECHANISMS.register('laplace', _mechanism(laplace))
MECHANISMS.register('gaussian', _mechanism(gaussian))
