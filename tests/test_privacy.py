"""Audits: no event tells two neighbours apart better than the guarantee allows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from psml_jax import defenses
from psml_jax.core import Spec
from psml_jax.defenses import privacy
from tests import queries, references

pytestmark = pytest.mark.usefixtures('strict')

ZOO = references.make_profile([0.4, 0.6, 0.7, 0.9], [2.0, 3.0, 4.0, 8.0])
# Model 1's numbers are others; the range stays.
NEIGHBOUR = references.make_profile([0.4, 0.85, 0.7, 0.9], [2.0, 7.0, 4.0, 8.0])
# Model 2 alone meets the first of them, all others the second one.
ONE, OTHER = Spec.of(0.7, 4.0), Spec.of(0.39, 3.0)
SCALES = (0.1, 2.0)
DRAWS = 400_000
CONFIDENCE = 1 - 1e-4
SELECTING = {
  'exponential': defenses.exponential,
  'permute_and_flip': defenses.permute_and_flip,
}


def audit(one, other):
  """A lower bound of epsilon from draws of events, i64[n], under two neighbours.

  The best event of half of the draws is tested on the others (Clopper and Pearson).
  """
  count = int(max(one.max(), other.max())) + 1
  half = len(one) // 2
  counts = [
    [np.bincount(x[part], minlength=count) for part in (slice(half), slice(half, None))]
    for x in (one, other)
  ]
  best = 0.0
  for (guess, test), (guess_other, test_other) in (counts, counts[::-1]):
    event = np.argmax(np.log(guess + 1) - np.log(guess_other + 1) - 9 * (guess < 500))
    seen, seen_other = test[event], test_other[event]
    risk = (1 - CONFIDENCE) / 2
    low = scipy.stats.beta.ppf(risk, seen, half - seen + 1) if seen else 0.0
    high = scipy.stats.beta.ppf(1 - risk, seen_other + 1, half - seen_other)
    best = max(best, np.log(low / high) if low else 0.0)
  return best


def repeated(spec, times=DRAWS):
  return jax.tree.map(lambda field: jnp.full(times, field), spec)


def answers(router, spec, seed):
  return np.asarray(router(jax.random.key(seed), repeated(spec)).model)


def pair_of_answers(router, spec, seed, *, reused=False):
  """Two queries of one client, of a spec that all send and of their own."""
  keys = jax.random.split(jax.random.key(seed))
  both = zip((keys[0], keys[0]) if reused else keys, (OTHER, spec), strict=True)
  first, second = (np.asarray(router(k, repeated(s)).model) for k, s in both)
  return first * len(ZOO) + second


def cells(noised):
  """Both fields of noisy specs as cells of a grid, a step a scale."""
  fields = (
    (noised.min_accuracy - 0.5) / SCALES[0],
    (noised.max_latency_ms - 5) / SCALES[1],
  )
  x, y = (np.clip(np.round(np.asarray(field)), -3, 3) + 3 for field in fields)
  return (7 * x + y).astype(int)


def noisy(spec, seed, scales=SCALES):
  return queries.apply(defenses.laplace(*scales), jax.random.key(seed), repeated(spec))[
    0
  ]


NEAR, FAR = Spec.of(0.5, 5.0), Spec.of(0.55, 6.0)


class TestLaplace:
  CLAIM = privacy.of_specs(defenses.laplace(*SCALES), NEAR, FAR)

  def test_the_claim_is_the_distance(self):
    assert self.CLAIM.epsilon == pytest.approx(1.0, rel=1e-5)
    assert 0 < self.CLAIM.delta < 1e-5

  def test_it_holds_and_is_nearly_reached(self):
    found = audit(cells(noisy(NEAR, 0)), cells(noisy(FAR, 1)))
    assert 0.7 * self.CLAIM.epsilon < found < self.CLAIM.epsilon

  def test_half_the_scale_is_caught(self):
    scales = (SCALES[0] / 2, SCALES[1] / 2)
    found = audit(cells(noisy(NEAR, 0, scales)), cells(noisy(FAR, 1, scales)))
    assert found > 1.3 * self.CLAIM.epsilon

  def test_one_key_for_both_fields_is_caught(self):
    def broken(spec, seed):
      noise = jax.random.laplace(jax.random.key(seed), (DRAWS,), jnp.float32)
      return Spec(
        spec.min_accuracy + SCALES[0] * noise, spec.max_latency_ms + SCALES[1] * noise
      )

    # One field nearer and one farther: the same noise cannot hide both.
    one, other = Spec.of(0.5, 5.0), Spec.of(0.55, 4.0)
    claim = privacy.of_specs(defenses.laplace(*SCALES), one, other)
    fair = audit(cells(noisy(one, 0)), cells(noisy(other, 1)))
    assert fair < claim.epsilon
    assert audit(cells(broken(one, 0)), cells(broken(other, 1))) > 2 * claim.epsilon

  def test_one_key_for_all_queries_is_caught(self):
    """The difference of two queries' noisy specs is then free of noise."""

    def pair(spec, seed, *, reused):
      first = cells(noisy(NEAR, seed))
      return 49 * first + cells(noisy(spec, seed if reused else seed + 10))

    fair = audit(pair(NEAR, 0, reused=False), pair(FAR, 1, reused=False))
    assert fair < self.CLAIM.epsilon
    leaked = audit(pair(NEAR, 0, reused=True), pair(FAR, 1, reused=True))
    assert leaked > 2 * self.CLAIM.epsilon

  def test_queries_add_up(self):
    def twice(spec, seed):
      return 49 * cells(noisy(spec, seed)) + cells(noisy(spec, seed + 10))

    found = audit(twice(NEAR, 0), twice(FAR, 1))
    assert self.CLAIM.epsilon < found < self.CLAIM.after(2).epsilon


