"""The plug-in in LiteLLM's own router, whose models are mocks; skipped without it."""

import asyncio
import os
import pathlib
import re
import sys
import types

import jax
import jax.numpy as jnp
import pytest

from psml_jax import _validate, defenses, profiles, servers
from psml_jax.serving import litellm
from psml_jax.serving.gate import Gate
from psml_jax.serving.guard import Guard
from psml_jax.serving.litellm import CallError, Plugin
from tests import serving_hosts
from tests.serving_hosts import BACKENDS

ZOO = profiles.load('llm_aider_polyglot')
VENDORS = tuple(f'openai/{name}' for name in ZOO.names)
SAY = serving_hosts.SAY
README = (pathlib.Path(__file__).parents[1] / 'README.md').read_text('utf-8')

pytestmark = pytest.mark.filterwarnings('ignore')  # LiteLLM and pydantic warn a lot.


@pytest.fixture(scope='module')
def theirs():
  """LiteLLM, which would ask the network for a table of prices."""
  os.environ['LITELLM_LOCAL_MODEL_COST_MAP'] = 'True'
  return pytest.importorskip('litellm')


def guard(value=0.3, log=None, **kwargs):
  """A guard of the packaged zoo of language models."""
  router = defenses.capped(ZOO, value)
  front = servers.table(router, ZOO.latency_ms, jnp.ones((len(ZOO), 1, 1))).front
  gate = Gate(front, jax.random.key(0), num_classes=1)
  return Guard(ZOO, gate, backends=VENDORS, log=log, **kwargs)


def mocked(backend):
  return {'api_key': 'none', 'mock_response': f'I am {backend}'}


def run(*asked):
  """What comes of calls, one after the other."""

  async def each(ask):
    try:
      return await ask()
    except Exception as error:
      return error

  async def main():
    return [await each(ask) for ask in asked]

  return asyncio.run(main())


def test_calls_go_to_the_model_drawn_and_answers_do_not_name_it(theirs):
  log = []
  router = litellm.router(guard(log=log.append), 'zoo', mocked)

  def call(**metadata):
    return lambda: litellm.ask(router, 'zoo', messages=SAY, metadata=metadata)

  strict = {'min_accuracy': 0.6, 'max_latency_ms': '90000'}
  in_headers = {'headers': {'X-Min-Accuracy': '0.6', 'x-max-latency-ms': '9e4'}}
  found = run(*[call(**strict)] * 3, call(**in_headers), call(), call(min_accuracy=1.1))
  answered = [each for each in found if isinstance(each, dict)]
  for record, each in zip(log, found):
    if record.model is None:
      assert (each.status_code, str(each)) == (412, 'refused')
    else:
      (choice,) = each['choices']
      assert choice['message']['content'] == f'I am openai/{record.model}'
      assert {'id', 'created', 'model', 'object', 'choices'} == set(each)
      assert each['model'] == 'zoo'
  assert len(answered) >= 3
  assert found[-1].status_code == 412
  assert [(r.min_accuracy, r.max_latency_ms) for r in log[2:5]] == [
    (0.6, 9e4),
    (0.6, 9e4),
    (0.0, None),
  ]
  assert [r.number for r in log] == list(range(6))

  async def stream():
    chunks = await litellm.ask(router, 'zoo', messages=SAY, stream=True)
    return [chunk async for chunk in chunks]

  while isinstance((chunks := run(stream)[0]), CallError):
    assert chunks.status_code == 412  # Capped routing refuses some.
  text = ''.join(each['choices'][0]['delta'].get('content', '') for each in chunks)
  assert text == f'I am openai/{log[-1].model}'
  assert {each['model'] for each in chunks} == {'zoo'}
  assert not any('system_fingerprint' in each for each in chunks)


def test_what_fails_is_asked_once_and_not_named(theirs, caplog):
  log = []

  def failing(backend):
    return {'api_key': 'none', 'mock_response': RuntimeError(f'{backend} is down')}

  made = guard(1.0, log=log.append)
  router = litellm.router(made, 'zoo', failing)
  retrying = theirs.Router(model_list=router.model_list, plugins=[Plugin(made)])
  found = run(
    lambda: litellm.ask(router, 'zoo', messages=SAY),
    lambda: litellm.ask(retrying, 'zoo', messages=SAY),
  )
  assert [(e.status_code, str(e), e.__cause__) for e in found] == [
    (504, 'no answer', None)
  ] * 2
  first, second, *again = log
  assert (first.number, second.number) == (0, 1)
  assert {(record.number, record.status) for record in again} == {(-1, 504)}


