"""Sessions: what is carried, what it costs, and that both ways of carrying agree."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from psml_jax import attacks, defenses, routers, servers, session, struct
from psml_jax.attacks import extraction, fingerprint
from psml_jax.core import Knowledge, Query, Spec
from tests import references

pytestmark = pytest.mark.usefixtures('strict')

KEY, SECRET = jax.random.split(jax.random.key(17))
ZOO = references.make_profile([0.4, 0.6, 0.9], [2.0, 4.0, 8.0])
OUTPUTS = np.random.default_rng(0).random((3, 40, 5)).astype(np.float32)
COARSE = {'accuracy_resolution': 4e-3, 'latency_resolution': 4e-2}
KNOWLEDGE = Knowledge(
  jnp.float32(9), pool_size=40, num_classes=5, spec=Spec.of(0.6, 4.0)
)
PROBING = fingerprint.bisection(**COARSE)
ATTACKS = {
  'bisection': PROBING,
  'sweep': fingerprint.sweep(max_corners=4, **COARSE),
  'naive': extraction.replay('anything', 30),
  'told': extraction.replay('told', 30),
  'fingerprint': attacks.Phases((PROBING, extraction.replay('found', 30))),
  'recorded': attacks.Recorded(PROBING, 6),
}
NOISE = defenses.chain(defenses.laplace(0.02, 0.3), defenses.refusal(0.1))


@struct.dataclass(eq=False)
class Endless:
  """Asks three at a time and never ends."""

  def init(self, key, knowledge):
    del key, knowledge
    return jnp.int32(0)

  def ask(self, state):
    inputs, client = jnp.arange(3, dtype=jnp.int32), jnp.full(3, state)
    return Query.of(inputs, Spec.of(0.0, 9.0), client=client)

  def tell(self, state, query, observation):
    del observation
    return state + jnp.sum(query.sent, dtype=jnp.int32)

  def harvest(self, state):
    return state


def table(**kwargs):
  return servers.table(routers.uniform(ZOO), ZOO.latency_ms, OUTPUTS, **kwargs)


def run(attack, budget, server=None, knowledge=KNOWLEDGE):
  server = server or table()
  return session.run(KEY, attack, server, server.init(SECRET), knowledge, budget=budget)


def same(one, other):
  jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.mark.parametrize('name', ['bisection', 'sweep', 'recorded'])
def test_the_two_ways_of_carrying_agree(name):
  server = table(defense=NOISE)
  pure = run(ATTACKS[name], 45, server)
  client = servers.Client(server, SECRET)
  live = session.run_live(KEY, ATTACKS[name], client, KNOWLEDGE, budget=45)
  assert 0 < int(pure.bill.queries) <= 45
  same((pure.harvest, pure.bills, pure.log), (live.harvest, live.bills, client.log))


@pytest.mark.parametrize('name', ['sweep', 'fingerprint'])
def test_a_live_server_is_attacked_as_a_table_is(name):
  """With images on the wire, and a till of its own that no transcript feeds."""
  served = []

  def model(index):
    def answer(images):
      served.append(index)
      return OUTPUTS[index, int(images[0, 0, 0, 0])][None]

    return answer

  noise = {'defense': NOISE}
  server = servers.live(routers.uniform(ZOO), [model(i) for i in range(3)], 5, **noise)
  client = servers.Client(server, SECRET)
  pool = np.arange(40, dtype=np.float32).reshape(40, 1, 1, 1)
  live = session.run_live(KEY, ATTACKS[name], client, KNOWLEDGE, budget=60, pool=pool)
  pure = run(ATTACKS[name], 60, table(**noise))
  measured = live.harvest  # A live server's answers take what they take.
  if name == 'fingerprint':
    measured = dataclasses.replace(measured, latency_ms=pure.harvest.latency_ms)
  same((pure.harvest, pure.bills, pure.log), (measured, live.bills, client.log))
  assert 0 < int(live.bill.served) == len(served) < int(live.bill.queries)
  counts = np.bincount(served, minlength=3)
  np.testing.assert_array_equal(sum(pure.answers), counts)


@pytest.mark.parametrize('budget', [0, 1, 7, 31, 32])
@pytest.mark.parametrize('name', ['bisection', 'sweep', 'fingerprint', 'endless'])
def test_no_more_than_the_budget_is_billed(name, budget):
  found = run({**ATTACKS, 'endless': Endless()}[name], budget)
  assert int(found.bill.queries) == int(found.log.queries) <= budget
  assert int(found.bill.served) == int(found.log.served)
  if name in ('endless', 'fingerprint'):
    assert int(found.bill.queries) == budget


def test_an_attack_is_told_what_was_sent_of_its_last_batch():
  assert int(run(Endless(), 7).harvest) == 7
  client = servers.Client(table(), SECRET)
  live = session.run_live(KEY, Endless(), client, KNOWLEDGE, budget=7)
  assert int(live.harvest) == int(client.log.queries) == 7


def test_bills_and_answers_are_of_each_phase():
  found = run(ATTACKS['fingerprint'], 42)
  probes = int(found.bills[0].queries)
  corner = run(PROBING, 42)
  assert probes == int(corner.harvest.probes) < 42
  assert int(found.bills[1].queries) == min(30, 42 - probes)
  assert found.answers[1].tolist() == [0, 0, int(found.bills[1].served)]
  assert int(sum(found.answers[0])) == int(found.bills[0].served)


def test_phases_send_the_same_images():
  naive, found = run(ATTACKS['naive'], 30), run(ATTACKS['fingerprint'], 45)
  count = int(found.harvest.count)
  np.testing.assert_array_equal(
    found.harvest.inputs[:count], naive.harvest.inputs[:count]
  )
  first = PROBING.ask(PROBING.init(KEY, KNOWLEDGE)).inputs[0]
  assert int(first) == int(naive.harvest.inputs[0])


def test_a_session_goes_on_where_another_ended():
  server = table(defense=NOISE)
  first = run(ATTACKS['naive'], 30, server)
  second = session.run(KEY, ATTACKS['naive'], server, first.state, KNOWLEDGE, budget=30)
  assert int(second.state.log.queries) == 60
  assert int(second.log.queries) == 30
  assert second.answers[0].tolist() != first.answers[0].tolist()


def test_a_trail_keeps_the_first_queries():
  corner, trail = run(ATTACKS['recorded'], 100).harvest
  assert int(trail.count) == int(corner.probes) > 6
  assert trail.min_accuracy.tolist()[:2] == [0.5, 0.75]
  assert trail.served.tolist()[:2] == [True, True]
  assert trail.max_latency_ms.tolist() == [9.0] * 6


def test_vmapped_equals_one_at_a_time():
  keys = jax.random.split(KEY, 3)
  budgets, latencies = jnp.array([45, 3, 20]), jnp.array([9.0, 5.0, 1.0])
  server = table(defense=NOISE)

  def one(key, budget, latency):
    known = dataclasses.replace(KNOWLEDGE, latency_budget_ms=latency)
    found = session.run(
      key, ATTACKS['fingerprint'], server, server.init(key), known, budget=budget
    )
    return found.harvest, found.bills, found.log, found.answers

  batched = jax.vmap(one)(keys, budgets, latencies)
  for i in range(3):
    same(
      jax.tree.map(lambda leaf, i=i: leaf[i], batched),
      one(keys[i], budgets[i], latencies[i]),
    )


def test_equal_shapes_compile_nothing_again():
  compiled = []
  jax.monitoring.register_event_duration_secs_listener(
    lambda event, *_, **__: (
      compiled.append(event) if event.endswith('backend_compile_duration') else None
    )
  )

  def attack(scale, resolution, budget):
    probing = fingerprint.bisection(
      accuracy_resolution=resolution, latency_resolution=resolution
    )
    phases = attacks.Phases((probing, extraction.replay('found', 30)))
    return run(phases, budget, table(defense=defenses.laplace(scale, scale)))

  first = int(attack(0.0, 0.01, 40).bills[0].queries)
  before = len(compiled)
  assert int(attack(0.1, 0.001, 20).bills[0].queries) != first
  assert len(compiled) == before


def test_bad_arguments_are_named():
  with pytest.raises(ValueError, match='budget is -1'):
    run(ATTACKS['naive'], -1)
  server = table()
  with pytest.raises(ValueError, match='key is of type uint32'):
    session.run(
      jax.random.PRNGKey(0),
      ATTACKS['naive'],
      server,
      server.init(SECRET),
      KNOWLEDGE,
      budget=1,
    )
  with pytest.raises(ValueError, match='pool_size is 40; it must be at least the 41'):
    run(extraction.replay('anything', 41), 9)
