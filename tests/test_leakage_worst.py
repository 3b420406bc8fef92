"""Certified worst rates: no spec is above a ceiling, and what has it is found."""

import numpy as np
import pytest

from psml_jax import defenses, leakage, pareto, routers, struct
from psml_jax.core import Spec
from psml_jax.leakage.noisy import NoisySearch
from tests import plane, references

SCORES = ['exponential', 'exponential_l1', 'exponential_quantile', 'permute_and_flip']
FALLS = ['epsilon_random', 'most_accurate_random', 'fastest_random']
NOISES = ['laplace', 'gaussian', 'uniform_noise', 'laplace_tighten', 'laplace_loosen']
NOISES += ['laplace_log', 'laplace_step', 'best_effort', 'quantised']


def grid_and_worst(name, zoo, value):
  router = defenses.defended(zoo, name, value)
  law = np.asarray(leakage.kernel(router, plane.wide(zoo)))[:, :-1]
  return router, law.max(0), leakage.worst(zoo, router, victims=list(range(plane.SIZE)))


class TestWorst:
  @pytest.mark.parametrize('name', [*NOISES, *FALLS, *SCORES, 'capped_corners'])
  @pytest.mark.parametrize('seed', [0, 1])
  def test_no_spec_is_above_the_ceiling(self, name, seed):
    """Of fields within the range, outside of it, and infinite."""
    zoo = plane.zoo_of(seed, levels=(8, 40)[seed])
    value = {'exponential': 6.0, 'permute_and_flip': 4.0}.get(name, 0.15)
    value = 5.0 if name in SCORES[1:3] else value
    router, best, found = grid_and_worst(name, zoo, value)
    assert found.certified
    assert (found.ceiling >= best - 2e-6).all()
    assert (found.ceiling <= found.rate + 1.001e-3).all()
    law = np.asarray(leakage.kernel(router, found.spec))
    np.testing.assert_allclose(
      law[np.arange(plane.SIZE), found.victims], found.rate, atol=2e-6
    )
    answered = 1 - law[:, -1]
    wanted = found.rate / np.where(answered > 0, answered, 1)
    np.testing.assert_allclose(found.purity, wanted, atol=1e-5)
    one = leakage.worst_of_all(zoo, router)
    assert abs(one.rate[0] - found.rate.max()) <= 1.001e-3
    assert one.ceiling[0] >= best.max() - 2e-6
    assert one.ceiling[0] <= one.rate[0] + 2.001e-3
    assert found.most == found.rate.argmax()

  @pytest.mark.parametrize('name', ['laplace', 'uniform_noise', 'laplace_step'])
  def test_a_box_holds_no_better_spec(self, name):
    """And half of the slack between distribution functions would not do."""
    zoo = plane.zoo_of(3)
    router = defenses.defended(zoo, name, 0.1)

    def exceeds(transform):
      victims = np.arange(plane.SIZE)
      search = NoisySearch(zoo, router.router, transform, victims)
      most = -np.inf
      for victim in victims:
        edges = [np.unique(x) for x in references.arrays(zoo)]
        cut = [np.stack([axis[:-1], axis[1:]]).astype(float)[:, :4] for axis in edges]
        cut = [np.pad(x, ((0, 0), (0, 4 - x.shape[1])), mode='edge') for x in cut]
        rate, ceiling = search.evaluate(victim, *cut)
        shares = np.linspace(1e-3, 1 - 1e-3, 15)
        points = [low + shares[:, None] * (high - low) for low, high in cut]
        spec = Spec.of(
          *np.broadcast_arrays(points[0][:, None, :, None], points[1][:, None])
        )
        law = np.asarray(leakage.kernel(router, spec))[..., victim].max((0, 1))
        assert (rate <= law + 1e-3).all() or name == 'laplace_step'
        most = max(most, (law - ceiling).max())
      return most

    assert exceeds(router.transform) <= 2e-6
    half = half_slack(router.transform)
    assert exceeds(half) > 1e-3

  def test_best_effort_without_noise(self):
    """The first of twins answers all that is too much to ask, and half of its own."""
    twins = references.make_profile([0.7, 0.7, 0.5, 0.9], [2.0, 2.0, 1.0, 3.0])
    router = routers.uniform(twins, infeasible='best_effort')
    found = leakage.worst(twins, router, victims=[0, 1, 2, 3])
    np.testing.assert_allclose(found.rate, [1.0, 0.5, 1.0, 1.0])
    assert (
      leakage.kernel(router, plane.wide(twins))[:, :4].max(0) <= found.ceiling
    ).all()

  def test_best_effort_gives_the_fastest_model_away(self):
    """Specs beyond the strict end of the range: nothing is fast enough, ever."""
    zoo = plane.zoo_of(0)
    found = leakage.worst_of_all(zoo, defenses.defended(zoo, 'best_effort', 0.5))
    assert found.rate[0] == pytest.approx(1.0)
    assert float(zoo.latency_ms[found.victims[0]]) == float(zoo.latency_ms.min())
    assert float(found.spec.max_latency_ms[0]) < float(zoo.latency_ms.min())

  def test_the_loosest_latency_counts(self):
    """A grid line alone has the slowest model, which wider cells refuse."""
    zoo = references.make_profile([0.5, 0.9], [1.0, 5.0])
    found = leakage.worst(zoo, defenses.defended(zoo, 'quantised', 0.25))
    np.testing.assert_allclose(found.rate, 1.0)

  @pytest.mark.parametrize('width', [0.0, 1e-4])
  def test_more_grid_lines_than_are_listed(self, width):
    zoo = references.make_profile([0.5, 0.6, 0.6001, 0.9], [1.0, 2.0, 1.99, 5.0])
    found = leakage.worst(zoo, defenses.defended(zoo, 'quantised', width))
    assert (found.ceiling >= 1 - 1e-6).all()

  def test_twins_share_and_their_ceiling_is_honest(self):
    """Without noise no box around a jump is tight."""
    twins = references.make_profile([0.5, 0.5, 0.9], [1.0, 1.0, 3.0])
    found = leakage.worst(twins, defenses.defended(twins, 'laplace', 0.0))
    np.testing.assert_allclose(found.rate, [0.5, 1.0])
    assert found.ceiling[0] >= found.rate[0]

  def test_a_kernel_alone_proves_nothing(self):
    zoo = plane.zoo_of(0)
    router = Alone(defenses.capped(zoo, 0.3))
    for found in (leakage.worst(zoo, router), leakage.worst_of_all(zoo, router)):
      assert not found.certified
      assert (found.ceiling == 1).all()
      np.testing.assert_allclose(found.rate, 0.3, atol=1e-6)

  def test_dominated_models_get_no_more_than_their_dominators(self):
    zoo = plane.zoo_of(4, levels=8)
    accuracy, latency = references.arrays(zoo)
    for name in ('laplace', 'best_effort', 'laplace_log'):
      law = leakage.kernel(defenses.defended(zoo, name, 0.2), plane.wide(zoo))
      for i in range(plane.SIZE):
        for j in range(plane.SIZE):
          better = (accuracy[i] > accuracy[j]) | (latency[i] < latency[j])
          if better and accuracy[i] >= accuracy[j] and latency[i] <= latency[j]:
            assert (law[:, i] >= law[:, j] - 1e-6).all()

  def test_the_frontier_of_rate_and_purity(self):
    zoo = plane.zoo_of(1)
    router = defenses.defended(zoo, 'laplace', 0.1)
    victim = int(pareto.corners(zoo)[1])
    found = leakage.frontier(zoo, router, victim)
    assert (np.diff(found.rate) > 0).all()
    assert (np.diff(found.purity) < 0).all()
    assert len(found.rate) > 5
    law = np.asarray(leakage.kernel(router, plane.wide(zoo)))
    rate, served = law[:, victim], 1 - law[:, -1]
    purity = rate / np.maximum(served, 1e-9)
    for one_rate, one_purity in zip(rate, purity):
      if one_rate > 0.05:
        assert (
          (found.rate > one_rate - 0.02) & (found.purity > one_purity - 0.02)
        ).any()


def half_slack(transform):
  """The same noise whose boxes are bounded as if they were half as plane.wide."""
  of = type(transform)

  @struct.dataclass(eq=False)
  class Halved(of):
    def accurate_between(self, low, high, accuracy):
      quarter = (high - low) / 4
      return of.accurate_between(self, low + quarter, high - quarter, accuracy)

    def fast_between(self, low, high, latency_ms):
      quarter = (high - low) / 4
      return of.fast_between(self, low + quarter, high - quarter, latency_ms)

  fields = {name: getattr(transform, name) for name in of.__dataclass_fields__}
  return Halved(**fields)


@struct.dataclass(eq=False)
class Alone:
  """A router of a known kernel of which nothing else is known."""

  router: object

  def kernel(self, spec):
    return self.router.kernel(spec)
