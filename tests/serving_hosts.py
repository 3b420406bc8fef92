"""Servers of a zoo by others' protocols, which tell all that a server can tell."""

import asyncio
import contextlib
import functools
import json

import httpx
from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from psml_jax.serving.guard import Guard
from psml_jax.serving.middleware import Middleware
from psml_jax.serving.rules import Rules
from tests import known_zoo
from tests.serving_local import ACCOUNTS, PROFILE, gate, table

KEY = {'authorization': 'Bearer first'}
SAY = [{'role': 'user', 'content': 'hi'}]
BACKENDS = tuple(f'vendor/{name}-v1' for name in known_zoo.NAMES)
SEEN = 'Hello there'


def chat(model):
  """A whole answer, as each vendor has it: some leave out what others say."""
  i = BACKENDS.index(model)
  message = {'role': 'assistant', 'content': SEEN}
  message |= [{}, {'refusal': None, 'tool_calls': []}, {'reasoning': model}][i]
  choice = {'index': 0, 'message': message, 'finish_reason': ['stop', 'eos', 'stop'][i]}
  choice |= [{'logprobs': None}, {}, {'stop_reason': 7}][i]
  return {
    'id': f'{model}-1234',
    'object': 'chat.completion',
    'created': 5 + i,
    'model': model,
    'system_fingerprint': f'fp_{i}',
    'usage': {'prompt_tokens': 3 + i, 'total_tokens': 9 + i},
    'choices': [choice],
  }


def pieces(model):
  """The same in pieces, of other lengths for each model."""
  size = 2 + BACKENDS.index(model)
  about = {'id': model, 'object': 'chat.completion.chunk', 'model': model}
  yield about | {'choices': [{'index': 0, 'delta': {'role': 'assistant'}}]}
  for start in range(0, len(SEEN), size):
    delta = {'content': SEEN[start : start + size], 'role': None}
    yield about | {'choices': [{'index': 0, 'delta': delta}], 'usage': None}
  yield about | {'choices': [{'index': 0, 'delta': {}, 'finish_reason': 'stop'}]}
  yield about | {'choices': [], 'usage': {'total_tokens': 5}}


class Host:
  """Keeps what it was asked; `wait` and `fail` may be set."""

  def __init__(self):
    self.asked, self.wait, self.fail = [], {}, set()
    self.app = Starlette(
      routes=[
        Route('/v1/chat/completions', self.chat, methods=['POST']),
        Route('/v1/embeddings', self.embed, methods=['POST']),
        Route('/v1/models', self.models),
        Route('/health', self.models),
        Route('/v2/models/{name:path}/infer', self.infer, methods=['POST']),
        Route('/v2/models/{name:path}', self.about),
      ]
    )

  async def took(self, request, model):
    self.asked.append((model, await request.body(), dict(request.headers)))
    await asyncio.sleep(self.wait.get(model, 0))
    if model in self.fail:
      raise RuntimeError(f'{model} is out of memory')

  async def chat(self, request):
    body = await request.json()
    model = body['model']
    await self.took(request, model)
    if body.get('stream'):
      events = [*(json.dumps(each) for each in pieces(model)), '[DONE]']
      sent = [f': {model}\n\n', *(f'data: {each}\n\n' for each in events)]
      return StreamingResponse(iter(sent), media_type='text/event-stream')
    return JSONResponse(chat(model), headers={'x-served-by': model, 'server': 'vllm'})

  async def embed(self, request):
    model = (await request.json())['model']
    await self.took(request, model)
    data = [{'object': 'embedding', 'index': 0, 'embedding': [0.5, 1], 'by': model}]
    return JSONResponse({'object': 'list', 'model': model, 'data': data})

  async def models(self, request):
    return JSONResponse({'data': [{'id': model} for model in BACKENDS]})

  async def infer(self, request):
    model = request.path_params['name']
    await self.took(request, model)
    output = {'name': 'y', 'shape': [1, 2], 'datatype': 'FP32', 'data': [0.5, 0.5]}
    output['parameters'] = {'served_by': model}
    told = {'model_name': model, 'model_version': '3', 'parameters': {'by': model}}
    return JSONResponse({**told, 'outputs': [output]}, headers={'x-model': model})

  async def about(self, request):
    tensor = {'name': 'x', 'datatype': 'FP32', 'shape': [-1, 2], 'note': BACKENDS[0]}
    told = {
      'name': request.path_params['name'],
      'platform': 'vendor',
      'versions': ['9'],
    }
    return Response(json.dumps({**told, 'inputs': [tensor], 'outputs': [tensor]}))


@functools.cache
def undefended():
  """One gate for all that need no other, for it is compiled."""
  return gate(table())


def guard(server=None, **kwargs):
  made = gate(server) if server else undefended()
  return Guard(PROFILE, made, backends=BACKENDS, **kwargs)


def client_of(app):
  """A client of an ASGI application."""
  transport = httpx.ASGITransport(app, raise_app_exceptions=False)
  return httpx.AsyncClient(transport=transport, base_url='http://zoo')


@contextlib.contextmanager
def hosted(server=None, rules=None, **kwargs):
  """`(ask, host, log)`: a middleware in front of a host, and its client."""
  host, log = Host(), []
  made = guard(server, log=log.append, **kwargs)
  app = Middleware(host.app, made, ACCOUNTS, rules=rules or Rules())

  def ask(method, path, *, headers=KEY, app=app, **request):
    async def once():
      transport = httpx.ASGITransport(app, raise_app_exceptions=False)
      async with httpx.AsyncClient(
        transport=transport, base_url='http://zoo'
      ) as client:
        return await client.request(method, path, headers=headers, **request)

    return asyncio.run(once())

  yield ask, host, log


def asking(accuracy, latency, **fields):
  """A request for a chat completion."""
  limits = {'min_accuracy': accuracy, 'max_latency_ms': latency}
  return {'json': {'model': 'zoo', 'messages': SAY, **limits, **fields}}
