"""The law of goodput and rate, and certified worst rates."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.sparse
from flax import struct
from hypothesis import given, settings
from hypothesis import strategies as st

from psml_jax import defenses, leakage, pareto, profiles, routers
from psml_jax.core import Spec
from psml_jax.leakage.noisy import NoisySearch
from tests import references

SIZE, GRID = 6, 40
SCORES = ['exponential', 'exponential_l1', 'exponential_quantile', 'permute_and_flip']
FALLS = ['epsilon_random', 'most_accurate_random', 'fastest_random']
NOISES = ['laplace', 'gaussian', 'uniform_noise', 'laplace_tighten', 'laplace_loosen']
NOISES += ['laplace_log', 'laplace_step', 'best_effort', 'quantised']
PUBLISHED = profiles.load('cifar10_published')


def zoo_of(seed, *, levels=40):
  """Numbers on a grid of so many steps a field; both ends are some model's."""
  rng = np.random.default_rng(seed)
  place = rng.integers(0, levels + 1, (2, SIZE))
  place[:, 0], place[:, 1] = (0, 0), (levels, levels)
  return references.make_profile(0.2 + 0.6 * place[0] / levels, 1 + place[1] / 4)


def grid_of(zoo, beyond=0.0, ends=()):
  """40 x 40 specs, the middles of the range's cells; or of a wider range's."""
  axes = []
  for field in references.arrays(zoo):
    share = (np.arange(GRID) + 0.5) / GRID * (1 + 2 * beyond) - beyond
    axes.append(np.concatenate([field.min() + share * np.ptp(field), ends]))
  return Spec.of(*(axis.ravel() for axis in np.meshgrid(*axes)))


def wide(zoo):
  """Specs within the range, outside of it, infinite, and every model's own."""
  spec = grid_of(zoo, 0.6, (-np.inf, np.inf))
  both = zip(jax.tree.leaves(spec), (zoo.accuracy, zoo.latency_ms), strict=True)
  return Spec(*(jnp.concatenate(pair) for pair in both))


def inside(zoo):
  spec = grid_of(zoo)
  met = np.asarray(zoo.meets(spec))
  return jax.tree.map(lambda field: field[met.any(-1)], spec), met[met.any(-1)]


