"""Every router against the slow reference, and the uniform one's distribution."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from psml_jax import feasible, routers
from psml_jax.core import Spec
from tests import references
from tests.references import make_profile

pytestmark = pytest.mark.usefixtures('strict')

KEY = jax.random.key(5)
INFEASIBLE = st.sampled_from(routers.INFEASIBLE)


def check(profile, spec, infeasible):
  """All routers' answers to a batch of specs."""
  factories = (routers.uniform, routers.most_accurate, routers.fastest)
  routes = [make(profile, infeasible=infeasible)(KEY, spec) for make in factories]
  models = [np.asarray(route.model) for route in routes]
  for i, (min_accuracy, max_latency) in enumerate(references.each(spec)):
    allowed = references.feasible_set(profile, min_accuracy, max_latency)
    assert [int(route.num_feasible[i]) for route in routes] == [len(allowed)] * 3
    if allowed:
      assert models[0][i] in allowed
      assert models[1][i] == references.most_accurate_of(profile, allowed)
      assert models[2][i] == references.fastest_of(profile, allowed)
    else:
      answer = references.fallback(profile, max_latency, infeasible)
      assert [one[i] for one in models] == [answer] * 3


@references.PROPERTY
@given(references.profiles(), references.specs(), INFEASIBLE)
def test_matches_reference(profile, spec, infeasible):
  with jax.disable_jit():  # every router would compile anew
    check(profile, spec, infeasible)


@pytest.mark.parametrize(('size', 'infeasible'), [(6, 'best_effort'), (65, 'refuse')])
def test_compiled_matches_reference(size, infeasible):
  rng = np.random.default_rng(size)
  accuracy = np.concatenate([rng.random(60), rng.integers(0, 13, 40) / 12])
  latency = np.concatenate([rng.integers(-1, 13, 60) * 1.5, rng.uniform(-1, 19, 40)])
  check(references.random_profile(size, size), Spec.of(accuracy, latency), infeasible)


def test_ten_thousand_models():
  profile = references.random_profile(0, 10_000, levels=120)
  rng = np.random.default_rng(1)
  accuracy = np.concatenate([rng.random(20), rng.integers(0, 120, 20) / 120, [0, 1.1]])
  latency = rng.integers(-2, 125, 42) * 1.5
  check(profile, Spec.of(accuracy, latency), 'best_effort')


@pytest.mark.parametrize('size', [1, 2, 63, 64, 65])
def test_select_is_the_kth_best(size):
  profile = references.random_profile(size, size)
  accuracy, latency = references.arrays(profile)
  fast = np.unique(np.searchsorted(np.sort(latency), latency, side='right'))
  cells = [(p, k) for p in fast for k in range(p)]
  p, k = np.array(cells, np.int32).T
  got = np.asarray(jax.jit(feasible.select)(feasible.index(profile), p, k))
  for model, (count, place) in zip(got, cells):
    among = np.flatnonzero(latency <= np.sort(latency)[count - 1])
    best = sorted(among, key=lambda i: (-accuracy[i], latency[i], i))
    assert model == best[place]


@pytest.mark.parametrize('size', [9, 70])
def test_uniform_is_uniform(size):
  profile = references.random_profile(2, size)
  spec = Spec.of(np.full(20_000, 0.2), 10.0)
  allowed = references.feasible_set(profile, np.float32(0.2), 10.0)
  assert 3 <= len(allowed) < size
  models = np.asarray(routers.uniform(profile)(KEY, spec).model)
  counts = np.array([(models == i).sum() for i in allowed])
  assert counts.sum() == len(models)
  assert scipy.stats.chisquare(counts).pvalue > 0.01
  tilted = np.linspace(1.0, 1.5, len(allowed))
  wrong = tilted / tilted.sum() * len(models)
  assert scipy.stats.chisquare(counts, wrong).pvalue < 1e-6


def test_uniform_is_uniform_to_a_part_in_a_thousand():
  """A draw tilted by 2 % (u ** 1.02) gives the first of 22 models 6 % more."""
  profile = make_profile(np.linspace(0.1, 0.9, 22), np.linspace(1.0, 9.0, 22))
  models = routers.uniform(profile)(KEY, Spec.of(np.zeros(10**6), 9.0)).model
  counts = np.bincount(np.asarray(models), minlength=22)
  assert scipy.stats.chisquare(counts).pvalue > 0.01
  tilted = np.floor(22 * np.random.default_rng(0).random(10**6) ** 1.02).astype(int)
  assert scipy.stats.chisquare(np.bincount(tilted, minlength=22)).pvalue < 1e-9


def test_uniform_queries_of_a_batch_are_independent():
  profile = make_profile([0.5, 0.6], [1.0, 2.0])
  models = np.asarray(
    routers.uniform(profile)(KEY, Spec.of(np.zeros(20_000), 9.0)).model
  )
  pairs = np.bincount(2 * models[:-1:2] + models[1::2], minlength=4)
  assert scipy.stats.chisquare(pairs).pvalue > 0.01


def test_all_infeasible_is_no_error():
  profile = references.random_profile(4, 8)
  spec = Spec.of(np.full(5, 1.01), 1e9)
  route = routers.uniform(profile)(KEY, spec)
  assert route.model.tolist() == [-1] * 5
  assert route.num_feasible.tolist() == [0] * 5


def test_infinite_specs():
  profile = make_profile([0.7, 0.9], [1.0, 5.0])
  spec = Spec.of([-np.inf, np.inf, 0.0, 0.0], [np.inf, np.inf, np.inf, -np.inf])
  route = routers.most_accurate(profile)(KEY, spec)
  assert route.model.tolist() == [1, -1, 1, -1]
  assert route.num_feasible.tolist() == [2, 0, 2, 0]


def test_explicit_serves_its_model_whatever_the_spec():
  spec = Spec.of([[0.5, np.inf]], -1.0)
  for model in (2, jnp.int32(2)):
    route = jax.jit(lambda m: routers.explicit(m)(KEY, spec))(model)
    assert route.model.tolist() == [[2, 2]]
    assert route.num_feasible.tolist() == [[1, 1]]
    assert route.model.dtype == route.num_feasible.dtype == jnp.int32


@pytest.mark.parametrize(
  'make', [routers.uniform, routers.most_accurate, routers.fastest]
)
def test_rejects_unknown_infeasible(make):
  with pytest.raises(ValueError, match="infeasible is 'crash'; it must be one of"):
    make(make_profile([0.5], [1.0]), infeasible='crash')


@pytest.mark.parametrize(
  'make', [routers.uniform, routers.most_accurate, routers.fastest]
)
def test_rejects_a_key_of_the_old_kind(make):
  with pytest.raises(ValueError, match='key is of type uint32; .* jax.random.key'):
    make(make_profile([0.5], [1.0]))(jax.random.PRNGKey(0), Spec.of(0.5, 1.0))


def test_routes_are_the_same_under_x64():
  profile = references.random_profile(3, 30)
  rng = np.random.default_rng(0)
  spec = Spec.of(rng.random(200), rng.uniform(0, 20, 200))
  wanted = routers.uniform(profile)(KEY, spec)
  with jax.enable_x64(True):
    got = routers.uniform(profile)(KEY, spec)
  np.testing.assert_array_equal(wanted.model, got.model)
