"""The middleware in front of others' servers: what goes on, and what comes back."""

import asyncio
import json
import logging
import time

import httpx
import jax
import numpy as np
import pytest

from psml_jax import defenses
from psml_jax.serving import sse
from psml_jax.serving.answers import Completion
from psml_jax.serving.guard import Guard
from psml_jax.serving.middleware import Middleware
from psml_jax.serving.rules import Rules
from psml_jax.serving.upstream import Upstream
from tests import known_zoo, serving_hosts
from tests.serving_hosts import BACKENDS, KEY, SEEN, asking, hosted
from tests.serving_local import ACCOUNTS, PROFILE, table

CHAT, INFER = '/v1/chat/completions', '/v2/models/zoo/infer'
TENSOR = {'name': 'x', 'shape': [1, 2], 'datatype': 'FP32', 'data': [0.0, 1.0]}
CORNERS = list(zip(known_zoo.ACCURACY, known_zoo.LATENCY))


@pytest.fixture(scope='module')
def served():
  with hosted() as parts:
    yield parts


def inference(accuracy, latency, **fields):
  limits = {'min_accuracy': accuracy, 'max_latency_ms': latency}
  return {'json': {'inputs': [TENSOR], 'parameters': limits, **fields}}


def telling(reply):
  """The parts of an answer that may not tell the model, without its random name."""
  body = reply.json()
  for name in ('id', 'created'):
    body.pop(name, None)
  return reply.status_code, sorted(reply.headers.items()), body


def test_a_chat_goes_to_the_model_drawn_and_its_answer_tells_nothing(served):
  ask, host, log = served
  found = []
  for (accuracy, latency), backend in zip(CORNERS, BACKENDS):
    reply = ask('POST', CHAT, **asking(accuracy, latency))
    model, body, headers = host.asked[-1]
    assert model == backend
    assert json.loads(body) == {'model': backend, 'messages': serving_hosts.SAY}
    assert set(headers) == {'content-type', 'content-length'}
    assert set(reply.headers) == {'content-type', 'content-length'}
    assert reply.json()['choices'] == [
      {
        'index': 0,
        'finish_reason': 'stop',
        'message': {'role': 'assistant', 'content': SEEN},
      }
    ]
    assert len(reply.json()['id']) == len('chatcmpl-') + 24
    found.append(telling(reply))
    assert (log[-1].model, log[-1].met) == (PROFILE.names[BACKENDS.index(model)], True)
  assert found[0] == found[1] == found[2]


def test_the_open_inference_protocol_likewise(served):
  ask, host, _ = served
  found = []
  for (accuracy, latency), backend in zip(CORNERS, BACKENDS):
    reply = ask('POST', INFER, **inference(accuracy, latency, id='mine'))
    assert host.asked[-1][0] == backend
    assert json.loads(host.asked[-1][1]) == {
      'id': 'mine',
      'inputs': [TENSOR],
      'parameters': {},
    }
    assert reply.json()['id'] == 'mine'
    found.append(telling(reply))
  assert found[0] == found[1] == found[2]
  assert found[0][2]['model_name'] == 'zoo'
  told = ask('GET', '/v2/models/zoo').json()
  tensor = {'name': 'x', 'datatype': 'FP32', 'shape': [-1, 2]}
  assert told['inputs'] == told['outputs'] == [tensor]
  assert (told['name'], told['platform']) == ('zoo', 'psml_jax')


def test_tensors_in_binary_pass_as_they_are():
  data = np.arange(2, dtype='<f4').tobytes()

  async def echo(scope, receive, send):
    body = (await receive())['body']
    head = int(dict(scope['headers'])[b'inference-header-content-length'])
    assert body[head:] == data
    output = {'name': 'y', 'shape': [1, 2], 'datatype': 'FP32'}
    output['parameters'] = {'binary_data_size': len(data), 'by': 'small'}
    told = json.dumps({'model_name': 'small', 'outputs': [output]}).encode()
    headers = [
      (b'content-type', b'application/octet-stream'),
      (b'inference-header-content-length', str(len(told)).encode()),
    ]
    await send({'type': 'http.response.start', 'status': 200, 'headers': headers})
    await send({'type': 'http.response.body', 'body': told + data})

  with hosted() as (ask, _, _):
    app = Middleware(echo, serving_hosts.guard(), ACCOUNTS)
    tensor = {'name': 'x', 'shape': [1, 2], 'datatype': 'FP32'}
    tensor['parameters'] = {'binary_data_size': len(data)}
    head = json.dumps({'inputs': [tensor]}).encode()
    headers = {**KEY, 'inference-header-content-length': str(len(head))}
    reply = ask('POST', INFER, app=app, headers=headers, content=head + data)
  size = int(reply.headers['inference-header-content-length'])
  assert reply.content[size:] == data
  assert json.loads(reply.content[:size])['outputs'][0]['parameters'] == {
    'binary_data_size': len(data)
  }
  assert b'small' not in reply.content