class TestBound:
  @pytest.mark.parametrize('seed', range(4))
  def test_areas_are_what_a_grid_counts(self, seed):
    zoo = zoo_of(seed)
    _, met = inside(zoo)
    rates = np.array([0.01, 0.15, 0.2, 0.3, 0.5, 0.9, 1.0])
    wanted = np.minimum(1, rates[:, None] * met.sum(-1)).mean(-1)
    found = leakage.bound(zoo, 'uniform', rates)
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    assert (np.diff(found) >= 0).all()
    spec, _ = inside(zoo)
    np.testing.assert_allclose(leakage.bound(zoo, spec, rates), wanted, atol=1e-9)

  @pytest.mark.parametrize('seed', range(4))
  def test_the_least_rate_is_its_inverse(self, seed):
    zoo = zoo_of(seed)
    for victims in (None, [0, 2], pareto.corners(zoo).tolist()):
      kept = np.linspace(0, 1, 33)
      rates = leakage.least_rate(zoo, 'uniform', kept, victims=victims)
      back = leakage.bound(zoo, 'uniform', rates, victims=victims)
      free = leakage.bound(zoo, 'uniform', 0.0, victims=victims)
      np.testing.assert_allclose(back, np.maximum(kept, free), atol=1e-9)
      less = leakage.bound(zoo, 'uniform', rates * (1 - 1e-6), victims=victims)
      assert (less[kept > free + 1e-9] < kept[kept > free + 1e-9]).all()

  def test_the_least_rate_is_the_least(self):
    """Where all is kept at half the rate, no more is asked for; nor at none."""
    twins = references.make_profile([0.5, 0.5, 0.9], [1.0, 1.0, 3.0])
    loose = Spec.of([0.4], [2.0])
    assert leakage.least_rate(twins, loose, 1.0) == 0.5
    assert leakage.least_rate(twins, loose, 1.0, victims=[0]) == 0.0

  @pytest.mark.parametrize('seed', range(3))
  @pytest.mark.parametrize('kind', ['all', 'victims', 'caps'])
  def test_no_kernel_is_above_it(self, seed, kind):
    """One linear program over all kernels on all specs of the grid."""
    zoo, rate = zoo_of(seed), 0.17 + 0.1 * seed
    spec, met = inside(zoo)
    if kind == 'all':
      caps, law = np.full(SIZE, rate), leakage.bound(zoo, spec, rate)
    elif kind == 'victims':
      caps = np.where(np.isin(np.arange(SIZE), [1, 4]), rate, 1.0)
      law = leakage.bound(zoo, spec, rate, victims=[4, 1])
    else:
      victims, given_caps = [3, 1, 0], np.array([0.1, rate, 0.02])
      caps = np.ones(SIZE)
      caps[victims] = given_caps
      law = leakage.bound(zoo, spec, given_caps, victims=victims)
    count = len(met)
    found = scipy.optimize.linprog(
      -(met / count).ravel(),
      A_ub=scipy.sparse.kron(scipy.sparse.eye(count), np.ones((1, SIZE))),
      b_ub=np.ones(count),
      bounds=np.stack([np.zeros(count * SIZE), np.tile(caps, count)], 1),
      method='highs',
    )
    assert found.status == 0
    assert -found.fun <= law + 1e-6
    assert -found.fun >= law - 1e-6
    protect = tuple(np.asarray(zoo.names)[caps < 1].tolist())
    router = defenses.capped(zoo, np.float32(caps), protect=protect)
    kept = np.asarray(leakage.kept(zoo, router, spec), float).mean()
    np.testing.assert_allclose(kept, law, atol=1e-5)

  def test_no_kernel_has_a_lower_rate(self):
    """The program with the rate as a variable, at a goodput."""
    zoo = zoo_of(5)
    spec, met = inside(zoo)
    met, weight = np.unique(met, axis=0, return_counts=True)
    count, size = len(met), len(met) * SIZE
    each = scipy.sparse.kron(scipy.sparse.eye(count), np.ones((1, SIZE)))
    below = scipy.sparse.hstack([scipy.sparse.eye(size), -np.ones((size, 1))])
    sums = scipy.sparse.hstack([each, scipy.sparse.csr_matrix((count, 1))])
    kept = np.append((met * weight[:, None] / weight.sum()).ravel(), 0)
    for goodput in (0.3, 0.8, 1.0):
      found = scipy.optimize.linprog(
        np.append(np.zeros(size), 1),
        A_ub=scipy.sparse.vstack([below, sums, -kept[None]]).tocsr(),
        b_ub=np.concatenate([np.zeros(size), np.ones(count), [-goodput]]),
        method='highs',
      )
      rate = leakage.least_rate(zoo, spec, goodput)
      np.testing.assert_allclose(found.fun, rate, atol=1e-6)

  def test_a_measure_weighs_its_specs(self):
    zoo = zoo_of(0)
    spec, met = inside(zoo)
    weight = np.arange(1, len(met) + 1) / np.arange(1, len(met) + 1).sum()
    found = leakage.bound(zoo, leakage.Measure(spec, weight), 0.3)
    wanted = weight @ np.minimum(1, 0.3 * met.sum(-1))
    np.testing.assert_allclose(found, wanted, atol=1e-9)
    assert abs(wanted - np.minimum(1, 0.3 * met.sum(-1)).mean()) > 1e-3

  def test_capped_routing_attains_it_on_the_published_zoo(self):
    least = float(leakage.least_rate(PUBLISHED, 'uniform', 0.8))
    assert least == pytest.approx(0.2689, abs=1e-4)
    measure = leakage.uniform(PUBLISHED)

    def kept(cap):
      router = defenses.defended(PUBLISHED, 'capped', jnp.float32(cap))
      return measure.weight @ np.asarray(
        leakage.kept(PUBLISHED, router, measure.spec), float
      )

    cap = scipy.optimize.brentq(lambda cap: kept(cap) - 0.8, 0.01, 1.0, xtol=1e-6)
    found = leakage.worst_of_all(
      PUBLISHED, defenses.defended(PUBLISHED, 'capped', jnp.float32(cap))
    )
    assert found.rate[0] == pytest.approx(least, abs=1e-4)
    assert found.ceiling[0] == pytest.approx(least, abs=1e-4)


