"""De-mixing: answers of a known mixture, told apart by what a client sees."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from psml_jax import Spec, demix, routers, servers, session, train, zoo
from psml_jax.attacks import extraction, repeats
from psml_jax.core import Harvest, Knowledge
from tests import references

CENTRES = np.array([1.0, 2.0, 4.0, 8.0])


def mixture(spread, size=300, seed=0):
  """Models, and latencies that are lognormal about their centres."""
  rng = np.random.default_rng(seed)
  model = rng.choice(4, size, p=[0.2, 0.3, 0.4, 0.1])
  return model, CENTRES[model] * np.exp(spread * rng.standard_normal(size))


class TestByLatency:
  @pytest.mark.parametrize(
    ('budget', 'victim'), [(1.4, 0), (3.0, 1), (5.5, 2), (20, 3)]
  )
  def test_the_victim_is_the_slowest_within_the_budget(self, budget, victim):
    model, took = mixture(0.03)
    found = demix.by_latency(jnp.float32(took), jnp.int32(300), budget)
    assert np.mean(np.abs(np.asarray(found) - (model == victim)) > 0.02) < 0.02

  @pytest.mark.parametrize(
    ('spread', 'low', 'high'), [(0.1, 0.99, 1), (0.2, 0.85, 0.999)]
  )
  def test_overlap_costs_what_it_should(self, spread, low, high):
    model, took = mixture(spread)
    found = demix.by_latency(jnp.float32(took), jnp.int32(300), 5.5)
    assert low <= roc_auc_score(model == 2, found) <= high

  def test_padding_is_no_answer(self):
    model, took = mixture(0.03)
    padded = jnp.pad(jnp.float32(took), (0, 50))
    found = demix.by_latency(padded, jnp.int32(300), 5.5)
    assert np.mean(np.abs(np.asarray(found)[:300] - (model == 2)) > 0.02) < 0.02
    assert not found[300:].any()

  def test_nothing_answered_is_nobody(self):
    found = demix.by_latency(jnp.zeros(8), jnp.int32(0), 5.5)
    np.testing.assert_array_equal(found, np.zeros(8))

  def test_one_model_alone_is_the_victim(self):
    _, took = mixture(0.03)
    took = jnp.float32(took / took.max())
    found = demix.by_latency(jnp.ones(40) + 0.01 * took[:40], jnp.int32(40), 5.5)
    np.testing.assert_allclose(found, 1.0, atol=0.02)


class TestByKnownLatency:
  def test_is_the_posterior_of_the_densities(self):
    model, took = mixture(0.3)
    rng = np.random.default_rng(1)
    samples = CENTRES[:, None] * np.exp(0.3 * rng.standard_normal((4, 2000)))
    prior = jnp.array([0.2, 0.3, 0.4, 0.1])
    found = demix.by_known_latency(
      jnp.float32(took), jnp.float32(samples), prior, 2, bandwidth=0.1
    )
    away = (np.log(took)[:, None] - np.log(CENTRES)) / np.hypot(0.3, 0.1)
    density = np.asarray(prior) * np.exp(-0.5 * away**2)
    wanted = density[:, 2] / density.sum(-1)
    np.testing.assert_allclose(found, wanted, atol=0.1)
    assert roc_auc_score(model == 2, found) > 0.85
    every = demix.responders(
      jnp.float32(took), jnp.float32(samples), prior, bandwidth=0.1
    )
    np.testing.assert_allclose(every, (density / density.sum(-1)[:, None]).T, atol=0.1)
    np.testing.assert_allclose(every.sum(0), 1, rtol=1e-5)

  def test_a_bandwidth_must_be_positive(self):
    with pytest.raises(ValueError, match='^bandwidth is 0'):
      demix.by_known_latency(jnp.ones(2), jnp.ones((2, 2)), jnp.ones(2), 0, bandwidth=0)


class TestByConfidence:
  def outputs(self, size=400, seed=0):
    """Answers of a sure model and of three unsure ones."""
    rng = np.random.default_rng(seed)
    own = rng.random(size) < 0.4
    odds = np.where(own, 6.0, 1.5) + rng.standard_normal(size)
    most = 1 / (1 + np.exp(-odds))
    return own, jnp.float32(np.stack([most, 1 - most], -1))

  def test_the_surer_is_the_victim(self):
    own, outputs = self.outputs()
    found = demix.by_confidence(outputs, jnp.int32(400))
    assert roc_auc_score(own, found) > 0.98
    assert abs(float(found.mean()) - own.mean()) < 0.05

  def test_padding_is_no_answer(self):
    own, outputs = self.outputs()
    padded = jnp.pad(outputs, ((0, 50), (0, 0)))
    found = demix.by_confidence(padded, jnp.int32(400))
    assert roc_auc_score(own, found[:400]) > 0.98
    assert not found[400:].any()

  @pytest.mark.parametrize('count', [0, 1])
  def test_of_nothing_it_is_finite(self, count):
    found = demix.by_confidence(jnp.full((4, 2), 0.5), jnp.int32(count))
    assert np.isfinite(found).all()


class TestBySurrogates:
  """Two teachers of a line who agree on nothing but the side; neither is surer."""

  training = train.Training(
    zoo.create('mlp', num_classes=2, widths=(16,)),
    train.Steps(steps=150, batch_size=32, learning_rate=1e-2),
  )

  def mixed(self, size=300):
    rng = np.random.default_rng(0)
    pool = rng.random((size, 1, 2, 1), np.float32)
    own = rng.random(size) < 0.6
    odds = 6 * (np.where(own, pool[:, 0, 0, 0], pool[:, 0, 1, 0]) - 0.5)
    most = 1 / (1 + np.exp(-odds))
    targets = jnp.pad(jnp.float32(np.stack([most, 1 - most], -1)), ((0, 20), (0, 0)))
    inputs = jnp.pad(jnp.arange(size), (0, 20))
    start = np.clip(own + 0.8 * rng.standard_normal(size), 0.05, 0.95)
    harvest = Harvest(inputs, targets, jnp.int32(size))
    return own, harvest, jnp.asarray(pool), jnp.pad(jnp.float32(start), (0, 20))

  def found(self, rounds):
    own, harvest, pool, start = self.mixed()
    believed = demix.by_surrogates(
      jax.random.key(0), harvest, pool, self.training, start, rounds=rounds
    )
    assert not believed[300:].any()
    return own, start[:300], believed[:300]

  def test_it_improves_on_what_it_started_from(self):
    own, start, believed = self.found(3)
    assert roc_auc_score(own, start) < 0.88
    assert roc_auc_score(own, believed) > 0.93

  def test_what_a_surrogate_has_seen_is_no_judge(self):
    """With a start that knows nothing, nothing is believed for good."""
    _, harvest, pool, _ = self.mixed()
    start = jnp.full(len(harvest.inputs), 0.5)
    believed = demix.by_surrogates(
      jax.random.key(0), harvest, pool, self.training, start
    )
    assert float(np.mean((believed[:300] > 0.05) & (believed[:300] < 0.95))) > 0.5

  def test_rounds_must_be_whole(self):
    with pytest.raises(ValueError, match='^rounds is 0'):
      self.found(0)


class TestUse:
  harvest = Harvest(
    jnp.arange(5), jnp.eye(5), jnp.int32(4), jnp.arange(5, dtype=jnp.float32)
  )

  def test_keep_sorts_the_probable_ones_to_the_front(self):
    own = demix.keep(self.harvest, jnp.array([0.6, 0.1, 0.9, 0.2, 1.0]))
    assert own.inputs[:2].tolist() == [0, 2]
    assert int(own.count) == 2
    assert own.latency_ms.tolist() == [0, 2, 0, 0, 0]
    np.testing.assert_array_equal(own.targets[:2], jnp.eye(5)[jnp.array([0, 2])])
    assert not own.targets[2:].any()

  def test_where_none_is_probable_all_are_kept(self):
    own = demix.keep(self.harvest, jnp.full(5, 0.2))
    assert int(own.count) == 4
    assert own.inputs[:4].tolist() == [0, 1, 2, 3]

  def test_weights_have_the_mean_one(self):
    weighed = demix.weigh(self.harvest, jnp.array([0.6, 0.0, 0.2, 0.2, 9.0]))
    np.testing.assert_allclose(
      weighed.targets.sum(-1)[:4], [2.4, 0, 0.8, 0.8], rtol=1e-6
    )

  def test_least_must_be_a_share(self):
    with pytest.raises(ValueError, match='^least is 1'):
      demix.keep(self.harvest, jnp.ones(5), least=1.0)


class TestRepeats:
  profile = references.random_profile(3, 5)

  def found(self, times, queries=60, seed=0):
    outputs = jax.nn.softmax(jax.random.normal(jax.random.key(9), (5, 80, 4)))
    server = servers.table(
      routers.uniform(self.profile), self.profile.latency_ms, outputs
    )
    spec = Spec.of(0.0, jnp.inf)
    knowledge = Knowledge(jnp.float32(1e6), pool_size=80, num_classes=4, spec=spec)
    key, secret = jax.random.split(jax.random.key(seed))
    attack = repeats.repeats('told', queries, times=times)
    ended = session.run(
      key, attack, server, server.init(secret), knowledge, budget=queries
    )
    return ended, outputs

  @pytest.mark.parametrize('times', [1, 3, 7])
  def test_every_repeat_is_billed_and_every_image_counts_once(self, times):
    ended, outputs = self.found(times)
    images = -(-60 // times)
    assert int(ended.bill.queries) == 60 == int(ended.log.queries)
    assert int(ended.harvest.count) == images
    inputs = np.asarray(ended.harvest.inputs)[:images]
    assert len(set(inputs.tolist())) == images
    found = np.asarray(ended.harvest.targets)[None, :images]
    of_some = np.abs(np.asarray(outputs)[:, inputs] - found).max(-1).min(0)
    assert of_some.max() == 0

  def test_the_answer_of_most_repeats_is_kept(self):
    outputs = jnp.array([[0.1, 0.9], [0.8, 0.2], [0.8, 0.2], [0.3, 0.7], [0.0, 0.0]])
    attack = repeats.repeats('told', 5, times=3)
    knowledge = Knowledge(
      jnp.float32(1), pool_size=2, num_classes=2, spec=Spec.of(0.0, 1.0)
    )
    state = attack.init(jax.random.key(0), knowledge)
    served = jnp.array([True, True, True, True, False])
    seen = extraction.unanswered(5, 2)
    seen = type(seen)(served, outputs, jnp.arange(5.0))
    state = attack.tell(state, attack.ask(state), seen)
    harvest = attack.harvest(state)
    np.testing.assert_allclose(harvest.targets[:2], [[0.8, 0.2], [0.3, 0.7]])
    assert int(harvest.count) == 2
    assert harvest.latency_ms[:2].tolist() == [1, 3]
    assert len(harvest.inputs) == 5
