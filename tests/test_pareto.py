"""The frontier and the hypervolume against their definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from psml_jax import pareto
from tests import references
from tests.references import make_profile


@references.PROPERTY
@given(references.profiles(), st.floats(0, 40, width=32, allow_subnormal=False))
def test_matches_reference(profile, limit):
  mask = np.asarray(pareto.pareto_mask(profile))
  np.testing.assert_array_equal(mask, references.pareto_mask(profile))
  assert pareto.frontier(profile).tolist() == references.frontier(profile)
  expected = references.hypervolume(profile, limit)
  np.testing.assert_allclose(
    pareto.hypervolume(profile, limit), expected, rtol=1e-5, atol=1e-4
  )


def test_ten_thousand_models():
  profile = references.random_profile(0, 10_000, levels=300)
  mask = references.pareto_mask(profile)
  assert 1 < mask.sum() < 10_000
  np.testing.assert_array_equal(pareto.pareto_mask(profile), mask)
  assert pareto.frontier(profile).tolist() == references.frontier(profile)
  np.testing.assert_allclose(
    pareto.hypervolume(profile, 400.0),
    references.hypervolume(profile, 400.0),
    rtol=1e-4,
  )


def test_equal_models_are_all_optimal_and_share_a_corner():
  zoo = make_profile([0.9, 0.5, 0.9, 0.9], [3.0, 1.0, 3.0, 4.0])
  assert pareto.pareto_mask(zoo).tolist() == [True, True, True, False]
  assert pareto.frontier(zoo).tolist() == [1, 0, 2]
  one, other = pareto.corner(zoo, 0), pareto.corner(zoo, 2)
  assert one.min_accuracy == other.min_accuracy
  assert one.max_latency_ms == other.max_latency_ms


def test_only_the_model_itself_meets_its_corner():
  zoo = references.spaced_profile(3, 30)
  for model in pareto.frontier(zoo):
    corner = pareto.corner(zoo, int(model))
    feasible = references.feasible_set(zoo, corner.min_accuracy, corner.max_latency_ms)
    assert feasible == [model]


@pytest.mark.parametrize('model', [-1, 3, 100])
def test_corner_of_no_model(model):
  zoo = make_profile([0.5, 0.4, 0.9], [1.0, 2.0, 3.0])
  with pytest.raises(ValueError, match=rf'model is {model}; it must be in \[0, 2\]'):
    pareto.corner(zoo, model)


def test_corner_of_dominated_model():
  zoo = make_profile([0.5, 0.4, 0.9], [1.0, 2.0, 3.0])
  with pytest.raises(ValueError, match="victim is 'm1'.*allowed are m0, m2"):
    pareto.corner(zoo, 1)


@pytest.mark.parametrize('size', [1, 2, 3, 4, 5])
def test_victims(size):
  zoo = make_profile(np.arange(1, size + 1) / 8, np.arange(size) + 1.0)
  assert pareto.victims(zoo) == {
    'small': 0,
    'medium': (size - 1) // 2,
    'large': size - 1,
  }


def test_hypervolume_outside_the_zoo():
  zoo = make_profile([0.5, 1.0], [2.0, 4.0])
  assert float(pareto.hypervolume(zoo, 0.0)) == 0.0
  assert float(pareto.hypervolume(zoo, 2.0)) == 0.0
  assert float(pareto.hypervolume(zoo, 3.0)) == 0.5
  assert float(pareto.hypervolume(zoo, 6.0)) == 3.0


@pytest.mark.parametrize('limit', [-1.0, np.inf, np.nan])
def test_hypervolume_rejects(limit):
  zoo = make_profile([0.5], [2.0])
  with pytest.raises(ValueError, match='max_latency_ms is'):
    pareto.hypervolume(zoo, limit)


def test_traced():
  zoo = references.random_profile(1, 20)
  volume = jax.jit(pareto.hypervolume)
  np.testing.assert_allclose(volume(zoo, 9.0), pareto.hypervolume(zoo, 9.0), rtol=1e-6)
  assert np.isnan(volume(zoo, jnp.nan))
  np.testing.assert_array_equal(
    jax.jit(pareto.pareto_mask)(zoo), references.pareto_mask(zoo)
  )


def test_twins_share_a_corner_and_count_once():
  zoo = references.make_profile(
    [0.5, 0.7, 0.7, 0.9, 0.3, 0.3, 0.9], [1.0, 2.0, 2.0, 5.0, 4.0, 4.0, 5.0]
  )
  assert pareto.frontier(zoo).tolist() == [0, 1, 2, 3, 6]
  assert pareto.corners(zoo).tolist() == [0, 1, 3]
  assert pareto.twins(zoo) == [[1, 2], [3, 6], [4, 5]]
  assert pareto.victims(zoo) == {'small': 0, 'medium': 1, 'large': 3}


def test_a_zoo_without_twins_has_none():
  zoo = references.make_profile([0.5, 0.5, 0.7], [1.0, 2.0, 2.0])
  assert pareto.twins(zoo) == []
  assert pareto.corners(zoo).tolist() == pareto.frontier(zoo).tolist() == [0, 2]
