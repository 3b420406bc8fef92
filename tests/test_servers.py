"""Both servers against a loop, their memory, and what a client gets to see of them."""

import dataclasses
import pickle
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from psml_jax import defenses, routers, servers, struct
from psml_jax.core import Bill, Observation, Query, Spec
from tests import references

pytestmark = pytest.mark.usefixtures('strict')

ZOO = references.make_profile([0.5, 0.7, 0.9], [1.0, 2.0, 3.0])
OUTPUTS = np.random.default_rng(0).random((3, 8, 4)).astype(np.float32)
MEASURED = np.array([1.25, 2.5, 3.75], np.float32)
KEY = jax.random.key(2)


@struct.dataclass(eq=False)
class Quota:
  """A stateful defense: a client's third query and all later ones are refused."""

  def init(self, key):
    del key
    return jnp.zeros(4, jnp.int32)

  def apply(self, key, query, state):
    del key
    over = state[query.client] >= 2
    spec = Spec(jnp.where(over, jnp.inf, query.spec.min_accuracy), jnp.float32(9))
    return dataclasses.replace(query, spec=spec), state.at[query.client].add(1)


@struct.dataclass(eq=False)
class Slower:
  """A stateful reply: every answer is a millisecond later than the one before."""

  def init(self, key):
    del key
    return jnp.float32(0)

  def apply(self, key, query, observation, state):
    del key, query
    late = jnp.where(observation.served, observation.latency_ms + state, 0)
    return dataclasses.replace(observation, latency_ms=late), state + 1


DEFENSES = {
  'none': {},
  'noise': {'defense': defenses.laplace(0.2, 1.0)},
  'noise and labels': {
    'defense': defenses.chain(defenses.laplace(0.2, 1.0), defenses.refusal(0.2)),
    'reply': defenses.labels_only(),
  },
  'memory': {'defense': defenses.chain(Quota(), defenses.laplace(0.1, 0.5))},
  'memory of replies': {'reply': Slower()},
}


def table(router, **kwargs):
  return servers.table(router, MEASURED, OUTPUTS, **kwargs)


def make_live(calls, router=None, sleep=0.0, **kwargs):
  def model(index):
    def answer(images):
      calls.append(index)
      time.sleep(sleep * (index + 1))
      return jnp.asarray(OUTPUTS[index, images.astype(int).ravel()[:1]])

    return answer

  return servers.live(
    router or routers.most_accurate(ZOO), [model(i) for i in range(3)], 4, **kwargs
  )


def make_query(seed=1, size=30):
  rng = np.random.default_rng(seed)
  return Query.of(
    rng.integers(0, 8, size),
    Spec.of(rng.uniform(0.3, 1.0, size), rng.uniform(0.5, 4.0, size)),
    client=rng.integers(0, 4, size),
    sent=rng.random(size) < 0.7,
  )


def as_images(query):
  images = query.inputs.astype(jnp.float32)[:, None, None, None]
  return dataclasses.replace(query, inputs=images)


def part(tree, chosen):
  return jax.tree.map(lambda field: field[chosen], tree)


def test_table_answers_by_its_table_and_refuses_the_infeasible():
  query = make_query()
  server = table(routers.uniform(ZOO))
  state, observation, transcript = server.serve(server.init(KEY), query)
  feasible = np.asarray(ZOO.meets(query.spec)) & np.asarray(query.sent)[:, None]
  assert (np.asarray(query.sent) & ~feasible.any(1)).any()
  for i, model in enumerate(transcript.model.tolist()):
    assert feasible[i, model] if feasible[i].any() else model == -1
    assert bool(observation.served[i]) == (model >= 0)
    answer = OUTPUTS[model, query.inputs[i]] if model >= 0 else np.zeros(4)
    np.testing.assert_array_equal(observation.outputs[i], answer)
    assert float(observation.latency_ms[i]) == (MEASURED[model] if model >= 0 else 0)
  np.testing.assert_array_equal(transcript.sent, query.sent)
  assert int(state.log.queries) == int(query.sent.sum())
  assert int(state.log.served) == int(feasible.any(1).sum())


@pytest.mark.parametrize('name', DEFENSES)
def test_a_batch_equals_single_queries(name):
  """And unsent ones change nothing, also where the server remembers."""
  query = make_query()
  server = table(routers.uniform(ZOO), **DEFENSES[name])
  state, observation, transcript = server.serve(server.init(KEY), query)
  assert 0 < int(observation.served.sum()) < int(query.sent.sum())
  single = server.init(KEY)
  for i in np.flatnonzero(query.sent):
    single, seen, told = server.serve(single, part(query, slice(i, i + 1)))
    jax.tree.map(
      np.testing.assert_array_equal,
      (seen, told),
      part((observation, transcript), slice(i, i + 1)),
    )
  np.testing.assert_array_equal(*map(jax.random.key_data, (single.key, state.key)))
  jax.tree.map(
    np.testing.assert_array_equal,
    (single.log, single.memory),
    (state.log, state.memory),
  )


