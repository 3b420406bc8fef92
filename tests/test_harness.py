"""One run of an attack, against shares, fidelity and bills worked out by hand."""

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from psml_jax import experiments, train
from psml_jax.core import Harvest, Spec, ZooProfile
from psml_jax.experiments import harness
from tests import known_zoo

pytestmark = pytest.mark.usefixtures('strict')

QUERIES = 400
RESOLUTION = 2.0**-8
SCALE = 0.25  # of the range: 0.1 of accuracy, 0.75 ms
SEEDS = 12


@pytest.fixture(scope='module')
def world():
  pool, _ = known_zoo.images(0, 500)
  test, labels = known_zoo.images(1, 200)
  profile = ZooProfile(known_zoo.ACCURACY, known_zoo.LATENCY, known_zoo.NAMES)
  config = experiments.parse(known_zoo.fields((100, QUERIES), RESOLUTION))
  training = config.extraction.training(known_zoo.CLASSES)
  tables = harness.Tables(
    pool=jnp.asarray(pool),
    pool_outputs=jnp.asarray(known_zoo.answers(pool)),
    test=jnp.asarray(test),
    test_labels=jnp.asarray(labels),
    test_outputs=jnp.asarray(known_zoo.answers(test)),
  )

  @jax.jit
  def rows(value, budget, told):
    def row(seed):
      return harness.Run(
        victim=jnp.int32(known_zoo.MEDIUM),
        value=value,
        query_budget=budget,
        latency_budget_ms=jnp.float32(known_zoo.BUDGET_MS),
        told=told,
        pairing_key=jax.random.fold_in(jax.random.key(1), seed),
        serving_key=jax.random.fold_in(jax.random.key(2), seed),
      )

    return jax.vmap(row)(jnp.arange(SEEDS))

  @functools.partial(jax.jit, static_argnames=('attack', 'defense'))
  def collect(attack, defense, runs):
    one = functools.partial(harness.collect, attack, defense, config, profile, tables)
    return jax.lax.map(one, runs)

  def run(attack, defense='none', value=0.0, budget=QUERIES, told=(0.7, 2.0)):
    runs = rows(jnp.float32(value), jnp.int32(budget), Spec.of(*told))
    spoils = collect(attack, defense, runs)
    scores = harness.scores(
      training,
      tables,
      runs.pairing_key,
      runs.victim,
      spoils.harvest,
      64,
      1,
      train.local_mesh(),
    )
    spoils, scores = jax.tree.map(np.asarray, (spoils, scores))
    return types.SimpleNamespace(**vars(spoils), **vars(scores))

  def scored(key, count):
    """Scores of answers that are all the medium victim's."""
    inputs = jnp.broadcast_to(jnp.arange(QUERIES), (SEEDS, QUERIES))
    return harness.scores(
      training,
      tables,
      jax.random.split(key, SEEDS),
      jnp.full(SEEDS, known_zoo.MEDIUM, jnp.int32),
      Harvest(
        inputs,
        tables.pool_outputs[known_zoo.MEDIUM][inputs],
        jnp.full(SEEDS, count, jnp.int32),
      ),
      64,
      1,
      train.local_mesh(),
    )

  run.scored = scored
  run.config, run.profile, run.tables = config, profile, tables
  return run


def assert_share(hits, trials, probability):
  """Counts are within 4.5 standard deviations of a binomial's mean."""
  error = np.sqrt(max(probability * (1 - probability), 1e-9) * trials)
  assert abs(hits - probability * trials) <= 4.5 * error + 1e-6


def victim_answers(found):
  """How many answers of all runs, probes aside, were the victim's."""
  served = found.bill.served.sum()
  return float(np.nansum(found.purity * found.bill.served)), int(served)


def test_explicit_gets_the_victim_alone(world):
  found = world('explicit')
  np.testing.assert_array_equal(found.purity, 1.0)
  np.testing.assert_array_equal(found.bill.queries, QUERIES)
  np.testing.assert_array_equal(found.bill.served, QUERIES)
  np.testing.assert_array_equal(found.probes, 0)
  np.testing.assert_array_equal(found.fidelity, 1.0)  # the victim is always wrong
  np.testing.assert_array_equal(found.accuracy, 0.0)
  assert np.isfinite(found.loss).all()


def test_explicit_is_beyond_the_reach_of_a_defense(world):
  np.testing.assert_array_equal(
    world('explicit', 'laplace', SCALE).bill.served, QUERIES
  )


def test_naive_shares_its_answers_among_what_its_budget_allows(world):
  found = world('naive')
  np.testing.assert_array_equal(found.bill.served, QUERIES)
  np.testing.assert_array_equal(found.probes, 0)
  answers = known_zoo.kernel(0.0, known_zoo.BUDGET_MS)
  np.testing.assert_array_equal(answers, [0.5, 0.5, 0.0])
  assert_share(*victim_answers(found), answers[known_zoo.MEDIUM])
  # Two models name two classes for every image, as often as each other.
  assert 0.2 < found.fidelity.mean() < 0.8
  assert 0.2 < found.accuracy.mean() < 0.8
  np.testing.assert_allclose(found.fidelity + found.accuracy, 1.0, atol=0.02)


