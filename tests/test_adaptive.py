"""Attacks that choose their images in rounds."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from psml_jax import Spec, routers, servers, session, train, zoo
from psml_jax.attacks import adaptive
from psml_jax.core import Knowledge
from tests import references

ZOO = references.random_profile(3, 5)
POOL = jax.random.uniform(jax.random.key(8), (60, 4, 4, 1))
OUTPUTS = jax.nn.softmax(jax.random.normal(jax.random.key(9), (5, 60, 4)))
TRAINING = train.Training(
  zoo.create('mlp', num_classes=4, widths=(16,)),
  train.Steps(steps=30, batch_size=8, learning_rate=1e-2),
)
make = functools.partial(adaptive.adaptive, 'told', 40, pool=POOL, training=TRAINING)


def run(attack, budget=40, seed=0):
  server = servers.table(routers.uniform(ZOO), ZOO.latency_ms, OUTPUTS)
  knowledge = Knowledge(
    jnp.float32(1e6), pool_size=60, num_classes=4, spec=Spec.of(0.0, jnp.inf)
  )
  key, secret = jax.random.split(jax.random.key(seed))
  return session.run(key, attack, server, server.init(secret), knowledge, budget=budget)


@pytest.mark.parametrize('by', adaptive.BY)
def test_no_image_is_sent_twice_and_each_is_billed(by):
  ended = run(make(by=by, rounds=4))
  assert int(ended.bill.queries) == int(ended.log.queries) == 40
  inputs = np.asarray(ended.harvest.inputs)
  assert len(set(inputs.tolist())) == int(ended.harvest.count) == 40


@pytest.mark.parametrize('by', adaptive.BY)
def test_a_budget_ends_in_the_middle_of_a_round(by):
  ended = run(make(by=by, rounds=4), budget=25)
  assert int(ended.bill.queries) == int(ended.harvest.count) == 25


def test_one_round_is_a_replay():
  ended = run(make(by='uncertainty', rounds=1))
  other = run(make(by='k_center', rounds=1))
  np.testing.assert_array_equal(ended.harvest.inputs, other.harvest.inputs)


def test_the_first_round_is_the_same_and_the_others_are_chosen():
  one = np.asarray(run(make(by='uncertainty', rounds=4)).harvest.inputs)
  other = np.asarray(run(make(by='k_center', rounds=4)).harvest.inputs)
  np.testing.assert_array_equal(one[:10], other[:10])
  assert set(one[10:20].tolist()) != set(other[10:20].tolist())


def test_the_uncertain_are_those_of_the_highest_entropy():
  attack = make(by='uncertainty', rounds=2)
  ended = run(attack)
  sent = np.asarray(ended.harvest.inputs)
  state = attack.init(
    jax.random.split(jax.random.key(0))[0],
    Knowledge(
      jnp.float32(1e6), pool_size=60, num_classes=4, spec=Spec.of(0.0, jnp.inf)
    ),
  )
  first = attack.ask(state)
  np.testing.assert_array_equal(first.inputs, sent[:20])
  served = jnp.ones(20, bool)
  seen = servers.base.Observation(served, ended.harvest.targets[:20], jnp.ones(20))
  state = attack.tell(state, first, seen)
  np.testing.assert_array_equal(attack.ask(state).inputs, sent[20:])


def test_farthest_is_greedy():
  rng = np.random.default_rng(0)
  points, free = rng.random((30, 2)), np.arange(30) >= 5
  taken, wanted = list(range(5)), []
  for _ in range(6):
    away = ((points[:, None] - points[taken]) ** 2).sum(-1).min(-1)
    away[taken] = -1
    wanted.append(int(away.argmax()))
    taken.append(wanted[-1])
  found = adaptive.farthest(jnp.float32(points), jnp.asarray(free), 6)
  assert found.tolist() == wanted


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    ({'by': 'chance'}, "^by is 'chance'"),
    ({'by': 'k_center', 'rounds': 3}, '^rounds is 3; it must divide the 40 queries'),
    ({'by': 'k_center', 'rounds': 0}, '^rounds is 0'),
  ],
)
def test_bad_fields_are_named(fields, message):
  with pytest.raises(ValueError, match=message):
    make(**fields)


def test_an_attack_without_images_says_so():
  attack = adaptive.adaptive('told', 40, by='k_center')
  with pytest.raises(ValueError, match='^pool is None and training None'):
    run(attack)
