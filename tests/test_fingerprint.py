"""Bisection and sweep against known frontiers."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from psml_jax import defenses, profiles, routers, servers, session
from psml_jax.attacks import fingerprint
from psml_jax.core import Knowledge, Observation
from tests import references

pytestmark = pytest.mark.usefixtures('strict')

KEY = jax.random.key(31)
PUBLISHED = ('cifar10_published', 'cifar100_published')
FINE = {'accuracy_resolution': 2e-4, 'latency_resolution': 5e-4}
COARSE = {'accuracy_resolution': 4e-3, 'latency_resolution': 4e-3}
CAP = 4096


def frontier_of(profile):
  """Accuracy and latency of the corners, from the fastest model on."""
  models = references.frontier(profile)
  return tuple(np.unique(x[models]) for x in references.arrays(profile))


def table(router, profile):
  return servers.table(router, profile.latency_ms, jnp.ones((len(profile), 1, 2)) / 2)


def run(attack, server, latency_budget, key=KEY, budget=CAP):
  key, server_key = jax.random.split(key)
  knowledge = Knowledge(jnp.float32(latency_budget), num_classes=2)
  return session.run(
    key, attack, server, server.init(server_key), knowledge, budget=budget
  )


def bisect(server, latency_budget, resolution, key=KEY):
  found = run(fingerprint.bisection(**resolution), server, latency_budget, key)
  return found.harvest, found.bill, found.log


@jax.jit
def bisect_zoo(server, budgets):
  return jax.vmap(lambda budget: bisect(server, budget, COARSE)[0])(budgets)


def sweep_zoo(profile, latency_budget):
  attack = fingerprint.sweep(max_corners=20, **COARSE)
  found = run(attack, table(routers.most_accurate(profile), profile), latency_budget)
  return found.harvest, found.bill, found.log


def check_corners(corner, accuracy, latency, budget, resolution):
  """Both brackets end at the model: on its side, and within the resolution."""
  below = accuracy - np.asarray(corner.spec.min_accuracy)
  above = np.asarray(corner.spec.max_latency_ms) - latency
  assert (below >= 0).all()
  assert (below <= resolution['accuracy_resolution']).all()
  assert (above >= 0).all()
  assert (above <= resolution['latency_resolution'] * budget).all()


def check_probes(probes, resolution):
  limit = 1.1 * fingerprint.lower_bound(**resolution) + 2
  assert 0 < int(probes) <= limit


@pytest.mark.parametrize('make', [routers.uniform, routers.most_accurate])
@pytest.mark.parametrize('name', PUBLISHED)
def test_bisection_finds_every_published_corner(name, make):
  profile = profiles.load(name)
  accuracy, latency = frontier_of(profile)
  budgets = latency + 0.01
  server = table(make(profile), profile)
  corner, bill, log = jax.jit(jax.vmap(lambda b: bisect(server, b, FINE)))(budgets)
  check_corners(corner, accuracy, latency, budgets, FINE)
  assert corner.done.all()
  assert corner.found.all()
  for probes in corner.probes:
    check_probes(probes, FINE)
  jax.tree.map(np.testing.assert_array_equal, bill, log)
  np.testing.assert_array_equal(bill.queries, corner.probes)


@pytest.mark.parametrize('seed', range(12))
def test_bisection_finds_every_corner_of_random_zoos(seed):
  profile = references.spaced_profile(seed, 25)
  accuracy, latency = frontier_of(profile)
  budgets = np.resize(latency + np.float32(0.5), 20)  # one shape, one compilation
  assert len(latency) <= 20
  corner = bisect_zoo(table(routers.uniform(profile), profile), budgets)
  accuracy, latency = np.resize(accuracy, 20), np.resize(latency, 20)
  check_corners(corner, accuracy, latency, budgets, COARSE)
  assert corner.done.all()
  assert corner.found.all()
  for probes in corner.probes:
    check_probes(probes, COARSE)


def check_sweep(corners, bill, log, profile, budget, resolution):
  accuracy, latency = frontier_of(profile)
  count = int(corners.count)
  assert count == len(latency)
  assert bool(corners.done)
  found = jax.tree.map(
    lambda x: x[:count],
    dataclasses.replace(
      corners, count=jnp.ones(count), done=jnp.ones(count), total_probes=jnp.ones(count)
    ),
  )
  check_corners(found, accuracy[::-1], latency[::-1], budget, resolution)
  for probes in corners.probes[:count]:
    check_probes(probes, resolution)
  ending = int(corners.total_probes) - int(corners.probes.sum())
  assert ending == 1
  assert int(bill.queries) == int(log.queries) == int(corners.total_probes)
  assert int(bill.served) == int(log.served)


@pytest.mark.parametrize('name', PUBLISHED)
def test_sweep_finds_every_published_corner(name):
  profile = profiles.load(name)
  server = table(routers.uniform(profile), profile)
  found = run(fingerprint.sweep(max_corners=20, **FINE), server, 100.0)
  check_sweep(found.harvest, found.bill, found.log, profile, 100.0, FINE)


@pytest.mark.parametrize('seed', range(12))
def test_sweep_finds_every_corner_of_random_zoos(seed):
  profile = references.spaced_profile(seed, 25)
  check_sweep(*sweep_zoo(profile, 120.0), profile, 120.0, COARSE)


def test_sweep_stops_at_max_corners():
  profile = references.make_profile([0.2, 0.5, 0.8], [2.0, 4.0, 8.0])
  server = table(routers.uniform(profile), profile)
  corners = run(fingerprint.sweep(max_corners=2, **COARSE), server, 9.0).harvest
  assert bool(corners.done)
  assert int(corners.count) == 2
  np.testing.assert_allclose(corners.spec.min_accuracy, [0.8, 0.5], atol=4e-3)
  assert int(corners.total_probes) == int(corners.probes.sum())


def test_equal_models_are_one_corner():
  profile = references.make_profile([0.5, 0.9, 0.9, 0.5], [1.0, 3.0, 3.0, 1.0])
  corners, _, _ = sweep_zoo(profile, 9.0)
  assert int(corners.count) == 2


def test_vmapped_equals_one_at_a_time():
  profile = references.spaced_profile(0, 25)
  budgets = np.linspace(1.0, 120.0, 20, dtype=np.float32)
  server = table(routers.uniform(profile), profile)
  batched = bisect_zoo(server, budgets)
  for i, budget in enumerate(budgets):
    row = jax.tree.map(lambda x, i=i: x[i], batched)
    one = bisect(server, budget, COARSE)[0]
    jax.tree.map(np.testing.assert_array_equal, row, one)


def test_nothing_served():
  profile = references.make_profile([0.4, 0.6], [2.0, 4.0])
  server = table(routers.uniform(profile), profile)
  corner, bill, log = bisect(server, 1.5, COARSE)
  assert bool(corner.done)
  assert not bool(corner.found)
  assert float(corner.spec.min_accuracy) == 0.0
  assert int(corner.probes) <= fingerprint.max_probes(**COARSE)
  assert int(bill.served) == int(log.served) == 0
  assert int(bill.queries) == int(corner.probes)
  corners, _, _ = sweep_zoo(profile, 1.5)
  assert bool(corners.done)
  assert (int(corners.count), int(corners.total_probes)) == (0, 1)


def test_terminates_under_noise():
  profile = profiles.load('cifar10_published')
  router = routers.uniform(profile)

  @jax.jit
  def attack(keys, scale):
    noise = defenses.laplace(*defenses.relative_scale(profile, scale))
    server = table(defenses.defend(router, noise), profile)
    return jax.vmap(lambda key: bisect(server, 40.0, FINE, key))(keys)

  for scale in (0.05, 0.5, 5.0):
    corner, bill, log = attack(jax.random.split(KEY, 50), scale)
    assert corner.done.all()
    assert int(corner.probes.max()) <= fingerprint.max_probes(**FINE)
    jax.tree.map(np.testing.assert_array_equal, bill, log)
    assert len(np.unique(corner.spec.min_accuracy)) > 1


def test_resolution_finer_than_float32_ends():
  fine = {'accuracy_resolution': 1e-12, 'latency_resolution': 1e-12}
  zoo = references.make_profile([0.7], [2.0])
  corner, _, _ = bisect(table(routers.uniform(zoo), zoo), 9.0, fine)
  assert bool(corner.done)
  assert float(corner.spec.min_accuracy) == float(zoo.accuracy[0])
  assert float(corner.spec.max_latency_ms) == 2.0


def started(budget=9.0):
  attack = fingerprint.bisection(**COARSE)
  return attack, attack.init(KEY, Knowledge(jnp.float32(budget), pool_size=7))


def test_tell_reads_served_alone():
  attack, state = started()
  told = attack.tell(state, None, Observation(jnp.array([True]), None, None))
  assert bool(attack.harvest(told).found)


def test_first_probe_asks_for_the_middle_at_the_budget():
  attack, state = started()
  query = attack.ask(state)
  assert query.spec.min_accuracy.tolist() == [0.5]
  assert query.spec.max_latency_ms.tolist() == [9.0]
  assert query.sent.tolist() == [True]
  assert 0 <= int(query.inputs[0]) < 7


@pytest.mark.parametrize('value', [0.0, -1.0, np.nan, np.inf])
@pytest.mark.parametrize('argument', ['accuracy_resolution', 'latency_resolution'])
def test_rejects(argument, value):
  for call in (
    fingerprint.bisection,
    lambda **kwargs: fingerprint.sweep(max_corners=3, **kwargs),
    fingerprint.lower_bound,
    fingerprint.max_probes,
  ):
    with pytest.raises(ValueError, match=f'{argument} is {value}'):
      call(**{**COARSE, argument: value})


@pytest.mark.parametrize('value', [0.0, -1.0, np.nan, np.inf])
def test_rejects_a_latency_budget(value):
  with pytest.raises(ValueError, match=f'latency_budget_ms is {value}'):
    started(value)


@pytest.mark.parametrize('max_corners', [0, -1, 2.5])
def test_sweep_rejects_max_corners(max_corners):
  with pytest.raises(ValueError, match=f'max_corners is {max_corners}'):
    fingerprint.sweep(max_corners=max_corners, **COARSE)


@pytest.mark.parametrize('resolution', [FINE, COARSE])
def test_max_probes_is_within_two_of_the_lower_bound(resolution):
  bound = fingerprint.lower_bound(**resolution)
  assert bound <= fingerprint.max_probes(**resolution) < bound + 2


@pytest.mark.parametrize('free', [1, 2])
def test_sweep_ends_at_models_that_cost_nothing(free):
  """A latency of 0 is never refused, so nothing is looked for below it."""
  profile = references.make_profile(
    [0.5, 0.9, *[0.4] * (free - 1)], [0.0, 2.0, *[0.0] * (free - 1)]
  )
  corners, bill, _ = sweep_zoo(profile, 3.0)
  assert int(corners.count) == 2
  assert bool(corners.done)
  np.testing.assert_allclose(corners.spec.min_accuracy[:2], [0.9, 0.5], atol=4e-3)
  assert int(bill.queries) == int(corners.total_probes) == int(corners.probes.sum())


def test_sweep_marks_corners_that_are_not_there():
  """Behind noise most corners found are of no model, and most of those are refused."""
  profile = references.make_profile([0.2, 0.5, 0.8], [2.0, 4.0, 8.0])
  noise = defenses.laplace(*defenses.relative_scale(profile, 0.05))
  server = table(defenses.defend(routers.uniform(profile), noise), profile)
  attack = fingerprint.sweep(max_corners=10, **COARSE)

  @jax.jit
  @jax.vmap
  def find(key):
    found = run(attack, server, 9.0, key, budget=1000)
    return found.harvest, found.bill.queries

  corners, billed = find(jax.random.split(KEY, 64))
  assert (np.asarray(billed) <= 1000).all()
  filled = np.arange(10) < np.asarray(corners.count)[:, None]
  distance = np.min(
    np.abs(np.asarray(corners.spec.min_accuracy)[..., None] - [0.2, 0.5, 0.8]) / 0.6
    + np.abs(np.asarray(corners.spec.max_latency_ms)[..., None] - [2, 4, 8]) / 6,
    axis=-1,
  )
  invented = filled & (distance > 0.05)
  valid = np.asarray(corners.valid)
  assert invented.sum() > 64
  assert not valid[~filled].any()
  assert valid[invented].mean() < 0.7


def test_without_noise_every_corner_is_valid():
  corners, _, _ = sweep_zoo(references.spaced_profile(1, 25), 120.0)
  count = int(corners.count)
  assert corners.valid[:count].all()
  assert not corners.valid[count:].any()
