"""Two hundred malformed requests: bodies, which are 400, and whole HTTP requests."""

import json

import numpy as np

from psml_jax.serving.protocol import Zoo

ZOO = Zoo('zoo', (2, 3, 1), 3, 4)
PIXELS = 6


def tensor(shape=(2, 2, 3, 1), **changed):
  """The one tensor of a request; what is None is left out."""
  count = int(np.prod(shape)) if all(type(n) is int and n > 0 for n in shape) else 1
  fields = {
    'name': 'images',
    'shape': list(shape),
    'datatype': 'FP32',
    'data': [0.5] * min(count, 10_000),
  }
  return {k: v for k, v in {**fields, **changed}.items() if v is not None}


def request_of(*, inputs=None, data=None, shape=(2, 2, 3, 1), **fields):
  """A request's body in JSON."""
  if inputs is None:
    inputs = [tensor(shape, **({} if data is None else {'data': data}))]
  return json.dumps({'inputs': inputs, **fields}).encode()


def good():
  return request_of()


def binary(count=12, size=None, head_length=None, values=None, **changed):
  """A request in binary, and its header."""
  data = np.full(count, 0.5, '<f4') if values is None else np.asarray(values, '<f4')
  parameters = {'binary_data_size': len(data.tobytes()) if size is None else size}
  one = tensor(data=None, parameters=parameters, **changed)
  head = json.dumps({'inputs': [one]}).encode()
  length = str(len(head)) if head_length is None else head_length
  return head + data.tobytes(), length


