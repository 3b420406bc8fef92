"""Scores of surrogates, purity, and intervals over seeds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from psml_jax import metrics
from psml_jax.core import Transcript


def test_accuracy_matches_loop():
  rng = np.random.default_rng(0)
  outputs, labels = rng.random((3, 2, 40, 5)), rng.integers(0, 5, 40)
  got = metrics.accuracy(jnp.asarray(outputs, jnp.float32), jnp.asarray(labels))
  assert got.shape == (3, 2)
  for i, j in np.ndindex(3, 2):
    hits = sum(outputs[i, j, n].argmax() == labels[n] for n in range(40))
    assert float(got[i, j]) == pytest.approx(hits / 40)


def test_fidelity_is_agreement():
  rng = np.random.default_rng(1)
  one, other = rng.random((2, 50, 4)).astype(np.float32)
  expected = np.mean([a.argmax() == b.argmax() for a, b in zip(one, other)])
  got = metrics.fidelity(jnp.asarray(one), jnp.asarray(other))
  assert float(got) == pytest.approx(expected)
  assert float(metrics.fidelity(jnp.asarray(one), jnp.asarray(one))) == 1.0


SCORES = pytest.mark.parametrize(
  'score',
  [
    lambda outputs: metrics.accuracy(outputs, jnp.zeros(2, jnp.int32)),
    lambda outputs: metrics.fidelity(outputs, jnp.array([[0.9, 0.1], [0.8, 0.2]])),
    lambda outputs: metrics.fidelity(outputs, outputs),
  ],
)


@SCORES
def test_nan_is_never_right(score):
  outputs = jnp.array([[jnp.nan, 0.5], [0.8, 0.2]])
  assert float(jax.jit(score)(outputs)) == 0.5
  with pytest.raises(ValueError, match=r'outputs\[0, 0\] is nan; outputs must be'):
    score(outputs)


@pytest.mark.parametrize(
  ('score', 'message'),
  [
    (
      lambda x: metrics.accuracy(x, jnp.zeros(1)),
      r'labels has shape \(1,\).*\(4,\)',
    ),
    (lambda x: metrics.accuracy(x, jnp.zeros((4, 3))), r'labels has shape \(4, 3\)'),
    (lambda x: metrics.accuracy(x[0], jnp.zeros(3)), r'outputs has shape \(3,\)'),
    (lambda x: metrics.accuracy(x[:0], jnp.zeros(0)), r'outputs has shape \(0, 3\)'),
    (
      lambda x: metrics.fidelity(x, x[:1]),
      r'victim_outputs has .*\(1, 3\).*\(4, 3\)',
    ),
  ],
)
def test_shapes_that_do_not_fit(score, message):
  with pytest.raises(ValueError, match=message):
    score(jnp.ones((4, 3)))


def test_purity_counts_answers_alone():
  model = jnp.array([2, 2, 1, -1, 2, 0])
  sent = jnp.array([True, True, True, True, False, True])
  assert float(metrics.purity(Transcript(model, sent), jnp.int32(2))) == 0.5
  assert float(metrics.purity(Transcript(model, sent), jnp.int32(3))) == 0.0


def test_purity_of_no_answers():
  nothing = Transcript(jnp.array([-1, 2]), jnp.array([True, False]))
  assert np.isnan(metrics.purity(nothing, jnp.int32(2)))


def test_interval_matches_scipy():
  values = [0.31, 0.35, 0.33, 0.4]
  got = metrics.interval(values)
  expected = scipy.stats.t.interval(
    0.95, 3, loc=np.mean(values), scale=scipy.stats.sem(values)
  )
  np.testing.assert_allclose((got.low, got.high), expected)
  assert got.mean == pytest.approx(np.mean(values))


def test_interval_covers_the_truth_as_often_as_it_says():
  rows = np.random.default_rng(2).normal(3.0, 2.0, (2000, 5))
  hits = sum(one.low <= 3.0 <= one.high for one in map(metrics.interval, rows))
  assert scipy.stats.binomtest(hits, 2000, 0.95).pvalue > 0.01


def test_equal_values_have_no_width():
  assert metrics.interval([0.5, 0.5]) == (0.5, 0.5, 0.5)


def test_within():
  assert metrics.Interval(0.5, -0.1, 1.2).within(0, 1) == (0.5, 0, 1)
  assert metrics.Interval(0.5, 0.4, 0.6).within(0, 1) == (0.5, 0.4, 0.6)


@pytest.mark.parametrize('values', [[], [1.0], 1.0, [[1.0, 2.0]]])
def test_interval_rejects_shapes(values):
  with pytest.raises(ValueError, match='values has shape .*two or more seeds'):
    metrics.interval(values)


@pytest.mark.parametrize('bad', [np.nan, np.inf])
def test_interval_rejects_numbers(bad):
  with pytest.raises(ValueError, match=f'values holds {bad}'):
    metrics.interval([1.0, bad, 2.0])