@pytest.mark.parametrize('where', ['body', 'headers'])
def test_the_spec_is_in_the_body_or_in_headers(where, served):
  ask, host, log = served
  limits = {'x-min-accuracy': '0.9', 'x-max-latency-ms': '4e0'}
  if where == 'body':
    ask('POST', CHAT, **asking(0.9, 4.0))
  else:
    body = {'model': 'zoo', 'messages': serving_hosts.SAY}
    ask('POST', CHAT, headers={**KEY, **limits}, json=body)
  assert host.asked[-1][0] == BACKENDS[2]
  assert (log[-1].min_accuracy, log[-1].max_latency_ms) == (0.9, 4.0)


def test_embeddings_and_lists_name_the_zoo(served):
  ask, _, _ = served
  body = {'model': 'zoo', 'input': 'hi', 'min_accuracy': 0.9}
  assert ask('POST', '/v1/embeddings', json=body).json() == {
    'model': 'zoo',
    'object': 'list',
    'data': [{'object': 'embedding', 'index': 0, 'embedding': [0.5, 1]}],
  }
  listed = ask('GET', '/v1/models')
  assert [each['id'] for each in listed.json()['data']] == ['zoo']
  assert ask('GET', '/v1/models/zoo').status_code == 200
  health = ask('GET', '/health', headers={})
  assert (health.status_code, health.content) == (200, b'')
  assert ask('GET', '/v2/health/ready').status_code == 503  # This host has none.


def events(reply):
  found = sse.Events()
  return [each for each in found.feed(reply.content) if each != sse.DONE]


def said(found):
  deltas = [json.loads(each)['choices'][0]['delta'] for each in found]
  return ''.join(delta.get('content', '') for delta in deltas)


def test_a_stream_is_one_piece_of_one_form(served):
  ask, host, _ = served
  found = []
  for accuracy, latency in CORNERS:
    reply = ask('POST', CHAT, **asking(accuracy, latency, stream=True))
    assert reply.headers['content-type'] == 'text/event-stream; charset=utf-8'
    assert 'stream' not in json.loads(host.asked[-1][1])
    (piece,) = events(reply)
    assert reply.content.endswith(b'data: [DONE]\n\n')
    piece = json.loads(piece)
    assert piece.pop('id').startswith('chatcmpl-')
    assert piece.pop('created') > 0
    found.append(piece)
  assert found[0] == found[1] == found[2]
  assert found[0]['choices'][0]['delta'] == {'role': 'assistant', 'content': SEEN}


def test_pieces_pass_where_the_rules_allow_them():
  with hosted(rules=Rules(streams=True)) as (ask, host, _):
    for (accuracy, latency), backend in zip(CORNERS, BACKENDS):
      reply = ask('POST', CHAT, **asking(accuracy, latency, stream=True))
      found = events(reply)
      assert json.loads(host.asked[-1][1])['stream'] is True
      assert said(found) == SEEN
      assert len(found) > 3
      assert backend not in reply.text
      first, *rest = (json.loads(each) for each in found)
      assert first['choices'][0]['delta']['role'] == 'assistant'
      assert all('role' not in each['choices'][0]['delta'] for each in rest)
      assert {each['id'] for each in rest} == {first['id']}
      assert rest[-1]['choices'][0]['finish_reason'] == 'stop'
      assert set(reply.headers) == {'content-type', 'cache-control'}


