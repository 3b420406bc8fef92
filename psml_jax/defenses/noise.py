"""Additive noise on both fields of the spec (paper, section 6)."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from psml_jax import _validate, pareto, routers, struct
from psml_jax.core import Query, Spec, ZooProfile
from psml_jax.defenses.fieldwise import Fieldwise
from psml_jax.defenses.mechanisms import MECHANISMS, Deployment, Knob, Mechanism


class Law(NamedTuple):
  """A distribution that is symmetric about 0, of scale 1.

  Attributes:
    draw: `(key, shape, dtype) -> noise`.
    cdf: its distribution function, f32[...] -> f32[...].
  """

  draw: Callable[..., jax.Array]
  cdf: Callable[[jax.Array], jax.Array]


DIRECTIONS = {'both': 0, 'tighten': 1, 'loosen': -1}


@struct.dataclass(eq=False)
class Noise(Fieldwise):
  """Independent noise of one law on each field of the spec.

  Attributes:
    accuracy_scale: f32[], a fraction.
    latency_scale_ms: f32[], milliseconds.
    law: of the noise at scale 1 (static).
    direction: whether a spec may get looser and stricter (0), only stricter (1), or
      only looser (-1) (static).
  """

  accuracy_scale: jax.Array
  latency_scale_ms: jax.Array
  law: Law = struct.field(pytree_node=False)
  direction: int = struct.field(pytree_node=False, default=0)

  def apply(
    self, key: jax.Array, query: Query, state: tuple[()]
  ) -> tuple[Query, tuple[()]]:
    _validate.key('key', key)
    spec = Spec.of(query.spec.min_accuracy, query.spec.max_latency_ms)
    accuracy_key, latency_key = jax.random.split(key)
    accuracy = spec.min_accuracy + self.accuracy_scales(
      spec.min_accuracy
    ) * self._stricter(accuracy_key, spec.min_accuracy)
    less = self._stricter(latency_key, spec.max_latency_ms, sign=-1)
    noised = Spec(accuracy, self.with_latency_noise(spec.max_latency_ms, less))
    return dataclasses.replace(query, spec=noised), state

  def accurate(self, min_accuracy: jax.Array, accuracy: jax.Array) -> jax.Array:
    scale = self.accuracy_scales(min_accuracy)
    return self._cdf(accuracy - min_accuracy, scale)

  def fast(self, max_latency_ms: jax.Array, latency_ms: jax.Array) -> jax.Array:
    room, scale = self.latency_room(max_latency_ms, latency_ms)
    return self._cdf(room, scale)

  def accuracy_scales(self, min_accuracy: jax.Array) -> jax.Array:
    """The scale that a minimum accuracy gets, a fraction; it broadcasts with it."""
    del min_accuracy
    return self.accuracy_scale

  def with_latency_noise(
    self, max_latency_ms: jax.Array, noise: jax.Array
  ) -> jax.Array:
    """Maximum latencies with noise of scale 1."""
    return max_latency_ms + self.latency_scale_ms * noise

  def latency_room(
    self, max_latency_ms: jax.Array, latency_ms: jax.Array
  ) -> tuple[jax.Array, jax.Array]:
    """How far a limit may fall until a model misses it, and the scale of that."""
    return max_latency_ms - latency_ms, self.latency_scale_ms

  def _stricter(self, key: jax.Array, like: jax.Array, sign: int = 1) -> jax.Array:
    """Noise of scale 1; one-sided, what makes a field stricter has this sign."""
    noise = self.law.draw(key, like.shape, like.dtype)
    return noise if not self.direction else sign * self.direction * jnp.abs(noise)

  def _cdf(self, room: jax.Array, scale: jax.Array) -> jax.Array:
    """The probability that a field gets stricter by at most some room."""
    scale = jnp.abs(scale)
    none = jnp.where(room >= 0, jnp.inf, -jnp.inf)
    z = jnp.where(scale > 0, room / jnp.where(scale > 0, scale, 1), none)
    if self.direction == 0:
      return self.law.cdf(z)
    if self.direction == 1:
      return jnp.where(z >= 0, 2 * self.law.cdf(jnp.abs(z)) - 1, 0.0)
    return jnp.where(z >= 0, 1.0, 2 * self.law.cdf(-jnp.abs(z)))


@struct.dataclass(eq=False)
class LogNoise(Noise):
  """As `Noise`, but on the logarithm of the latency; `latency_scale_ms` has no unit.

  A limit is multiplied by a factor, so that fast and slow models are hidden alike.
  """

  def with_latency_noise(
    self, max_latency_ms: jax.Array, noise: jax.Array
  ) -> jax.Array:
    return max_latency_ms * jnp.exp(self.latency_scale_ms * noise)

  def latency_room(
    self, max_latency_ms: jax.Array, latency_ms: jax.Array
  ) -> tuple[jax.Array, jax.Array]:
    limit = jnp.log(jnp.maximum(max_latency_ms, 0.0))
    room = jnp.where(latency_ms > 0, limit - jnp.log(latency_ms), jnp.inf)
    return room, self.latency_scale_ms


@struct.dataclass(eq=False, kw_only=True)
class StepNoise(Noise):
  """As `Noise`, with scales that are shares of the frontier's step around the spec.

  Attributes:
    accuracy: f32[M], the frontier's accuracies, ascending, the last one repeated.
    latency_ms: f32[M], its latencies, likewise.
  """

  accuracy: jax.Array
  latency_ms: jax.Array

  def accuracy_scales(self, min_accuracy: jax.Array) -> jax.Array:
    return self.accuracy_scale * _step(self.accuracy, min_accuracy, 'left')

  def with_latency_noise(
    self, max_latency_ms: jax.Array, noise: jax.Array
  ) -> jax.Array:
    return max_latency_ms + self._latency_scales(max_latency_ms) * noise

  def latency_room(
    self, max_latency_ms: jax.Array, latency_ms: jax.Array
  ) -> tuple[jax.Array, jax.Array]:
    return max_latency_ms - latency_ms, self._latency_scales(max_latency_ms)

  def cuts(self) -> Spec:
    return Spec(self.accuracy, self.latency_ms)

  def accurate_between(
    self, low: jax.Array, high: jax.Array, accuracy: jax.Array
  ) -> tuple[jax.Array, jax.Array]:
    scale = self.accuracy_scales((low + high) / 2)
    return self._cdf(accuracy - high, scale), self._cdf(accuracy - low, scale)

  def fast_between(
    self, low: jax.Array, high: jax.Array, latency_ms: jax.Array
  ) -> tuple[jax.Array, jax.Array]:
    scale = self._latency_scales((low + high) / 2)
    return self._cdf(low - latency_ms, scale), self._cdf(high - latency_ms, scale)

  def _latency_scales(self, max_latency_ms: jax.Array) -> jax.Array:
    return self.latency_scale_ms * _step(self.latency_ms, max_latency_ms, 'right')


def _step(knots: jax.Array, value: jax.Array, side: str) -> jax.Array:
  """The width of the step that a value lies in; of the nearest one outside of all."""
  place = jnp.searchsorted(knots, value, side=side)
  widest = jnp.maximum(jnp.searchsorted(knots, knots[-1]), 1)
  place = jnp.clip(place, 1, widest)
  place = jnp.minimum(place, len(knots) - 1)
  return knots[place] - knots[jnp.maximum(place - 1, 0)]


def _gaussian_cdf(z: jax.Array) -> jax.Array:
  return jax.scipy.special.ndtr(z)


def _laplace_cdf(z: jax.Array) -> jax.Array:
  tail = jnp.exp(-jnp.abs(z)) / 2
  return jnp.where(z < 0, tail, 1 - tail)


def _uniform_draw(key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
  return jax.random.uniform(key, shape, dtype, -1.0, 1.0)


def _uniform_cdf(z: jax.Array) -> jax.Array:
  return jnp.clip((z + 1) / 2, 0.0, 1.0)


LAWS = {
  'gaussian': Law(jax.random.normal, _gaussian_cdf),
  'laplace': Law(jax.random.laplace, _laplace_cdf),
  'uniform': Law(_uniform_draw, _uniform_cdf),
}


def noise(
  law: str,
  accuracy_scale: ArrayLike,
  latency_scale_ms: ArrayLike,
  *,
  direction: str = 'both',
) -> Noise:
  """Adds independent noise to each field of the spec.

  Args:
    law: 'laplace' of density `exp(-|x| / b) / 2b`, 'gaussian' of standard deviation b,
      'uniform' on [-b, b].
    accuracy_scale: b of the minimum accuracy, a fraction, f32[]; may be traced.
    latency_scale_ms: b of the maximum latency in milliseconds, f32[]; may be traced.
    direction: 'both'; 'tighten' takes the noise's absolute value and makes every spec
      stricter by it, so that what is answered meets the client's spec; 'loosen' makes
      every spec looser by it, so that no query is refused that could be answered.

  Returns:
    The stateless transform. The key is consumed; query i's noise depends on the
    key and i alone.

  Raises:
    ValueError: an unknown law or direction; a concrete scale that is negative, infinite
      or NaN, a concrete spec that holds NaN, or a key that is not typed.

  >>> query = Query.of([0], Spec.of(0.8, 20.0))
  >>> strict = noise('laplace', 0.05, 2.0, direction='tighten')
  >>> query, _ = strict.apply(jax.random.key(0), query, ())
  >>> bool(query.spec.min_accuracy[0] > 0.8), bool(query.spec.max_latency_ms[0] < 20)
  (True, True)
  """
  return Noise(*_checked(law, accuracy_scale, latency_scale_ms, direction))


def laplace(accuracy_scale: ArrayLike, latency_scale_ms: ArrayLike) -> Noise:
  """The paper's noise: see `noise`.

  >>> query = Query.of([0], Spec.of(0.8, 20.0))
  >>> query, _ = laplace(0.05, 2.0).apply(jax.random.key(0), query, ())
  >>> bool(query.spec.min_accuracy[0] != 0.8)
  True
  """
  return noise('laplace', accuracy_scale, latency_scale_ms)


def gaussian(accuracy_scale: ArrayLike, latency_scale_ms: ArrayLike) -> Noise:
  """Gaussian noise: see `noise`."""
  return noise('gaussian', accuracy_scale, latency_scale_ms)


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


def log_noise(
  profile: ZooProfile, scale: ArrayLike, *, law: str = 'laplace'
) -> LogNoise:
  """Noise on the accuracy and on the logarithm of the latency.

  Args:
    profile: the zoo.
    scale: f32[], share of the zoo's range in accuracy and in log latency; may be
      traced.
    law: as in `noise`.

  Returns:
    The stateless transform.

  Raises:
    ValueError: as in `noise`, or a model of latency 0.
  """
  _validate.scale('scale', scale)
  if _validate.is_concrete(profile.latency_ms):
    latency = np.asarray(profile.latency_ms)
    _validate.reject('latency_ms', latency, latency <= 0, '> 0 for noise in its log')
  share = jnp.asarray(scale, jnp.float32)
  accuracy_scale = share * jnp.ptp(profile.accuracy)
  log_scale = share * jnp.ptp(jnp.log(profile.latency_ms))
  return LogNoise(*_checked(law, accuracy_scale, log_scale, 'both'))


def step_noise(
  profile: ZooProfile, scale: ArrayLike, *, law: str = 'laplace'
) -> StepNoise:
  """Noise scaled by the frontier's step around the spec.

  The zoo's range is the slowest model's, and noise of its scale is harsh on clients of
  fast ones.

  Args:
    profile: the zoo; concrete values.
    scale: f32[], share of the distance between the two frontier models that a field of
      the spec lies between; may be traced.
    law: as in `noise`.

  Returns:
    The stateless transform.

  Raises:
    ValueError: as in `noise`.
  """
  models = pareto.frontier(profile)
  more = (0, len(profile) - len(models))
  accuracy, latency = (
    jnp.asarray(np.pad(np.asarray(field)[models], more, mode='edge'))
    for field in (profile.accuracy, profile.latency_ms)
  )
  fields = _checked(law, scale, scale, 'both')
  return StepNoise(*fields, accuracy=accuracy, latency_ms=latency)


def _checked(
  law: str, accuracy_scale: ArrayLike, latency_scale: ArrayLike, direction: str
) -> tuple[jax.Array, jax.Array, Law, int]:
  _validate.one_of('law', law, LAWS)
  _validate.one_of('direction', direction, DIRECTIONS)
  _validate.scale('accuracy_scale', accuracy_scale)
  _validate.scale('latency_scale_ms', latency_scale)
  return (
    jnp.asarray(accuracy_scale, jnp.float32),
    jnp.asarray(latency_scale, jnp.float32),
    LAWS[law],
    DIRECTIONS[direction],
  )


def _mechanism(law: str, direction: str = 'both') -> Mechanism:
  def deployed(profile: ZooProfile, scale: ArrayLike) -> Deployment:
    scales = relative_scale(profile, scale)
    return Deployment(defense=noise(law, *scales, direction=direction))

  return Mechanism(_SHARE_OF_RANGE, deployed)


def _log(profile: ZooProfile, scale: ArrayLike) -> Deployment:
  return Deployment(defense=log_noise(profile, scale))


def _step_of(profile: ZooProfile, scale: ArrayLike) -> Deployment:
  return Deployment(defense=step_noise(profile, scale))


def _best_effort(profile: ZooProfile, scale: ArrayLike) -> Deployment:
  defense = laplace(*relative_scale(profile, scale))
  return Deployment(defense, router=routers.uniform(profile, infeasible='best_effort'))


_SHARE_OF_RANGE = Knob('scale', "share of the zoo's range", 0.0, 2.0**-20, 64.0)
MECHANISMS.register('laplace', _mechanism('laplace'))
MECHANISMS.register('gaussian', _mechanism('gaussian'))
MECHANISMS.register('uniform_noise', _mechanism('uniform'))
MECHANISMS.register('laplace_tighten', _mechanism('laplace', 'tighten'))
MECHANISMS.register('laplace_loosen', _mechanism('laplace', 'loosen'))
MECHANISMS.register('laplace_log', Mechanism(_SHARE_OF_RANGE, _log))
MECHANISMS.register(
  'laplace_step',
  Mechanism(
    Knob('scale', "share of the frontier's step", 0.0, 2.0**-20, 64.0), _step_of
  ),
)
MECHANISMS.register(
  'best_effort', Mechanism(_SHARE_OF_RANGE, _best_effort, answers_all=True)
)
