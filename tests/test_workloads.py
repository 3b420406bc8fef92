"""Workloads: their distributions, edge cases and errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from psml_jax import pareto, profiles, workloads
from psml_jax.core import Spec
from tests import references
from tests.references import make_profile

pytestmark = pytest.mark.usefixtures('strict')

KEY = jax.random.key(31)
NAMES = ('uniform', 'log_latency', 'frontier', 'classes')
SIZE = 20_000
# Dominated models at both ends: no corner touches an end of the zoo's range.
WIDE = make_profile([0.6, 0.7, 0.8, 0.95, 0.2], [1.0, 2.0, 30.0, 70.0, 200.0])
ZOOS = {
  'wide': WIDE,
  'one model': make_profile([0.5], [3.0]),
  'twins': make_profile([0.5, 0.5], [3.0, 3.0]),
  'twins on the frontier': make_profile([0.5, 0.7, 0.7, 0.9], [1.0, 2.0, 2.0, 5.0]),
  'equal accuracies': make_profile([0.5, 0.5], [2.0, 9.0]),
  'nearly equal latencies': make_profile([0.5, 0.6], [1e6, 1e6 + 0.0625]),
  'random': references.spaced_profile(3, 40),
}


def numbers(spec):
  return (np.asarray(x, np.float64) for x in (spec.min_accuracy, spec.max_latency_ms))


def accepts(draws, cdf):
  return scipy.stats.kstest(draws, cdf).pvalue > 0.01


def rejects(draws, cdf):
  return scipy.stats.kstest(draws, cdf).pvalue < 1e-6


def counts_fit(groups, weights):
  seen = np.bincount(groups, minlength=len(weights))
  return scipy.stats.chisquare(seen, np.array(weights) * len(groups)).pvalue


@pytest.mark.parametrize('zoo', ZOOS)
@pytest.mark.parametrize('name', NAMES)
def test_every_spec_can_be_met_and_is_in_range(name, zoo):
  zoo = ZOOS[zoo]
  spec = workloads.make(name, size=3000)(KEY, zoo)
  accuracy, latency = references.arrays(zoo)
  assert spec.min_accuracy.shape == spec.max_latency_ms.shape == (3000,)
  assert spec.min_accuracy.dtype == spec.max_latency_ms.dtype == np.float32
  assert np.asarray(zoo.meets(spec)).any(-1).all()
  assert np.asarray(spec.min_accuracy >= accuracy.min()).all()
  assert np.asarray(spec.max_latency_ms >= latency.min()).all()
  assert np.asarray(spec.max_latency_ms <= latency.max()).all()
  workloads.check(spec, zoo)


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('profile', ['imagenet_timm', 'llm_stats_gpqa_price'])
def test_published_zoos_can_serve_it(name, profile):
  zoo = profiles.load(profile)
  spec = workloads.make(name, size=500)(KEY, zoo)
  assert np.asarray(zoo.meets(spec)).any(-1).all()


@pytest.mark.parametrize('name', NAMES)
def test_keys_jit_and_length(name):
  long, short = (workloads.make(name, size=n)(KEY, WIDE) for n in (400, 7))
  made = jax.jit(lambda key: workloads.make(name, size=400)(key, WIDE))(KEY)
  other = workloads.make(name, size=400)(jax.random.key(32), WIDE)
  for field in ('min_accuracy', 'max_latency_ms'):
    values = np.asarray(getattr(long, field))
    np.testing.assert_allclose(values[:7], getattr(short, field), rtol=1e-6)
    np.testing.assert_allclose(values, getattr(made, field), rtol=1e-6)
    assert (values != np.asarray(getattr(other, field))).mean() > 0.5


def in_the_log_region(spec, zoo=WIDE):
  """The specs mapped to the unit square: uniform if they are so in log latency."""
  accuracy, latency = (x.astype(np.float64) for x in references.arrays(zoo))
  grid = np.unique(latency)
  heights = np.array([accuracy[latency <= x].max() - accuracy.min() for x in grid[:-1]])
  area = np.append(0, np.cumsum(heights * np.diff(np.log(grid))))
  asked, limit = numbers(spec)
  step = np.clip(np.searchsorted(grid, limit, side='right') - 1, 0, len(heights) - 1)
  across = np.interp(np.log(limit), np.log(grid), area) / area[-1]
  return across, (asked - accuracy.min()) / heights[step]


def test_log_latency_is_uniform_in_log_latency():
  across, up = in_the_log_region(workloads.log_latency(SIZE)(KEY, WIDE))
  assert accepts(across, 'uniform')
  assert accepts(up, 'uniform')
  assert abs(np.corrcoef(across, up)[0, 1]) < 4 / np.sqrt(SIZE)


def test_that_test_rejects_another_scale():
  across, _ = in_the_log_region(workloads.uniform(SIZE)(KEY, WIDE))
  assert rejects(across, 'uniform')
  spec = workloads.log_latency(SIZE)(KEY, WIDE)
  narrower = Spec(spec.min_accuracy, spec.max_latency_ms**0.95)
  assert rejects(in_the_log_region(narrower)[0], 'uniform')


def shares_of_a_step(spec, zoo=WIDE):
  """The corner of each spec of small slack, and how far it lies from it."""
  models = pareto.corners(zoo)
  accuracy, latency = (x.astype(np.float64) for x in references.arrays(zoo))
  asked, limit = numbers(spec)
  corner = np.searchsorted(latency[models], limit, side='right') - 1
  down = np.diff(accuracy[models], prepend=accuracy.min())[corner]
  up = np.diff(latency[models], append=latency.max())[corner]
  less, more = accuracy[models][corner] - asked, limit - latency[models][corner]
  return corner, less / down, more / up


@pytest.mark.parametrize('slack', [0.02, 0.04])
def test_frontier_is_exponential_below_equal_corners(slack):
  spec = workloads.frontier(SIZE, slack=slack)(KEY, WIDE)
  corner, less, more = shares_of_a_step(spec)
  assert counts_fit(corner, [0.25] * 4) > 0.01
  for share in (less, more):
    assert accepts(share, scipy.stats.expon(scale=slack).cdf)
    for wrong in (2 / 3, 3 / 2):
      assert rejects(share, scipy.stats.expon(scale=wrong * slack).cdf)
  assert abs(np.corrcoef(less, more)[0, 1]) < 4 / np.sqrt(SIZE)
  by_area, _, _ = shares_of_a_step(workloads.uniform(SIZE)(KEY, WIDE))
  assert counts_fit(by_area, [0.25] * 4) < 1e-9


def test_frontier_without_slack_asks_for_corners():
  zoo = ZOOS['twins on the frontier']
  spec = workloads.frontier(2000, slack=0)(KEY, zoo)
  pairs = set(references.each(spec))
  corners = Spec(*(x[pareto.corners(zoo)] for x in references.arrays(zoo)))
  assert pairs == set(references.each(corners))


def test_frontier_serves_the_fastest_and_least_accurate():
  zoo = make_profile([0.5, 0.7, 0.9], [1.0, 2.0, 5.0])
  alone = np.asarray(zoo.meets(workloads.frontier(SIZE)(KEY, zoo)))
  assert 0.3 < (alone[:, 0] & ~alone[:, 1] & ~alone[:, 2]).mean() < 0.34
  uniform = np.asarray(zoo.meets(workloads.uniform(SIZE)(KEY, zoo)))
  assert not uniform[:, 0].any()


LADDER = make_profile(
  np.linspace(0.3, 0.9, 21).tolist(), (np.arange(1, 22) * 2.0).tolist()
)


def levels(spec):
  """Quantiles of the ladder's corners that specs ask for."""
  asked, limit = numbers(spec)
  return (asked - 0.3) / 0.6, (limit - 2) / 40


