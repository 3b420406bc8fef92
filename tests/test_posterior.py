"""The joint posterior attack: its laws, its beliefs, and what it reaches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from psml_jax import defenses, noisy_search, routers, servers, session
from psml_jax.attacks import particles, posterior
from psml_jax.core import Knowledge, Spec
from tests import references

KEY = jax.random.key(41)
ACCURACY, LATENCY = [0.3, 0.6, 0.8, 0.9], [1.0, 2.0, 3.5, 8.0]
ZOO = references.make_profile(ACCURACY, LATENCY)
FRONTIER = Spec.of(ACCURACY, LATENCY)
BUDGET, VICTIM = 3.0, 1
LAWS = {
  'laplace': defenses.laplace(0.08, 0.7),
  'gaussian': defenses.gaussian(0.05, 0.4),
  'tighten': defenses.noise('uniform', 0.2, 2.0, direction='tighten'),
  'log': defenses.log_noise(ZOO, 0.1),
}


def one_particle(scale=(1.0, 1.0)):
  """The zoo's frontier, with room for two steps that it does not have."""
  frontiers = particles.Frontiers(
    accuracy=jnp.array([[0.8, 0.1, 0.3, 0.9, 0.95, 0.6]]),
    log_latency=jnp.log(jnp.array([[8.0, 0.5, 2.0, 1.0, 9.0, 3.5]]) / BUDGET),
    real=jnp.array([[True, False, True, True, False, True]]),
    log_scale=jnp.log(jnp.array([scale])),
  )
  return particles.in_order(frontiers, jnp.float32(BUDGET))


def kernel(law, accuracy, latency):
  """f64[G * H, M + 1], of a grid of specs."""
  grid = Spec.of(*np.meshgrid(accuracy, latency, indexing='ij'))
  with jax.numpy_rank_promotion('allow'):
    law = defenses.defend(routers.uniform(ZOO), law).kernel(grid)
  return np.asarray(law, np.float64).reshape(-1, len(ZOO) + 1)


GRID = np.linspace(-0.1, 1.1, 13), np.linspace(0.3, 9.0, 15)


@pytest.mark.parametrize('name', list(LAWS))
def test_a_particle_has_the_law_of_its_zoo(name):
  wanted = kernel(LAWS[name], *GRID)
  fields = (jnp.asarray(field, jnp.float32) for field in GRID)
  served, rate = particles.served_and_rate(LAWS[name], one_particle(), *fields)
  np.testing.assert_allclose(served[0], 1 - wanted[:, -1], atol=1e-5)
  np.testing.assert_allclose(rate[0], wanted[:, VICTIM], atol=1e-5)
  assert 0.05 < wanted[:, VICTIM].max() < 0.95
  spec = Spec.of(*(field.ravel() for field in np.meshgrid(*GRID, indexing='ij')))
  flat = particles.served(LAWS[name], one_particle(), spec)
  np.testing.assert_allclose(flat, served, atol=1e-6)


def test_factors_scale_each_field_of_the_noise():
  wanted = kernel(defenses.laplace(0.08 * 1.5, 0.7 / 2), *GRID)
  fields = (jnp.asarray(field, jnp.float32) for field in GRID)
  steps = one_particle((1.5, 0.5))
  served, _ = particles.served_and_rate(LAWS['laplace'], steps, *fields)
  np.testing.assert_allclose(served[0], 1 - wanted[:, -1], atol=1e-5)


