"""Mechanisms that select: their laws, draws, extremes, and bounds over boxes."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from psml_jax import defenses, routers
from psml_jax.core import Spec
from psml_jax.defenses import laws
from tests import references

pytestmark = pytest.mark.usefixtures('strict')

ZOO = references.make_profile(
  [0.4, 0.6, 0.7, 0.9, 0.55, 0.7], [2.0, 3.0, 4.0, 8.0, 6.0, 4.0]
)
SPECS = Spec.of([0.5, 0.65, 0.9, 0.95], [5.0, 9.0, 8.0, 1.0])  # the last meets none
SELECTIONS = {
  f'{make.__name__}_{score}_{models}': functools.partial(
    make, score=score, models=models
  )
  for make, score, models in (
    (defenses.exponential, 'goodput', 'all'),
    (defenses.exponential, 'l1', 'all'),
    (defenses.exponential, 'quantile', 'frontier'),
    (defenses.permute_and_flip, 'goodput', 'all'),
    (defenses.permute_and_flip, 'l1', 'frontier'),
    (defenses.permute_and_flip, 'quantile', 'all'),
  )
}
FALL_BACKS = {
  prefer: functools.partial(defenses.fall_back, prefer=prefer)
  for prefer in ('uniform', 'most_accurate', 'fastest')
}
ROUTERS = {name: make(ZOO, 3.0) for name, make in SELECTIONS.items()} | {
  name: make(ZOO, 0.4) for name, make in FALL_BACKS.items()
}
EPSILONS = (1e-6, 1e-3, 1.0, 40.0, 1e3, 1e6, np.inf)
DRAWS = 500_000


def score_of(name, accuracy, latency_ms):
  """A score of every model, one spec at a time, by its definition."""
  a, ms = (np.asarray(x, np.float64) for x in references.arrays(ZOO))
  accuracy, latency_ms = np.float32(accuracy), np.float32(latency_ms)
  met = (np.float32(a) >= accuracy) & (np.float32(ms) <= latency_ms)
  if name == 'goodput':
    return met * 1.0
  if name == 'l1':
    far_a = np.abs(np.clip(accuracy, a.min(), a.max()) - a) / np.ptp(a)
    far_l = np.abs(np.clip(latency_ms, ms.min(), ms.max()) - ms) / np.ptp(ms)
  else:
    between = np.empty((2, len(a)))
    for i in range(len(a)):
      lower, higher = sorted((np.float32(accuracy), np.float32(a[i])))
      between[0, i] = np.sum((np.float32(a) >= lower) & (np.float32(a) < higher))
      lower, higher = sorted((np.float32(latency_ms), np.float32(ms[i])))
      between[1, i] = np.sum((np.float32(ms) > lower) & (np.float32(ms) <= higher))
    far_a, far_l = between / len(a)
  return -(~met + (far_a + far_l) / 2) / 2


def flipped(rng, chances, draws):
  """Permute-and-flip as its authors write it, on the probabilities of the coins."""
  counts = np.zeros(len(chances))
  for _ in range(draws):
    for model in rng.permutation(len(chances)):
      if rng.random() < chances[model]:
        counts[model] += 1
        break
  return counts


def p_value(counts, law):
  """Chi-squared over specs, counts and law f64[S, M]; unlikely models are one."""
  statistic, freedom = 0.0, 0
  for seen, share in zip(counts, law, strict=True):
    wanted = share / share.sum() * seen.sum()
    rare = wanted < 20
    assert seen[wanted == 0].sum() == 0
    seen, wanted = (np.append(x[~rare], x[rare].sum()) for x in (seen, wanted))
    kept = wanted > 0
    statistic += np.sum((seen[kept] - wanted[kept]) ** 2 / wanted[kept])
    freedom += kept.sum() - 1
  return scipy.stats.chi2.sf(statistic, freedom)


@pytest.mark.parametrize('name', ['goodput', 'l1', 'quantile'])
@pytest.mark.parametrize('epsilon', [0.5, 7.0])
def test_the_exponential_law_is_its_formula(name, epsilon):
  law = defenses.exponential(ZOO, epsilon, score=name).kernel(SPECS)
  for row, spec in zip(law, references.each(SPECS), strict=True):
    weights = np.exp(epsilon * score_of(name, *spec) / 2)
    np.testing.assert_allclose(row[:-1], weights / weights.sum(), atol=1e-6)
    assert row[-1] == 0


@pytest.mark.parametrize('name', ['goodput', 'l1'])
def test_permute_and_flip_is_the_algorithm(name):
  rng = np.random.default_rng(0)
  router = defenses.permute_and_flip(ZOO, 4.0, score=name)
  law = np.asarray(router.kernel(SPECS), np.float64)[:2, :-1]
  counts = []
  for spec in list(references.each(SPECS))[:2]:
    score = score_of(name, *spec)
    counts.append(flipped(rng, np.exp(2 * (score - score.max())), 20_000))
  assert p_value(np.array(counts), law) > 1e-3
  softmax = np.asarray(defenses.exponential(ZOO, 4.0, score=name).kernel(SPECS))
  assert p_value(np.array(counts), softmax[:2, :-1].astype(np.float64)) < 1e-9


@pytest.mark.parametrize('size', [1, 2, 22, 300, 1000])
def test_the_integral_is_exact_to_a_millionth(size):
  """Against as many nodes as the polynomial needs, in double precision."""
  rng = np.random.default_rng(size)
  nodes, shares = np.polynomial.legendre.leggauss((size + 1) // 2)
  y, shares = (nodes + 1) / 2, shares / 2
  for slope in (1e-6, 1.0, 30.0, 1e3):
    for shape in (1, 6):
      logits = -slope * rng.random(size) ** shape
      logits = (logits - logits.max()).astype(np.float32)
      chances = np.exp(logits.astype(np.float64))
      factors = 1 - chances[:, None] * y
      wanted = chances * ((factors.prod(0) / factors) @ shares)
      assert abs(wanted.sum() - 1) < 1e-9
      found = laws.PERMUTE_AND_FLIP.weights(jnp.asarray(logits))
      np.testing.assert_allclose(found, wanted, atol=1e-6)


@pytest.mark.parametrize('name', ROUTERS)
def test_routes_follow_the_law(name):
  router = ROUTERS[name]
  many = jax.tree.map(lambda field: jnp.repeat(field, DRAWS), SPECS)
  models = np.asarray(router(jax.random.key(3), many).model).reshape(-1, DRAWS)
  counts = np.stack([np.bincount(row, minlength=len(ZOO)) for row in models])
  law = np.asarray(router.kernel(SPECS), np.float64)[:, :-1]
  assert p_value(counts, law) > 1e-3
  likely = law.argmax(-1)
  law[np.arange(len(law)), likely] *= 0.98
  assert p_value(counts, law) < 1e-6


@pytest.mark.parametrize('name', SELECTIONS)
def test_no_epsilon_and_no_spec_gives_nan(name):
  fields = np.array([-np.inf, -1.0, 0.0, 0.5, 0.9, 7.0, np.inf, np.nan], np.float32)
  spec = Spec(*(jnp.asarray(x.ravel()) for x in np.meshgrid(fields, fields)))
  router = SELECTIONS[name](ZOO, 1.0)

  @jax.jit
  @functools.partial(jax.vmap, in_axes=(0, None))
  def at(epsilon, spec):
    one = dataclasses.replace(router, epsilon=epsilon)
    return one.kernel(spec), one.ceiling(spec, spec), one(jax.random.key(0), spec)

  epsilons = jnp.asarray([0.0, -1.0, np.nan, *EPSILONS], jnp.float32)
  law, ceiling, route = at(epsilons, spec)
  np.testing.assert_allclose(law.sum(-1), 1, atol=1e-5)
  assert (law >= 0).all()
  np.testing.assert_allclose(ceiling, law, atol=1e-5)
  assert ((route.model >= 0) & (route.model < len(ZOO))).all()
  candidates = np.asarray(router.candidates)
  for protecting in law[:3]:  # 0, and what counts as 0
    np.testing.assert_allclose(protecting[:, :-1][:, candidates], 1 / candidates.sum())
  assert not np.allclose(law[3], law[-1])


@pytest.mark.parametrize('size', [2, 1000])
@pytest.mark.parametrize('name', SELECTIONS)
def test_large_zoos_and_extreme_epsilons(name, size):
  rng = np.random.default_rng(0)
  zoo = references.make_profile(rng.random(size), rng.random(size) + 1)
  spec = Spec.of([0.5, 0.99, 0.2], [1.5, 1.01, 3.0])
  for epsilon in (1e-6, 1.0, 1e6):
    law = SELECTIONS[name](zoo, epsilon).kernel(spec)
    np.testing.assert_allclose(law.sum(-1), 1, atol=1e-5)
    assert np.isfinite(law).all()


@pytest.mark.parametrize('name', [*SELECTIONS, *FALL_BACKS])
def test_off_serves_what_meets_the_spec(name):
  make = {**SELECTIONS, **FALL_BACKS}[name]
  off = make(ZOO, np.inf if name in SELECTIONS else 0.0)
  rng = np.random.default_rng(1)
  spec = Spec.of(rng.uniform(0.2, 1.0, 9000), rng.uniform(1.0, 9.0, 9000))
  met = np.asarray(ZOO.meets(spec))
  law = np.asarray(off.kernel(spec))[:, :-1]
  feasible = met.any(-1)
  assert 0 < feasible.sum() < len(feasible)
  assert (law[feasible][~met[feasible]] == 0).all()
  model = np.asarray(off(jax.random.key(2), spec).model)
  assert met[np.arange(len(met)), model][feasible].all()
  if 'goodput' in name or name == 'uniform':
    wanted = np.asarray(routers.uniform(ZOO)(jax.random.key(0), spec).num_feasible)
    np.testing.assert_allclose(law.max(-1)[feasible], 1 / wanted[feasible], rtol=1e-5)
    np.testing.assert_allclose(law[~feasible], 1 / len(ZOO), rtol=1e-5)


def test_nearness_prefers_the_nearest_that_meets_the_spec():
  off = defenses.exponential(ZOO, np.inf, score='l1')
  assert off.kernel(Spec.of(0.69, 9.0)).argmax() == 3  # not the two of accuracy 0.7
  assert off.kernel(Spec.of(0.55, 4.5)).argmax() == 1
  assert off.kernel(Spec.of(0.91, 8.0)).argmax() == 3  # nothing meets it


@pytest.mark.parametrize('name', ROUTERS)
def test_a_ceiling_is_above_the_law_and_tight(name):
  router, rng = ROUTERS[name], np.random.default_rng(4)
  corner = np.stack([rng.uniform(0.3, 1.0, 40), rng.uniform(1.0, 9.0, 40)])
  width = np.stack([rng.uniform(0, 0.2, 40), rng.uniform(0, 2.0, 40)])
  ceiling = np.asarray(router.ceiling(Spec.of(*corner), Spec.of(*(corner + width))))
  most = np.zeros_like(ceiling)
  for share in np.stack(np.meshgrid(*[np.linspace(0, 1, 9)] * 2)).reshape(2, -1).T:
    inside = Spec.of(*(corner + share[:, None] * width))
    most = np.maximum(most, np.asarray(router.kernel(inside)))
  assert (ceiling >= most - 1e-6).all()
  assert (ceiling <= 1 + 1e-6).all()
  point = Spec.of(*corner)
  np.testing.assert_allclose(
    router.ceiling(point, point), router.kernel(point), atol=1e-6
  )
  assert np.mean(ceiling - most) < 0.1
  assert (most > np.asarray(router.kernel(point)) + 1e-3).any()


@pytest.mark.parametrize('name', ROUTERS)
def test_a_batch_of_any_shape_and_its_start(name):
  rng = np.random.default_rng(5)
  spec = Spec.of(rng.uniform(0.3, 1.0, 15_000), rng.uniform(1.0, 9.0, 15_000))
  router, key = ROUTERS[name], jax.random.key(1)
  whole = router(key, spec)
  few = router(key, jax.tree.map(lambda field: field[:50], spec))
  np.testing.assert_array_equal(few.model, whole.model[:50])
  met = np.asarray(ZOO.meets(spec)).sum(-1)
  np.testing.assert_array_equal(whole.num_feasible, met)
  folded = jax.tree.map(lambda field: field.reshape(3, 5000), spec)
  assert router(key, folded).model.shape == (3, 5000)
  np.testing.assert_array_equal(
    router.kernel(folded).reshape(15_000, -1), router.kernel(spec)
  )
  np.testing.assert_allclose(
    router.kernel(jax.tree.map(lambda field: field[7], spec)),
    router.kernel(spec)[7],
    atol=1e-6,
  )


def test_ties_of_the_fastest_and_most_accurate():
  """Models 2 and 5 are twins: the earlier one answers."""
  for prefer in ('fastest', 'most_accurate'):
    law = defenses.fall_back(ZOO, 0.0, prefer=prefer).kernel(Spec.of(0.65, 5.0))
    assert law[2] == 1


@pytest.mark.parametrize('bad', [0.0, -1.0, np.nan])
def test_rejects_bad_epsilon(bad):
  for make in (defenses.exponential, defenses.permute_and_flip):
    with pytest.raises(ValueError, match=f'epsilon is {bad}; .* > 0; infinity is'):
      make(ZOO, bad)


@pytest.mark.parametrize(
  ('call', 'message'),
  [
    (lambda: defenses.exponential(ZOO, 1.0, score='l2'), "score is 'l2'.*must be one"),
    (lambda: defenses.exponential(ZOO, 1.0, models='some'), "models is 'some'; it m"),
    (lambda: defenses.fall_back(ZOO, 1.5), r'share is 1\.5; .* fraction in'),
    (lambda: defenses.fall_back(ZOO, 0.5, prefer='best'), "prefer is 'best'"),
    (
      lambda: ROUTERS['uniform'](jax.random.key(0), Spec(np.float32('nan'), 1.0)),
      'min_accuracy is nan',
    ),
    (lambda: ROUTERS['uniform'](jax.random.PRNGKey(0), SPECS), 'key is of type'),
    (
      lambda: ROUTERS['exponential_l1_all'](jax.random.PRNGKey(0), SPECS),
      'key is of type',
    ),
  ],
)
def test_mistakes_are_named(call, message):
  with pytest.raises(ValueError, match=message):
    call()
