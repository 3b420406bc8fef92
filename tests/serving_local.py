"""A server in a thread of this process, without Ray: the same application and gate."""

import asyncio
import contextlib
import threading

import jax
import numpy as np

from psml_jax import routers, servers
from psml_jax.serving import accounts
from psml_jax.serving.application import Application
from psml_jax.serving.gate import Gate
from psml_jax.serving.listener import Listener
from psml_jax.serving.protocol import Zoo
from tests import known_zoo, references

PROFILE = references.make_profile(known_zoo.ACCURACY, known_zoo.LATENCY)
IMAGES, LABELS = known_zoo.images(0, 40)
OUTPUTS = known_zoo.answers(IMAGES)
ABOUT = Zoo('zoo', IMAGES.shape[1:], known_zoo.CLASSES, 8)
SECRET = jax.random.key(3)
KEYS = {'first': 0, 'second': 1}
ACCOUNTS = accounts.Accounts({accounts.digest(k): who for k, who in KEYS.items()})


def table(**kwargs):
  """The pure server of the known zoo."""
  router = kwargs.pop('router', None) or routers.uniform(PROFILE)
  return servers.table(router, PROFILE.latency_ms, OUTPUTS, **kwargs)


def gate(server, **kwargs):
  return Gate(server.front, SECRET, num_classes=known_zoo.CLASSES, **kwargs)


class Host:
  """Decides by a gate; `answering` may be replaced by what fails or waits."""

  ready = True

  def __init__(self, gate):
    self.gate = gate
    self.answering = None

  async def decide(self, client, request, name):
    spec = request.min_accuracy, request.max_latency_ms
    return self.gate.decide(client, *spec, len(request.images), name)

  async def answer(self, model, images):
    if self.answering is not None:
      await self.answering(model)
    return known_zoo.answers(images)[model]

  async def reply(self, decision, client, request, outputs, latency_ms):
    spec = request.min_accuracy, request.max_latency_ms
    return self.gate.reply(decision, client, *spec, outputs, latency_ms)


def application(server=None, limits=None, **kwargs):
  """The application of a pure server's front, and its host."""
  host = Host(gate(server or table(), **kwargs))
  return Application(ABOUT, host, ACCOUNTS, limits, PROFILE.names), host


@contextlib.contextmanager
def listening(app):
  """The address of an application that listens in a thread."""
  loop, started, found = asyncio.new_event_loop(), threading.Event(), []

  async def main():
    listener = Listener(app, '127.0.0.1', 0)
    await listener.start()
    (server,) = listener._server.servers
    found.append(server.sockets[0].getsockname()[1])
    started.set()
    await stopped.wait()
    await listener.stop()

  stopped = asyncio.Event()
  thread = threading.Thread(target=loop.run_until_complete, args=(main(),))
  thread.start()
  assert started.wait(60)
  try:
    yield f'http://127.0.0.1:{found[0]}/v2/models/zoo'
  finally:
    loop.call_soon_threadsafe(stopped.set)
    thread.join(60)
    loop.close()


def one(index=0):
  """An image of the known zoo, f32[1, H, W, C]."""
  return np.asarray(IMAGES[index : index + 1])