def _bodies():
  found = {}

  def add(name, body, head=None):
    assert name not in found, name
    found[name] = (body if isinstance(body, bytes) else body.encode(), head)

  def each(name, make, values):
    for i, value in enumerate(values):
      add(f'{name} {i}', make(value))

  whole = good()
  for i in range(0, len(whole) - 1, 9):
    add(f'cut at {i}', whole[:i])
  for text in ('', ' ', 'null', 'true', '1', '"x"', '[]', '{}', '[{}]', 'x', '\x00'):
    add(f'no request {text!r}', text)
  add('no UTF-8', b'\xff\xfe\xfd')
  add('UTF-16', whole.decode().encode('utf-16'))
  add('a byte order mark', b'\xef\xbb\xbf' + whole)
  add('two requests', whole + whole)
  add('single quotes', whole.decode().replace('"', "'"))
  add('deep lists', '[' * 60_000)
  add('deep objects', '{"a":' * 20_000)
  add('deep data', request_of().decode().replace('[0.5', '[' * 20_000 + '0.5', 1))
  add('deep, closed', '{"inputs":' + '[' * 5000 + ']' * 5000 + '}')
  for word in ('NaN', 'Infinity', '-Infinity', '1e400', '0x1', '.5', '+1', '01'):
    add(f'data {word}', whole.decode().replace('0.5', word, 1))
    add(
      f'accuracy {word}',
      whole[:-1].decode() + f',"parameters":{{"min_accuracy":{word}}}}}',
    )
  each(
    'datatype',
    lambda kind: request_of(inputs=[tensor(datatype=kind)]),
    ['FP16', 'FP64', 'BF16', 'INT8', 'INT32', 'UINT8', 'BOOL', 'BYTES', 'fp32', '', 32],
  )
  shapes = [
    [],
    [2],
    [2, 6],
    [2, 2, 3],
    [2, 2, 3, 1, 1],
    [2, 3, 2, 1],
    [2, 2, 3, 3],
    [0, 2, 3, 1],
    [-1, 2, 3, 1],
    [5, 2, 3, 1],
    [10**6, 2, 3, 1],
    [2**31, 2, 3, 1],
    [2**63, 2, 3, 1],
    [10**30, 2, 3, 1],
    [2.0, 2, 3, 1],
    ['2', 2, 3, 1],
    [True, 2, 3, 1],
    [None, 2, 3, 1],
    [[2], 2, 3, 1],
  ]
  each('shape', lambda shape: request_of(inputs=[tensor() | {'shape': shape}]), shapes)
  each('shape and data', lambda n: request_of(data=[0.5] * n), [0, 1, 11, 13, 24, 1000])
  each(
    'data',
    lambda data: request_of(data=data),
    [
      {},
      'text',
      0.5,
      True,
      [None] * 12,
      ['0.5'] * 12,
      [True] * 12,
      [{}] * 12,
      [[0.5] * 12],
      [[[[0]]]] * 12,
      [[]] * 10_000,
      [[0.5] * 6] * 2,
      [0.5] * 11 + [[0.5]],
      [[[[0.5]] * 3] * 2],
      [[[[0.5]] * 3] * 2, [[[0.5]] * 3]],
      [0.5] * 11 + [-0.1],
      [0.5] * 11 + [1.1],
      [0.5] * 11 + [-1e-3],
      [0.5] * 11 + [1e30],
      [0.5] * 11 + [255],
      [0.5] * 11 + [10**40],
    ],
  )
  each(
    'inputs',
    lambda inputs: request_of(inputs=inputs),
    [
      [],
      {},
      'images',
      [None],
      [[]],
      [tensor(), tensor()],
      [tensor(name='image')],
      [tensor(name='')],
      [tensor(name=None)],
      [tensor(name=7)],
      [tensor(shape=(2, 2, 3, 1), datatype=None)],
      [tensor(data=None)],
      [tensor() | {'shape': None}],
      [tensor(extra=1)],
      [tensor(parameters=[])],
      [tensor(parameters={'a': 1})],
      [tensor(parameters={'binary_data_size': 48})],
      [tensor(parameters={'shared_memory_region': 'x'})],
      [{k: v for k, v in tensor().items() if k != 'shape'}],
    ],
  )
  each(
    'parameters',
    lambda parameters: request_of(parameters=parameters),
    [
      [],
      'x',
      1,
      {'min_acuracy': 0.5},
      {'min_accuracy': '0.5'},
      {'min_accuracy': 10**400},
      {'max_latency_ms': 10**400},
      {'min_accuracy': True},
      {'min_accuracy': None},
      {'min_accuracy': [0.5]},
      {'min_accuracy': {}},
      {'max_latency_ms': '20'},
      {'max_latency_ms': False},
      {'max_latency_ms': [1.0]},
      {'timeout': 0},
      {'timeout': -1},
      {'timeout': 1.5},
      {'timeout': '1'},
      {'timeout': True},
      {'binary_data_output': 1},
      {'binary_data_output': 'true'},
      {'sequence_id': 1},
      {'priority': 1},
      {'model': 'small'},
    ],
  )
  each(
    'outputs',
    lambda outputs: request_of(outputs=outputs),
    [
      {},
      'served',
      [None],
      ['served'],
      [{}],
      [{'name': 'logits'}],
      [{'name': 'served', 'parameters': {'classification': 2}}],
      [{'name': 'served', 'parameters': {'binary_data': 1}}],
      [{'name': 'served', 'parameters': []}],
      [{'name': 'served', 'extra': 1}],
    ],
  )
  each('id', lambda id: request_of(id=id), [1, None, [], 'x' * 129])
  add('extra field', request_of(model_name='small'))
  for length in ('-1', '1.5', 'x', '', '999999', '1' * 40, '0', '٣', '5 5', '0x10'):
    add(f'head length {length!r}', whole, length)
  add('what follows the JSON', whole + b'\0' * 48, str(len(whole)))
  add('binary cut', binary()[0][:-1], binary()[1])
  add('binary too long', binary()[0] + b'\0', binary()[1])
  add('binary without', *binary(count=0))
  for count in (1, 11, 13, 24):
    add(f'binary of {count}', *binary(count=count))
  for size in (0, -48, 47, 49, 4, 2**40, 48.0, '48', True):
    add(f'binary size {size!r}', *binary(size=size))
  for i, bad in enumerate((np.nan, np.inf, -np.inf, -1e-6, 1.000001, 3e38)):
    add(f'binary value {i}', *binary(values=[0.5] * 11 + [bad]))
  add('binary, another type', *binary(datatype='FP16'))
  add('binary, head too short', binary()[0], str(int(binary()[1]) - 1))
  add('binary, head too long', binary()[0], str(int(binary()[1]) + 1))
  add('binary without a head', binary()[0], None)
  return found


BODIES = _bodies()