NAMES = [
  name for name in defenses.MECHANISMS if name not in ('budget', 'sticky')
]  # those have memory


def grid_and_worst(name, zoo, value):
  router = defenses.defended(zoo, name, value)
  law = np.asarray(leakage.kernel(router, wide(zoo)))[:, :-1]
  return router, law.max(0), leakage.worst(zoo, router, victims=list(range(SIZE)))


class TestWorst:
  @pytest.mark.parametrize('name', [*NOISES, *FALLS, *SCORES, 'capped_corners'])
  @pytest.mark.parametrize('seed', [0, 1])
  def test_no_spec_is_above_the_ceiling(self, name, seed):
    """Of fields within the range, outside of it, and infinite."""
    zoo = zoo_of(seed, levels=(8, 40)[seed])
    value = {'exponential': 6.0, 'permute_and_flip': 4.0}.get(name, 0.15)
    value = 5.0 if name in SCORES[1:3] else value
    router, best, found = grid_and_worst(name, zoo, value)
    assert found.certified
    assert (found.ceiling >= best - 2e-6).all()
    assert (found.ceiling <= found.rate + 1.001e-3).all()
    law = np.asarray(leakage.kernel(router, found.spec))
    np.testing.assert_allclose(
      law[np.arange(SIZE), found.victims], found.rate, atol=2e-6
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
    zoo = zoo_of(3)
    router = defenses.defended(zoo, name, 0.1)

    def exceeds(transform):
      victims = np.arange(SIZE)
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
    assert (leakage.kernel(router, wide(twins))[:, :4].max(0) <= found.ceiling).all()

  def test_best_effort_gives_the_fastest_model_away(self):
    """Specs beyond the strict end of the range: nothing is fast enough, ever."""
    zoo = zoo_of(0)
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
    zoo = zoo_of(0)
    router = Alone(defenses.capped(zoo, 0.3))
    for found in (leakage.worst(zoo, router), leakage.worst_of_all(zoo, router)):
      assert not found.certified
      assert np.isinf(found.ceiling).all()
      np.testing.assert_allclose(found.rate, 0.3, atol=1e-6)

  def test_dominated_models_get_no_more_than_their_dominators(self):
    zoo = zoo_of(4, levels=8)
    accuracy, latency = references.arrays(zoo)
    for name in ('laplace', 'best_effort', 'laplace_log'):
      law = leakage.kernel(defenses.defended(zoo, name, 0.2), wide(zoo))
      for i in range(SIZE):
        for j in range(SIZE):
          better = (accuracy[i] > accuracy[j]) | (latency[i] < latency[j])
          if better and accuracy[i] >= accuracy[j] and latency[i] <= latency[j]:
            assert (law[:, i] >= law[:, j] - 1e-6).all()

  def test_the_frontier_of_rate_and_purity(self):
    zoo = zoo_of(1)
    router = defenses.defended(zoo, 'laplace', 0.1)
    victim = int(pareto.corners(zoo)[1])
    found = leakage.frontier(zoo, router, victim)
    assert (np.diff(found.rate) > 0).all()
    assert (np.diff(found.purity) < 0).all()
    assert len(found.rate) > 5
    law = np.asarray(leakage.kernel(router, wide(zoo)))
    rate, served = law[:, victim], 1 - law[:, -1]
    purity = rate / np.maximum(served, 1e-9)
    for one_rate, one_purity in zip(rate, purity):
      if one_rate > 0.05:
        assert (
          (found.rate > one_rate - 0.02) & (found.purity > one_purity - 0.02)
        ).any()


def half_slack(transform):
  """The same noise whose boxes are bounded as if they were half as wide."""
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


@pytest.mark.parametrize('name', NAMES)
def test_no_memoryless_mechanism_is_above_the_bound(name):
  knob = defenses.MECHANISMS[name].knob

  @settings(references.PROPERTY, max_examples=5)
  @given(st.integers(0, 10_000), st.floats(0.0, 1.0))
  def check(seed, strength):
    zoo = zoo_of(seed, levels=12)
    router, spec = defenses.defended(zoo, name, knob.at(strength)), wide(zoo)
    if jax.eval_shape(router.kernel, spec) is None:
      pytest.skip('its law is not known')
    law, met = (
      np.asarray(leakage.kernel(router, spec), float),
      np.asarray(zoo.meets(spec)),
    )
    weight = met.any(-1) / met.any(-1).sum()
    kept = weight @ (law[:, :-1] * met).sum(-1)
    ceiling = leakage.worst_of_all(zoo, router).ceiling[0]
    most = leakage.bound(zoo, leakage.Measure(spec, weight), min(1.0, ceiling))
    assert kept <= float(most) + 1e-4
    if name == 'capped':
      assert kept == pytest.approx(float(most), abs=1e-4)

  check()


SMALL = references.make_profile([0.6, 0.9], [1.0, 5.0])
NOTHING = Spec.of([0.95], [9.0])


@pytest.mark.parametrize(
  ('call', 'message'),
  [
    (lambda: leakage.bound(SMALL, 'uniform', 1.5), r'rate is 1\.5; .* fraction in \['),
    (lambda: leakage.bound(SMALL, 'even', 0.5), "workload is 'even'; .*'uniform'"),
    (lambda: leakage.bound(SMALL, NOTHING, 0.5), 'workload has 1 specs, and no model'),
    (lambda: leakage.bound(SMALL, 'uniform', 0.5, victims=[2]), r'victims\[0\] is 2;'),
    (lambda: leakage.least_rate(SMALL, 'uniform', -0.1), r'goodput is -0\.1; .*fract'),
    (
      lambda: leakage.least_rate(SMALL, Spec.of([0.8, 0.95], 9.0), 0.6),
      r'goodput is 0\.6; .* at most 0\.5, the best',
    ),
    (lambda: leakage.worst(SMALL, routers.uniform(SMALL), gap=0.0), 'gap is 0.0; it m'),
    (
      lambda: leakage.worst(SMALL, routers.uniform(SMALL), victims=[0, -1]),
      r'victims\[1\] is -1; victims must be in \[0, 1\]',
    ),
    (lambda: leakage.worst_of_all(SMALL, routers.uniform(SMALL), gap=-1), 'gap is -1;'),
    (
      lambda: leakage.frontier(SMALL, routers.uniform(SMALL), 2),
      r'victim is 2; it must be in \[0, 1\]',
    ),
    (
      lambda: leakage.worst(SMALL, lambda key, spec: None),
      'key is None and num_models',
    ),
    (lambda: defenses.capped(SMALL, 0.0), r'cap is 0\.0; cap must be a fraction in \('),
    (
      lambda: defenses.capped(SMALL, [0.5]),
      r'cap has shape \(1,\); it must be \(\) or',
    ),
    (
      lambda: defenses.capped(SMALL, 0.5, protect=('x',)),
      "name is 'x'; it must be one",
    ),
    (
      lambda: defenses.capped(SMALL, 0.5, rest='other'),
      "rest is 'other'; it must be o",
    ),
    (
      lambda: defenses.capped(SMALL, 0.4, rest='nearest'),
      r'cap is 0\.4; where nothing is refused it must be at least 1/2 = 0\.5',
    ),
    (
      lambda: defenses.capped(SMALL, 0.4, rest='nearest', protect=('m0', 'm1')),
      r'cap is 0\.4; where nothing is refused',
    ),
    (lambda: defenses.capped_corners(SMALL, 1.5), r'cap is 1\.5; cap must be a fract'),
    (lambda: defenses.quantised(SMALL, -1.0), r'width is -1\.0; width must be finite'),
    (lambda: defenses.noise('cauchy', 1.0, 1.0), "law is 'cauchy'; it must be one of"),
    (
      lambda: defenses.noise('laplace', 1.0, 1.0, direction='up'),
      "direction is 'up'; it must be one of",
    ),
    (
      lambda: defenses.log_noise(references.make_profile([0.5], [0.0]), 0.1),
      r'latency_ms\[0\] is 0\.0; latency_ms must be > 0',
    ),
    (lambda: defenses.step_noise(SMALL, np.nan), 'accuracy_scale is nan; .* finite'),
  ],
)
def test_mistakes_are_named(call, message):
  with pytest.raises(ValueError, match=message):
    call()
