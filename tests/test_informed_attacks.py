"""Majority, probabilistic bisection, bandit and signatures against small zoos."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from psml_jax import defenses, pareto, profiles, routers, servers, session
from psml_jax.attacks import (
  Phases,
  bandit,
  fingerprint,
  leaders,
  majority,
  margins,
  probabilistic,
  signatures,
)
from psml_jax.core import Knowledge, Spec
from tests import references

pytestmark = pytest.mark.usefixtures('strict')

KEY = jax.random.key(47)
RESOLUTION = {'accuracy_resolution': 1e-3, 'latency_resolution': 1e-3}
ZOO = references.make_profile([0.3, 0.5, 0.7, 0.9, 0.6], [2.0, 4.0, 6.0, 12.0, 7.0])
VICTIM, BUDGET_MS = 2, 9.0
PUBLISHED = profiles.load('cifar10_published')
MEDIUM = pareto.victims(PUBLISHED)['medium']
MEDIUM_BUDGET_MS = (18.17 + 35.86) / 2
OUTPUTS = np.random.default_rng(0).dirichlet(np.ones(4), (5, 50)).astype(np.float32)


def attacked(
  attack, zoo, noise, budget_ms, *, seeds, told=None, outputs=None, reply=None, **router
):
  """Harvests and bills of several seeds."""
  if outputs is None:
    outputs = jnp.ones((len(zoo), 50, 2)) / 2
  server = servers.table(
    routers.uniform(zoo, **router),
    zoo.latency_ms,
    outputs,
    defense=noise,
    reply=reply,
  )
  knowledge = Knowledge(
    jnp.float32(budget_ms), pool_size=50, num_classes=outputs.shape[-1], defense=told
  )

  @jax.jit
  @jax.vmap
  def one(key):
    key, secret = jax.random.split(key)
    found = session.run(
      key, attack, server, server.init(secret), knowledge, budget=1000
    )
    return found.harvest, found.bill.queries

  return one(jax.random.split(KEY, seeds))


def laplace(zoo, scale):
  return defenses.laplace(*defenses.relative_scale(zoo, scale))


def law(router, spec):
  """The exact law of a router, which promotes ranks."""
  with jax.numpy_rank_promotion('allow'), jax.numpy_dtype_promotion('standard'):
    return np.asarray(router.kernel(spec))


def rates(zoo, noise, victim, spec):
  """The true rate of each spec."""
  return law(defenses.defend(routers.uniform(zoo), noise), spec)[..., victim]


def best_rate(zoo, scale, victim):
  """The highest true rate on a grid finer than a sixth of the noise."""
  noise = laplace(zoo, scale)
  step, step_ms = float(noise.accuracy_scale), float(noise.latency_scale_ms)
  accuracy = float(zoo.accuracy[victim]) - np.linspace(-3, 6, 61) * step
  latency = float(zoo.latency_ms[victim]) + np.linspace(-4, 9, 66) * step_ms
  grid = Spec.of(*np.meshgrid(accuracy, latency, indexing='ij'))
  return rates(zoo, noise, victim, grid).max()


def found_share(attack, scale, *, told=None, seeds=16):
  """The mean true rate of what is replayed, as a share of the best possible."""
  noise = laplace(PUBLISHED, scale)
  told = laplace(PUBLISHED, scale * told) if told else None
  harvest, _ = attacked(
    attack, PUBLISHED, noise, MEDIUM_BUDGET_MS, seeds=seeds, told=told
  )
  rate = rates(PUBLISHED, noise, MEDIUM, harvest.spec).mean()
  return rate / best_rate(PUBLISHED, scale, MEDIUM)


def bisecting(probes, told=True):
  return probabilistic.probabilistic(probes=probes, told=told, **RESOLUTION)


def then_bandit(probes):
  return Phases((fingerprint.bisection(**RESOLUTION), bandit.bandit(probes=probes)))


UNDEFENDED = {
  'majority': (majority.majority(votes=3, **RESOLUTION), 60),
  'told': (bisecting(60), 60),
  'scale_unknown': (bisecting(100, told=False), 100),
  'bandit': (then_bandit(60), 80),
}


@pytest.mark.parametrize('name', list(UNDEFENDED))
def test_undefended_the_victim_alone_meets_what_is_replayed(name):
  attack, most = UNDEFENDED[name]
  none = laplace(ZOO, 0.0)
  harvest, billed = attacked(attack, ZOO, none, BUDGET_MS, seeds=3, told=none)
  rate = rates(ZOO, none, VICTIM, harvest.spec)
  np.testing.assert_array_equal(rate, 1.0)
  assert (np.asarray(billed) <= most).all()


@pytest.mark.parametrize('told', [True, False])
def test_undefended_the_estimate_is_the_corner(told):
  none = laplace(ZOO, 0.0)
  harvest, _ = attacked(
    bisecting(150, told=told), ZOO, none, BUDGET_MS, seeds=2, told=none
  )
  np.testing.assert_allclose(harvest.corner.min_accuracy, 0.7, atol=2e-3)
  np.testing.assert_allclose(harvest.corner.max_latency_ms, 6.0, atol=0.02)


def test_a_majority_of_one_is_the_bisection():
  noise = laplace(ZOO, 0.05)
  one, billed = attacked(
    majority.majority(votes=1, **RESOLUTION), ZOO, noise, BUDGET_MS, seeds=4
  )
  plain, _ = attacked(
    fingerprint.bisection(**RESOLUTION), ZOO, noise, BUDGET_MS, seeds=4
  )
  jax.tree.map(np.testing.assert_array_equal, one, plain)
  np.testing.assert_array_equal(billed, one.probes)


def test_more_votes_end_nearer_to_the_victim():
  zoo = references.make_profile([0.7, 0.0], [6.0, 100.0])
  noise = defenses.laplace(0.05, 0.5)

  def miss(votes):
    attack = majority.majority(votes=votes, **RESOLUTION)
    harvest, billed = attacked(attack, zoo, noise, BUDGET_MS, seeds=32)
    np.testing.assert_array_equal(billed, harvest.probes)
    return np.abs(harvest.spec.min_accuracy - 0.7).mean()

  assert miss(9) < 0.6 * miss(1)


@pytest.mark.parametrize(
  ('scale', 'probes', 'told', 'share'),
  [(0.02, 100, 1.0, 0.9), (0.1, 100, 1.0, 0.85), (0.02, 100, None, 0.8)],
)
def test_the_margin_is_near_the_best(scale, probes, told, share):
  attack = bisecting(probes, told=told is not None)
  assert found_share(attack, scale, told=told) > share
  assert share > found_share(fingerprint.bisection(**RESOLUTION), scale) + 0.1


def test_half_the_scale_told_costs_rate():
  attack = bisecting(30)
  right, wrong = (found_share(attack, 0.02, told=told, seeds=32) for told in (1, 0.5))
  assert right > wrong + 0.04


def test_an_unknown_scale_is_estimated():
  zoo = references.make_profile([0.7, 0.0], [6.0, 100.0])
  scales = []
  for scale in (0.01, 0.1):
    noise = defenses.laplace(scale, 0.1)
    harvest, _ = attacked(bisecting(200, told=False), zoo, noise, BUDGET_MS, seeds=8)
    scales.append(float(harvest.accuracy_scale.mean()))
  np.testing.assert_allclose(np.log(scales), np.log([0.01, 0.1]), atol=0.5)


def test_the_posterior_is_calibrated():
  """The victim lies in the 90 % interval about as often as it should."""
  noise = defenses.laplace(0.05, 0.3)
  zoo = references.make_profile([0.63, 0.0], [6.0, 100.0])
  harvest, _ = attacked(bisecting(40), zoo, noise, BUDGET_MS, seeds=64, told=noise)
  low, high = harvest.low.min_accuracy, harvest.high.min_accuracy
  inside = np.mean((low <= 0.63) & (high >= 0.63))
  assert inside >= 0.8
  assert np.median(high - low) < 0.1


def test_margins_grow_with_the_noise_and_shrink_with_neighbours():
  values = jnp.arange(1, 1025) / 1024
  sure = jnp.where(jnp.arange(1024) == 700, 0.0, -30.0)[:, None, None]
  flat = margins.Belief.flat(values, 1)
  accuracy = dataclasses.replace(flat, log_weight=flat.log_weight + sure)
  latency = dataclasses.replace(accuracy, values=values * 10)

  def margin(scale, neighbours):
    told = defenses.laplace(scale, 1e-3)
    noise = margins.Noise(told, jnp.ones(1), jnp.ones(1))
    spec = margins.best_spec(accuracy, latency, noise, jnp.float32(neighbours))
    return float(values[700] - spec.min_accuracy)

  assert 0.005 < margin(0.01, 0.5) < 0.02
  np.testing.assert_allclose(margin(0.04, 0.5), 4 * margin(0.01, 0.5), rtol=0.2)
  assert margin(0.04, 4.0) < 0.7 * margin(0.04, 0.5)


def test_a_bandit_recognises_its_victim():
  noise = laplace(PUBLISHED, 0.02)
  harvest, billed = attacked(
    then_bandit(76), PUBLISHED, noise, MEDIUM_BUDGET_MS, seeds=16
  )
  right = np.abs(np.asarray(harvest.latency_ms) - 18.17) < 0.1
  assert right.mean() > 0.9
  share = rates(PUBLISHED, noise, MEDIUM, harvest.spec).mean()
  assert share > 0.85 * best_rate(PUBLISHED, 0.02, MEDIUM)
  assert (np.asarray(billed) >= 76).all()


def test_a_bandit_keeps_the_answers_of_its_victim_alone():
  noise = laplace(ZOO, 0.1)
  harvest, _ = attacked(
    then_bandit(60), ZOO, noise, BUDGET_MS, seeds=4, outputs=jnp.asarray(OUTPUTS)
  )
  for row in range(4):
    answers = jax.tree.map(lambda x, row=row: np.asarray(x[row]), harvest.answers)
    model = int(np.argmin(np.abs(ZOO.latency_ms - harvest.latency_ms[row])))
    count = int(answers.count)
    assert 10 < count < 60
    wanted = OUTPUTS[model, answers.inputs[:count]]
    np.testing.assert_array_equal(answers.targets[:count], wanted)
    assert not answers.targets[count:].any()


FIELDS = {'accuracies': 11, 'latencies': 3, 'canaries': 4, 'repeats': 6}
SLOWEST = references.make_profile([0.3, 0.5, 0.7, 0.9, 0.2], [2.0, 4.0, 6.0, 12.0, 5.0])


def mapped(zoo, noise=None, *, labels=False, seeds=3, **fields):
  """Maps of a server that refuses nothing."""
  reply = defenses.labels_only() if labels else None
  tell_by = 'labels' if labels else 'probabilities'
  attack = signatures.signatures(tell_by=tell_by, **{**FIELDS, **fields})
  outputs = jnp.asarray(OUTPUTS)
  return attacked(
    attack,
    zoo,
    noise,
    BUDGET_MS,
    seeds=seeds,
    outputs=outputs,
    reply=reply,
    infeasible='best_effort',
  )


def alone(zoo, spec):
  """The model that alone answers each spec where nothing is refused, -1 for several."""
  kernel = law(routers.uniform(zoo, infeasible='best_effort'), spec)
  return np.where(kernel.max(-1) == 1, kernel.argmax(-1), -1)


@pytest.mark.parametrize('labels', [False, True])
@pytest.mark.parametrize(('target', 'zoo'), [('strictest', ZOO), ('slowest', SLOWEST)])
def test_signatures_map_the_plane(labels, target, zoo):
  harvest, billed = mapped(zoo, labels=labels, target=target)
  np.testing.assert_array_equal(billed, 11 * 3 * 4 * 6)
  np.testing.assert_array_equal(harvest.probes, billed)
  np.testing.assert_array_equal(alone(zoo, harvest.spec), VICTIM)
  for row in range(3):
    truth = alone(zoo, jax.tree.map(lambda x, row=row: x[row], harvest.grid))
    seen = np.asarray(harvest.responder[row])
    assert -1 in truth
    taken_for_one = (seen >= 0) & (truth < 0)
    assert taken_for_one.sum() <= labels
    assert (seen[truth >= 0] >= 0).all()
    pairs = set(zip(seen[truth >= 0].tolist(), truth[truth >= 0].tolist()))
    models = len(set(truth[truth >= 0].tolist()))
    assert len(pairs) == models
    assert models <= int(harvest.count[row]) <= models + labels
    np.testing.assert_array_equal(harvest.purity[row][truth >= 0], 1.0)
  most = 4 if labels else 5
  assert (np.asarray(harvest.told_apart) <= most).all()
  assert (np.asarray(harvest.told_apart) > 1).all()


def test_signatures_of_a_noisy_server():
  """The rate that it sees is the true one, and the best cell is nearly the best."""
  noise = laplace(ZOO, 0.1)
  fields = {'accuracies': 8, 'latencies': 4, 'canaries': 2, 'repeats': 8}
  harvest, _ = mapped(ZOO, noise, seeds=4, **fields)
  router = defenses.defend(routers.uniform(ZOO, infeasible='best_effort'), noise)
  truth = law(router, harvest.grid)[..., VICTIM]
  deviation = np.sqrt(0.25 / 16)
  assert np.abs(harvest.rate - truth).mean() < deviation
  chosen = law(router, harvest.spec)[..., VICTIM]
  assert chosen.mean() > truth.max() - 0.15


def test_leaders_merge_what_is_near_and_keep_within_their_number():
  points = jnp.array([[0.0, 0.0], [0.0, 0.4], [0.05, 0.05], [0.9, 0.0]])
  state, found = leaders.Leaders.none(2, 2), []
  for point, exists in zip(points, (True, True, True, True)):
    state, which = state.place(point, jnp.float32(0.1), jnp.bool_(exists))
    found.append(int(which))
  assert found == [0, 1, 0, 0]
  _, which = state.place(points[0], jnp.float32(0.1), jnp.bool_(False))
  assert (int(which), int(state.count)) == (2, 2)


def test_bad_input_is_named():
  for votes in (2, 0, 2.5):
    with pytest.raises(ValueError, match=f'votes is {votes}'):
      majority.majority(votes=votes, **RESOLUTION)
  with pytest.raises(ValueError, match='probes is 0'):
    bisecting(0)
  with pytest.raises(ValueError, match='accuracy_resolution is -1.0'):
    probabilistic.probabilistic(
      probes=3, accuracy_resolution=-1.0, latency_resolution=0.1
    )
  unlawful = Knowledge(jnp.float32(9), defense=defenses.identity())
  with pytest.raises(ValueError, match='knowledge.defense is _Identity'):
    bisecting(3).init(KEY, unlawful)
  with pytest.raises(ValueError, match='latency_budget_ms is 0.0'):
    bisecting(3).init(KEY, Knowledge(jnp.float32(0)))
  with pytest.raises(ValueError, match='probes is 0'):
    bandit.bandit(probes=0)
  with pytest.raises(ValueError, match='tolerance is 0.0'):
    bandit.bandit(probes=3, tolerance=0.0)
  with pytest.raises(ValueError, match='knowledge.found has no spec'):
    bandit.bandit(probes=3).init(KEY, Knowledge(jnp.float32(9)))
  for field, value in {'canaries': 0, 'tell_by': 'ears', 'target': 'x'}.items():
    with pytest.raises(ValueError, match=f'{field} is'):
      signatures.signatures(**{field: value})