def test_a_call_without_a_plug_in_run_does_not_pass(theirs):
  router = litellm.router(guard(), 'zoo', mocked)
  with pytest.raises(ValueError, match='plugins'):
    router.completion(model='zoo', messages=SAY)


def test_a_shadow_narrows_nothing(theirs):
  log = []
  router = litellm.router(guard(log=log.append, enforce=False), 'zoo', mocked)
  met = {'metadata': {'min_accuracy': 1.1}}
  broken = {'metadata': {'min_accuracy': 'much'}}
  found = run(
    *[
      lambda each=each: litellm.ask(router, 'zoo', messages=SAY, **each)
      for each in (met, broken)
    ]
  )
  assert all(isinstance(each, dict) for each in found)
  assert [(record.model, record.status) for record in log] == [(None, 0), (None, 400)]


class Context(types.SimpleNamespace):
  """As LiteLLM's `RoutingContext`."""


def narrowed(plugin, models, **metadata):
  context = Context(candidate_models=list(models), metadata=metadata)
  return asyncio.run(plugin.run(context)).candidate_models


def test_deployments_of_the_model_drawn_stay():
  plugin = Plugin(serving_hosts.guard())
  twice = [*BACKENDS, BACKENDS[1]]
  corner = {'min_accuracy': 0.7, 'max_latency_ms': 2}
  assert narrowed(plugin, twice, **corner) == [BACKENDS[1]] * 2
  assert narrowed(plugin, ['other/model']) == ['other/model']


@pytest.mark.parametrize(
  ('models', 'metadata', 'status'),
  [
    (BACKENDS, {'min_accuracy': 0.99}, 412),
    (BACKENDS, {'min_accuracy': 'much'}, 400),
    (BACKENDS, {'min_accuracy': True}, 400),
    (BACKENDS, {'max_latency_ms': float('nan')}, 400),
    (BACKENDS, {'min_accuracy': 0.5, 'headers': {'x-min-accuracy': '0.6'}}, 400),
    (BACKENDS[:1], {}, 404),
    ((*BACKENDS, 'other'), {}, 404),
    (BACKENDS, {'attempted_retries': 1}, 504),
    (BACKENDS, {'request_retry_count': 1}, 504),
    (BACKENDS, {'attempted_fallbacks': 1}, 504),
  ],
)
def test_calls_that_get_no_model(models, metadata, status):
  log = []
  with pytest.raises(CallError) as caught:
    narrowed(Plugin(serving_hosts.guard(log=log.append)), models, **metadata)
  assert caught.value.status_code == status
  assert [record.status for record in log] == [0 if status == 412 else status]


def test_the_operator_says_who_asks():
  log = []
  by_key = {'a': 3, 'b': 4}
  plugin = Plugin(
    serving_hosts.guard(log=log.append),
    client=lambda metadata: by_key[metadata['user_api_key_hash']],
  )
  narrowed(plugin, BACKENDS, user_api_key_hash='b', client=7)
  assert log[-1].client == 4


def test_what_is_missing_is_named(monkeypatch):
  monkeypatch.setitem(sys.modules, 'litellm', None)
  with pytest.raises(_validate.InputError, match=r"'psml-jax\[litellm\]'"):
    litellm.router(serving_hosts.guard(), 'zoo', mocked)


def test_the_code_of_the_readme_runs(theirs):
  found = re.findall(r'```py(?:thon)?\n(.*?)```', README, re.DOTALL)
  at = next(i for i, block in enumerate(found) if 'litellm.router' in block)
  names = {}
  exec(compile(found[at - 1], 'README.md', 'exec'), names)  # It goes on from there.
  exec(compile(found[at], 'README.md', 'exec'), names)
  router, ask = names['router'], names['litellm'].ask
  reply = asyncio.run(ask(router, 'zoo', messages=[], metadata=names['spec']))
  assert reply['model'] == 'zoo'
  assert reply['choices'][0]['message']['content'].removeprefix('I am ') in VENDORS
