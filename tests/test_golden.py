"""Draws, a fingerprint and a surrogate are what they were when they were written down.

Where a change is meant, `python -m tests.test_golden` writes them anew; the commit then
says why old results no longer follow from their seeds.
"""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from psml_jax import (
  _keys,
  data,
  defenses,
  goodput,
  metrics,
  profiles,
  routers,
  servers,
  session,
  train,
  zoo,
)
from psml_jax.attacks import fingerprint
from psml_jax.core import Harvest, Knowledge, Query, Spec
from tests import queries

PATH = pathlib.Path(__file__).parent / 'golden' / 'draws.json'
CONFIG = {
  'profile': 'cifar10_published',
  'seed': 20,
  'specs': 12,
  'scale': 0.1,
  'latency_budget_ms': 30.0,
  'resolution': {'accuracy_resolution': 1e-4, 'latency_resolution': 3e-4},
  'hyper': {'steps': 100, 'batch_size': 32, 'learning_rate': 3e-3},
  'queries': 200,
}


def purposes():
  return {
    name: jax.random.key_data(_keys.purpose(CONFIG['seed'], name)).tolist()
    for name in _keys.PURPOSES
  }


def routes():
  profile = profiles.load(CONFIG['profile'])
  keys = jax.random.split(jax.random.key(CONFIG['seed']), 2)
  specs = goodput.uniform_workload(keys[0], profile, CONFIG['specs'])
  noise = defenses.laplace(*defenses.relative_scale(profile, CONFIG['scale']))
  router = routers.uniform(profile)
  return {
    'min_accuracy': specs.min_accuracy.tolist(),
    'max_latency_ms': specs.max_latency_ms.tolist(),
    'model': router(keys[1], specs).model.tolist(),
    'defended': defenses.defend(router, noise)(keys[1], specs).model.tolist(),
  }


def noise():
  spec = Spec.of(np.zeros(6), 0.0)
  drawn = {}
  for name in ('laplace', 'gaussian'):
    transform = getattr(defenses, name)(1.0, 2.0)
    noised, _ = queries.apply(transform, jax.random.key(CONFIG['seed']), spec)
    drawn[name] = [noised.min_accuracy.tolist(), noised.max_latency_ms.tolist()]
  return drawn


def corner():
  profile = profiles.load(CONFIG['profile'])
  server = servers.table(
    routers.uniform(profile), profile.latency_ms, jnp.ones((len(profile), 1, 1))
  )
  key, server_key = jax.random.split(jax.random.key(CONFIG['seed']))
  found = session.run(
    key,
    fingerprint.bisection(**CONFIG['resolution']),
    server,
    server.init(server_key),
    Knowledge(jnp.float32(CONFIG['latency_budget_ms'])),
    budget=1000,
  ).harvest
  return {
    'min_accuracy': float(found.spec.min_accuracy),
    'max_latency_ms': float(found.spec.max_latency_ms),
    'probes': int(found.probes),
  }


def server():
  """Who answers, behind noise, the first queries of a server's life."""
  profile = profiles.load(CONFIG['profile'])
  made = servers.table(
    routers.uniform(profile),
    profile.latency_ms,
    jnp.ones((len(profile), 1, 1)),
    defense=defenses.laplace(*defenses.relative_scale(profile, CONFIG['scale'])),
  )
  secret, workload_key = jax.random.split(jax.random.key(CONFIG['seed']))
  specs = goodput.uniform_workload(workload_key, profile, CONFIG['specs'])
  query = Query.of(np.zeros(CONFIG['specs'], np.int32), specs)
  _, _, transcript = made.serve(made.init(secret), query)
  return transcript.model.tolist()


def surrogate():
  """Trained on the true classes, one-hot, of digits."""
  images = data.load(
    'digits',
    seed=CONFIG['seed'],
    zoo_size=CONFIG['queries'],
    pool_size=1,
    test_size=500,
  )
  module = zoo.create('mlp', num_classes=10, widths=(32,))
  harvest = Harvest(
    jnp.arange(CONFIG['queries']),
    jax.nn.one_hot(images.zoo_y, 10),
    jnp.int32(CONFIG['queries']),
  )
  variables, _ = train.pure_fit(
    jax.random.key(CONFIG['seed']),
    train.Training(module, train.Steps(**CONFIG['hyper'])),
    jnp.asarray(images.zoo_x),
    harvest,
  )
  logits = module.apply(variables, images.test_x)
  return float(metrics.accuracy(logits, jnp.asarray(images.test_y)))


MADE = {
  'purposes': purposes,
  'routes': routes,
  'noise': noise,
  'fingerprint': corner,
  'server': server,
  'surrogate accuracy': surrogate,
}
TOLERANCE = {'noise': 1e-5, 'surrogate accuracy': 0.011}


@pytest.mark.parametrize('name', MADE)
def test_it_is_what_it_was(name):
  golden = json.loads(PATH.read_text('utf-8'))
  assert golden['config'] == CONFIG
  wanted, got = jax.tree.flatten(golden[name]), jax.tree.flatten(MADE[name]())
  assert wanted[1] == got[1]
  np.testing.assert_allclose(got[0], wanted[0], rtol=1e-6, atol=TOLERANCE.get(name, 0))


def test_purposes_keep_their_numbers():
  assert len(set(_keys.PURPOSES.values())) == len(_keys.PURPOSES)
  frozen = ('zoo', 'profile', 'predictions', 'fingerprint', 'defense', 'extraction')
  assert [_keys.PURPOSES[name] for name in frozen] == list(range(6))


if __name__ == '__main__':
  PATH.parent.mkdir(exist_ok=True)
  made = {'config': CONFIG, **{name: make() for name, make in MADE.items()}}
  PATH.write_text(json.dumps(made, indent=1) + '\n', 'utf-8')