@pytest.mark.parametrize('name', DEFENSES)
def test_live_and_table_differ_in_nothing_but_the_clock(name):
  router, query = routers.uniform(ZOO), make_query(size=12)
  fast, slow = table(router, **DEFENSES[name]), make_live([], router, **DEFENSES[name])
  one, seen, told = fast.serve(fast.init(KEY), query)
  other, live_seen, live_told = slow.serve(slow.init(KEY), as_images(query))
  for name in ('served', 'outputs', 'latency_ms'):
    assert getattr(seen, name).dtype == getattr(live_seen, name).dtype
    assert getattr(seen, name).shape == getattr(live_seen, name).shape
  jax.tree.map(
    np.testing.assert_array_equal,
    (seen.served, seen.outputs, told, one.log, one.memory),
    (live_seen.served, live_seen.outputs, live_told, other.log, other.memory),
  )


def test_memory_is_of_the_server_and_not_of_a_batch():
  server = table(routers.uniform(ZOO), defense=Quota())
  query = Query.of(jnp.zeros(3, int), Spec.of(0.0, 9.0), client=jnp.array([0, 0, 1]))
  state, first, _ = server.serve(server.init(KEY), query)
  _, second, _ = server.serve(state, query)
  assert first.served.tolist() == [True, True, True]
  assert second.served.tolist() == [False, False, True]


def test_every_query_of_a_life_has_draws_of_its_own():
  server = table(routers.uniform(ZOO))
  query = Query.of(jnp.zeros(1, int), Spec.of(0.0, 9.0))
  state, models = server.init(KEY), []
  for _ in range(40):
    state, _, transcript = server.serve(state, query)
    models += transcript.model.tolist()
  assert set(models) == {0, 1, 2}
  secrets = {tuple(jax.random.key_data(server.init(KEY).key).tolist())}
  assert tuple(jax.random.key_data(KEY).tolist()) not in secrets


def test_another_zoo_of_equal_size_compiles_nothing():
  compiled = []
  jax.monitoring.register_event_duration_secs_listener(
    lambda event, *_, **__: (
      compiled.append(event) if event.endswith('backend_compile_duration') else None
    )
  )

  def serve(accuracy, scale):
    zoo = references.make_profile(accuracy, [1.0, 2.0, 3.0])
    server = table(routers.uniform(zoo), defense=defenses.laplace(scale, scale))
    query = make_query()
    return server.serve(server.init(KEY), query)[1].served.sum()

  first = int(serve([0.5, 0.7, 0.9], 0.0))
  before = len(compiled)
  assert int(serve([0.3, 0.4, 0.5], 0.1)) != first
  assert len(compiled) == before


@pytest.mark.parametrize(('latency', 'model'), [(1.0, 0), (2.5, 1), (9.0, 2)])
def test_live_runs_the_model_and_measures_it(latency, model):
  calls = []
  server = make_live(calls, sleep=0.004)
  query = as_images(Query.of([5], Spec.of(0.0, latency)))
  _, observation, transcript = server.serve(server.init(KEY), query)
  assert calls == transcript.model.tolist() == [model]
  assert bool(observation.served[0])
  np.testing.assert_array_equal(observation.outputs[0], OUTPUTS[model, 5])
  assert float(observation.latency_ms[0]) >= 4 * (model + 1)


@pytest.mark.parametrize(('accuracy', 'sent'), [(0.95, True), (0.0, False)])
def test_live_runs_nothing_if_refused_or_not_sent(accuracy, sent):
  calls = []
  server = make_live(calls)
  query = as_images(Query.of([5], Spec.of(accuracy, 9.0), sent=sent))
  state, observation, transcript = server.serve(server.init(KEY), query)
  assert calls == []
  assert transcript.model.tolist() == [-1]
  assert transcript.sent.tolist() == [sent]
  assert int(state.log.queries) == int(sent)
  assert not observation.served.any()
  assert not observation.outputs.any()
  assert not observation.latency_ms.any()


