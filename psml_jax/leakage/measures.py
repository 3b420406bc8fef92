"""Workloads as measures: specs with weights, over which goodput is a sum."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from psml_jax import _validate, feasible, goodput, pareto
from psml_jax.core import Router, Spec, ZooProfile
from psml_jax.leakage.cells import Kept

_PIECES = 24


class Measure(NamedTuple):
  """Specs of honest clients and how often each is asked for.

  Attributes:
    spec: of shape [Q].
    weight: f64[Q], fractions that sum to 1.
  """

  spec: Spec
  weight: np.ndarray


def of(spec: Spec) -> Measure:
  """A table of specs, each as often as another; of shape [Q] or []."""
  flat = jax.tree.map(lambda field: jnp.ravel(jnp.asarray(field, jnp.float32)), spec)
  count = flat.min_accuracy.size
  return Measure(flat, np.full(count, 1 / max(count, 1)))


def as_measure(profile: ZooProfile, workload: Measure | Spec | str) -> Measure:
  """A workload as a measure.

  Args:
    profile: the zoo; concrete values.
    workload: 'uniform', the region under the frontier; or a table of specs, each as
      often as another; or a measure, as it is.

  Returns:
    The measure.

  Raises:
    ValueError: another word, or a workload with no feasible spec.
  """
  if isinstance(workload, str):
    _validate.one_of('workload', workload, ['uniform'])
    return uniform(profile)
  measure = workload if isinstance(workload, Measure) else of(workload)
  everyone = np.ones(len(profile), bool)
  if not (measure.weight @ how_many(profile, everyone, measure.spec)):
    raise ValueError(
      f'workload has {len(measure.weight)} specs, and no model of the zoo meets any; '
      'it must have a feasible spec'
    )
  return measure


def uniform(profile: ZooProfile) -> Measure:
  """The uniform distribution over the specs that the zoo can serve, by areas.

  The region of `goodput.uniform_workload` is cut at every model's accuracy and latency
  and into 24 pieces a field, and a rectangle's points of the two-point Gauss rule a
  field carry its area. What depends on the feasible set alone is summed exactly;
  what is smooth in the spec, to the fourth power of a piece's width.

  Args:
    profile: the zoo, M models; concrete values.

  Returns:
    The measure, of at most 4 (M + 24)^2 specs; where the region has no area, the last
    frontier model's corner.

  >>> measure = uniform(ZooProfile([0.5, 0.6, 1.0], [1.0, 2.0, 3.0], ('a', 'b', 'c')))
  >>> float(measure.weight.sum().round(12))
  1.0
  >>> bool(measure.spec.max_latency_ms.min() > 2)  # a asks for no accuracy at all
  True
  """
  accuracy, latency = (
    np.asarray(field, np.float64) for field in (profile.accuracy, profile.latency_ms)
  )
  models = pareto.frontier(profile)
  up, over = (
    np.unique(np.concatenate([field, np.linspace(field.min(), field.max(), _PIECES)]))
    for field in (accuracy, latency)
  )
  best = np.array([accuracy[latency <= start].max() for start in over[:-1]])
  inside = up[1:, None] <= best
  area = np.where(inside, np.diff(up)[:, None] * np.diff(over), 0.0)
  if not area.sum():
    last = models[-1]
    corner = Spec(profile.accuracy[last][None], profile.latency_ms[last][None])
    return Measure(corner, np.ones(1))
  row, column = np.nonzero(area)
  shares = (0.5 - np.sqrt(1 / 12), 0.5 + np.sqrt(1 / 12))
  spots = [(s, t) for s in shares for t in shares]
  spec = Spec.of(
    np.concatenate([up[row] + s * (up[row + 1] - up[row]) for s, _ in spots]),
    np.concatenate(
      [over[column] + t * (over[column + 1] - over[column]) for _, t in spots]
    ),
  )
  weight = np.tile(area[row, column], 4)
  return Measure(spec, weight / weight.sum())


def exact_goodput(
  profile: ZooProfile, router: Router, workload: Measure | Spec | str
) -> float:
  """The goodput of a router, computed from its law.

  Args:
    profile: the zoo; concrete values.
    router: one with a law (see `leakage.kernel`).
    workload: as in `leakage.bound`.

  Returns:
    A fraction of all offered queries.

  Raises:
    ValueError: as in `leakage.bound`.

  >>> from psml_jax import defenses
  >>> zoo = ZooProfile([0.6, 0.9], [1.0, 5.0], ('small', 'large'))
  >>> capped = defenses.defended(zoo, 'capped', 0.25)
  >>> exact_goodput(zoo, capped, Spec.of([0.5, 0.8], 9.0))
  0.375
  """
  measure = as_measure(profile, workload)
  return float(measure.weight @ np.asarray(kept(profile, router, measure.spec)))


@jax.jit
def kept(profile: ZooProfile, router: Any, spec: Spec) -> jax.Array:
  """The probability that a client gets what it asks for, exact.

  Args:
    profile: the zoo, M models.
    router: one with a law (see `leakage.kernel`).
    spec: of shape [Q].

  Returns:
    f32[Q], the mass of the kernel on the spec's own feasible set.

  >>> from psml_jax import defenses
  >>> zoo = ZooProfile([0.6, 0.9], [1.0, 5.0], ('small', 'large'))
  >>> router = defenses.defended(zoo, 'capped', 0.25)
  >>> kept(zoo, router, Spec.of([0.5, 0.8], 9.0)).tolist()
  [0.5, 0.25]
  """

  def one(spec: Spec) -> jax.Array:
    return jnp.sum(jnp.where(profile.meets(spec), router.kernel(spec)[:-1], 0.0))

  steps = len(profile) ** 2 if Kept.knows(router) else 16 * len(profile)
  width = max(1, _NUMBERS_AT_ONCE // steps)
  return jax.lax.map(one, spec, batch_size=width)


def drawn(key: jax.Array, profile: ZooProfile, router: Router, spec: Spec) -> jax.Array:
  """As `kept`, from one draw of each spec: bool[Q], for routers without a law.

  Args:
    key: consumed.
    profile: the zoo.
    router: any.
    spec: of shape [Q].
  """
  return goodput.met(profile, spec, router(key, spec))


def how_many(profile: ZooProfile, among: np.ndarray, spec: Spec) -> np.ndarray:
  """i64[Q], how many of some models meet each spec."""
  if not among.any():
    return np.zeros(spec.min_accuracy.shape, int)
  some = ZooProfile(
    profile.accuracy[among],
    profile.latency_ms[among],
    tuple(np.asarray(profile.names)[among].tolist()),
  )
  return np.asarray(_find(feasible.index(some), spec), int)


@jax.jit
def _find(zoo: feasible.FeasibleIndex, spec: Spec) -> jax.Array:
  return feasible.find(zoo, spec).num_feasible


_NUMBERS_AT_ONCE = 1 << 22
