"""A shadow changes nothing, and predicts the goodput of the defense that it shadows."""

import asyncio
import json

import jax
import numpy as np
import pytest

from psml_jax import _validate, defenses, goodput
from psml_jax.core import Query, Spec
from psml_jax.serving import records
from psml_jax.serving.guard import Guard
from psml_jax.serving.middleware import Middleware
from psml_jax.serving.records import Log, Record
from psml_jax.serving.rules import Rules
from tests import known_zoo, serving_hosts
from tests.serving_hosts import BACKENDS, KEY, asking
from tests.serving_local import ACCOUNTS, PROFILE, SECRET, gate, table

CHAT, INFER = '/v1/chat/completions', '/v2/models/large/infer'
DEFENSES = {
  'capped': ({'router': defenses.capped(PROFILE, 0.8)}, 10_000),
  'noise': ({'defense': defenses.laplace(0.1, 0.5)}, 1_000),
}
NAMED = {'model': BACKENDS[1], 'messages': serving_hosts.SAY}
REQUESTS = {
  'a chat': ('POST', CHAT, {'json': {**NAMED, 'min_accuracy': 0.9}}),
  'a stream': ('POST', CHAT, {'json': {**NAMED, 'stream': True, 'seed': 7}}),
  'another field': ('POST', CHAT, {'json': {**NAMED, 'logprobs': True}}),
  'no JSON': ('POST', CHAT, {'content': b'\xff{'}),
  'a long one': ('POST', CHAT, {'content': b' ' * (2**20 + 1)}),
  'a list': ('GET', '/v1/models', {}),
  'no such path': ('GET', '/v1/files?x=%20', {}),
}


def shadow(server, log):
  """A shadow of a server's defense, which draws as that server does."""
  made = gate(server)
  return Guard(PROFILE, made, enforce=False, log=log.append, backends=BACKENDS)


async def send(app, name):
  method, path, request = REQUESTS[name]
  async with serving_hosts.client_of(app) as client:
    reply = await client.request(method, path, headers=KEY, **request)
  return reply.status_code, reply.headers.raw, reply.content


def test_it_changes_nothing_byte_for_byte():
  log, bare, behind = [], serving_hosts.Host(), serving_hosts.Host()
  app = Middleware(behind.app, shadow(table(), log), ACCOUNTS)
  for name in REQUESTS:
    assert asyncio.run(send(app, name)) == asyncio.run(send(bare.app, name)), name
  assert behind.asked == bare.asked
  assert [each.status for each in log] == [0, 0, 400, 400, 413]
  assert log[0].met == (log[0].model == PROFILE.names[2])
  assert not any(each.enforced for each in log)


def test_a_stranger_is_served_and_logged_as_one():
  log, host = [], serving_hosts.Host()
  app = Middleware(host.app, shadow(table(), log), ACCOUNTS)

  async def ask():
    async with serving_hosts.client_of(app) as client:
      return await client.post(CHAT, json=NAMED)

  assert asyncio.run(ask()).status_code == 200
  assert [(each.status, each.client, each.number) for each in log] == [(401, None, -1)]


def test_a_shadow_that_fails_is_in_nobodys_way():
  def full(record):
    raise OSError('no space left')

  host = serving_hosts.Host()
  made = Guard(PROFILE, gate(table()), enforce=False, log=full, backends=BACKENDS)
  status, _, _ = asyncio.run(send(Middleware(host.app, made, ACCOUNTS), 'a chat'))
  assert status == 200


def specs(size):
  """Specs of honest clients, f32[size] each."""
  found = goodput.uniform_workload(jax.random.key(7), PROFILE, size)
  return np.asarray(found.min_accuracy), np.asarray(found.max_latency_ms)


def met(models, accuracy, latency):
  """Whether the models meet the specs: counted without the guard."""
  quality, speed = np.float32(known_zoo.ACCURACY), np.float32(known_zoo.LATENCY)
  good = (quality[models] >= accuracy) & (speed[models] <= latency)
  return (models >= 0) & good


@pytest.mark.parametrize('name', DEFENSES)
def test_predicted_and_enforced_goodput_agree(name):
  """Within nothing with one secret, within what chance does with two."""
  fields, size = DEFENSES[name]
  server, log, (accuracy, latency) = table(**fields), [], specs(size)
  made = shadow(server, log)
  for pair in zip(accuracy.tolist(), latency.tolist()):
    made.decide(0, *pair)
  predicted = records.goodput(log)
  assert (predicted.queries, predicted.rejected) == (size, 0)
  mean, low, high = predicted.goodput
  assert low < mean < high
  assert mean < predicted.feasible - 0.02
  chance = 3 * np.sqrt(2 * mean * (1 - mean) / size)
  query = Query.of(np.zeros(size, np.int32), Spec.of(accuracy, latency))
  for secret, margin in ((SECRET, 0.0), (jax.random.key(99), chance)):
    _, _, transcript = server.serve(server.init(secret), query)
    enforced = met(np.asarray(transcript.model), accuracy, latency).mean()
    assert abs(mean - enforced) <= margin


def test_they_agree_through_the_middleware():
  server, (accuracy, latency) = table(**DEFENSES['capped'][0]), specs(100)
  logs, hosts = ([], []), [serving_hosts.Host() for _ in range(2)]
  enforcing = Guard(PROFILE, gate(server), log=logs[1].append, backends=BACKENDS)
  apps = (
    Middleware(hosts[0].app, shadow(server, logs[0]), ACCOUNTS),
    Middleware(hosts[1].app, enforcing, ACCOUNTS, rules=Rules(disclose=True)),
  )

  async def replay(app):
    async with serving_hosts.client_of(app) as client:
      return [
        await client.post(CHAT, headers=KEY, **asking(*pair, model=BACKENDS[0]))
        for pair in zip(accuracy.tolist(), latency.tolist())
      ]

  replies = [asyncio.run(replay(app)) for app in apps]
  assert {reply.status_code for reply in replies[0]} == {200}
  assert {reply.status_code for reply in replies[1]} == {200, 412}
  models = np.array(
    [
      BACKENDS.index(reply.headers['x-model']) if reply.status_code == 200 else -1
      for reply in replies[1]
    ]
  )
  enforced = met(models, accuracy, latency).mean()
  assert records.goodput(logs[0]).goodput.mean == enforced
  assert records.goodput(logs[1]).goodput.mean == enforced
  assert [each.model for each in logs[0]] == [each.model for each in logs[1]]
  assert [model for model, _, _ in hosts[1].asked] == [
    BACKENDS[model] for model in models if model >= 0
  ]


def test_a_log_is_its_owners_and_comes_back(tmp_path):
  path = tmp_path / 'log.jsonl'
  kept = [Record(1.0, 3, 0.5, None, 7, 'small', True, True), Record(2.0, status=401)]
  for record in kept:
    Log(path)(record)
  assert path.stat().st_mode & 0o777 == 0o600
  with path.open('ab') as file:
    file.write(b'{"time":3.0,"cl')  # Half a line, of one that was killed.
  assert records.read(path) == kept
  assert json.loads(path.read_text().splitlines()[1]) == {'time': 2.0, 'status': 401}
  with pytest.raises(ValueError, match='none of a query'):
    records.goodput(kept[1:])
  with pytest.raises(_validate.InputError, match='must be a log'):
    records.read(tmp_path / 'none.jsonl')
  with pytest.raises(_validate.InputError, match='must be a file'):
    Log(tmp_path)