@pytest.mark.parametrize('name', SELECTING)
class TestSelection:
  EPSILON = 2.0

  def test_no_two_specs_are_told_apart(self, name):
    router = SELECTING[name](ZOO, self.EPSILON)
    claim = privacy.of_specs(router)
    assert claim.epsilon == self.EPSILON
    found = audit(answers(router, ONE, 0), answers(router, OTHER, 1))
    assert 0.5 * claim.epsilon < found < claim.epsilon

  def test_half_the_sensitivity_is_caught(self, name):
    claim = privacy.of_specs(SELECTING[name](ZOO, self.EPSILON))
    router = SELECTING[name](ZOO, 2 * self.EPSILON)
    found = audit(answers(router, ONE, 0), answers(router, OTHER, 1))
    assert found > claim.epsilon

  def test_one_key_for_all_queries_is_caught(self, name):
    router = SELECTING[name](ZOO, 1.0)
    claim = privacy.of_specs(router)
    fair, leaked = (
      audit(
        pair_of_answers(router, ONE, 0, reused=reused),
        pair_of_answers(router, OTHER, 1, reused=reused),
      )
      for reused in (False, True)
    )
    assert fair < claim.epsilon < leaked

  @pytest.mark.parametrize('score', ['goodput', 'l1', 'quantile'])
  def test_no_two_zoos_are_told_apart(self, name, score):
    routers = [SELECTING[name](zoo, 2.0, score=score) for zoo in (ZOO, NEIGHBOUR)]
    claim = privacy.of_zoos(routers[0])
    assert claim.epsilon == 1.0 * (1 + (score == 'quantile') / 8)
    spec = Spec.of(0.6, 3.0)
    found = audit(answers(routers[0], spec, 0), answers(routers[1], spec, 1))
    assert 0.2 * claim.epsilon < found < claim.epsilon

  @pytest.mark.parametrize('score', ['goodput', 'l1', 'quantile'])
  def test_the_law_itself_keeps_it(self, name, score):
    """All pairs of many specs, and of many zoos, to rounding."""
    rng = np.random.default_rng(0)
    spec = Spec.of(rng.uniform(0.3, 1.0, 60), rng.uniform(1.0, 9.0, 60))
    router = SELECTING[name](ZOO, 3.0, score=score)
    logs = np.log(np.asarray(router.kernel(spec))[:, :-1])
    most = np.ptp(logs, axis=0).max()
    assert 1.0 < most <= privacy.of_specs(router).epsilon + 1e-4
    most = 0.0
    for _ in range(30):
      model = rng.integers(1, 3)
      numbers = [np.array(x) for x in references.arrays(ZOO)]
      numbers[0][model], numbers[1][model] = rng.uniform(0.4, 0.9), rng.uniform(2, 8)
      other = SELECTING[name](references.make_profile(*numbers), 3.0, score=score)
      change = np.log(np.asarray(other.kernel(spec))[:, :-1]) - logs
      most = max(most, np.abs(change).max())
    assert 0.5 < most <= privacy.of_zoos(router).epsilon + 1e-4

  def test_the_frontier_guards_no_zoo(self, name):
    router = SELECTING[name](ZOO, 2.0, models='frontier')
    spared = privacy.of_zoos(router)  # every model is on this zoo's frontier
    assert spared.epsilon == np.inf
    assert privacy.of_specs(router).epsilon == 2.0


