"""The application and its listener, over real connections but without Ray."""

import asyncio
import contextlib
import dataclasses
import http.client
import json
import socket
import threading
import time

import httpx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from psml_jax import attacks, defenses, servers, session
from psml_jax.attacks import extraction, fingerprint
from psml_jax.core import Knowledge, Query, Spec
from psml_jax.servers.http import UnansweredError
from psml_jax.serving import asgi, protocol
from psml_jax.serving.application import Limits
from psml_jax.serving.asgi import Reply
from tests import known_zoo, malformed, serving_local
from tests.serving_local import (
  ABOUT,
  IMAGES,
  PROFILE,
  SECRET,
  application,
  listening,
  one,
)

CORNER = 0.7, 2.0
FIRST = {'authorization': 'Bearer first'}
HEADERS = {
  'content-length',
  'content-type',
  'inference-header-content-length',
}
RESOLUTION = {'accuracy_resolution': 4e-3, 'latency_resolution': 1e-2}


@pytest.fixture(scope='module')
def served():
  """An undefended server's address, and its host."""
  app, host = application()
  with listening(app) as url:
    yield url, host


def post(url, image=None, accuracy=0.5, latency=9.0, *, headers=FIRST, **kwargs):
  images = one() if image is None else image
  body, own = protocol.encode_request(images, accuracy, latency, **kwargs)
  return httpx.post(f'{url}/infer', content=body, headers={**own, **headers})


def test_health_and_metadata(served):
  url, _ = served
  root = url.removesuffix('/v2/models/zoo')
  for path in ('/v2/health/live', '/v2/health/ready'):
    assert httpx.get(root + path).status_code == 200
  assert httpx.get(f'{root}/v2').json()['extensions'] == ['binary_tensor_data']
  assert httpx.get(url).status_code == 401
  for path in (url, f'{url}/versions/1'):
    told = httpx.get(path, headers=FIRST).json()
    assert told == protocol.metadata(ABOUT)
    assert httpx.get(f'{path}/ready', headers=FIRST).status_code == 200


@pytest.mark.parametrize('binary', [True, False])
def test_a_public_client_works_unchanged(binary, served):
  url, host = served
  client = triton.InferenceServerClient(url.split('/')[2])
  assert client.is_server_live()
  assert client.is_server_ready()
  assert client.is_model_ready('zoo', headers=dict(FIRST))
  assert client.get_server_metadata()['name'] == 'psml_jax'
  assert client.get_model_metadata('zoo', headers=FIRST)['name'] == 'zoo'
  tensor = triton.InferInput('images', [3, *ABOUT.image_shape], 'FP32')
  tensor.set_data_from_numpy(np.asarray(IMAGES[:3]), binary_data=binary)
  wanted = [triton.InferRequestedOutput('probabilities', binary_data=binary)]
  before = int(host.gate.log(0).queries)
  found = client.infer(
    'zoo',
    [tensor],
    outputs=wanted,
    request_id='mine',
    timeout=9_000_000,
    parameters={'min_accuracy': CORNER[0], 'max_latency_ms': CORNER[1]},
    headers=dict(FIRST),
  )
  expected = known_zoo.answers(IMAGES[:3])[known_zoo.MEDIUM]
  np.testing.assert_array_equal(found.as_numpy('probabilities'), expected)
  assert found.get_response()['id'] == 'mine'
  assert int(host.gate.log(0).queries) == before + 3
  with pytest.raises(InferenceServerException, match='refused') as caught:
    client.infer(
      'zoo', [tensor], parameters={'min_accuracy': 0.99}, headers=dict(FIRST)
    )
  assert caught.value.status() == '412'
  client.close()


def test_statuses_are_distinct_and_tell_nothing_more(served):
  url, _ = served
  refused, answered = post(url, accuracy=0.99), post(url)
  found = {
    200: answered,
    400: httpx.post(f'{url}/infer', content=b'{', headers=FIRST),
    401: post(url, headers={}),
    404: post(url.replace('zoo', 'small')),
    405: httpx.get(f'{url}/infer', headers=FIRST),
    412: refused,
    413: httpx.post(f'{url}/infer', content=bytes(ABOUT.most_bytes + 1), headers=FIRST),
    415: post(url, headers={**FIRST, 'content-encoding': 'gzip'}),
  }
  assert {status: reply.status_code for status, reply in found.items()} == {
    status: status for status in found
  }
  for status, reply in found.items():
    assert set(reply.headers) - HEADERS <= {'connection', 'www-authenticate'}
    if status != 200:
      assert set(reply.json()) == {'error'}
      assert not any(name in reply.text for name in known_zoo.NAMES)
  for scheme in ('Basic first', 'Bearer', 'Bearer nobody', 'first', 'Bearer fir\xe9st'):
    headers = {'authorization': scheme.encode('latin-1')}
    assert post(url, headers=headers).status_code == 401