def test_metropolis_steps_keep_the_posterior():
  """The prior weighed by two answers, against the prior moved under them."""
  size, budget = 20_000, jnp.float32(BUDGET)
  draw_key, move_key, resample_key = jax.random.split(KEY, 3)
  answers = particles.Answers.none(4)
  for spec, served in (((0.5, 3.0), True), ((0.7, 2.5), False), ((0.4, 1.5), False)):
    answers = answers.with_one(Spec.of(*spec), jnp.bool_(served))
  drawn = particles.draw(draw_key, size, 3, scale_known=False)

  def features(frontiers):
    steps = particles.in_order(frontiers, budget)
    victim = jnp.take_along_axis(steps.accuracy, steps.victim[:, None], 1)[:, 0]
    count = jnp.sum(frontiers.real, -1)
    quick = jnp.log(steps.latency_ms[:, 0])
    high = jnp.mean(frontiers.accuracy > 0.7, -1)
    scale = frontiers.log_scale
    return jnp.stack(
      [victim, count == 1, count == 3, quick, high, scale[:, 0] > 0, scale[:, 1] ** 2]
    )

  chance = particles.served(
    LAWS['laplace'], particles.in_order(drawn, budget), answers.spec
  )
  each = particles.log_answer(chance[:, :3], answers.served[None, :3])
  possible = particles.log_prior(drawn) > -jnp.inf
  log_weight = jnp.where(possible, each.sum(-1), -jnp.inf)
  wanted = features(drawn) @ jax.nn.softmax(log_weight)
  start = particles.resampled(
    resample_key, drawn, jnp.where(possible, 0.0, -jnp.inf), size
  )
  moved = particles.moved(
    move_key,
    LAWS['laplace'],
    start,
    answers,
    budget,
    num_moves=200,
    scale_known=False,
  )
  spread = features(moved).std(-1)
  error = np.abs(features(moved).mean(-1) - wanted) / spread
  assert (error < 0.05).all(), error
  before = np.abs(features(start).mean(-1) - wanted) / spread
  assert before.max() > 0.2


NOISE = defenses.laplace(0.03, 0.25)


def run(attack, seeds=8, told=NOISE, budget=BUDGET, queries=1000):
  server = servers.table(
    routers.uniform(ZOO), ZOO.latency_ms, jnp.ones((4, 1, 2)), defense=NOISE
  )
  knowledge = Knowledge(jnp.float32(budget), num_classes=2, defense=told)

  return sessions(jax.random.split(KEY, seeds), attack, server, knowledge, queries)


@jax.jit
def sessions(keys, attack, server, knowledge, queries):
  def one(key):
    key, server_key = jax.random.split(key)
    state = server.init(server_key)
    return session.run(key, attack, server, state, knowledge, budget=queries)

  return jax.vmap(one)(keys)


def share_of_best(spec):
  best = kernel(NOISE, np.linspace(0, 1, 201), np.linspace(0, 9, 271))
  return rates(spec) / best[:, VICTIM].max()


def rates(spec):
  """The true rate of each spec, f64[S]."""
  pairs = zip(np.asarray(spec.min_accuracy), np.asarray(spec.max_latency_ms))
  return np.array([kernel(NOISE, [a], [b])[0, VICTIM] for a, b in pairs])


SMALL = {'num_particles': 256, 'num_steps': 6, 'num_moves': 3, 'num_candidates': 16}


def test_it_gets_most_of_the_best_rate_and_more_with_more_probes():
  many = run(posterior.posterior(num_probes=60, **SMALL), seeds=32)
  few = run(posterior.posterior(num_probes=60, **SMALL), seeds=32, queries=2)
  assert (many.bill.queries == 60).all()
  assert (few.bill.queries == 2).all()
  reached = share_of_best(many.harvest.spec).mean()
  assert reached > 0.85
  assert reached > share_of_best(few.harvest.spec).mean() + 0.1
  expected = many.harvest.rate.mean()
  assert abs(expected - rates(many.harvest.spec).mean()) < 0.15


def test_purity_costs_rate():
  loose, pure = (
    run(posterior.posterior(num_probes=60, purity=purity, **SMALL)).harvest
    for purity in (0.0, 0.85)
  )
  enough = loose.purity >= 0.85
  assert 2 <= enough.sum() <= 6
  assert (pure.purity >= 0.85).all()
  np.testing.assert_array_equal(pure.rate < loose.rate, ~enough)


