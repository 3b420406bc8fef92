"""Goodput: what honest clients lose to a defense (paper, section 6).

Goodput is the share of all offered queries, refused ones included, whose served
model meets the client's original spec in both accuracy and latency.
"""

import pathlib
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from psml_jax import _csv, _validate, metrics, pareto
from psml_jax.core import Route, Router, Spec, ZooProfile
from psml_jax.defenses.mechanisms import Knob

_SEEDS = 16
_PRECISION = 1e-3


def uniform_workload(key: jax.Array, profile: ZooProfile, num_specs: int) -> Spec:
  """Specs spread uniformly over the feasible region.

  The region is all specs between the zoo's lowest and highest accuracy and lowest
  and highest latency that at least one model meets: the area under the Pareto
  staircase. A step is drawn with probability proportional to its area, then a
  point in it.

  Args:
    key: consumed; spec i depends on the key and i alone.
    profile: the zoo; concrete values.
    num_specs: how many, at least 1.

  Returns:
    A spec of shape [num_specs]. Where the region has no area, the last frontier
    model's corner.

  Raises:
    ValueError: `num_specs` is not a whole number >= 1, or the key is not typed.
  """
  _validate.key('key', key)
  _validate.positive_int('num_specs', num_specs)
  models = pareto.frontier(profile)
  accuracy = np.asarray(profile.accuracy, np.float64)
  latency = np.asarray(profile.latency_ms, np.float64)
  left = latency[models]
  right = np.append(left[1:], latency.max())
  height = accuracy[models] - accuracy.min()
  area = (right - left) * height
  if area.sum() == 0:
    area = np.where(models == models[-1], 1.0, 0.0)
  step_key, accuracy_key, latency_key = jax.random.split(key, 3)
  step = jnp.searchsorted(
    jnp.asarray(np.cumsum(area) / area.sum(), jnp.float32),
    jax.random.uniform(step_key, (num_specs,)),
    side='right',
  )
  step = jnp.minimum(step, int(np.flatnonzero(area)[-1]))
  low = jnp.float32(accuracy.min())

  def between(key: jax.Array, start: jax.Array, end: jax.Array) -> jax.Array:
    share = jax.random.uniform(key, (num_specs,))
    return jnp.clip(start + share * (end - start), start, end)

  return Spec(
    between(accuracy_key, low, profile.accuracy[models][step]),
    between(
      latency_key,
      jnp.asarray(left, jnp.float32)[step],
      jnp.asarray(right, jnp.float32)[step],
    ),
  )


def load_workload(
  path: str | pathlib.Path,
  *,
  accuracy_column: str,
  latency_column: str,
  accuracy_unit: str,
  latency_unit: str = 'ms',
) -> Spec:
  """Reads the specs that a user's clients send.

  Args:
    path: a CSV file with a header, in UTF-8, one spec a row.
    accuracy_column: the column of minimum accuracies.
    latency_column: the column of maximum latencies; `inf` where there is none.
    accuracy_unit: 'fraction' or 'percent'.
    latency_unit: 's', 'ms' or 'us'.

  Returns:
    A spec of shape [rows].

  Raises:
    ValueError: no such file or no CSV file; a column that is missing or occurs twice;
      no rows; a row of another length than the header; an empty cell, text where a
      number belongs, or a number out of range; accuracies that look to be of the
      other unit.
  """
  table = _csv.read(
    path, {'accuracy_column': accuracy_column, 'latency_column': latency_column}
  )
  return Spec.of(
    _csv.accuracies(table, accuracy_column, accuracy_unit),
    _csv.latencies(table, latency_column, latency_unit, infinite=True),
  )


def met(profile: ZooProfile, spec: Spec, route: Route) -> jax.Array:
  """Which of the offered queries got what they asked for.

  Args:
    profile: the zoo.
    spec: the clients' original specs, f32[...] each.
    route: the models that answered, i32[...]; -1 counts as a failure.

  Returns:
    bool[...].

  Raises:
    ValueError: shapes that differ, or a concrete model that the zoo does not have.

  >>> zoo = ZooProfile([0.7, 0.9], [1.0, 5.0], ('a', 'b'))
  >>> spec = Spec.of([0.8, 0.8], [9.0, 2.0])
  >>> met(zoo, spec, Route(jnp.array([1, 1]), jnp.array([1, 0]))).tolist()
  [True, False]
  """
  shapes = [jnp.shape(leaf) for leaf in (*jax.tree.leaves(spec), route.model)]
  if len(set(shapes)) > 1:
    raise ValueError(
      f'spec has shapes {shapes[0]} and {shapes[1]} and route {shapes[2]}; they must '
      'be the same, one answer for each query'
    )
  if _validate.is_concrete(route.model):
    models = np.asarray(route.model)
    bad = (models < -1) | (models >= len(profile))
    _validate.reject('route.model', models, bad, f'-1 to {len(profile) - 1}')
  model = jnp.maximum(route.model, 0)
  return (
    (route.model >= 0)
    & (profile.accuracy[model] >= spec.min_accuracy)
    & (profile.latency_ms[model] <= spec.max_latency_ms)
  )