def test_answers_of_all_models_look_alike(served):
  url, _ = served
  replies = [
    post(url, accuracy=accuracy, latency=latency, id='mine')
    for accuracy, latency in zip(known_zoo.ACCURACY, known_zoo.LATENCY)
  ]
  assert {reply.status_code for reply in replies} == {200}
  heads = {
    reply.content[: int(reply.headers[protocol.HEAD_LENGTH])] for reply in replies
  }
  assert len(heads) == 1
  assert len({tuple(reply.headers.items()) for reply in replies}) == 1


def test_disclosure_is_the_operators_choice():
  app, _ = application(limits=Limits(disclose=True))
  with listening(app) as url:
    reply = post(url, accuracy=CORNER[0], latency=CORNER[1])
  head = json.loads(reply.content[: int(reply.headers[protocol.HEAD_LENGTH])])
  assert head['parameters'] == {'models': PROFILE.names[known_zoo.MEDIUM]}


@pytest.mark.parametrize('name', sorted(malformed.BODIES)[::4])
def test_malformed_bodies_are_400(name, served):
  url, _ = served
  body, head = malformed.BODIES[name]
  about = {} if head is None else {protocol.HEAD_LENGTH: head.encode()}
  reply = httpx.post(f'{url}/infer', content=body, headers={**FIRST, **about})
  assert reply.status_code == (413 if len(body) > ABOUT.most_bytes else 400)
  assert set(reply.json()) == {'error'}


def raw(url, data, *, rest=b'', pause=0.0):
  """The status of what is sent as it is; None where the connection ends without."""
  host, port = url.split('/')[2].split(':')
  with socket.create_connection((host, int(port)), timeout=30) as opened:
    with contextlib.suppress(OSError):
      opened.sendall(data)
      time.sleep(pause)
      opened.sendall(rest)
    received = b''
    with contextlib.suppress(OSError):
      while b'\r\n' not in received and (part := opened.recv(4096)):
        received += part
  return int(received.split()[1]) if received else None


LINE = b'POST /v2/models/zoo/infer HTTP/1.1\r\nhost: x\r\n'
KEYED = LINE + b'authorization: Bearer first\r\n'


@pytest.mark.parametrize(
  ('data', 'status'),
  [
    (b'nonsense\r\n\r\n', 400),
    (b'\x16\x03\x01\x02\x00\x01\x00\x01', 400),
    (b'GET / HTTP/9.9\r\n\r\n', 400),
    (LINE + b'content-length: -1\r\n\r\n', 400),
    (LINE + b'content-length: x\r\n\r\n', 400),
    (LINE + b'content-length: 5\r\ncontent-length: 6\r\n\r\n', 400),
    (LINE + b'bad header\r\n\r\n', 400),
    (KEYED + b'transfer-encoding: chunked\r\n\r\nzz\r\n', 400),
    (LINE + b'a: ' + b'x' * 200_000, 431),
    (LINE + b'a: b\r\n' * 30_000, 431),
    (b'GET /' + b'x' * 200_000, 431),
    (KEYED + b'content-length: 1073741824\r\n\r\n' + bytes(300_000), 413),
    (KEYED + b'content-length: 1073741824\r\n\r\n', 413),
    (KEYED + b'content-length: 99999999999999999\r\n\r\n', 413),
  ],
)
def test_malformed_requests(data, status, served):
  url, _ = served
  assert raw(url, data) == status
  assert post(url).status_code == 200