@pytest.mark.parametrize('prefer', ['uniform', 'most_accurate', 'fastest'])
class TestFallBack:
  def test_no_two_specs_or_zoos_are_told_apart(self, prefer):
    router = defenses.fall_back(ZOO, 0.6, prefer=prefer)
    claim = privacy.of_specs(router)
    assert claim.epsilon == pytest.approx(np.log(1 + 4 * 0.4 / 0.6))
    found = audit(answers(router, ONE, 0), answers(router, OTHER, 1))
    assert 0.9 * claim.epsilon < found < claim.epsilon
    other = defenses.fall_back(NEIGHBOUR, 0.6, prefer=prefer)
    spec = Spec.of(0.6, 3.0)
    found = audit(answers(router, spec, 0), answers(other, spec, 1))
    assert 0.5 * claim.epsilon < found < privacy.of_zoos(router).epsilon

  def test_half_the_share_is_caught(self, prefer):
    claim = privacy.of_specs(defenses.fall_back(ZOO, 0.6, prefer=prefer))
    router = defenses.fall_back(ZOO, 0.3, prefer=prefer)
    found = audit(answers(router, ONE, 0), answers(router, OTHER, 1))
    assert found > claim.epsilon


def test_what_guarantees_nothing():
  tighten = defenses.noise('laplace', 0.1, 1.0, direction='tighten')
  for defense in (tighten, defenses.gaussian(0.1, 1.0), defenses.laplace(0.0, 1.0)):
    assert privacy.of_specs(defense, NEAR, FAR) == (np.inf, 0.0)
  assert privacy.of_specs(defenses.laplace(0.0, 1.0), NEAR, NEAR).epsilon == 0
  assert privacy.of_specs(defenses.fall_back(ZOO, 0.0)).epsilon == np.inf
  assert privacy.of_zoos(defenses.laplace(0.1, 1.0)).epsilon == np.inf


def test_noise_ends_at_sixteen_scales():
  """Why Laplace noise in float32 has a delta at all."""
  noise = jax.random.laplace(jax.random.key(0), (4_000_000,), jnp.float32)
  assert 12 < float(jnp.abs(noise).max()) < 17
  claim = privacy.of_specs(defenses.laplace(*SCALES), NEAR, Spec.of(5.0, 5.0))
  assert claim.delta == 1.0


@pytest.mark.parametrize(
  ('call', 'message'),
  [
    (lambda: privacy.of_specs(defenses.refusal(0.1)), 'defense is Refusal; it must be'),
    (lambda: privacy.of_specs(defenses.laplace(1, 1), NEAR), 'one or other is None'),
    (
      lambda: privacy.of_specs(defenses.laplace(1, 1), NEAR, Spec.of(0.5, np.inf)),
      'are inf apart; they must be finite',
    ),
  ],
)
def test_mistakes_are_named(call, message):
  with pytest.raises(ValueError, match=message):
    call()
