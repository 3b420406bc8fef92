"""Goodput and worst rate of one defense over its knob, each value computed once."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import optimize

from psml_jax import defenses, leakage, workloads
from psml_jax.core import Router, Spec, ZooProfile
from psml_jax.leakage import Measure

_SMALL_ZOO = 64
_COARSE = np.linspace(0.0, 1.0, 21)
_DRAWS = 16
_NEAR, _FINEST = 1e-5, 1e-7


@dataclasses.dataclass(frozen=True, eq=False)
class Clients:
  """Honest clients of several workloads, side by side.

  Attributes:
    measures: of each workload, by its name.
  """

  measures: Mapping[str, Measure]

  @functools.cached_property
  def spec(self) -> Spec:
    """All specs, of shape [Q]."""
    each = [measure.spec for measure in self.measures.values()]
    return jax.tree.map(lambda *fields: jnp.concatenate(fields), *each)

  def means(self, kept: np.ndarray) -> dict[str, float]:
    """The goodput of each workload, of f[Q] over all specs."""
    return {
      name: float(measure.weight @ self.part(kept, name))
      for name, measure in self.measures.items()
    }

  def part(self, kept: np.ndarray, workload: str) -> np.ndarray:
    """The clients of one workload, of f[Q] over all specs."""
    names = list(self.measures)
    sizes = [len(measure.weight) for measure in self.measures.values()]
    end = int(np.cumsum(sizes)[names.index(workload)])
    return kept[end - len(self.measures[workload].weight) : end]


def clients(
  key: jax.Array, profile: ZooProfile, listed: Mapping[str, Mapping[str, Any]]
) -> Clients:
  """The clients of a study: drawn once, and the same for every defense.

  Args:
    key: consumed.
    profile: the zoo; concrete values.
    listed: workloads with their fields.

  Returns:
    The clients; those of `uniform` by areas, where the zoo has at most 64 models.

  Raises:
    ValueError: a workload with no feasible spec.
  """
  measures = {}
  for i, (name, its) in enumerate(listed.items()):
    if name == 'uniform' and len(profile) <= _SMALL_ZOO:
      measures[name] = leakage.uniform(profile)
      continue
    spec = workloads.make(name, **its)(jax.random.fold_in(key, i), profile)
    workloads.check(spec, profile)
    measures[name] = leakage.of(spec)
  return Clients(measures)


class MissedError(ValueError):
  """No value of a knob keeps a goodput."""


@dataclasses.dataclass
class Curve:
  """A defense over its knob.

  Attributes:
    profile: the zoo.
    clients: whose goodput counts.
    name: of the mechanism.
    fields: its own.
    key: of what is drawn where the goodput is not computed.
    gap: of certified rates.
  """

  profile: ZooProfile
  clients: Clients
  name: str
  fields: Mapping[str, Any]
  key: jax.Array
  gap: float

  def __post_init__(self) -> None:
    self._kept: dict[float, np.ndarray] = {}
    self._worst: dict[float, leakage.Worst] = {}

  def value(self, strength: float) -> float:
    """The knob's value of a strength in [0, 1]."""
    return float(defenses.MECHANISMS[self.name].knob.at(jnp.float32(strength)))

  def router(self, value: float) -> Router:
    """The zoo behind the defense."""
    return defenses.defended(self.profile, self.name, value, **self.fields)

  @functools.cached_property
  def exact(self) -> bool:
    """Whether goodputs are computed from laws; else each spec is drawn 16 times.

    Behind additive noise a law takes M^2 steps a spec, too many for a zoo of hundreds.
    """
    router = self.router(self.value(0.5))
    return len(self.profile) <= _SMALL_ZOO or not leakage.Kept.knows(router)

  @functools.cached_property
  def _behind_noise(self) -> leakage.Kept:
    router: Any = self.router(self.value(0.5))
    return leakage.Kept(self.profile, router.router, self.clients.spec)

  def goodput(self, strength: float) -> dict[str, float]:
    """The goodput of each workload."""
    return self.clients.means(self.kept(strength))

  def kept(self, strength: float) -> np.ndarray:
    """f64[Q], the goodput of each client."""
    if strength not in self._kept:
      router, spec = self.router(self.value(strength)), self.clients.spec
      if not self.exact:
        kept = _drawn(self.key, self.profile, router, spec)
      elif leakage.Kept.knows(router):
        kept = self._behind_noise(router)
      else:
        kept = leakage.kept(self.profile, router, spec)
      self._kept[strength] = np.asarray(kept, float)
    return self._kept[strength]

  def worst(self, strength: float) -> leakage.Worst:
    """The worst victim."""
    if strength not in self._worst:
      router = self.router(self.value(strength))
      self._worst[strength] = leakage.worst_of_all(self.profile, router, gap=self.gap)
    return self._worst[strength]

  @property
  def known(self) -> list[float]:
    """The strengths of which the worst victim is known, ascending."""
    return sorted(self._worst)

  def strengths(self, points: int, workload: str) -> np.ndarray:
    """f64[points], for goodputs of a workload about evenly from 1 down to 0.4."""
    goodput = np.array([self.goodput(s)[workload] for s in _COARSE])
    falling = np.minimum.accumulate(goodput)
    wanted = np.linspace(falling[0], max(0.4, falling[-1]), points)
    return np.unique(np.interp(-wanted, -falling, _COARSE))

  def at_goodput(self, workload: str, target: float) -> float:
    """The strongest strength that keeps a goodput.

    Args:
      workload: whose.
      target: a fraction.

    Returns:
      The strength, in [0, 1].

    Raises:
      MissedError: even at no strength the target is missed; the message has the best.
    """

    def above(strength: float) -> float:
      return self.goodput(strength)[workload] - target

    coarse, near = _COARSE, _NEAR if self.exact else 10 * _NEAR
    keeps = [i for i, strength in enumerate(coarse) if above(strength) >= -near]
    if not keeps:
      best = max(self.goodput(strength)[workload] for strength in coarse)
      raise MissedError(
        f'target is {target}; {self.name} must be asked for at most {best:.4f}, the '
        f'best goodput of {workload} at any {defenses.MECHANISMS[self.name].knob.name}'
      )
    last = keeps[-1]
    if last == len(coarse) - 1:
      return 1.0
    low, high = float(coarse[last]), float(coarse[last + 1])
    if above(low) <= 0:
      return low
    optimize.brentq(above, low, high, xtol=_FINEST)
    # It ends with values on both sides of the target, next to each other.
    return max(s for s in self._kept if low <= s < high and above(s) >= 0)


@jax.jit
def _drawn(key: jax.Array, profile: ZooProfile, router: Any, spec: Spec) -> jax.Array:
  keys = jax.random.split(key, _DRAWS)
  kept = jax.lax.map(lambda one: leakage.drawn(one, profile, router, spec), keys)
  return jnp.mean(kept, axis=0, dtype=jnp.float32)
