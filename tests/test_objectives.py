"""Objectives and augmentations against the same thing written out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from psml_jax import train, zoo
from psml_jax.core import Harvest
from psml_jax.train import augmentation, objectives

KEY = jax.random.key(3)
WEIGHTS = jax.random.normal(jax.random.key(1), (48, 5))


def apply(params, rest, images, key):
  del key
  return images.reshape(len(images), -1) @ params, rest


LEARNER = objectives.Learner(apply, lambda key, images: images)
LABELLED = objectives.Batch(
  jax.random.uniform(jax.random.key(4), (6, 4, 4, 3)),
  jax.nn.softmax(jax.random.normal(jax.random.key(5), (6, 5))),
)
UNLABELLED = jax.random.uniform(jax.random.key(6), (12, 4, 4, 3))


def loss(objective, labelled=LABELLED, unlabelled=UNLABELLED):
  return float(objective(LEARNER, WEIGHTS, (), labelled, unlabelled, KEY)[0])


def entropy(logits, targets):
  return -np.sum(np.asarray(targets) * np.asarray(jax.nn.log_softmax(logits)), axis=-1)


def logits(images):
  return apply(WEIGHTS, (), images, None)[0]


class TestCrossEntropy:
  def test_hard_targets_are_their_likeliest_class(self):
    classes = LABELLED.targets.argmax(-1)
    soft = loss(train.CrossEntropy(hard=True))
    assert soft == pytest.approx(
      loss(train.CrossEntropy(), objectives.Batch(LABELLED.images, classes))
    )
    assert soft != pytest.approx(loss(train.CrossEntropy()))

  def test_hard_targets_keep_their_weight(self):
    weighed = objectives.Batch(LABELLED.images, 0.3 * LABELLED.targets)
    hard = train.CrossEntropy(hard=True)
    assert loss(hard, weighed) == pytest.approx(0.3 * loss(hard), rel=1e-5)

  @pytest.mark.parametrize('temperature', [0.5, 2.0])
  def test_temperature_is_a_power_of_the_targets(self, temperature):
    powers = np.asarray(LABELLED.targets) ** (1 / temperature)
    powers /= powers.sum(-1, keepdims=True)
    wanted = entropy(logits(LABELLED.images), powers).mean()
    assert loss(train.CrossEntropy(temperature=temperature)) == pytest.approx(wanted)

  def test_a_weight_stays_in_sharpened_targets(self):
    found = objectives.sharpened(0.3 * LABELLED.targets, 0.5)
    np.testing.assert_allclose(found.sum(-1), 0.3, rtol=1e-5)


@pytest.mark.parametrize('name', ['FixMatch', 'MixMatch'])
def test_objectives_of_unlabelled_images_learn_classes_of_answers_too(name):
  objective = getattr(train, name)
  classes = jax.nn.one_hot(LABELLED.targets.argmax(-1), 5)
  as_classes = loss(objective(unlabelled=2), objectives.Batch(LABELLED.images, classes))
  assert loss(objective(unlabelled=2, hard=True)) == pytest.approx(as_classes)
  assert loss(objective(unlabelled=2)) != pytest.approx(as_classes)


class TestFixMatch:
  def test_is_the_supervised_loss_and_that_of_confident_guesses(self):
    objective = train.FixMatch(unlabelled=2, threshold=0.9, weight=3.0)
    _, strong_key, *_ = jax.random.split(KEY, 5)
    guess = np.asarray(jax.nn.softmax(logits(UNLABELLED)))
    sure = guess.max(-1) >= 0.9
    assert 0 < sure.sum() < len(sure)
    others = logits(augmentation.strong(strong_key, UNLABELLED))
    each = np.where(sure, entropy(others, np.eye(5)[guess.argmax(-1)]), 0.0)
    supervised = entropy(logits(LABELLED.images), LABELLED.targets).mean()
    assert loss(objective) == pytest.approx(supervised + 3 * each.mean(), rel=1e-5)

  def test_answers_are_softened_and_guesses_are_not(self):
    soft = objectives.Batch(LABELLED.images, objectives.sharpened(LABELLED.targets, 3))
    wanted = loss(train.FixMatch(unlabelled=2), soft)
    assert loss(train.FixMatch(unlabelled=2, temperature=3.0)) == pytest.approx(wanted)

  def test_strong_images_are_cropped_and_mirrored_first(self):
    objective = train.FixMatch(unlabelled=2, threshold=0.0)
    mirror = objectives.Learner(apply, lambda key, images: images[:, :, ::-1])
    found, _ = objective(mirror, WEIGHTS, (), LABELLED, UNLABELLED, KEY)
    mirrored = UNLABELLED[:, :, ::-1]
    assert float(found) == pytest.approx(loss(objective, unlabelled=mirrored), rel=1e-5)

  def test_soft_guesses_keep_their_probabilities(self):
    soft = loss(train.FixMatch(unlabelled=2, threshold=0.0, soft=True))
    hard = loss(train.FixMatch(unlabelled=2, threshold=0.0))
    assert soft != pytest.approx(hard)

  def test_no_gradient_flows_through_the_guess(self):
    one = train.FixMatch(unlabelled=2, threshold=0.0, soft=True)

    def consistency(params):
      def told(params, rest, images, key):
        return apply(params, rest, images, key)

      learner = objectives.Learner(told, lambda key, images: images)
      return one(learner, params, (), LABELLED, UNLABELLED, KEY)[0]

    _, strong_key, *_ = jax.random.split(KEY, 5)
    guess = jax.nn.softmax(logits(UNLABELLED))

    def by_hand(params):
      shown = augmentation.strong(strong_key, UNLABELLED)
      others = apply(params, (), shown, None)[0]
      answered = apply(params, (), LABELLED.images, None)[0]
      return (
        objectives.cross_entropy(answered, LABELLED.targets).mean()
        + objectives.cross_entropy(others, guess).mean()
      )

    np.testing.assert_allclose(
      jax.grad(consistency)(WEIGHTS), jax.grad(by_hand)(WEIGHTS), rtol=1e-4, atol=1e-5
    )

  @pytest.mark.parametrize(
    'fields',
    [
      {'threshold': 1.0},
      {'threshold': -0.1},
      {'weight': 0},
      {'temperature': 0},
      {'unlabelled': 0},
    ],
  )
  def test_bad_fields_are_named(self, fields):
    (name,) = fields
    with pytest.raises(ValueError, match=f'^{name} is '):
      train.FixMatch(**fields)


class TestMixMatch:
  def test_is_what_the_paper_says(self):
    objective = train.MixMatch(unlabelled=2, copies=2, temperature=0.5, weight=4.0)
    keys = jax.random.split(KEY, 5)
    guess = np.asarray(jax.nn.softmax(logits(UNLABELLED))) ** 2
    guess /= guess.sum(-1, keepdims=True)
    images = np.concatenate([LABELLED.images, UNLABELLED, UNLABELLED])
    targets = np.concatenate([LABELLED.targets, guess, guess])
    share = np.asarray(jax.random.beta(keys[2], 0.75, 0.75, (30, 1)))
    share = np.maximum(share, 1 - share)
    other = np.asarray(jax.random.permutation(keys[3], 30))
    four = share[:, :, None, None]
    mixed = logits(four * images + (1 - four) * images[other])
    targets = share * targets + (1 - share) * targets[other]
    supervised = entropy(mixed[:6], targets[:6]).mean()
    error = np.asarray(jax.nn.softmax(mixed[6:])) - targets[6:]
    wanted = supervised + 4 * np.mean(error**2)
    assert loss(objective) == pytest.approx(wanted, rel=1e-4)

  def test_answers_of_no_weight_teach_nothing(self):
    objective = train.MixMatch(unlabelled=2, weight=4.0)

    def of_weights(weights):
      weighed = weights[:, None] * LABELLED.targets
      return loss(objective, objectives.Batch(LABELLED.images, weighed))

    halved = of_weights(jnp.full(6, 0.5)), of_weights(jnp.zeros(6))
    assert halved[0] - halved[1] == pytest.approx(
      (loss(objective) - halved[1]) / 2, rel=1e-3
    )

  @pytest.mark.parametrize('name', ['mixing', 'temperature', 'weight', 'copies'])
  def test_numbers_must_be_positive(self, name):
    with pytest.raises(ValueError, match=f'^{name} is 0'):
      train.MixMatch(**{name: 0})


class TestAugmentation:
  images = jax.random.uniform(KEY, (3, 8, 8, 2))

  def warped(self, turn=0.0, shear=(0.0, 0.0), shift=(0.0, 0.0)):
    each = (jnp.full(3, turn), jnp.tile(jnp.array(shear), (3, 1)))
    return augmentation.warp(self.images, *each, jnp.tile(jnp.array(shift), (3, 1)))

  def test_a_warp_by_nothing_changes_nothing(self):
    np.testing.assert_allclose(self.warped(), self.images, atol=1e-6)

  @pytest.mark.parametrize('quarters', [1, 2, 3])
  def test_quarter_turns(self, quarters):
    found = self.warped(turn=quarters * jnp.pi / 2)
    wanted = np.rot90(self.images, quarters, axes=(1, 2))
    inside = np.s_[:, 1:-1, 1:-1]  # Rounding takes the rim a little out of the image.
    np.testing.assert_allclose(found[inside], wanted[inside], atol=1e-4)

  def test_shifts_are_shares_of_the_size_and_leave_black(self):
    found = self.warped(shift=(0.25, -0.125))
    np.testing.assert_allclose(found[:, 2:, :-1], self.images[:, :-2, 1:], atol=1e-5)
    assert not found[:, :2].any()
    assert not found[:, :, -1:].any()

  @pytest.mark.parametrize('count', [1, 4, 5])
  def test_a_warp_is_scipys_affine_transform(self, count):
    image_key, *keys = jax.random.split(KEY, 4)
    images = np.asarray(jax.random.uniform(image_key, (count, 7, 10, 2)))
    turn, shear, shift = (
      np.asarray(jax.random.normal(key, (count, *shape)))
      for key, shape in zip(keys, [(), (2,), (2,)], strict=True)
    )
    found = augmentation.warp(images, turn, 0.3 * shear, 0.3 * shift)
    for n in range(count):
      cosine, sine = np.cos(turn[n]), np.sin(turn[n])
      sheared = np.array([[1, 0.3 * shear[n, 0]], [0.3 * shear[n, 1], 1]])
      matrix = np.array([[cosine, sine], [-sine, cosine]]) @ sheared
      centre, size = np.array([3, 4.5]), np.array([7, 10])
      offset = centre - matrix @ centre - 0.3 * shift[n] * size
      wanted = [
        scipy.ndimage.affine_transform(
          channel, matrix, offset, order=1, mode='grid-constant'
        )
        for channel in np.moveaxis(images[n], -1, 0)
      ]
      np.testing.assert_allclose(found[n], np.stack(wanted, -1), atol=1e-5)

  def test_strong_images_differ_and_stay_pixels(self):
    images = jnp.tile(self.images[:1], (64, 1, 1, 1))
    found = np.asarray(augmentation.strong(KEY, images))
    assert found.min() >= 0
    assert found.max() <= 1
    changed = np.abs(found - np.asarray(images)).max(axis=(1, 2, 3))
    assert (changed > 0.02).all()
    assert len(np.unique(found, axis=0)) == 64

  def test_rotation_turns_as_far_as_it_may(self):
    images = jnp.tile(self.images[:1], (64, 1, 1, 1))
    still = augmentation.augment(KEY, images, padding=0, flip=False)
    turned = augmentation.augment(
      KEY, images, padding=0, flip=False, rotation_degrees=20
    )
    np.testing.assert_array_equal(still, images)
    assert len(np.unique(np.asarray(turned), axis=0)) == 64
    little = augmentation.augment(
      KEY, images, padding=0, flip=False, rotation_degrees=0.01
    )
    np.testing.assert_allclose(little[:, 1:-1, 1:-1], images[:, 1:-1, 1:-1], atol=5e-3)


def test_a_pool_smaller_than_a_step_takes_is_named():
  training = train.Training(
    zoo.create('linear', num_classes=5),
    train.Steps(steps=1, batch_size=4, learning_rate=1e-2),
    train.FixMatch(unlabelled=7),
  )
  harvest = Harvest(jnp.arange(4), LABELLED.targets[:4], jnp.int32(4))
  with pytest.raises(ValueError, match='^unlabelled is 7; .* takes 28 .* there are 12'):
    train.pure_fit(KEY, training, UNLABELLED, harvest)
