"""What mechanisms guarantee: differential privacy of a spec, and of a zoo.

A mechanism is (epsilon, delta)-private in respect of two neighbours where no event of
what it gives has under one of them more than exp(epsilon) times its probability under
the other, plus delta.

| mechanism | in respect of two specs | of two zoos that differ in one model's numbers |
|---|---|---|
| `laplace` | by the distance: `abs(a - a') / b_a + abs(l - l') / b_l` | nothing |
| `exponential`, `permute_and_flip` | epsilon, whatever the specs | of all models: epsilon / 2 (1 + r), the range staying the same; of the frontier: nothing |
| `epsilon_random`, `most_accurate_random`, `fastest_random` | `log(1 + M (1 - share) / share)`, whatever the specs | at most the same |

r is 0 for the scores `goodput` and `l1`, where the other models keep theirs, and
`1 / 2M` for `quantile`. n queries whose draws are independent cost n times epsilon and
delta (sequential composition); an attacker who sends the same spec n times pays that,
and with it learns more.

Delta comes of float32 alone: a uniform number is a multiple of 2^-23, so each event's
probability is exact to 2^-23 for every threshold that it is compared with. Laplace
noise ends at about 16 scales, beyond which an event under one spec can be impossible
under the other. The guarantee of `laplace` is of events of one threshold a field, such
as whether a model is feasible, and not of the noisy spec's bits, which no client sees
(Mironov 2012).
"""  # noqa: E501

from typing import Any, NamedTuple

import numpy as np

from psml_jax.core import Spec
from psml_jax.defenses.fallback import FallBack
from psml_jax.defenses.noise import LAWS, Noise
from psml_jax.defenses.selection import Selection

_GRAIN = 2.0**-23


class Guarantee(NamedTuple):
  """Of (epsilon, delta)-differential privacy.

  Attributes:
    epsilon: nats; infinite where nothing is guaranteed.
    delta: a probability.
  """

  epsilon: float
  delta: float

  def after(self, queries: int) -> 'Guarantee':
    """Of all queries together, each of which has this one (Dwork and Roth 2014, 3.5).

    >>> Guarantee(0.5, 0.0).after(4).epsilon
    2.0
    """
    return Guarantee(queries * self.epsilon, min(1.0, queries * self.delta))


def of_specs(
  defense: Any, one: Spec | None = None, other: Spec | None = None
) -> Guarantee:
  """What one query's answer guarantees in respect of two specs.

  Args:
    defense: of `noise` with the Laplace law in both directions, or a router of
      `exponential`, `permute_and_flip` or `fall_back`.
    one: a spec, of shape []; only noise needs it, whose guarantee is by the distance.
    other: the other one.

  Returns:
    The guarantee; infinite of a defense that gives none.

  Raises:
    ValueError: a defense of another kind, or noise without two finite specs.

  >>> from psml_jax.defenses import laplace
  >>> near = of_specs(laplace(0.25, 2.0), Spec.of(0.5, 4.0), Spec.of(0.75, 5.0))
  >>> near.epsilon
  1.5
  """
  if isinstance(defense, Selection):
    return _rounded(_epsilon(defense), len(defense.profile))
  if isinstance(defense, FallBack):
    return _rounded(_odds(defense), 2)
  if type(defense) is not Noise:
    raise ValueError(
      f'defense is {type(defense).__name__}; it must be Noise, Selection or FallBack'
    )
  if one is None or other is None:
    raise ValueError('one or other is None; noise is private by the distance of two')
  if defense.law is not LAWS['laplace'] or defense.direction:
    return Guarantee(np.inf, 0.0)
  distances = (
    one.min_accuracy - other.min_accuracy,
    one.max_latency_ms - other.max_latency_ms,
  )
  epsilon = 0.0
  scales = (defense.accuracy_scale, defense.latency_scale_ms)
  for distance, scale in np.abs(np.array([distances, scales], np.float64).T).tolist():
    if not np.isfinite(distance):
      raise ValueError(f'one and other are {distance} apart; they must be finite')
    if distance:
      epsilon += distance / scale if scale else np.inf
  return _rounded(epsilon, 2)


def of_zoos(router: Any) -> Guarantee:
  """What one query's answer guarantees in respect of one model's numbers.

  The two zoos have the same models, and the same lowest and highest numbers, which are
  public; one model's accuracy and latency differ.

  Args:
    router: of `exponential`, `permute_and_flip` or `fall_back`.

  Returns:
    The guarantee; infinite of candidates on the frontier, which one model's numbers
    change, and of all others but these routers.
  """
  if isinstance(router, Selection):
    if router.models != 'all':
      return Guarantee(np.inf, 0.0)
    size = len(router.profile)
    moved = 1 / (2 * size) if router.score.moves_others else 0.0
    return _rounded(_epsilon(router) / 2 * (1 + moved), size)
  if isinstance(router, FallBack):
    return _rounded(_odds(router), 2)
  return Guarantee(np.inf, 0.0)


def _epsilon(router: Selection) -> float:
  return max(float(router.epsilon), 0.0)


def _odds(router: FallBack) -> float:
  """The logarithm of the most by which a model's probability can differ."""
  share = float(router.random_share)
  return float(np.log1p(len(router.profile) * (1 - share) / share)) if share else np.inf


def _rounded(epsilon: float, events: int) -> Guarantee:
  """With the delta of float32, for events of so many thresholds."""
  with np.errstate(over='ignore'):
    delta = float(np.minimum((1 + np.exp(epsilon)) * events * _GRAIN, 1.0))
  return Guarantee(float(epsilon), delta if np.isfinite(epsilon) else 0.0)
