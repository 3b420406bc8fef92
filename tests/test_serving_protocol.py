"""The wire: what goes in comes out, and what is malformed is told so."""

import json

import msgspec
import numpy as np
import pytest

from psml_jax.serving import protocol
from psml_jax.serving.protocol import RequestError, Zoo
from tests.malformed import BODIES, ZOO, good, request_of

IMAGES = np.random.default_rng(0).random((2, 2, 3, 1)).astype(np.float32)


def decode(body, head=None, zoo=ZOO):
  return protocol.decode_request(zoo, body, head)


@pytest.mark.parametrize('limits', [(0.5, 20.0), (0.0, np.inf), (1e300, 1e-9)])
def test_a_binary_request_comes_back(limits):
  body, headers = protocol.encode_request(IMAGES, *limits, 'mine')
  found = decode(body, headers[protocol.HEAD_LENGTH])
  np.testing.assert_array_equal(found.images, IMAGES)
  assert (found.min_accuracy, found.max_latency_ms) == limits
  assert (found.id, found.timeout_s) == ('mine', np.inf)
  assert found.binary == {'probabilities': True, 'served': True}


@pytest.mark.parametrize('nested', [True, False])
def test_a_json_request_comes_back(nested):
  data = IMAGES.tolist() if nested else IMAGES.ravel().tolist()
  found = decode(request_of(data=data, parameters={'timeout': 2_000_000}))
  np.testing.assert_array_equal(found.images, IMAGES)
  assert found.timeout_s == 2.0
  assert found.binary == {'probabilities': False, 'served': False}


def test_whole_numbers_are_numbers():
  ones = np.ones(12, int).tolist()
  found = decode(request_of(data=ones, parameters={'min_accuracy': 1}))
  assert found.min_accuracy == 1.0
  assert found.images.sum() == 12


@pytest.mark.parametrize('binary', [True, False])
def test_an_answer_comes_back(binary):
  wanted = {'probabilities': binary, 'served': binary}
  request = decode(good())._replace(binary=wanted, id='mine')
  served = np.array([True, False])
  outputs = np.array([[0.1, 0.7, 0.2], [0, 0, 0]], np.float32)
  body, headers = protocol.encode_answer(ZOO, request, served, outputs)
  head = headers.get(protocol.HEAD_LENGTH)
  assert (head is None) != binary
  found = protocol.decode_answer(body, head)
  np.testing.assert_array_equal(found[0], served)
  np.testing.assert_array_equal(found[1], outputs)
  told = json.loads(body[: int(head)] if head else body)
  assert set(told) == {'id', 'model_name', 'model_version', 'outputs'}
  assert (told['model_name'], told['id']) == ('zoo', 'mine')


def test_each_output_may_be_wanted_otherwise():
  outputs = [{'name': 'served', 'parameters': {'binary_data': True}}]
  found = decode(request_of(outputs=outputs))
  assert found.binary == {'served': True}
  assert decode(request_of(outputs=[{'name': 'served'}])).binary == {'served': False}


@pytest.mark.parametrize('name', sorted(BODIES))
def test_malformed(name):
  body, head = BODIES[name]
  with pytest.raises(RequestError) as caught:
    decode(body, head)
  assert caught.value.status == 400
  assert 0 < len(caught.value.text) < 300
  assert 'Traceback' not in caught.value.text


def test_there_are_enough_malformed_ones():
  assert len(BODIES) >= 150


@pytest.mark.parametrize(
  'body', [b'', b'{}', b'{"outputs":[]}', b'[', b'{"outputs":[{"name":"served"}]}']
)
def test_an_answer_that_is_none(body):
  with pytest.raises(ValueError, match='the answer is not as it must be'):
    protocol.decode_answer(body, None)


def test_metadata_has_what_a_client_needs():
  told = protocol.metadata(ZOO)
  assert told['inputs'] == [
    {'name': 'images', 'datatype': 'FP32', 'shape': [-1, 2, 3, 1]}
  ]
  assert [each['name'] for each in told['outputs']] == ['probabilities', 'served']


def test_a_body_has_room_for_every_number():
  zoo = Zoo('zoo', (8, 8, 3), 10, 4)
  images = np.full((4, 8, 8, 3), np.float32(1) / 3)
  tensor = {'name': 'images', 'shape': [4, 8, 8, 3], 'datatype': 'FP32'}
  body = msgspec.json.encode(
    {'inputs': [{**tensor, 'data': images.astype(np.float64).tolist()}]}
  )
  assert len(body) < zoo.most_bytes
  assert len(decode(body, zoo=zoo).images) == 4
