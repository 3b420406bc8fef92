"""The law of goodput and protection: what no memoryless server exceeds.

`goodput <= G*(t) = E[min(1, sum of the caps of the feasible models)]`, see
docs/theory.md, theorem 1.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jax.typing import ArrayLike

from psml_jax import _validate
from psml_jax.core import Spec, ZooProfile
from psml_jax.leakage.measures import Measure, as_measure, how_many


def bound(
  profile: ZooProfile,
  workload: Measure | Spec | str,
  rate: ArrayLike,
  *,
  victims: Sequence[int] | None = None,
) -> np.ndarray:
  """The most goodput that a server can keep at a rate.

  Args:
    profile: the zoo, M models; concrete values.
    workload: 'uniform', the region under the frontier (exact, by areas); or a table of
      specs, each of equal weight; or a `Measure`.
    rate: f[...], the most that a billed query is answered by one victim, fractions in
      [0, 1]; or, where `victims` has one for each of them, a cap of each.
    victims: models that are to be protected, indices into the zoo; all where None.
      `pareto.corners(profile)` leaves out the dominated ones, which have no spec of
      their own.

  Returns:
    f64[...], fractions; with a cap of each victim f64[].

  Raises:
    ValueError: a rate outside [0, 1], a model that the zoo does not have, or a workload
      with no feasible spec.

  >>> zoo = ZooProfile([0.6, 0.9], [1.0, 5.0], ('small', 'large'))
  >>> specs = Spec.of([0.5, 0.8, 0.5, 0.8], [9.0, 9.0, 2.0, 9.0])
  >>> bound(zoo, specs, [0.25, 0.5, 1.0]).tolist()
  [0.3125, 0.625, 1.0]
  """
  rates = _validate.fractions('rate', rate)
  measure = as_measure(profile, workload)
  if victims is not None and rates.ndim == 1 and len(rates) == len(victims) > 1:
    caps = np.ones(len(profile))
    caps[_protected(profile, victims)] = rates[np.argsort(np.asarray(victims))]
    total = sum(
      cap * how_many(profile, caps == cap, measure.spec) for cap in np.unique(caps)
    )
    return np.asarray(measure.weight @ np.minimum(1.0, total))
  return _Law.of(profile, measure, _protected(profile, victims)).goodput(rates)


def least_rate(
  profile: ZooProfile,
  workload: Measure | Spec | str,
  goodput: ArrayLike,
  *,
  victims: Sequence[int] | None = None,
) -> np.ndarray:
  """The least rate at which a server can keep a goodput: the inverse of `bound`.

  Args:
    profile: the zoo; concrete values.
    workload: as in `bound`.
    goodput: f[...], fractions in [0, 1].
    victims: as in `bound`.

  Returns:
    f64[...], fractions; 0 where models that need no protection keep it alone.

  Raises:
    ValueError: as in `bound`; a goodput that no server keeps.

  >>> zoo = ZooProfile([0.6, 0.9], [1.0, 5.0], ('small', 'large'))
  >>> specs = Spec.of([0.5, 0.8, 0.5, 0.8], [9.0, 9.0, 2.0, 9.0])
  >>> least_rate(zoo, specs, 0.625).tolist()
  0.5
  """
  wanted = _validate.fractions('goodput', goodput)
  measure = as_measure(profile, workload)
  law = _Law.of(profile, measure, _protected(profile, victims))
  best = float(law.goodput(np.ones(())))
  allowed = f'at most {best:.6g}, the best that any server keeps'
  _validate.reject('goodput', wanted, wanted > best + 1e-9, allowed)
  kept, first = np.unique(law.kept, return_index=True)
  return np.asarray(np.interp(wanted, kept, law.rates[first]))


class _Law(NamedTuple):
  """G* of one cap for all victims, piecewise linear: its knots.

  Attributes:
    rates: f64[K], ascending; those at which some feasible set serves all its queries.
    kept: f64[K], the goodput at each.
  """

  rates: np.ndarray
  kept: np.ndarray

  @classmethod
  def of(cls, profile: ZooProfile, measure: Measure, protected: np.ndarray) -> '_Law':
    weight = measure.weight
    counts = how_many(profile, protected, measure.spec)
    free = how_many(profile, ~protected, measure.spec) > 0
    always = weight[free].sum()
    sizes, place = np.unique(counts[~free], return_inverse=True)
    mass = np.bincount(place, weight[~free], len(sizes))[sizes > 0]
    sizes = sizes[sizes > 0]
    rates = np.unique(np.concatenate([[0.0, 1.0], 1 / sizes]))
    kept = always + np.minimum(1.0, rates[:, None] * sizes) @ mass
    return cls(rates, kept)

  def goodput(self, rates: np.ndarray) -> np.ndarray:
    return np.asarray(np.interp(rates, self.rates, self.kept))


def _protected(profile: ZooProfile, victims: Sequence[int] | None) -> np.ndarray:
  if victims is None:
    return np.ones(len(profile), bool)
  chosen = np.asarray(victims, int)
  outside = (chosen < 0) | (chosen >= len(profile))
  _validate.reject('victims', chosen, outside, f'in [0, {len(profile) - 1}]')
  protected = np.zeros(len(profile), bool)
  protected[chosen] = True
  return protected