def test_a_stream_that_breaks_ends_with_an_error():
  async def breaks(scope, receive, send):
    headers = [(b'content-type', b'text/event-stream')]
    await send({'type': 'http.response.start', 'status': 200, 'headers': headers})
    piece = json.dumps({'choices': [{'index': 0, 'delta': {'content': 'a'}}]}).encode()
    body = {'type': 'http.response.body', 'body': sse.event(piece), 'more_body': True}
    await send(body)
    raise RuntimeError('vendor trouble')

  with hosted() as (ask, _, _):
    app = Middleware(breaks, serving_hosts.guard(), ACCOUNTS, rules=Rules(streams=True))
    reply = ask('POST', CHAT, app=app, **asking(0.5, 9.0, stream=True))
  *_, last = events(reply)
  assert json.loads(last)['error']['message'] == 'no answer'
  assert 'vendor' not in reply.text


def test_calls_of_tools_keep_no_vendors_names():
  made = Completion('zoo', CHAT)
  function = {'name': 'f', 'arguments': '{}', 'strict': True}
  call = {'id': 'toolu_01', 'type': 'function', 'function': function, 'extra': 1}
  message = {'content': '', 'tool_calls': [call]}
  body = json.dumps({'choices': [{'message': message, 'finish_reason': 'tool_use'}]})
  (choice,) = json.loads(made.whole(body.encode(), [])[0])['choices']
  (seen,) = choice['message']['tool_calls']
  assert seen.pop('id').startswith('call_')
  assert seen == {'type': 'function', 'function': {'name': 'f', 'arguments': '{}'}}
  assert choice['message']['content'] is None
  assert choice['finish_reason'] == 'stop'


def test_what_is_not_a_query(served):
  ask, host, log = served
  before, told = len(host.asked), len(log)
  good = asking(0.5, 9.0)
  found = {
    400: ask('POST', CHAT, content=b'{'),
    401: ask('POST', CHAT, headers={}, **good),
    404: ask('POST', '/v1/files', **good),
    405: ask('GET', CHAT),
    413: ask('POST', CHAT, content=b' ' * (2**20 + 1)),
    415: ask('POST', CHAT, headers={**KEY, 'content-encoding': 'gzip'}, content=b'x'),
  }
  for status, reply in found.items():
    assert reply.status_code == status
    assert set(reply.json()) == {'error'}
    assert reply.json()['error']['code'] is None
  assert len(host.asked) == before
  assert [each.status for each in log[told:]] == [
    400,
    405,
    413,
    415,
  ]  # No line for nobody.
  assert all(each.number == -1 for each in log[told:])


MALFORMED = {
  'nothing': b'',
  'no object': b'[]',
  'deep': b'{"messages":' + b'[' * 3000 + b']' * 3000 + b'}',
  'not text': b'\xff{}',
  'a model of ones own': {'messages': [], 'models': ['large']},
  'a provider': {'messages': [], 'provider': {'order': ['a']}},
  'logprobs': {'messages': [], 'logprobs': True},
  'text for a number': {'messages': [], 'min_accuracy': '0.5'},
  'truth for a number': {'messages': [], 'max_latency_ms': True},
  'NaN': b'{"messages":[],"min_accuracy":NaN}',
  'too large': b'{"messages":[],"min_accuracy":1' + b'0' * 400 + b'}',
  'many answers': {'messages': [], 'n': 2},
  'no answer': {'messages': [], 'n': 0},
  'n of text': {'messages': [], 'n': 'x'},
  'stream of text': {'messages': [], 'stream': 'yes'},
  'an image elsewhere': {
    'messages': [
      {
        'role': 'user',
        'content': [{'type': 'image_url', 'image_url': {'url': 'http://mine/1.png'}}],
      }
    ]
  },
  'a part of another kind': {
    'messages': [{'role': 'user', 'content': [{'type': 'file', 'file_id': 'x'}]}]
  },
  'a tool elsewhere': {
    'messages': [],
    'tools': [{'type': 'mcp', 'server_url': 'http://mine'}],
  },
}


@pytest.mark.parametrize('name', MALFORMED)
def test_malformed_chats(name, served):
  ask, host, _ = served
  body, before = MALFORMED[name], len(host.asked)
  reply = ask(
    'POST', CHAT, content=body if isinstance(body, bytes) else json.dumps(body)
  )
  assert reply.status_code == 400
  assert 0 < len(reply.json()['error']['message']) < 300
  assert len(host.asked) == before


