"""Bisection and sweep against known frontiers, traced and against a live server."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from psml_jax import defenses, oracles, profiles, routers
from psml_jax.attacks import fingerprint
from psml_jax.core import Bill, Observation, Spec, Transcript
from psml_jax.experiments import harness
from tests import references

pytestmark = pytest.mark.usefixtures('strict')

KEY = jax.random.key(31)
PUBLISHED = ('cifar10_published', 'cifar100_published')
FINE = {'accuracy_resolution': 2e-4, 'latency_resolution_ms': 0.05}
COARSE = {'accuracy_resolution': 4e-3, 'latency_resolution_ms': 0.4}


def frontier_of(profile):
  """Accuracy and latency of the corners, from the fastest model on."""
  models = references.frontier(profile)
  return tuple(np.unique(x[models]) for x in references.arrays(profile))


def answers(profile):
  """A server that tells no more than whether any model meets the spec."""
  accuracy, latency = profile.accuracy, profile.latency_ms

  def serve(key, inputs, spec, sent):
    met = (accuracy >= spec.min_accuracy) & (latency <= spec.max_latency_ms)
    observation = Observation(jnp.any(met), jnp.zeros(1), jnp.float32(0))
    return observation, Transcript(jnp.where(jnp.any(met), 0, -1), sent)

  return serve


def table(router, profile):
  outputs = jnp.ones((len(profile), 1, 2)) / 2
  return oracles.table(router, profile.latency_ms, outputs)


def bisect(server, budget, resolution, key=KEY):
  machine = fingerprint.bisection(budget, **resolution)
  state, bill, log = harness.interrogate(
    key, machine, server, jnp.int32(0), jnp.bool_(True)
  )
  return machine.result(state), bill, log


@jax.jit
def bisect_zoo(profile, budgets):
  return jax.vmap(lambda budget: bisect(answers(profile), budget, COARSE)[0])(budgets)


@jax.jit
def sweep_zoo(profile, budget):
  machine = fingerprint.sweep(budget, max_corners=20, **COARSE)
  state, bill, log = harness.interrogate(
    KEY, machine, answers(profile), jnp.int32(0), jnp.bool_(True)
  )
  return machine.result(state), bill, log


def check_corners(corner, accuracy, latency, resolution):
  """Both brackets end at the model: on its side, and within the resolution."""
  below = accuracy - np.asarray(corner.spec.min_accuracy)
  above = np.asarray(corner.spec.max_latency_ms) - latency
  assert (below >= 0).all()
  assert (below <= resolution['accuracy_resolution']).all()
  assert (above >= 0).all()
  assert (above <= resolution['latency_resolution_ms']).all()


def check_probes(probes, budget, resolution):
  limit = 1.1 * fingerprint.lower_bound(float(budget), **resolution) + 2
  assert 0 < int(probes) <= limit


@pytest.mark.parametrize('make', [routers.uniform, routers.most_accurate])
@pytest.mark.parametrize('name', PUBLISHED)
def test_bisection_finds_every_published_corner(name, make):
  profile = profiles.load(name)
  accuracy, latency = frontier_of(profile)
  budgets = latency + 0.01
  server = table(make(profile), profile)
  corner, bill, log = jax.jit(jax.vmap(lambda b: bisect(server, b, FINE)))(budgets)
  check_corners(corner, accuracy, latency, FINE)
  assert corner.done.all()
  assert corner.found.all()
  for i, budget in enumerate(budgets):
    check_probes(corner.probes[i], budget, FINE)
  jax.tree.map(np.testing.assert_array_equal, bill, log)
  np.testing.assert_array_equal(bill.queries, corner.probes)


@pytest.mark.parametrize('seed', range(12))
def test_bisection_finds_every_corner_of_random_zoos(seed):
  profile = references.spaced_profile(seed, 25)
  accuracy, latency = frontier_of(profile)
  budgets = np.resize(latency + np.float32(0.5), 20)  # one shape, one compilation
  assert len(latency) <= 20
  corner = bisect_zoo(profile, budgets)
  check_corners(corner, np.resize(accuracy, 20), np.resize(latency, 20), COARSE)
  assert corner.done.all()
  assert corner.found.all()
  for i, budget in enumerate(budgets):
    check_probes(corner.probes[i], budget, COARSE)


def check_sweep(corners, bill, log, profile, budget, resolution):
  accuracy, latency = frontier_of(profile)
  count = int(corners.count)
  assert count == len(latency)
  assert bool(corners.done)
  found = jax.tree.map(
    lambda x: x[:count],
    corners.replace(
      count=jnp.ones(count), done=jnp.ones(count), total_probes=jnp.ones(count)
    ),
  )
  check_corners(found, accuracy[::-1], latency[::-1], resolution)
  for probes in corners.probes[:count]:
    check_probes(probes, budget, resolution)
  ending = int(corners.total_probes) - int(corners.probes.sum())
  assert ending == 1
  assert int(bill.queries) == int(log.queries) == int(corners.total_probes)
  assert int(bill.served) == int(log.served)


@pytest.mark.parametrize('name', PUBLISHED)
def test_sweep_finds_every_published_corner(name):
  profile = profiles.load(name)
  server = table(routers.uniform(profile), profile)
  machine = fingerprint.sweep(100.0, max_corners=20, **FINE)
  state, bill, log = jax.jit(
    lambda key: harness.interrogate(key, machine, server, jnp.int32(0), jnp.bool_(True))
  )(KEY)
  check_sweep(machine.result(state), bill, log, profile, 100.0, FINE)


@pytest.mark.parametrize('seed', range(12))
def test_sweep_finds_every_corner_of_random_zoos(seed):
  profile = references.spaced_profile(seed, 25)
  check_sweep(*sweep_zoo(profile, 120.0), profile, 120.0, COARSE)


def test_sweep_stops_at_max_corners():
  profile = references.make_profile([0.2, 0.5, 0.8], [2.0, 4.0, 8.0])
  machine = fingerprint.sweep(9.0, max_corners=2, **COARSE)
  state, _, _ = harness.interrogate(
    KEY, machine, answers(profile), jnp.int32(0), jnp.bool_(True)
  )
  corners = machine.result(state)
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
  batched = bisect_zoo(profile, budgets)
  one = jax.jit(lambda budget: bisect(answers(profile), budget, COARSE)[0])
  for i, budget in enumerate(budgets):
    row = jax.tree.map(lambda x, i=i: x[i], batched)
    jax.tree.map(np.testing.assert_array_equal, row, one(budget))


@pytest.mark.parametrize('machine_of', [fingerprint.bisection, fingerprint.sweep])
def test_python_loop_against_live_server_equals_traced_run(machine_of):
  profile = references.make_profile([0.4, 0.6, 0.9], [2.0, 4.0, 8.0])
  noise = defenses.laplace(0.02, 0.3)
  router = defenses.defend(routers.uniform(profile), noise)
  more = {'max_corners': 4} if machine_of is fingerprint.sweep else {}
  machine = machine_of(9.0, **more, **COARSE)
  fake = [lambda images: jnp.full((1, 2), 0.5)] * 3
  oracle = oracles.client(oracles.live(router, fake, 2))
  state, bill = machine.init(), Bill.zero()
  while not machine.result(state).done:
    key = jax.random.fold_in(KEY, bill.queries)
    observation = oracle(key, jnp.zeros((1, 1, 1)), machine.ask(state))
    bill = bill.charge(jnp.bool_(True), observation.served)
    state = machine.tell(state, observation)
  traced, traced_bill, _ = jax.jit(
    lambda: harness.interrogate(
      KEY, machine, table(router, profile), jnp.int32(0), jnp.bool_(True)
    )
  )()
  assert 0 < int(bill.served) < int(bill.queries)
  jax.tree.map(np.testing.assert_array_equal, (state, bill), (traced, traced_bill))


def test_nothing_served():
  profile = references.make_profile([0.4, 0.6], [2.0, 4.0])
  corner, bill, log = bisect(answers(profile), 1.5, COARSE)
  assert bool(corner.done)
  assert not bool(corner.found)
  assert float(corner.spec.min_accuracy) == 0.0
  assert int(corner.probes) <= fingerprint.max_probes(1.5, **COARSE)
  assert int(bill.served) == int(log.served) == 0
  assert int(bill.queries) == int(corner.probes)
  corners, _, _ = sweep_zoo(profile, 1.5)
  assert bool(corners.done)
  assert (int(corners.count), int(corners.total_probes)) == (0, 1)


def test_attack_that_does_not_probe_sends_nothing():
  machine = fingerprint.bisection(9.0, **COARSE)
  zoo = references.make_profile([0.4], [2.0])
  state, bill, log = harness.interrogate(
    KEY, machine, answers(zoo), jnp.int32(0), jnp.bool_(False)
  )
  assert int(bill.queries) == int(log.queries) == 0
  assert not bool(machine.result(state).found)


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
    assert int(corner.probes.max()) <= fingerprint.max_probes(40.0, **FINE)
    jax.tree.map(np.testing.assert_array_equal, bill, log)
    assert len(np.unique(corner.spec.min_accuracy)) > 1


def test_resolution_finer_than_float32_ends():
  fine = {'accuracy_resolution': 1e-12, 'latency_resolution_ms': 1e-12}
  zoo = references.make_profile([0.7], [2.0])
  corner, _, _ = bisect(answers(zoo), 9.0, fine)
  assert bool(corner.done)
  assert float(corner.spec.min_accuracy) == float(zoo.accuracy[0])
  assert float(corner.spec.max_latency_ms) == 2.0


def test_tell_reads_served_alone():
  machine = fingerprint.bisection(9.0, **COARSE)
  state = machine.tell(machine.init(), Observation(True, None, None))
  assert bool(machine.result(state).found)


def test_first_probe_asks_for_the_middle_at_the_budget():
  machine = fingerprint.bisection(9.0, **COARSE)
  spec = machine.ask(machine.init())
  assert (float(spec.min_accuracy), float(spec.max_latency_ms)) == (0.5, 9.0)
  assert isinstance(spec, Spec)


@pytest.mark.parametrize('value', [0.0, -1.0, np.nan, np.inf])
@pytest.mark.parametrize(
  'argument', ['latency_budget_ms', 'accuracy_resolution', 'latency_resolution_ms']
)
def test_rejects(argument, value):
  arguments = {'latency_budget_ms': 9.0, **COARSE, argument: value}
  budget = arguments.pop('latency_budget_ms')
  for call in (
    fingerprint.bisection,
    lambda *args, **kwargs: fingerprint.sweep(*args, max_corners=3, **kwargs),
    fingerprint.lower_bound,
    fingerprint.max_probes,
  ):
    with pytest.raises(ValueError, match=f'{argument} is {value}'):
      call(budget, **arguments)


@pytest.mark.parametrize('max_corners', [0, -1, 2.5])
def test_sweep_rejects_max_corners(max_corners):
  with pytest.raises(ValueError, match=f'max_corners is {max_corners}'):
    fingerprint.sweep(9.0, max_corners=max_corners, **COARSE)


@pytest.mark.parametrize('budget', [0.3, 7.0, 100.0])
def test_max_probes_is_within_two_of_the_lower_bound(budget):
  bound = fingerprint.lower_bound(budget, **FINE)
  assert bound <= fingerprint.max_probes(budget, **FINE) < bound + 2


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
  machine = fingerprint.sweep(9.0, max_corners=10, **COARSE)

  @jax.jit
  @jax.vmap
  def find(key):
    state, bill, _ = harness.interrogate(
      key, machine, server, jnp.int32(0), jnp.bool_(True), 1000
    )
    return machine.result(state), bill.queries

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


def test_a_driver_ends_at_its_cap():
  """A machine that is never done costs no more than it may."""
  machine = fingerprint.bisection(9.0, **COARSE)._replace(
    result=lambda state: types.SimpleNamespace(done=jnp.bool_(False))
  )
  _, bill, log = harness.interrogate(
    KEY,
    machine,
    answers(references.make_profile([0.5], [1.0])),
    jnp.int32(0),
    jnp.bool_(True),
    50,
  )
  assert int(bill.queries) == int(log.queries) == 50
