"""Whether a shadow predicts the goodput of the defense that it shadows: a replay.

python benchmarks/shadow.py

Every spec goes through the middleware twice: before a shadow, and before the defense
with the same secret, whose answers are counted by the model that they disclose. Then
the draws of other secrets, without the middleware.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Any

import httpx
import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from psml_jax import defenses, goodput, leakage, profiles, routers, servers
from psml_jax.core import Query, Spec, ZooProfile
from psml_jax.serving import Gate, Guard, Middleware, Rules, accounts, records

_SPECS = flags.DEFINE_integer('specs', 10_000, 'How many are replayed.')
_PROFILE = flags.DEFINE_string('profile', 'llm_aider_polyglot', 'A packaged zoo.')
_GOODPUT = flags.DEFINE_float('goodput', 0.8, 'What the cap keeps.')
_SECRETS = 20
_BODY = b'{"choices":[{"message":{"content":"x"}}]}'


async def host(scope: Any, receive: Any, send: Any) -> None:
  """Answers at once; a shadow sees what its host reads."""
  while (await receive())['more_body']:
    pass
  headers = [(b'content-type', b'application/json')]
  await send({'type': 'http.response.start', 'status': 200, 'headers': headers})
  await send({'type': 'http.response.body', 'body': _BODY})


async def replay(front: Middleware, key: str, spec: Spec) -> list[str]:
  """The models that answered, '' where none did or it is not told."""
  transport = httpx.ASGITransport(front)
  found = []
  async with httpx.AsyncClient(transport=transport, base_url='http://zoo') as client:
    pairs = np.stack([spec.min_accuracy, spec.max_latency_ms], 1)
    for accuracy, latency in pairs.tolist():
      limits = {'min_accuracy': accuracy, 'max_latency_ms': latency}
      reply = await client.post(
        '/v1/chat/completions',
        headers={'authorization': f'Bearer {key}'},
        json={'messages': [], **limits},
      )
      found.append(reply.headers.get('x-model', ''))
  return found


def measure(zoo: ZooProfile, name: str, value: float, spec: Spec) -> None:
  """Prints a line of one defense."""
  parts = defenses.deploy(name, zoo, value)
  server = servers.table(
    parts.router or routers.uniform(zoo),
    zoo.latency_ms,
    jnp.ones((len(zoo), 1, 1)),
    defense=parts.defense,
  )
  secret, key = jax.random.key(0), accounts.new_key()
  names = tuple(f'm{i}' for i in range(len(zoo)))
  clients = accounts.Accounts({accounts.digest(key): 0})
  logs: list[list[records.Record]] = [[], []]
  found: list[str] = []
  began = time.perf_counter()
  for enforce in (False, True):
    gate = Gate(server.front, secret, num_classes=1)
    log = logs[enforce].append
    guard = Guard(zoo, gate, enforce=enforce, log=log, backends=names)
    rules = Rules(disclose=True)
    found = asyncio.run(
      replay(Middleware(host, guard, clients, rules=rules), key, spec)
    )
  seconds = time.perf_counter() - began
  meets = np.asarray(zoo.meets(spec))
  models = np.array([names.index(each) if each else -1 for each in found])
  enforced = (meets[np.arange(len(models)), models] & (models >= 0)).mean()
  query = Query.of(np.zeros(len(models), np.int32), spec)
  others = []
  for i in range(_SECRETS):
    _, _, drawn = server.serve(server.init(jax.random.key(1 + i)), query)
    at = np.asarray(drawn.model)
    others.append((meets[np.arange(len(at)), at] & (at >= 0)).mean())
  predicted = records.goodput(logs[False]).goodput.mean
  apart = np.abs(predicted - np.array(others))
  print(
    f'{name} {value:.3g}: predicted {predicted:.4f}, enforced {enforced:.4f}; '
    f'{_SECRETS} other secrets {np.mean(others):.4f} ({min(others):.4f} to '
    f'{max(others):.4f}), {(apart < 0.01).mean():.0%} within a point; '
    f'{1e3 * seconds / len(models) / 2:.1f} ms a request'
  )


def main(argv: Sequence[str]) -> None:
  """Two defenses of one zoo."""
  del argv
  logging.getLogger('httpx').setLevel(logging.WARNING)
  zoo = profiles.load(_PROFILE.value)
  spec = goodput.uniform_workload(jax.random.key(7), zoo, _SPECS.value)
  cap = float(leakage.least_rate(zoo, 'uniform', _GOODPUT.value))
  for name, value in (('capped', cap), ('laplace', 0.05)):
    measure(zoo, name, value, spec)


if __name__ == '__main__':
  app.run(main)