MALFORMED_TENSORS = {
  'no inputs': {'parameters': {}},
  'two rows': {'inputs': [{**TENSOR, 'shape': [2, 2]}]},
  'a parameter': {'inputs': [TENSOR], 'parameters': {'timeout': 1000}},
  'a field': {'inputs': [TENSOR], 'model_version': '3'},
  'a long id': {'inputs': [TENSOR], 'id': 'x' * 129},
  'no shape': {'inputs': [{'name': 'x'}]},
  'memory of the host': {
    'inputs': [{**TENSOR, 'parameters': {'shared_memory_region': 1}}]
  },
  'a kind of output': {
    'inputs': [TENSOR],
    'outputs': [{'name': 'y', 'parameters': {'classification': True}}],
  },
}


@pytest.mark.parametrize('name', MALFORMED_TENSORS)
def test_malformed_tensors(name, served):
  ask, host, _ = served
  before = len(host.asked)
  reply = ask('POST', INFER, json=MALFORMED_TENSORS[name])
  assert reply.status_code == 400
  assert isinstance(reply.json()['error'], str)
  assert len(host.asked) == before


def test_what_is_there_twice_goes_on_once(served):
  ask, host, _ = served
  tensor = b'{"name":"x","shape":[64,2],"shape":[1,2],"datatype":"FP32","data":[0,1]}'
  ask('POST', INFER, content=b'{"inputs":[%b]}' % tensor)
  assert host.asked[-1][1].count(b'shape') == 1
  say = b'[{"role":"user","content":"a","content":"b"}]'
  ask('POST', CHAT, content=b'{"messages":%b}' % say)
  assert host.asked[-1][1].count(b'content') == 1


def test_numbers_are_written_in_one_way():
  texts = iter((b'[0.5,1]', b'[ 0.50, 1e0 ]', b'[[0.500, 1.0]]'))

  async def host(scope, receive, send):
    output = b'{"name":"y","shape":[1,2],"datatype":"FP32","data":%b}' % next(texts)
    kind = [(b'content-type', b'application/json')]
    await send({'type': 'http.response.start', 'status': 200, 'headers': kind})
    await send({'type': 'http.response.body', 'body': b'{"outputs":[%b]}' % output})

  app = Middleware(host, serving_hosts.guard(), ACCOUNTS)
  with hosted() as (ask, _, _):
    found = {
      ask('POST', INFER, app=app, **inference(0.5, 9.0)).content for _ in range(3)
    }
  assert len(found) == 1


def test_health_is_asked_once_at_a_time():
  asked = []

  async def host(scope, receive, send):
    asked.append(scope['path'])
    await asyncio.sleep(0.2)
    await send({'type': 'http.response.start', 'status': 200, 'headers': []})
    await send({'type': 'http.response.body', 'body': b''})

  app = Middleware(host, serving_hosts.guard(), ACCOUNTS)

  async def many():
    async with serving_hosts.client_of(app) as client:
      return await asyncio.gather(*(client.get('/health') for _ in range(20)))

  assert {reply.status_code for reply in asyncio.run(many())} == {200}
  assert asked == ['/health']


@pytest.mark.parametrize(
  'limits',
  [
    {'x-min-accuracy': 'nan'},
    {'x-min-accuracy': '0.5, 0.6'},
    {'x-max-latency-ms': '1' * 65},
    {'x-max-latency-ms': ''},
  ],
)
def test_malformed_headers(limits, served):
  ask, _, _ = served
  body = {'messages': serving_hosts.SAY}
  reply = ask('POST', CHAT, headers={**KEY, **limits}, json=body)
  assert reply.status_code == 400
  twice = ask('POST', CHAT, headers={**KEY, 'x-min-accuracy': '0'}, **asking(0.5, 9.0))
  assert twice.status_code == 400


def test_refusals_are_billed_and_named(served):
  ask, host, log = served
  before = len(host.asked)
  reply = ask('POST', CHAT, **asking(0.99, 9.0))
  assert (reply.status_code, reply.json()['error']['code']) == (412, 'refused')
  assert (log[-1].model, log[-1].feasible, log[-1].number >= 0) == (None, False, True)
  assert ask('POST', INFER, **inference(0.99, 9.0)).json() == {'error': 'refused'}
  assert len(host.asked) == before