def goodput(profile: ZooProfile, spec: Spec, route: Route) -> jax.Array:
  """Share of the offered queries that got what they asked for.

  Args:
    profile: the zoo.
    spec: the clients' original specs, f32[Q] each.
    route: the models that answered, i32[Q]; -1 counts as a failure.

  Returns:
    f32[], a fraction.

  Raises:
    ValueError: as `met`, or no queries.

  >>> zoo = ZooProfile([0.7, 0.9], [1.0, 5.0], ('a', 'b'))
  >>> spec = Spec.of([0.8, 0.8], [9.0, 2.0])
  >>> route = Route(jnp.array([1, 1]), jnp.array([1, 0]))
  >>> float(goodput(zoo, spec, route))
  0.5
  """
  good = met(profile, spec, route)
  if not good.size:
    raise ValueError(f'spec has shape {good.shape}; a goodput needs one query or more')
  return jnp.mean(good, dtype=jnp.float32)


def by_class(
  key: jax.Array, profile: ZooProfile, router: Router, spec: Spec
) -> dict[str, jax.Array]:
  """The goodput of all clients, and of classes of them that a mean hides.

  Args:
    key: consumed.
    profile: the zoo; concrete values.
    router: the router, with its defense if it has one.
    spec: the specs of the workload, f32[Q] each.

  Returns:
    f32[] fractions: `all` of the workload; its `fast` clients, whose latency limit is
    below the medium victim's latency, and its `slow` ones, all others (NaN where there
    are none); and of `corner` clients, Q of them, who ask in turns for exactly what a
    model on the frontier gives.

  >>> zoo = ZooProfile([0.7, 0.9], [1.0, 5.0], ('a', 'b'))
  >>> shares = by_class(jax.random.key(0), zoo, lambda key, spec: Route(
  ...   jnp.zeros(2, int), jnp.ones(2, int)), Spec.of([0.6, 0.8], [0.5, 6.0]))
  >>> float(shares['corner'])
  0.5
  """
  workload_key, corner_key = jax.random.split(key)
  good = met(profile, spec, router(workload_key, spec))
  fast = spec.max_latency_ms < profile.latency_ms[pareto.victims(profile)['medium']]
  models = pareto.corners(profile)
  models = models[np.arange(good.size) % len(models)]
  corner = Spec(profile.accuracy[models], profile.latency_ms[models])

  def share(of: jax.Array) -> jax.Array:
    return jnp.sum(good & of, dtype=jnp.float32) / jnp.sum(of, dtype=jnp.float32)

  return {
    'all': jnp.mean(good, dtype=jnp.float32),
    'corner': goodput(profile, corner, router(corner_key, corner)),
    'fast': share(fast),
    'slow': share(~fast),
  }


class Steps(NamedTuple):
  """The goodput of clients by step of the frontier, F corners.

  Attributes:
    goodput: f32[F], of the clients whose latency limit lies from a corner's latency to
      just below the next one's, corners in the order of `pareto.corners`; NaN where
      there is no client.
    share: f32[F], of all clients. It sums to less than 1 where some wait for less than
      the fastest model takes, who cannot be met.
  """

  goodput: jax.Array
  share: jax.Array


def by_step(key: jax.Array, profile: ZooProfile, router: Router, spec: Spec) -> Steps:
  """The goodput of clients by the fastest and slowest that they can wait for.

  The steps of the frontier part the clients by latency limit, so that a mean that slow
  clients dominate does not hide what fast ones lose. With the corners themselves as
  specs it is each corner's own goodput.

  Args:
    key: consumed.
    profile: the zoo; concrete values.
    router: the router, with its defense if it has one.
    spec: the specs of any workload, f32[Q] each.

  Returns:
    Goodput and share of the clients of each step.

  Raises:
    ValueError: as `met`.

  >>> zoo = ZooProfile([0.7, 0.9], [1.0, 5.0], ('a', 'b'))
  >>> steps = by_step(jax.random.key(0), zoo, lambda key, spec: Route(
  ...   jnp.zeros(4, int), jnp.ones(4, int)), Spec.of([0.6, 0.6, 0.8, 0.6],
  ...   [2.0, 3.0, 6.0, 7.0]))
  >>> steps.goodput.tolist(), steps.share.tolist()
  ([1.0, 0.5], [0.5, 0.5])
  """
  good = met(profile, spec, router(key, spec))
  return of_steps(profile, spec, good, jnp.ones(good.shape))