def test_a_body_without_a_length_is_bounded_too(served):
  url, _ = served

  def parts():
    for _ in range(40):
      yield bytes(ABOUT.most_bytes // 8)

  reply = httpx.post(f'{url}/infer', content=parts(), headers=dict(FIRST))
  assert reply.status_code == 413


def test_slow_clients_lose_their_turn(monkeypatch):
  monkeypatch.setattr('psml_jax.serving.listener._HEAD_SECONDS', 0.5)
  app, _ = application(limits=Limits(body_seconds=0.5, most_requests=1))
  with listening(app) as url:
    assert raw(url, LINE[:20], pause=1.5) == 408
    assert raw(url, b'', pause=1.5) == 408
    assert raw(url, KEYED + b'content-length: 100\r\n\r\nx', pause=1.5) == 408
    assert post(url).status_code == 200


CHUNKED = LINE + b'transfer-encoding: chunked\r\n\r\n'


@pytest.mark.parametrize(
  'endless',
  [
    b'1\r\nx\r\n0\r\n' + b'a: b\r\n' * 2**13,
    b'1\r\nx\r\n0\r\na: ' + b'b' * 2**16,
    b'1;' + b'b' * 2**16,
  ],
  ids=['trailers', 'a trailer', 'an extension'],
)
def test_what_a_chunked_body_has_besides_is_bounded(endless, served):
  host, port = served[0].split('/')[2].split(':')
  with socket.create_connection((host, int(port)), timeout=30) as opened:
    opened.sendall(CHUNKED)
    assert b'401' in opened.recv(4096)
    sent = 0
    with contextlib.suppress(OSError):
      opened.sendall(endless)
      while sent < 2**26:
        sent += opened.send(endless[-(2**14) :])
    assert sent < 2**23


def test_a_body_that_nobody_reads_is_not_waited_for(monkeypatch):
  monkeypatch.setattr('psml_jax.serving.listener._HEAD_SECONDS', 0.3)
  app, _ = application()
  with listening(app) as url:
    host, port = url.split('/')[2].split(':')
    with socket.create_connection((host, int(port)), timeout=30) as opened:
      opened.sendall(LINE + b'content-length: 100\r\n\r\nx')
      received = b''
      while part := opened.recv(4096):
        received += part
  assert received.startswith(b'HTTP/1.1 401')
  assert received.count(b'HTTP/1.1') == 1


def test_what_is_too_much_is_turned_away():
  app, host = application(limits=Limits(most_requests=2, deadline_seconds=20))
  release = threading.Event()

  async def wait(model):
    while not release.is_set():
      await asyncio.sleep(0.01)

  host.answering = wait
  with listening(app) as url:
    replies = []
    asking = [
      threading.Thread(target=lambda: replies.append(post(url))) for _ in range(2)
    ]
    for thread in asking:
      thread.start()
    while int(host.gate.log().queries) < 2:
      time.sleep(0.01)
    busy = post(url)
    assert (busy.status_code, busy.headers['retry-after']) == (429, '1')
    release.set()
    for thread in asking:
      thread.join()
    assert [reply.status_code for reply in replies] == [200, 200]
    assert int(host.gate.log().queries) == 2


def test_all_that_happens_after_a_decision_is_one_status():
  app, host = application(limits=Limits(deadline_seconds=0.5))

  async def fail(model):
    raise RuntimeError(f'secret trouble with {known_zoo.NAMES[model]}')

  async def sleep(model):
    await asyncio.sleep(60)

  with listening(app) as url:
    for answering in (fail, sleep):
      host.answering = answering
      reply = post(url)
      assert reply.status_code == 504
      assert reply.json()['error'] in ('no answer', 'no answer within the deadline')
    host.answering = sleep
    tensor = malformed.tensor((1, *ABOUT.image_shape))
    body = json.dumps({'inputs': [tensor], 'parameters': {'timeout': 50_000}})
    began = time.perf_counter()
    reply = httpx.post(f'{url}/infer', content=body, headers=dict(FIRST))
    assert reply.status_code == 504
    assert time.perf_counter() - began < 0.45
    host.answering, host.ready = None, False
    assert post(url).status_code == 503
    host.ready = True
    assert post(url).status_code == 200
  assert int(host.gate.log().queries) == 4


def test_a_timeout_does_not_tell_how_long_a_model_took():
  app, host = application(limits=Limits(hold_ms=300.0))
  host.answering = lambda model: asyncio.sleep(0.1)
  tensor = malformed.tensor((1, *ABOUT.image_shape))
  body = json.dumps({'inputs': [tensor], 'parameters': {'timeout': 50_000}})
  with listening(app) as url:
    began = time.perf_counter()
    reply = httpx.post(f'{url}/infer', content=body, headers=FIRST)
    assert time.perf_counter() - began >= 0.3
    assert reply.status_code == 200


@pytest.mark.parametrize('fields', [{}, {'reply': defenses.padded(200.0)}])
def test_a_slow_body_uses_up_nothing_of_what_is_held(fields):
  limits = Limits(hold_ms=0.0 if fields else 200.0)
  app, _ = application(serving_local.table(**fields), limits)
  body, own = protocol.encode_request(one(), 0.5, 1000.0)
  head = KEYED + f'content-length: {len(body)}\r\n'.encode()
  head += f'{protocol.HEAD_LENGTH}: {own[protocol.HEAD_LENGTH]}\r\n\r\n'.encode()
  with listening(app) as url:
    began = time.perf_counter()
    assert raw(url, head + body[:9], rest=body[9:], pause=0.25) == 200
    assert time.perf_counter() - began >= 0.45


def test_nothing_goes_out_before_it_is_held():
  app, _ = application(limits=Limits(hold_ms=200.0))
  with listening(app) as url:
    for accuracy in (0.5, 0.99):
      began = time.perf_counter()
      post(url, accuracy=accuracy)
      assert time.perf_counter() - began >= 0.2


def knowledge():
  return Knowledge(
    jnp.float32(known_zoo.BUDGET_MS),
    pool_size=len(IMAGES),
    num_classes=known_zoo.CLASSES,
  )


ATTACKS = {
  'fingerprint': attacks.Phases(
    (fingerprint.bisection(**RESOLUTION), extraction.replay('found', 12))
  ),
  'naive': extraction.replay('anything', 12),
}


@pytest.mark.parametrize('name', ATTACKS)
@pytest.mark.parametrize('defense', ['none', 'noise and labels'])
def test_an_attack_over_the_wire_is_the_pure_one(name, defense):
  """The same secret: the same decisions, so the same harvest and the same bill."""
  fields = {}
  if defense != 'none':
    noise = defenses.laplace(0.05, 0.2)
    fields = {'defense': noise, 'reply': defenses.labels_only()}
  server = serving_local.table(**fields)
  key = jax.random.key(11)
  pure = session.run(
    key, ATTACKS[name], server, server.init(SECRET), knowledge(), budget=40
  )
  app, host = application(server)
  with listening(app) as url:
    client = servers.http(url, 'first')
    live = session.run_live(
      key, ATTACKS[name], client, knowledge(), budget=40, pool=IMAGES
    )
    client.close()
  assert pure.bill.queries == live.bill.queries == client.bill.queries
  assert pure.bill.served == live.bill.served == client.bill.served
  np.testing.assert_array_equal(pure.harvest.inputs, live.harvest.inputs)
  np.testing.assert_array_equal(pure.harvest.targets, live.harvest.targets)
  assert host.gate.log(0).queries == client.ledger.billed


def test_a_client_counts_what_becomes_of_its_attempts(served):
  url, host = served
  before = int(host.gate.log(1).queries)
  client = servers.http(url, 'second', concurrency=3)
  query = Query.of(
    np.asarray(IMAGES[:8]),
    Spec.of([0.5, 0.99] * 4, 9.0),
    sent=[True] * 6 + [False] * 2,
  )
  seen = client(query)
  assert seen.served.tolist() == [True, False] * 3 + [False, False]
  assert (seen.latency_ms[0] > 0) & (seen.latency_ms[1] == 0)
  assert dataclasses.asdict(client.ledger) == {
    'served': 3,
    'refused': 3,
    'missed': 0,
    'in_doubt': 0,
    'turned_away': 0,
  }
  assert int(client.bill.queries) == int(host.gate.log(1).queries) - before == 6
  client.close()


def test_retries_are_billed():
  app, host = application(limits=Limits(deadline_seconds=0.3))
  tried = []

  async def once(model):
    tried.append(model)
    if len(tried) < 3:
      await asyncio.sleep(60)

  host.answering = once
  with listening(app) as url:
    client = servers.http(url, 'first', retries=2)
    query = Query.of(one(), Spec.of(0.5, 9.0))
    assert client(query).served.tolist() == [True]
    assert (client.ledger.missed, client.ledger.served) == (2, 1)
    assert int(host.gate.log().queries) == client.ledger.billed == 3
    tried.clear()
    host.answering = lambda model: asyncio.sleep(60)
    with pytest.raises(UnansweredError, match='status 504'):
      client(query)
    assert int(host.gate.log().queries) == client.ledger.billed == 6
    client.close()


def test_what_a_proxy_says_is_in_doubt():
  app, host = application()
  told = []

  async def proxy(scope, receive, send):
    told.append(scope['path'])
    if scope['method'] == 'POST' and len(told) < 3:
      await app(scope, receive, lambda _: asyncio.sleep(0))
      reply = Reply(502, b'bad gateway', [])
      await asgi.send_reply(reply, send)
    else:
      await app(scope, receive, send)

  with listening(proxy) as url:
    client = servers.http(url, 'first')
    assert client(Query.of(one(), Spec.of(0.5, 9.0))).served.tolist() == [True]
    client.close()
  assert dataclasses.astuple(client.ledger) == (1, 0, 0, 1, 0)
  assert int(host.gate.log().queries) == client.ledger.billed == 2


@pytest.mark.parametrize(
  ('change', 'key', 'message'),
  [
    (lambda url: url, 'nobody', 'says 401: .*API key; the key must be one'),
    (lambda url: url + 's', 'first', 'says 404: no such path.*address of a zoo'),
    (lambda url: url.replace('/models/zoo', ''), 'first', 'is no server of this'),
    (lambda url: 'http://127.0.0.1:9/v2/models/zoo', 'first', 'does not answer'),
  ],
)
def test_what_is_no_server(change, key, message, served):
  with pytest.raises((ValueError, OSError), match=message):
    servers.http(change(served[0]), key)


def test_connections_are_used_again(served):
  url, _ = served
  connection = http.client.HTTPConnection(url.split('/')[2])
  for _ in range(3):
    connection.request('GET', '/v2/health/live')
    before = connection.sock
    connection.getresponse().read()
    assert connection.sock is before
  connection.close()