def test_all_that_goes_wrong_behind_is_one_status(served, caplog):
  ask, host, _ = served
  bodies = set()
  host.fail = {BACKENDS[1]}
  with caplog.at_level(logging.CRITICAL):
    bodies.add(ask('POST', CHAT, **asking(*CORNERS[1])).content)
  host.fail = set()
  answers = {
    'a status': (429, b'{}', b'application/json'),
    'no JSON': (200, b'small', b'application/json'),
    'an error': (200, b'{"error": "small"}', b'application/json'),
    'no choices': (200, b'{"choices": 1}', b'application/json'),
    'odd choices': (200, b'{"choices": ["small"]}', b'application/json'),
    'a page': (200, b'<p>small', b'text/html'),
  }
  for status, body, kind in answers.values():

    async def says(scope, receive, send, status=status, body=body, kind=kind):
      headers = [(b'content-type', kind), (b'retry-after', b'7')]
      start = {'type': 'http.response.start', 'status': status, 'headers': headers}
      await send(start)
      await send({'type': 'http.response.body', 'body': body})

    app = Middleware(says, serving_hosts.guard(), ACCOUNTS)
    reply = ask('POST', CHAT, app=app, **asking(0.5, 9.0))
    assert reply.status_code == 504
    assert set(reply.headers) == {'content-type', 'content-length'}
    bodies.add(reply.content)
  assert len(bodies) == 1
  assert 'no answer' in bodies.pop().decode()


def test_too_many_requests_are_turned_away():
  with hosted(rules=Rules(most_requests=1)) as (_, host, log):
    host.wait = dict.fromkeys(BACKENDS, 0.3)
    app = Middleware(
      host.app,
      serving_hosts.guard(log=log.append),
      ACCOUNTS,
      rules=Rules(most_requests=1),
    )

    async def both():
      async with serving_hosts.client_of(app) as client:
        asked = [client.post(CHAT, headers=KEY, **asking(0.5, 9.0)) for _ in range(3)]
        return await asyncio.gather(*asked)

    replies = asyncio.run(both())
  assert sorted(reply.status_code for reply in replies) == [200, 429, 429]
  assert replies[2].headers['retry-after'] == '1'
  assert [each.status for each in log].count(429) == 2


def test_answers_are_padded_to_the_limit_of_the_spec():
  rules = Rules(pad=True, slack_ms=150.0)
  with hosted(rules=rules) as (ask, host, _):
    for stream, wait in ((False, 0.0), (True, 0.0), (False, 0.05)):
      host.wait = dict.fromkeys(BACKENDS, wait)
      began = time.perf_counter()
      reply = ask('POST', CHAT, **asking(0.9, 4.0, stream=stream))
      assert time.perf_counter() - began >= 0.154
      assert reply.status_code == 200
    host.wait = dict.fromkeys(BACKENDS, 30.0)
    began = time.perf_counter()
    reply = ask('POST', CHAT, **asking(0.0, np.finfo(np.float32).max.item()))
    assert 0.154 <= time.perf_counter() - began < 10
    assert reply.status_code == 504


def test_a_slow_body_uses_up_nothing_of_the_padding():
  request = json.dumps(asking(0.9, 4.0)['json']).encode()

  async def slowly():
    yield request[:5]
    await asyncio.sleep(0.1)
    yield request[5:]

  with hosted(rules=Rules(pad=True, slack_ms=150.0)) as (ask, _, _):
    began = time.perf_counter()
    assert ask('POST', CHAT, content=slowly()).status_code == 200
    assert time.perf_counter() - began >= 0.25


def test_what_does_not_answer_is_given_up():
  with hosted(rules=Rules(deadline_seconds=0.1)) as (ask, host, _):
    host.wait = dict.fromkeys(BACKENDS, 30.0)
    assert ask('POST', CHAT, **asking(0.5, 9.0)).status_code == 504


def test_the_rules_let_more_pass():
  rules = Rules(
    disclose=True,
    request_fields=('logprobs',),
    response_fields=('usage',),
    request_headers=('x-trace',),
    response_headers=('x-served-by',),
    added_headers={'authorization': 'Bearer behind'},
  )
  assert 'behind' not in repr(rules)
  with hosted(rules=rules) as (ask, host, _):
    headers = {**KEY, 'x-trace': '7', 'x-other': '8'}
    request = asking(*CORNERS[2], logprobs=True)
    reply = ask('POST', CHAT, headers=headers, **request)
  _, body, seen = host.asked[-1]
  assert json.loads(body)['logprobs'] is True
  assert (seen['x-trace'], seen['authorization']) == ('7', 'Bearer behind')
  assert 'x-other' not in seen
  assert reply.headers['x-served-by'] == BACKENDS[2]
  assert reply.headers['x-model'] == BACKENDS[2]
  assert reply.json()['usage']['total_tokens'] == 11