def test_the_fingerprint_pays_for_its_probes_and_then_gets_the_victim(world):
  _, probes, served = known_zoo.bisection(
    known_zoo.is_served,
    known_zoo.BUDGET_MS,
    RESOLUTION,
    RESOLUTION * known_zoo.BUDGET_MS,
  )
  found = world('fingerprint')
  np.testing.assert_array_equal(found.probes, probes)
  np.testing.assert_array_equal(found.bill.queries, QUERIES)
  np.testing.assert_array_equal(found.log.queries, QUERIES)
  np.testing.assert_array_equal(found.bill.served, QUERIES - probes + served)
  np.testing.assert_array_equal(found.log.served, QUERIES - probes + served)
  np.testing.assert_array_equal(found.purity, 1.0)
  np.testing.assert_array_equal(found.fidelity, 1.0)
  np.testing.assert_array_equal(found.accuracy, 0.0)


def test_the_fingerprint_does_not_know_the_true_corner(world):
  """Told an absurd spec, it still finds its own; the ablation does not."""
  absurd = (2.0, 0.0)
  np.testing.assert_array_equal(world('fingerprint', told=absurd).purity, 1.0)
  np.testing.assert_array_equal(world('informed', told=absurd).bill.served, 0)


def test_the_corner_is_the_victim_without_probes(world):
  found = world('informed')
  np.testing.assert_array_equal(found.purity, 1.0)
  np.testing.assert_array_equal(found.probes, 0)
  np.testing.assert_array_equal(found.bill.served, QUERIES)


@pytest.mark.parametrize(
  ('attack', 'spec'), [('informed', (0.7, 2.0)), ('naive', (0.0, known_zoo.BUDGET_MS))]
)
def test_noise_answers_with_the_models_that_it_should(world, attack, spec):
  answers = known_zoo.kernel(*spec, SCALE * 0.4, SCALE * 3.0)
  found = world(attack, 'laplace', SCALE)
  np.testing.assert_array_equal(found.bill.queries, QUERIES)
  assert_share(found.bill.served.sum(), SEEDS * QUERIES, answers.sum())
  hits, served = victim_answers(found)
  assert_share(hits, served, answers[known_zoo.MEDIUM] / answers.sum())
  np.testing.assert_array_equal(found.bill.served, found.log.served)


def test_noise_breaks_the_fingerprint_and_its_bill_stays(world):
  found = world('fingerprint', 'laplace', SCALE)
  np.testing.assert_array_equal(found.bill.queries, QUERIES)
  np.testing.assert_array_equal(found.log.queries, QUERIES)
  assert found.bill.served.mean() < 0.9 * QUERIES
  assert (found.probes > 0).all()


def test_random_refusal_refuses_its_share_and_nothing_else(world):
  found = world('informed', 'refusal', 0.3)
  assert_share(found.bill.served.sum(), SEEDS * QUERIES, 0.7)
  np.testing.assert_array_equal(found.purity, 1.0)


@pytest.mark.parametrize('budget', [1, 7, 20])
def test_no_more_than_the_budget_is_billed(world, budget):
  for attack in world.config.attacks:
    found = world(attack, budget=budget)
    np.testing.assert_array_equal(found.bill.queries, budget)
    np.testing.assert_array_equal(found.log.queries, budget)
    assert (found.probes <= budget).all()


def test_a_surrogate_that_diverged_has_no_loss(world):
  row = harness.Run(
    victim=jnp.int32(known_zoo.MEDIUM),
    value=jnp.float32(0),
    query_budget=jnp.int32(50),
    latency_budget_ms=jnp.float32(3),
    told=Spec.of(0.7, 2.0),
    pairing_key=jax.random.key(0),
    serving_key=jax.random.key(1),
  )
  fields = known_zoo.fields((100, QUERIES), RESOLUTION)
  fields['extraction']['hyper'] = {'steps': 5, 'batch_size': 8, 'learning_rate': 1e38}
  config = experiments.parse(fields)
  spoils = harness.collect('explicit', 'none', config, world.profile, world.tables, row)
  training = config.extraction.training(known_zoo.CLASSES)
  _, found = jax.jit(harness.steal, static_argnums=(0, 5))(
    training, world.tables, row.pairing_key, row.victim, spoils.harvest, 64
  )
  assert np.isnan(found.loss)


def test_a_second_population_compiles_nothing(world, reported):
  """Keys, victims, harvests and budgets are arguments of the one program."""

  def compiled():
    return sum(event.endswith('backend_compile_duration') for event, _ in reported)

  jax.block_until_ready(world.scored(jax.random.key(3), 40))
  before = compiled()
  jax.jit(lambda x: x - 3)(jnp.ones(23))
  seen = compiled()
  jax.block_until_ready(world.scored(jax.random.key(4), 70))
  assert compiled() == seen > before