def test_classes_have_their_weights_and_jitter():
  asked, waits = levels(workloads.classes(SIZE)(KEY, LADDER))
  service = np.searchsorted([0.35, 0.75], waits)
  weights = [each.weight for each in workloads.SERVICES.values()]
  assert counts_fit(service, weights) > 0.01
  assert counts_fit(service, [0.48, 0.32, 0.2]) < 1e-6
  for i, each in enumerate(workloads.SERVICES.values()):
    for level, middle in (
      (waits[service == i], each.latency),
      (asked[service == i], each.accuracy),
    ):
      inside = level[(level > 1e-5) & (level < 1 - 1e-5)]
      low, high = max(middle - 0.1, 0), min(middle + 0.1, 1)
      if (i, middle) != (0, each.accuracy):  # it gives way, see below
        assert accepts(inside, scipy.stats.uniform(low, high - low).cdf)
        assert rejects(inside, scipy.stats.uniform(low, (high - low) * 0.9).cdf)
      at_end = 1 - len(inside) / len(level)
      wanted = (0.2 - (high - low)) / 0.2
      assert at_end == pytest.approx(wanted, abs=4 * np.sqrt(0.25 / len(level)))


def test_accuracy_gives_way_to_the_limit():
  asked, waits = levels(workloads.classes(SIZE)(KEY, LADDER))
  within = np.floor(waits * 20 + 1e-4) / 20
  assert (asked <= within + 1e-5).all()
  gave_way = np.abs(asked - within) < 1e-5
  assert 0.005 < gave_way.mean() < 0.1