@pytest.mark.parametrize(
  ('rules', 'message'),
  [
    (Rules(pad=True, streams=True), 'rules.streams is True'),
    (Rules(most_requests=0), 'rules.most_requests'),
    (Rules(slack_ms=-1.0), 'rules.slack_ms'),
    (Rules(response_headers=('X-Up',)), 'lower case'),
    (Rules(added_headers={'authorization': 'Bearer x\n'}), "value of 'authorization'"),
  ],
)
def test_rules_are_checked(rules, message):
  with pytest.raises(ValueError, match=message):
    Middleware(serving_hosts.Host().app, serving_hosts.guard(), ACCOUNTS, rules=rules)


def test_what_a_middleware_cannot_do_is_told():
  app = serving_hosts.Host().app
  changed = serving_hosts.guard(table(reply=defenses.labels_only()))
  with pytest.raises(ValueError, match='guard changes answers'):
    Middleware(app, changed, ACCOUNTS)
  few = serving_hosts.guard(
    table(router=defenses.budget(PROFILE, 2.5, cap=0.2, clients=1))
  )
  with pytest.raises(ValueError, match='tells 1 clients apart'):
    Middleware(app, few, ACCOUNTS)
  with pytest.raises(ValueError, match='must be 3 names'):
    Guard(PROFILE, few._gate, backends=('a', 'a', 'b'))


def test_budgets_are_each_clients_own():
  router = defenses.budget(PROFILE, 3, cap=0.0, clients=2)
  with hosted(table(router=router)) as (ask, _, _):
    first = [ask('POST', CHAT, **asking(*CORNERS[2])).status_code for _ in range(5)]
    other = ask(
      'POST', CHAT, headers={'authorization': 'Bearer second'}, **asking(*CORNERS[2])
    )
  assert first == [200, 200, 200, 412, 412]
  assert other.status_code == 200


def test_nothing_is_logged_of_secrets_and_texts(caplog):
  with caplog.at_level(logging.DEBUG), hosted() as (ask, _, log):
    ask('POST', CHAT, **asking(0.5, 9.0))
    ask('POST', CHAT, headers={'authorization': 'Bearer guess'}, **asking(0.5, 9.0))
  text = f'{caplog.text} {log}'
  words = np.asarray(jax.random.key_data(jax.random.key(3))).tolist()
  assert not any(str(word) in text for word in words if word > 99)
  assert not any(each in text for each in ('Bearer', 'guess', SEEN, "'hi'"))


def test_servers_elsewhere_are_behind_an_address_each():
  asked = []

  def elsewhere(request):
    asked.append(request)
    headers = {'x-by': 'small', 'connection': 'close'}
    model = json.loads(request.content)['model']
    body = json.dumps(serving_hosts.chat(model)).encode()
    headers |= {'content-type': 'application/json'}
    return httpx.Response(200, stream=httpx.ByteStream(body), headers=headers)

  client = httpx.AsyncClient(transport=httpx.MockTransport(elsewhere))
  places = {name: f'http://host{i}' for i, name in enumerate(BACKENDS)}
  app = Middleware(Upstream(places, client), serving_hosts.guard(), ACCOUNTS)
  with hosted() as (ask, _, _):
    for i, corner in enumerate(CORNERS):
      reply = ask('POST', CHAT, app=app, **asking(*corner))
      assert reply.json()['choices'][0]['message']['content'] == SEEN
      assert str(asked[-1].url) == f'http://host{i}{CHAT}'
    assert ask('GET', '/health', app=app).status_code == 503
  assert 'authorization' not in asked[0].headers


def test_websockets_are_closed_and_a_servers_life_is_the_hosts():
  sent = []

  async def send(message):
    sent.append(message)

  async def receive():
    return {'type': 'websocket.connect'}

  app = Middleware(serving_hosts.Host().app, serving_hosts.guard(), ACCOUNTS)
  asyncio.run(app({'type': 'websocket', 'path': '/v1/realtime'}, receive, send))
  assert sent == [{'type': 'websocket.close', 'code': 1008}]