def test_a_server_that_was_pickled_serves_the_same():
  server = table(routers.uniform(ZOO), **DEFENSES['noise and labels'])
  copy = pickle.loads(pickle.dumps(server))
  query = make_query()
  _, one, _ = server.serve(server.init(KEY), query)
  _, other, _ = copy.serve(copy.init(KEY), query)
  jax.tree.map(np.testing.assert_array_equal, one, other)


def test_labels_alone():
  server = table(routers.explicit(1), reply=defenses.labels_only())
  _, seen, _ = server.serve(
    server.init(KEY), Query.of([0, 3], Spec.of(0.0, 9.0), sent=[True, False])
  )
  assert seen.outputs[0].tolist() == np.eye(4)[OUTPUTS[1, 0].argmax()].tolist()
  assert not seen.outputs[1].any()


@pytest.mark.parametrize('make', [table, lambda router: make_live([], router)])
def test_a_client_sees_served_outputs_and_latency_alone(make):
  query = Query.of([5], Spec.of(0.0, 9.0))
  if make is not table:
    query = as_images(query)
  client = servers.Client(make(routers.uniform(ZOO)), KEY)
  seen = client(query)
  assert type(seen) is Observation
  assert vars(seen).keys() == {'served', 'outputs', 'latency_ms'}
  assert bool(seen.served[0])
  client(query)
  assert (int(client.log.queries), int(client.log.served)) == (2, 2)


@pytest.mark.parametrize('index', [-1, 8])
def test_an_image_past_the_table_is_refused(index):
  server = table(routers.uniform(ZOO))
  state = server.init(KEY)
  query = Query.of([0, index], Spec.of(0.5, 9.0))
  with pytest.raises(ValueError, match=rf'inputs\[1\] is {index}; .* in \[0, 7\]'):
    server.serve(state, query)
  server.serve(state, dataclasses.replace(query, sent=jnp.array([True, False])))
  _, observation, transcript = jax.jit(server.serve)(state, query)
  assert observation.served.tolist() == [True, False]
  assert int(transcript.model[1]) == -1


def test_a_model_past_the_table_is_refused():
  server = servers.table(routers.explicit(2), MEASURED[:2], OUTPUTS[:2])
  arguments = (server.init(KEY), Query.of([0], Spec.of(0.5, 9.0)))
  with pytest.raises(ValueError, match=r'the route\[0\] is 2; .* other zoos'):
    server.serve(*arguments)
  _, observation, transcript = jax.jit(server.serve)(*arguments)
  assert not observation.served.any()
  assert transcript.model.tolist() == [-1]


def test_tables_that_do_not_fit_are_named():
  with pytest.raises(ValueError, match=r'latency_ms has shape \(2,\) and outputs'):
    servers.table(routers.uniform(ZOO), jnp.ones(2), OUTPUTS)
  with pytest.raises(ValueError, match=r'outputs \(3, 8\)'):
    servers.table(routers.uniform(ZOO), jnp.ones(3), jnp.ones((3, 8)))


def test_a_live_server_needs_its_models():
  with pytest.raises(ValueError, match='models is empty'):
    servers.live(routers.uniform(ZOO), [], 4)
  server = servers.live(routers.explicit(2), [lambda x: x] * 2, 4)
  with pytest.raises(ValueError, match='the route is 2'):
    server.serve(server.init(KEY), as_images(Query.of([0], Spec.of(0.5, 9.0))))


@pytest.mark.parametrize('make', [table, lambda router: make_live([], router)])
def test_a_server_wants_a_typed_key(make):
  with pytest.raises(ValueError, match='key is of type uint32'):
    make(routers.uniform(ZOO)).init(jax.random.PRNGKey(0))


def test_a_query_is_a_batch_of_one_size():
  query = Query.of([1, 2, 3], Spec.of(0.5, np.inf), client=7)
  assert query.client.tolist() == [7, 7, 7]
  assert query.sent.all()
  assert query.spec.min_accuracy.shape == (3,)
  with pytest.raises(ValueError, match='inputs is a scalar'):
    Query.of(1, Spec.of(0.5, 1.0))
  with pytest.raises(ValueError, match=r'sent has shape \(2,\); it must be .* \(3,\)'):
    Query.of([1, 2, 3], Spec.of(0.5, 1.0), sent=[True, False])
  with pytest.raises(ValueError, match=r'spec.min_accuracy has shape \(1,\)'):
    Query.of([1, 2, 3], Spec.of([0.5], 1.0))


def test_a_bill_counts_what_was_sent():
  sent, served = jnp.array([True, True, False]), jnp.array([True, False, True])
  bill = Bill.zero().charge(sent, served)
  assert (int(bill.queries), int(bill.served)) == (2, 1)