@pytest.mark.parametrize(
  ('call', 'message'),
  [
    *(
      (lambda name=name, size=size: workloads.make(name, size=size), 'size is .*>= 1')
      for name in NAMES
      for size in (0, 1.5, True)
    ),
    (lambda: workloads.frontier(5, slack=-1), 'slack is -1; .* finite number >= 0'),
    (lambda: workloads.frontier(5, slack=np.inf), 'slack is inf'),
    (lambda: workloads.make('classes', size=5, slack=1), 'fields of workload'),
    (
      lambda: workloads.log_latency(5)(KEY, make_profile([0.5, 0.7], [1.0, 0.0])),
      r'profile\.latency_ms\[1\] is 0.0; .* must be > 0 for the workload log_latency',
    ),
    *(
      (lambda name=name: workloads.make(name, size=5)(0, WIDE), 'key is 0; it must be')
      for name in NAMES
    ),
    (
      lambda: workloads.check(Spec.of([0.9, 0.96], [60.0, np.inf]), WIDE),
      'spec is a workload with no feasible spec: of its 2 .*0.9 to 0.96 .*60 to inf, .*'
      'zoo has accuracies 0.2 to 0.95 and latencies 1 to 200',
    ),
    (lambda: workloads.check(Spec.of([0.1], [0.9]), WIDE), 'no feasible spec'),
    (lambda: workloads.check(Spec.of([], []), WIDE), 'no feasible spec: of its 0'),
    (
      lambda: workloads.check(Spec(jnp.array([0.1]), jnp.array([jnp.nan])), WIDE),
      'no feasible spec',
    ),
  ],
)
def test_mistakes_are_named(call, message):
  with pytest.raises(ValueError, match=message):
    call()


def test_check_agrees_with_meets():
  rng = np.random.default_rng(0)
  zoo = ZOOS['random']
  for asked, limit in zip(rng.uniform(0, 1, 200), rng.uniform(-1, 99, 200)):
    spec = Spec.of([asked], [limit])
    if np.asarray(zoo.meets(spec)).any():
      workloads.check(spec, zoo)
    else:
      with pytest.raises(ValueError, match='no feasible spec'):
        workloads.check(spec, zoo)
  workloads.check(Spec.of([0.99, 0.0], [1.0, 99.0]), zoo)  # one is enough
  for model in pareto.corners(zoo):
    accuracy, latency = zoo.accuracy[model], zoo.latency_ms[model]
    workloads.check(Spec(accuracy[None], latency[None]), zoo)
    for spec in (
      Spec(jnp.nextafter(accuracy, 2)[None], latency[None]),
      Spec(accuracy[None], jnp.nextafter(latency, 0)[None]),
    ):
      with pytest.raises(ValueError, match='no feasible spec'):
        workloads.check(spec, zoo)


def test_csv(tmp_path):
  path = tmp_path / 'specs.csv'
  path.write_text('ms,acc\n1.5,0.5\ninf,1\n')
  columns = {'accuracy_column': 'acc', 'latency_column': 'ms'}
  made = workloads.make('csv', path=path, accuracy_unit='fraction', **columns)
  spec = made(KEY, WIDE)
  np.testing.assert_array_equal(spec.max_latency_ms, [1.5, np.inf])
  workloads.check(spec, WIDE)
