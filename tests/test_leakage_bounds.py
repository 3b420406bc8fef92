"""The law of goodput and rate: no server is above it, and capped routing attains it."""

import operator
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st

import psml_jax
import psml_jax.defenses.privacy
from psml_jax import defenses, leakage, pareto, profiles, routers
from psml_jax.core import Spec
from tests import plane, references

ROOT = pathlib.Path(__file__).parent.parent
PUBLISHED = profiles.load('cifar10_published')


class TestBound:
  @pytest.mark.parametrize('seed', range(4))
  def test_areas_are_what_a_grid_counts(self, seed):
    zoo = plane.zoo_of(seed)
    _, met = plane.inside(zoo)
    rates = np.array([0.01, 0.15, 0.2, 0.3, 0.5, 0.9, 1.0])
    wanted = np.minimum(1, rates[:, None] * met.sum(-1)).mean(-1)
    found = leakage.bound(zoo, 'uniform', rates)
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    assert (np.diff(found) >= 0).all()
    spec, _ = plane.inside(zoo)
    np.testing.assert_allclose(leakage.bound(zoo, spec, rates), wanted, atol=1e-9)

  @pytest.mark.parametrize('seed', range(4))
  def test_the_least_rate_is_its_inverse(self, seed):
    zoo = plane.zoo_of(seed)
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
    zoo, rate = plane.zoo_of(seed), 0.17 + 0.1 * seed
    spec, met = plane.inside(zoo)
    if kind == 'all':
      caps, law = np.full(plane.SIZE, rate), leakage.bound(zoo, spec, rate)
    elif kind == 'victims':
      caps = np.where(np.isin(np.arange(plane.SIZE), [1, 4]), rate, 1.0)
      law = leakage.bound(zoo, spec, rate, victims=[4, 1])
    else:
      victims, given_caps = [3, 1, 0], np.array([0.1, rate, 0.02])
      caps = np.ones(plane.SIZE)
      caps[victims] = given_caps
      law = leakage.bound(zoo, spec, given_caps, victims=victims)
    count = len(met)
    found = scipy.optimize.linprog(
      -(met / count).ravel(),
      A_ub=scipy.sparse.kron(scipy.sparse.eye(count), np.ones((1, plane.SIZE))),
      b_ub=np.ones(count),
      bounds=np.stack([np.zeros(count * plane.SIZE), np.tile(caps, count)], 1),
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
    zoo = plane.zoo_of(5)
    spec, met = plane.inside(zoo)
    met, weight = np.unique(met, axis=0, return_counts=True)
    count, size = len(met), len(met) * plane.SIZE
    each = scipy.sparse.kron(scipy.sparse.eye(count), np.ones((1, plane.SIZE)))
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
    zoo = plane.zoo_of(0)
    spec, met = plane.inside(zoo)
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


@pytest.mark.parametrize('name', NAMES)
def test_no_memoryless_mechanism_is_above_the_bound(name):
  knob = defenses.MECHANISMS[name].knob

  @settings(references.PROPERTY, max_examples=3)
  @given(st.integers(0, 10_000), st.floats(0.0, 1.0))
  def check(seed, strength):
    zoo = plane.zoo_of(seed, levels=12)
    router, spec = defenses.defended(zoo, name, knob.at(strength)), plane.wide(zoo)
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


def test_the_theory_names_tests_and_files_that_exist():
  theory = (ROOT / 'docs' / 'theory.md').read_text('utf-8')
  tests = ''.join(
    path.read_text('utf-8') for path in (ROOT / 'tests').glob('test_*.py')
  )
  names = set(re.findall(r'`(test_\w+|Test\w+)`', theory))
  assert len(names) > 10
  for name in names:
    assert re.search(rf'(def|class) {name}\b', tests), name
  for target in re.findall(r'\]\(([^)#]+)', theory):
    assert (ROOT / 'docs' / target).exists(), target
  for name in re.findall(r'`((?:leakage|defenses)\.[a-z_A-Z.]+)`', theory):
    assert operator.attrgetter(name)(psml_jax)


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
      'router is <function.*must be one whose kernel',
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