@jax.numpy_rank_promotion('allow')
def test_probes_against_noise():
  rows = noisy_search.probes_against_noise(
    KEY,
    ZOO,
    VICTIM,
    BUDGET,
    posterior.posterior(num_probes=40, **SMALL),
    [0.001, 0.05],
    seeds=4,
    looks=4,
    every=10,
  )
  assert [row['scale'] for row in rows] == [0.001, 0.05]
  for row in rows:
    assert 0 < row['bound'] <= row['probes'] <= 40
    assert len(row['mean_share']) == 4
  assert rows[0]['best_rate'] > 0.97 > rows[1]['best_rate']
  assert rows[0]['bound'] > 1


def test_probes_until():
  rate, probes = np.array([[0.2, 0.9, 0.5, 0.9, 1.0]] * 2), np.arange(5) + 1
  assert noisy_search.probes_until(rate, probes, wanted=0.8) == 4
  assert noisy_search.probes_until(rate, probes, wanted=0.1) == 1
  assert noisy_search.probes_until(rate[:, :3], probes[:3], wanted=0.8) == np.inf


def test_the_bound_of_noisy_search():
  clear = noisy_search.lower_bound(
    defenses.laplace(1e-3, 1e-3),
    latency_budget_ms=1.0,
    accuracy_resolution=0.25,
    latency_resolution=0.125,
  )
  assert abs(clear - 5) < 1e-3
  flip = 0.11
  told = 1 + flip * np.log2(flip) + (1 - flip) * np.log2(1 - flip)
  assert abs(noisy_search.capacity(flip, 1 - flip) - told) < 1e-6
  assert noisy_search.capacity(0.3, 0.3) < 1e-9


@pytest.mark.parametrize('told', [defenses.laplace(0.1, 0.1), None])
def test_the_scale_may_be_unknown(told):
  attack = posterior.posterior(num_probes=60, scale_known=False, **SMALL)
  assert share_of_best(run(attack, told=told).harvest.spec).mean() > 0.75


def test_the_best_query_is_exact_and_best():
  law = LAWS['laplace']
  table = kernel(law, np.linspace(0, 1, 201), np.linspace(0.02, 9, 300))
  purity = table[:, VICTIM] / (1 - table[:, -1])
  for least in (0.0, 0.75, 0.85):
    found = posterior.best_query(KEY, law, FRONTIER, BUDGET, purity=least)
    at = kernel(law, [found.spec.min_accuracy], [found.spec.max_latency_ms])[0]
    np.testing.assert_allclose(found.rate, at[VICTIM], atol=1e-5)
    np.testing.assert_allclose(found.purity, at[VICTIM] / (1 - at[-1]), atol=1e-4)
    best = table[purity >= least, VICTIM].max()
    assert found.purity >= least
    assert 0.95 * best < found.rate < 1.02 * best
  purest = posterior.best_query(KEY, law, FRONTIER, BUDGET, purity=1.0)
  assert purest.purity > 0.95 * purity.max()


@pytest.mark.parametrize(
  ('call', 'message'),
  [
    (lambda: posterior.posterior(num_probes=0), 'num_probes is 0; it must be a whole'),
    (
      lambda: posterior.posterior(num_probes=1, purity=1.5),
      'purity is 1.5; .*fraction',
    ),
    (
      lambda: posterior.posterior(num_probes=1, num_particles=2.5),
      'num_particles is 2.5; it must be a whole number >= 1',
    ),
    (
      lambda: posterior.posterior(num_probes=1).init(KEY, Knowledge(0.0)),
      'latency_budget_ms is 0.0; it must be a finite number > 0',
    ),
    (
      lambda: posterior.best_query(KEY, LAWS['laplace'], FRONTIER, 0.5),
      "latency_budget_ms is 0.5; it must be at least 1, the fastest model's latency",
    ),
  ],
)
def test_mistakes_are_named(call, message):
  with pytest.raises(ValueError, match=message):
    call()
