"""Goodput, the uniform workload, users' own workloads and the calibration."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from psml_jax import defenses, goodput, leakage, pareto, profiles, routers, workloads
from psml_jax.core import Route, Spec
from tests import references
from tests.references import make_profile

pytestmark = pytest.mark.usefixtures('strict')

KEY = jax.random.key(21)


@references.PROPERTY
@given(
  references.profiles(),
  references.specs(),
  st.lists(st.integers(-1, 69), min_size=16, max_size=16),
)
def test_matches_reference(profile, spec, models):
  models = np.minimum(np.array(models, np.int32), len(profile) - 1)
  route = Route(jnp.asarray(models), jnp.ones(16, jnp.int32))
  got = goodput.goodput(profile, spec, route)
  assert float(got) == pytest.approx(references.goodput(profile, spec, models))


@pytest.mark.parametrize(
  ('models', 'specs', 'message'),
  [
    ([0, 2], 2, r'route\.model\[1\] is 2; route\.model must be -1 to 1'),
    ([-2, 0], 2, r'route\.model\[0\] is -2'),
    ([0], 2, r'spec has shapes \(2,\) and \(2,\) and route \(1,\)'),
    ([], 0, r'spec has shape \(0,\); a goodput needs one query'),
  ],
)
def test_answers_that_do_not_fit(models, specs, message):
  models = jnp.asarray(models, jnp.int32)
  spec = Spec.of(jnp.full(specs, 0.5), 2.0)
  with pytest.raises(ValueError, match=message):
    goodput.goodput(
      make_profile([0.6, 0.7], [1.0, 2.0]), spec, Route(models, jnp.ones_like(models))
    )


def test_undefended_goodput_is_one():
  profile = references.random_profile(0, 7)
  spec = goodput.uniform_workload(KEY, profile, 400)
  route = routers.uniform(profile)(KEY, spec)
  assert float(goodput.goodput(profile, spec, route)) == 1.0


def rosenblatt(profile, spec):
  """The specs mapped to the unit square: uniform if they are so on the region."""
  accuracy, latency = (x.astype(np.float64) for x in references.arrays(profile))
  grid = np.unique(latency)
  heights = np.array([accuracy[latency <= x].max() - accuracy.min() for x in grid[:-1]])
  cumulative = np.concatenate([[0.0], np.cumsum(heights * np.diff(grid))])
  at = np.asarray(spec.max_latency_ms, np.float64)
  step = np.clip(np.searchsorted(grid, at, side='right') - 1, 0, len(heights) - 1)
  above = np.asarray(spec.min_accuracy, np.float64) - accuracy.min()
  return np.interp(at, grid, cumulative) / cumulative[-1], above / heights[step]


@pytest.mark.parametrize(
  'profile',
  [
    make_profile([0.5, 0.7, 0.75, 0.95], [1.0, 2.0, 6.0, 7.0]),
    make_profile([0.3, 0.6, 0.2, 0.9, 0.1], [1.0, 2.0, 4.0, 5.0, 11.0]),
    make_profile([0.9, 0.5], [1.0, 5.0]),
    references.random_profile(3, 40),
  ],
  ids=['frontier', 'dominated models widen the box', 'one step', 'random'],
)
def test_workload_is_uniform_over_the_region(profile):
  spec = goodput.uniform_workload(KEY, profile, 20_000)
  accuracy, latency = references.arrays(profile)
  for min_accuracy, max_latency in list(references.each(spec))[:2000]:
    assert references.feasible_set(profile, min_accuracy, max_latency)
  assert (np.asarray(spec.min_accuracy) >= accuracy.min()).all()
  assert (np.asarray(spec.max_latency_ms) >= latency.min()).all()
  assert (np.asarray(spec.max_latency_ms) <= latency.max()).all()
  first, second = rosenblatt(profile, spec)
  assert scipy.stats.kstest(first, 'uniform').pvalue > 0.01
  assert scipy.stats.kstest(second, 'uniform').pvalue > 0.01
  assert abs(np.corrcoef(first, second)[0, 1]) < 4 / np.sqrt(20_000)


def test_uniformity_test_rejects_steps_of_equal_weight():
  profile = make_profile([0.6, 0.7, 0.75, 0.95, 0.5], [1.0, 2.0, 6.0, 7.0, 7.0])
  rng = np.random.default_rng(0)
  step = rng.integers(0, 3, 20_000)
  latency = np.array([1.0, 2.0, 6.0])[step] + np.array([1.0, 4.0, 1.0])[
    step
  ] * rng.random(20_000)
  first, _ = rosenblatt(profile, Spec.of(np.full(20_000, 0.5), latency))
  assert scipy.stats.kstest(first, 'uniform').pvalue < 1e-9


@pytest.mark.parametrize(
  ('accuracy', 'latency', 'corner'),
  [([0.5], [3.0], (0.5, 3.0)), ([0.5, 0.5], [2.0, 9.0], (0.5, 2.0))],
)
def test_workload_of_a_region_without_area(accuracy, latency, corner):
  spec = goodput.uniform_workload(KEY, make_profile(accuracy, latency), 50)
  np.testing.assert_array_equal(spec.min_accuracy, np.full(50, corner[0]))
  assert (np.asarray(spec.max_latency_ms) >= corner[1]).all()
  assert (np.asarray(spec.max_latency_ms) <= max(latency)).all()


def test_longer_workload_starts_the_same():
  profile = references.random_profile(0, 7)
  long, short = (goodput.uniform_workload(KEY, profile, n) for n in (400, 7))
  np.testing.assert_array_equal(long.min_accuracy[:7], short.min_accuracy)
  np.testing.assert_array_equal(long.max_latency_ms[:7], short.max_latency_ms)


@pytest.mark.parametrize('num_specs', [0, -1, 1.5, True, '9'])
def test_workload_rejects(num_specs):
  with pytest.raises(ValueError, match='num_specs is .*whole number >= 1'):
    goodput.uniform_workload(KEY, make_profile([0.5], [1.0]), num_specs)


def load(path, unit='fraction'):
  return goodput.load_workload(
    path, accuracy_column='acc', latency_column='ms', accuracy_unit=unit
  )


def test_load_workload(tmp_path):
  path = tmp_path / 'specs.csv'
  path.write_text('ms,acc,who\n1.5,50,x\ninf,100,y\n')
  spec = load(path, 'percent')
  np.testing.assert_array_equal(spec.min_accuracy, [0.5, 1.0])
  np.testing.assert_array_equal(spec.max_latency_ms, [1.5, np.inf])


@pytest.mark.parametrize(
  ('text', 'unit', 'message'),
  [
    ('acc,ms\n', 'fraction', 'has no rows'),
    ('acc,latency\n0.5,1\n', 'fraction', "column 'ms' is missing"),
    ('acc,ms\n0.5,\n', 'fraction', 'ms in line 2 of .* is empty'),
    ('acc,ms\n0.5,soon\n', 'fraction', "ms in line 2 of .* is 'soon'"),
    ('acc,ms\n0.5,nan\n', 'fraction', r'ms in line 2 of .* is nan'),
    ('acc,ms\nnan,1\n', 'fraction', r'acc in line 2 of .* is nan'),
    ('acc,ms\n0.5,1\n-0.5,1\n', 'fraction', r'acc in line 3 of .* is -0.5'),
    ('acc,ms\n50,1\n', 'fraction', 'looks like percent'),
    ('acc,ms\n120,1\n', 'percent', r'acc in line 2 of .* is 120; it must be percent'),
    ('acc,ms\n50,1\n', 'share', "accuracy_unit is 'share'"),
  ],
)
def test_load_workload_rejects(tmp_path, text, unit, message):
  path = tmp_path / 'specs.csv'
  path.write_text(text)
  with pytest.raises(ValueError, match=message):
    load(path, unit)


def test_load_workload_rejects_missing_file(tmp_path):
  with pytest.raises(ValueError, match='it must be a CSV file'):
    load(tmp_path / 'no.csv')


def test_by_step_matches_reference():
  profile = make_profile([0.5, 0.7, 0.7, 0.6, 0.9], [1.0, 2.0, 2.0, 3.0, 5.0])
  rng = np.random.default_rng(1)
  spec = Spec.of(rng.uniform(0.2, 0.95, 500), rng.choice([0.5, 1, 1.5, 2, 4], 500))
  models = rng.integers(-1, 5, 500)
  route = Route(jnp.asarray(models, jnp.int32), jnp.ones(500, jnp.int32))
  steps = goodput.by_step(KEY, profile, lambda key, spec: route, spec)
  limit = np.asarray(spec.max_latency_ms)
  for i, (low, high) in enumerate([(1, 2), (2, 5), (5, np.inf)]):
    at = np.flatnonzero((limit >= low) & (limit < high))
    assert float(steps.share[i]) == pytest.approx(len(at) / 500)
    if i == 2:
      assert np.isnan(steps.goodput[i])
      continue
    wanted = references.goodput(
      profile, Spec(spec.min_accuracy[at], spec.max_latency_ms[at]), models[at]
    )
    assert float(steps.goodput[i]) == pytest.approx(wanted)
  assert float(steps.share.sum()) == pytest.approx((limit >= 1).mean())


def test_who_pays_for_noise_on_the_digits():
  """At a goodput of 80 % in the mean fast clients keep half of it, corners a sixth."""
  zoo = profiles.load('digits')
  noise = defenses.laplace(*defenses.relative_scale(zoo, 0.103))
  router = defenses.defend(routers.uniform(zoo), noise)
  spec = workloads.uniform(40_000)(KEY, zoo)
  steps = goodput.by_step(KEY, zoo, router, spec)
  np.testing.assert_allclose(
    steps.goodput[1:5], [0.235, 0.40, 0.61, 0.86], atol=0.05, rtol=0
  )
  assert np.isnan(steps.goodput[0])  # nobody asks for the fastest
  mean = np.nansum(np.asarray(steps.goodput) * np.asarray(steps.share))
  by_class = goodput.by_class(KEY, zoo, router, spec)
  assert float(by_class['all']) == pytest.approx(mean, abs=0.01)
  assert mean == pytest.approx(0.81, abs=0.015)
  models = np.tile(pareto.corners(zoo), 4000)
  corners = Spec(zoo.accuracy[models], zoo.latency_ms[models])
  each = goodput.by_step(KEY, zoo, router, corners)
  np.testing.assert_allclose(each.share, np.full(6, 1 / 6), rtol=1e-6)
  assert ((each.goodput > 0.09) & (each.goodput < 0.23)).all()
  mean = float(each.goodput.mean())
  assert float(by_class['corner']) == pytest.approx(mean, abs=0.01)


def test_steps_of_uniform_clients_are_areas():
  zoo = make_profile([0.4, 0.5, 0.7, 0.9], [0.5, 1.0, 2.0, 5.0])
  measure = leakage.uniform(zoo)
  router = defenses.defended(zoo, 'capped', 0.4)
  kept = leakage.kept(zoo, router, measure.spec)
  steps = goodput.of_steps(zoo, measure.spec, kept, measure.weight)
  # Of accuracies from 0.4 on; from 2 ms on two models meet those up to 0.5.
  fast, both, one = 0.1 * 1, 0.1 * 3, 0.2 * 3
  areas = np.array([0, fast, both + one, 0])
  np.testing.assert_allclose(steps.share, areas / areas.sum(), atol=1e-5)
  mean = (0.8 * both + 0.4 * one) / (both + one)
  np.testing.assert_allclose(steps.goodput[1:3], [0.4, mean], atol=1e-5)


def test_by_step_under_jit_and_vmap():
  zoo = references.random_profile(0, 7)
  router, keys = routers.uniform(zoo), jax.random.split(KEY, 3)

  def one(key):
    spec = workloads.frontier(200)(key, zoo)
    return goodput.by_step(key, zoo, router, spec)

  batched = jax.jit(jax.vmap(one))(keys)
  for i, key in enumerate(keys):
    np.testing.assert_allclose(batched.share[i], one(key).share, rtol=1e-5)
    np.testing.assert_allclose(batched.goodput[i], one(key).goodput, rtol=1e-5)


KNOB = defenses.MECHANISMS['laplace'].knob


@pytest.mark.parametrize('edge', [0.01, 0.2, 7.0])
def test_calibrate_finds_the_strongest_value(edge):
  found = goodput.calibrate(KEY, lambda key, b: 1 - 0.2 * b / edge, KNOB, target=0.8)
  assert edge * (1 - 2e-3) <= found.value <= edge * (1 + 1e-5)
  assert found.goodput.mean == pytest.approx(0.8, abs=1e-3)


def test_calibrate_leaves_room_for_twice_the_interval():
  def at(key, scale):
    return 1 - scale + 0.02 * jax.random.normal(key)

  found = goodput.calibrate(KEY, at, KNOB, target=0.8)
  half = found.goodput.mean - found.goodput.low
  assert half > 0.005
  assert 0.8 <= found.goodput.mean - 2 * half < 0.8 + 1e-3


def test_calibrate_of_a_router():
  profile = references.random_profile(0, 7)
  spec = goodput.uniform_workload(jax.random.key(1), profile, 400)
  router = routers.uniform(profile)

  def at(key, scale):
    noise = defenses.laplace(*defenses.relative_scale(profile, scale))
    return goodput.goodput(profile, spec, defenses.defend(router, noise)(key, spec))

  found = goodput.calibrate(KEY, at, KNOB, target=0.8)
  assert found.goodput.low >= 0.8
  again = [float(at(jax.random.key(i), found.value * 1.2)) for i in range(8)]
  assert np.mean(again) < found.goodput.mean
  assert 0.01 < found.value < 1


def test_calibrate_stops_at_its_largest_scale():
  found = goodput.calibrate(KEY, lambda key, b: 1.0 - 0.0 * b, KNOB, target=1.0)
  assert (found.value, found.goodput.mean) == (64.0, 1.0)


def test_calibrate_rejects_unreachable_target():
  with pytest.raises(ValueError, match='goodput without a defense is 0.5'):
    goodput.calibrate(KEY, lambda key, b: 0.5 - 0.0 * b, KNOB, target=0.8)


@pytest.mark.parametrize('target', [0.0, -0.5, 1.01, np.nan])
def test_calibrate_rejects_target(target):
  with pytest.raises(ValueError, match=f'target is {target}'):
    goodput.calibrate(KEY, lambda key, b: 1.0 - b, KNOB, target=target)
