"""Membership inference and transfer, where the right answer is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from sklearn import metrics

from psml_jax import threats, train, zoo
from psml_jax.threats.membership import Shadows

KEY = jax.random.key(2)


class TestMembership:
  def test_ratios_are_those_of_the_fitted_normals(self):
    rng = np.random.default_rng(0)
    member = np.tile(np.arange(40)[:, None] < 20, (1, 3))
    confidence = np.where(member, 2.0, -1.0) + rng.standard_normal((40, 3))
    known = Shadows(jnp.float32(confidence), jnp.asarray(member))
    observed = np.array([0.0, 1.0, 3.0])
    wanted = [
      stats.norm.logpdf(observed[i], own.mean(), own.std())
      - stats.norm.logpdf(observed[i], other.mean(), other.std())
      for i, (own, other) in enumerate(
        (confidence[:20, i], confidence[20:, i]) for i in range(3)
      )
    ]
    found = threats.likelihood_ratios(observed, known)
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-3)

  @pytest.mark.parametrize('shared', [False, True])
  def test_a_candidate_of_all_shadows_or_none_tells_nothing(self, shared):
    confidence = jnp.array([[2.0, 5.0, 5.0], [3.0, 6.0, 6.0], [-1, 7, 7], [0, 8, 8]])
    member = jnp.array([[1, 1, 0], [1, 1, 0], [0, 1, 0], [0, 1, 0]], bool)
    both = Shadows(confidence, member)
    observed = jnp.array([2.5, 40.0, 40.0])
    ratios = threats.likelihood_ratios(observed, both, shared=shared)
    assert ratios[0] > 0
    np.testing.assert_array_equal(ratios[1:], 0)
    several = Shadows(jnp.stack([confidence, confidence]), member)
    mixed = threats.mixed_ratios(observed, several, jnp.ones((2, 3)), shared=shared)
    np.testing.assert_allclose(mixed, ratios, rtol=1e-5)

  def test_no_answer_tells_nothing(self):
    known = Shadows(jnp.zeros((4, 2)), jnp.array([[True] * 2, [False] * 2] * 2))
    found = threats.likelihood_ratios(jnp.array([jnp.nan, 0.0]), known)
    assert float(found[0]) == 0

  def test_few_shadows_share_their_deviations(self):
    rng = np.random.default_rng(1)
    member = rng.random((12, 50)) < 0.5
    confidence = np.where(member, 2.0, -1.0) + 0.7 * rng.standard_normal((12, 50))
    known = Shadows(jnp.float32(confidence), jnp.asarray(member))
    observed = rng.standard_normal(50)
    density = {}
    for kind in (True, False):
      own = [confidence[member[:, i] == kind, i] for i in range(50)]
      free = sum(map(len, own)) - 50
      spread = np.sqrt(sum(((x - x.mean()) ** 2).sum() for x in own) / free)
      assert spread == pytest.approx(0.7, abs=0.1)
      means = np.array([x.mean() for x in own])
      density[kind] = stats.norm.logpdf(observed, means, spread)
    found = threats.likelihood_ratios(observed, known, shared=True)
    np.testing.assert_allclose(
      found, density[True] - density[False], rtol=1e-3, atol=1e-3
    )

  def test_mixed_ratios_are_those_of_mixtures(self):
    rng = np.random.default_rng(2)
    member = np.tile(np.arange(10)[:, None] < 5, (1, 4))
    confidence = rng.standard_normal((3, 10, 4)) + np.where(member, 1.0, 0.0)[None]
    responder = rng.dirichlet(np.ones(3), (2, 4)).transpose(2, 0, 1)
    observed = rng.standard_normal((2, 4))
    wanted = np.zeros((2, 2, 4))
    for i, own in enumerate((confidence[:, :5], confidence[:, 5:])):
      each = stats.norm.pdf(observed[None], own.mean(1)[:, None], own.std(1)[:, None])
      wanted[i] = np.log((responder * each).sum(0))
    known = Shadows(jnp.float32(confidence), jnp.asarray(member))
    found = threats.mixed_ratios(observed, known, responder)
    np.testing.assert_allclose(found, wanted[0] - wanted[1], rtol=2e-3, atol=2e-3)
    none = threats.mixed_ratios(np.full((2, 4), np.nan), known, responder)
    np.testing.assert_array_equal(none, 0)

  def test_shadows_that_learn_by_heart_give_their_members_away(self):
    images = jax.random.uniform(jax.random.key(0), (80, 4, 4, 1))
    labels = jax.random.randint(jax.random.key(1), (80,), 0, 4)
    module = zoo.create('mlp', num_classes=4, widths=(64,))
    recipe = train.Steps(steps=200, batch_size=16, learning_rate=1e-2)
    training = train.Training(module, recipe)
    made = jax.jit(lambda key: threats.shadows(key, training, images, labels, count=9))(
      KEY
    )
    assert made.member.shape == made.confidence.shape == (9, 80)
    np.testing.assert_array_equal(made.member.sum(-1), 40)
    known = jax.tree.map(lambda leaf: leaf[1:], made)
    some = (known.member.sum(0) > 0) & (known.member.sum(0) < 8)
    ratio = threats.likelihood_ratios(made.confidence[0], known)
    found = threats.true_positive_rate(
      np.asarray(ratio)[some], np.asarray(made.member[0])[some], 0.1
    )
    assert found > 0.6  # random labels can be known by heart alone

  def test_scores_without_meaning_find_no_more_than_chance(self):
    rng = np.random.default_rng(0)
    score, member = rng.random(4000), rng.random(4000) < 0.5
    assert threats.true_positive_rate(score, member, 0.1) == pytest.approx(
      0.1, abs=0.03
    )

  def test_equal_scores_are_accused_together_or_not_at_all(self):
    """Nine of ten candidates were refused: their score of 0 must find no member."""
    score = np.zeros(1000)
    score[:100] = np.linspace(2, 1, 100)
    member = np.arange(1000) % 2 == 0
    member[:100] = True
    found = threats.true_positive_rate(score, member, 0.01)
    assert found == pytest.approx(100 / member.sum())
    assert threats.true_positive_rate(np.zeros(1000), member, 0.01) == 0.0

  def test_detection_is_that_of_scikit_learn(self):
    rng = np.random.default_rng(3)
    member = rng.random((5, 200)) < 0.5
    score = np.round(rng.standard_normal((5, 200)) + member, 1)  # with ties
    found = threats.detection(score, member, [0.01, 0.1])
    false, true, _ = metrics.roc_curve(member.ravel(), score.ravel())
    for rate, one in zip((0.01, 0.1), found.true_positive_rate, strict=True):
      assert one.mean == pytest.approx(true[false <= rate].max())
      assert one.low <= one.mean <= one.high
    wanted = metrics.roc_auc_score(member.ravel(), score.ravel())
    assert found.auc.mean == pytest.approx(wanted)

  def test_its_interval_is_over_replicates(self):
    """Of normal scores with one shift the area is known; intervals hold it, mostly."""
    rng = np.random.default_rng(4)
    truth = stats.norm.cdf(1 / np.sqrt(2))
    inside = widths = 0
    for seed in range(60):
      member = np.arange(100)[None] % 2 == np.zeros((16, 1))
      score = rng.standard_normal((16, 100)) + member
      auc = threats.detection(score, member, [0.1], resamples=200, seed=seed).auc
      inside += auc.low <= truth <= auc.high
      widths += auc.high - auc.low
    assert 48 <= inside <= 60  # 95 %, and the bootstrap of 16 is a little short
    assert widths / 60 == pytest.approx(0.052, rel=0.25)

  def test_one_replicate_has_no_interval(self):
    found = threats.detection([[1.0, 0.0]], [[True, False]], [0.1])
    assert np.isnan(found.auc.low)

  @pytest.mark.parametrize(
    ('score', 'member', 'message'),
    [
      ([1.0, 0.0], [True, False], r'score has shape \(2,\)'),
      ([[np.nan, 0.0]], [[True, False]], r'score\[0, 0\] is nan'),
      ([[1.0, 0.0]], [[True, True]], 'member has one value alone'),
      (np.eye(2), [[True, True], [True, False]], 'member has a replicate without'),
    ],
  )
  def test_bad_scores_are_named(self, score, member, message):
    with pytest.raises(ValueError, match=message):
      threats.detection(score, member, [0.1])

  @pytest.mark.parametrize('rate', [0.0, 1.0])
  def test_the_false_positive_rate_is_a_share(self, rate):
    with pytest.raises(ValueError, match='^false_positive_rate is '):
      threats.true_positive_rate([0.0, 1.0], [True, False], rate)

  def test_members_and_others_are_needed(self):
    with pytest.raises(ValueError, match='^member has one value alone'):
      threats.true_positive_rate([0.0, 1.0], [True, True], 0.1)

  def test_too_few_shadows(self):
    training = train.Training(
      zoo.create('linear', num_classes=2),
      train.Steps(steps=1, batch_size=1, learning_rate=1e-2),
    )
    images, labels = jnp.zeros((4, 2, 2, 1)), jnp.zeros(4, jnp.int32)
    with pytest.raises(ValueError, match='^count is 3'):
      threats.shadows(KEY, training, images, labels, count=3)


class TestTransfer:
  weights = jax.random.normal(jax.random.key(5), (48, 3))
  images = jax.random.uniform(jax.random.key(6), (20, 4, 4, 3), minval=0.3, maxval=0.7)

  def logits(self, images):
    return images.reshape(len(images), -1) @ self.weights

  @pytest.mark.parametrize('epsilon', [0.01, 0.1])
  def test_pixels_stay_in_the_cube_and_the_loss_rises(self, epsilon):
    labels = self.logits(self.images).argmax(-1)
    found = threats.pgd(KEY, self.logits, self.images, labels, epsilon=epsilon)
    assert float(jnp.abs(found - self.images).max()) <= epsilon + 1e-6
    assert float(found.min()) >= 0
    own = jnp.take_along_axis(self.logits(found), labels[:, None], 1)
    before = jnp.take_along_axis(self.logits(self.images), labels[:, None], 1)
    assert (own < before).mean() > 0.9

  def test_a_wide_cube_fools_the_surrogate_itself(self):
    labels = self.logits(self.images).argmax(-1)
    found = threats.pgd(KEY, self.logits, self.images, labels, epsilon=0.3)
    rate = threats.transfer_rate(labels, self.logits(found).argmax(-1), labels)
    assert float(rate) > 0.9

  def test_unanswered_and_wrong_ones_do_not_count(self):
    labels = jnp.array([1, 1, 1, 1, 1])
    before, after = jnp.array([1, 1, 0, -1, 1]), jnp.array([0, 1, 0, 0, -1])
    assert float(threats.transfer_rate(before, after, labels)) == 0.5
    assert np.isnan(threats.transfer_rate(before - 9, after, labels))

  @pytest.mark.parametrize('name', ['epsilon', 'steps', 'step_size'])
  def test_numbers_must_be_positive(self, name):
    labels = jnp.zeros(20, jnp.int32)
    with pytest.raises(ValueError, match=f'^{name} is 0'):
      threats.pgd(KEY, self.logits, self.images, labels, **{'epsilon': 0.1, name: 0})


class TestTold:
  """What a channel tells, against channels whose information is known."""

  def responses(self, size=900):
    rng = np.random.default_rng(5)
    return rng, rng.integers(0, 2, size)

  def test_two_normal_clocks(self):
    """A lower bound, near the mutual information by the integral."""
    rng, model = self.responses()
    apart = 2.0
    grid = np.linspace(-6, apart + 6, 4001)
    both = stats.norm.pdf(grid[None], loc=[[0.0], [apart]])
    terms = both * np.log2(2 * both / both.sum(0))
    truth = float(np.trapezoid(terms.sum(0) / 2, grid))
    found = threats.told(rng.normal(apart * model), model)
    assert truth - 0.1 < found.bits.mean < truth + 0.05
    assert found.bits.low < truth
    assert found.auc == pytest.approx(stats.norm.cdf(apart / 2**0.5), abs=0.04)
    assert found.entropy == pytest.approx(1.0, abs=0.01)

  def test_noise_tells_nothing(self):
    rng, model = self.responses()
    found = threats.told(rng.normal(size=(len(model), 3)), model)
    assert found.bits.mean < 0.02
    assert 0.43 < found.auc < 0.57

  def test_an_answer_that_names_its_model(self):
    model = np.repeat([0, 2, 5], [300, 100, 200])
    found = threats.told(model, model)
    assert found.auc == 1.0
    assert 0.95 * found.entropy < found.bits.mean < found.entropy

  @pytest.mark.parametrize(
    ('features', 'model', 'message'),
    [
      ([1.0, 2.0], [0], r'features has shape \(2,\) and model \(1,\)'),
      (np.zeros((9, 1, 1)), np.arange(9), 'features has shape'),
      ([0.0, np.nan] * 5, [0, 1] * 5, 'features.*nan'),
      ([0.0] * 9, [0] * 9, r'model has \{0: 9\}'),
      ([0.0] * 9, [0] * 5 + [1] * 4, r'model has \{0: 5, 1: 4\}'),
    ],
  )
  def test_what_is_refused(self, features, model, message):
    with pytest.raises(ValueError, match=message):
      threats.told(features, model)
