"""Both servers against a loop, and what a client gets to see of them."""

import dataclasses
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from psml_jax import oracles, routers
from psml_jax.core import Observation, Spec
from tests import references

pytestmark = pytest.mark.usefixtures('strict')

ZOO = references.make_profile([0.5, 0.7, 0.9], [1.0, 2.0, 3.0])
OUTPUTS = np.random.default_rng(0).random((3, 8, 4)).astype(np.float32)
MEASURED = np.array([1.25, 2.5, 3.75], np.float32)
KEY = jax.random.key(2)


def table(router):
  return oracles.table(router, jnp.asarray(MEASURED), jnp.asarray(OUTPUTS))


def test_table_matches_loop():
  router = routers.uniform(ZOO)
  rng = np.random.default_rng(1)
  spec = Spec.of(rng.uniform(0.3, 1.0, 30), rng.uniform(0.5, 4.0, 30))
  inputs, sent = rng.integers(0, 8, 30), rng.random(30) < 0.7
  observation, transcript = jax.jit(table(router))(
    KEY, jnp.asarray(inputs), spec, jnp.asarray(sent)
  )
  models = np.asarray(router(KEY, spec).model)
  assert (models[sent] == -1).any()
  assert (models[sent] >= 0).any()
  for i in range(30):
    model = models[i] if sent[i] else -1
    assert int(transcript.model[i]) == model
    assert bool(observation.served[i]) == (model >= 0)
    answer = OUTPUTS[model, inputs[i]] if model >= 0 else np.zeros(4)
    np.testing.assert_array_equal(observation.outputs[i], answer)
    assert float(observation.latency_ms[i]) == (MEASURED[model] if model >= 0 else 0)
  np.testing.assert_array_equal(transcript.sent, sent)


def test_all_infeasible_queries_are_refused():
  spec = Spec.of(np.full(4, 0.95), 9.0)
  observation = oracles.client(table(routers.uniform(ZOO)))(
    KEY, jnp.zeros(4, jnp.int32), spec
  )
  assert not observation.served.any()
  assert not observation.outputs.any()
  assert not observation.latency_ms.any()


def make_live(calls, router=None):
  def model(index):
    def answer(images):
      calls.append(index)
      time.sleep(0.004 * (index + 1))
      return jnp.asarray(OUTPUTS[index, images.astype(int).ravel()[:1]])

    return answer

  return oracles.live(
    router or routers.most_accurate(ZOO), [model(i) for i in range(3)], 4
  )


def ask(server, accuracy, latency, sent=True, image=5):
  return server(
    KEY, jnp.full((1, 1, 1), float(image)), Spec.of(accuracy, latency), jnp.bool_(sent)
  )


@pytest.mark.parametrize(('latency', 'model'), [(1.0, 0), (2.5, 1), (9.0, 2)])
def test_live_runs_the_model_and_measures_it(latency, model):
  calls = []
  observation, transcript = ask(make_live(calls), 0.0, latency)
  assert calls == [model]
  assert int(transcript.model) == model
  assert bool(transcript.sent)
  assert bool(observation.served)
  np.testing.assert_array_equal(observation.outputs, OUTPUTS[model, 5])
  assert float(observation.latency_ms) >= 4 * (model + 1)


@pytest.mark.parametrize(('accuracy', 'sent'), [(0.95, True), (0.0, False)])
def test_live_runs_nothing_if_refused_or_not_sent(accuracy, sent):
  calls = []
  observation, transcript = ask(make_live(calls), accuracy, 9.0, sent)
  assert calls == []
  assert int(transcript.model) == -1
  assert bool(transcript.sent) == sent
  assert not bool(observation.served)
  assert not observation.outputs.any()
  assert float(observation.latency_ms) == 0


def test_live_and_table_agree():
  router = routers.uniform(ZOO)
  image, spec = jnp.int32(5), Spec.of(0.0, 9.0)
  for i in range(5):
    key = jax.random.fold_in(KEY, i)
    fast, one = table(router)(key, image, spec, jnp.bool_(True))
    slow, other = make_live([], router)(
      key, jnp.full((1, 1, 1), 5.0), spec, jnp.bool_(True)
    )
    assert int(one.model) == int(other.model)
    for name in ('served', 'outputs'):
      np.testing.assert_array_equal(getattr(fast, name), getattr(slow, name))
      assert getattr(fast, name).dtype == getattr(slow, name).dtype


@pytest.mark.parametrize('make', [table, lambda router: make_live([], router)])
def test_client_sees_served_outputs_and_latency_alone(make):
  image = jnp.int32(5) if make is table else jnp.full((1, 1, 1), 5.0)
  seen = oracles.client(make(routers.uniform(ZOO)))(KEY, image, Spec.of(0.0, 9.0))
  assert type(seen) is Observation
  assert vars(seen).keys() == {'served', 'outputs', 'latency_ms'}
  fields = {field.name for field in dataclasses.fields(Observation)}
  assert fields == {'served', 'outputs', 'latency_ms'}
  assert bool(seen.served)


def test_client_sends_every_query():
  sent = []

  def server(key, inputs, spec, flags):
    sent.append(flags)
    return 'observation', 'transcript'

  assert oracles.client(server)(KEY, None, Spec.of(np.zeros((2, 3)), 1.0)) == (
    'observation'
  )
  assert sent[0].shape == (2, 3)
  assert sent[0].all()


@pytest.mark.parametrize('index', [-1, 8])
def test_an_image_past_the_table_is_refused(index):
  server = table(routers.uniform(ZOO))
  inputs, spec = jnp.asarray([0, index]), Spec.of([0.5, 0.5], 9.0)
  with pytest.raises(ValueError, match=rf'inputs\[1\] is {index}; .* in \[0, 7\]'):
    server(KEY, inputs, spec, jnp.ones(2, bool))
  server(KEY, inputs, spec, jnp.asarray([True, False]))  # not sent, so not looked at
  observation, transcript = jax.jit(server)(KEY, inputs, spec, jnp.ones(2, bool))
  assert observation.served.tolist() == [True, False]
  assert int(transcript.model[1]) == -1


def test_a_model_past_the_table_is_refused():
  server = oracles.table(
    routers.explicit(2), jnp.asarray(MEASURED[:2]), jnp.asarray(OUTPUTS[:2])
  )
  arguments = (KEY, jnp.zeros(1, int), Spec.of([0.5], 9.0), jnp.ones(1, bool))
  with pytest.raises(ValueError, match=r'the route\[0\] is 2; .* other zoos'):
    server(*arguments)
  observation, _ = jax.jit(server)(*arguments)
  assert not observation.served.any()


def test_tables_that_do_not_fit_are_named():
  with pytest.raises(ValueError, match=r'latency_ms has shape \(2,\) and outputs'):
    oracles.table(routers.uniform(ZOO), jnp.ones(2), jnp.asarray(OUTPUTS))
  with pytest.raises(ValueError, match=r'outputs \(3, 8\)'):
    oracles.table(routers.uniform(ZOO), jnp.ones(3), jnp.ones((3, 8)))


def test_a_live_server_needs_its_models():
  with pytest.raises(ValueError, match='models is empty'):
    oracles.live(routers.uniform(ZOO), [], 4)
  server = oracles.live(routers.explicit(2), [lambda x: x] * 2, 4)
  with pytest.raises(ValueError, match='the route is 2'):
    server(KEY, jnp.zeros((2, 2, 1)), Spec.of(0.5, 9.0), jnp.bool_(True))