def of_steps(
  profile: ZooProfile, spec: Spec, kept: ArrayLike, weight: ArrayLike
) -> Steps:
  """`by_step` of clients whose own goodput is known already.

  Args:
    profile: the zoo; concrete values.
    spec: what they ask for, f32[Q] each.
    kept: f32[Q], the goodput of each, such as `leakage.kept` computes.
    weight: f32[Q], how many of the clients each stands for, up to a factor.

  Returns:
    Goodput and share of the clients of each step.

  >>> zoo = ZooProfile([0.7, 0.9], [1.0, 5.0], ('a', 'b'))
  >>> spec = Spec.of([0.6, 0.6, 0.8], [2.0, 3.0, 6.0])
  >>> steps = of_steps(zoo, spec, [1.0, 0.0, 0.5], [3.0, 1.0, 4.0])
  >>> steps.goodput.tolist(), steps.share.tolist()
  ([0.75, 0.5], [0.5, 0.5])
  """
  latency = profile.latency_ms[pareto.corners(profile)]
  step = jnp.searchsorted(latency, spec.max_latency_ms, side='right')
  weight = jnp.asarray(weight, jnp.float32)
  good = weight * jnp.asarray(kept, jnp.float32)
  total, reached = (
    jnp.zeros(len(latency) + 1).at[step].add(of)[1:] for of in (weight, good)
  )
  return Steps(reached / total, total / jnp.sum(weight))


class Calibration(NamedTuple):
  """The outcome of `calibrate`.

  Attributes:
    value: of the knob, the strongest found that keeps the target.
    goodput: mean and 95 % interval of the goodput at it.
    monotone: whether, as far as eight more values from a fifth to five times of it
      show, every weaker one keeps the target and no stronger one does. Where False,
      the curve crosses the target more than once and `value` is one of the crossings.
  """

  value: float
  goodput: metrics.Interval
  monotone: bool


def calibrate(
  key: jax.Array,
  goodput_at: Callable[[jax.Array, jax.Array], jax.Array],
  knob: Knob,
  *,
  target: float = 0.8,
) -> Calibration:
  """The strongest defense that honest clients can live with.

  Bisects the knob, to a thousandth of its value, for the strongest one whose mean
  goodput over 16 seeds is above the target by at least twice the half-width of its
  95 % interval, so that a fresh measurement of the same size keeps the target too. All
  values share their random numbers, so the curve that is bisected is smooth.

  Args:
    key: consumed.
    goodput_at: `(key, value f32[]) -> f32[]`, the goodput of one seed; traced
      once, under jit and vmap.
    knob: of the mechanism.
    target: the goodput to keep, a fraction in (0, 1].

  Returns:
    The value and its goodput; `knob.strongest` if even that keeps the target, and
    `knob.off` if no other does. Measure the goodput again with fresh keys before
    reporting it.

  Raises:
    ValueError: a target outside (0, 1], one that is missed even without a defense, or
      a key that is not typed.

  >>> knob = Knob('share', '', 0.0, 2.0**-10, 1.0)
  >>> round(calibrate(jax.random.key(0), lambda key, share: 1 - share, knob).value, 3)
  0.2
  """
  _validate.key('key', key)
  if not 0 < target <= 1:
    raise ValueError(f'target is {target}; it must be a fraction in (0, 1]')
  keys = jax.random.split(key, _SEEDS)
  measure = jax.jit(jax.vmap(goodput_at, in_axes=(0, None)))

  def at(strength: float) -> metrics.Interval:
    return metrics.interval(np.asarray(measure(keys, knob.at(jnp.float32(strength)))))

  def keeps(strength: float) -> bool:
    mean, low, _ = at(strength)
    return mean - 2 * (mean - low) >= target

  def moved(strength: float, factor: float) -> float:
    """The strength whose value is stronger by a factor, within the knob's range."""
    return float(np.clip(strength + np.log(factor) / octaves, 0.0, 1.0))

  octaves = abs(np.log(knob.strongest / knob.weakest))
  if not keeps(0.0):
    raise ValueError(
      f'target is {target}, but the goodput without a defense is {at(0.0).mean:.4f}; '
      'it must be at most that'
    )
  low, high = 0.0, 1.0
  if keeps(high):
    low = high
  while high - low > _PRECISION / octaves:
    middle = (low + high) / 2
    low, high = (middle, high) if keeps(middle) else (low, middle)
  weaker = all(keeps(moved(low, share)) for share in np.linspace(0.2, 0.8, 4))
  stronger = any(keeps(moved(high, factor)) for factor in np.geomspace(1.05, 5, 4))
  value = float(knob.at(jnp.float32(low)))
  return Calibration(value, at(low), weaker and (low == high or not stronger))
