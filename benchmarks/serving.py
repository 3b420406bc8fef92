"""What routing and defense cost a live server, against the same server without them.

python benchmarks/serving.py --workdir=runs/live/zoo --out=runs/live/serving.json

Side by side in one cluster, in turns: the server without gate and journal, whose
ingress hands each request to the smallest model; the same undefended, and behind
defenses, with and without memory; and bare Ray Serve, a deployment of that model behind
Ray's own proxy. All answer the same request of one image. `--haproxy` has Ray's HAProxy
listen for all.
"""

import contextlib
import dataclasses
import json
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from absl import app, flags

from psml_jax import _device
from psml_jax.serving import job, models, protocol
from psml_jax.serving.config import parse
from psml_jax.serving.gate import Decision

_WORKDIR = flags.DEFINE_string('workdir', 'runs/live/zoo', 'Of a trained zoo.')
_OUT = flags.DEFINE_string('out', 'runs/live/serving.json', 'What is written.')
_HAPROXY = flags.DEFINE_bool('haproxy', False, "Whether Ray's HAProxy listens.")
_ROUNDS = flags.DEFINE_integer('rounds', 20, 'Turns of each server.', lower_bound=1)
_SECONDS = flags.DEFINE_float('seconds', 2.0, 'Of a turn.', lower_bound=0.1)
_SERVERS = flags.DEFINE_list(
  'servers',
  ['without', 'undefended', 'capped', 'budget', 'bare'],
  'What is measured.',
)
_CONNECTIONS = flags.DEFINE_list('connections', ['1', '8'], 'Clients at once.')
SERVERS: dict[str, dict[str, Any]] = {
  'without': {},
  'undefended': {},
  'capped': {'name': 'capped', 'value': 1.0},
  'budget': {'name': 'budget', 'value': 1e6, 'fields': {'cap': 0.5, 'clients': 4}},
}
"""By name the defense; so weak that all answer, for the work is that of any other."""
_REQUEST = 'spec inside what the smallest model alone meets'


@dataclasses.dataclass(frozen=True)
class Turn:
  """One server for some seconds.

  Attributes:
    server: of `SERVERS`, or `bare`.
    connections: clients at once, each waiting for its answers.
    p50_ms: of the latencies.
    p99_ms: likewise.
    per_second: answers.
  """

  server: str
  connections: int
  p50_ms: float
  p99_ms: float
  per_second: float


def main(argv: list[str]) -> None:
  """Measures and writes it."""
  del argv
  out = pathlib.Path(_OUT.value)
  out.parent.mkdir(parents=True, exist_ok=True)
  with running(_WORKDIR.value, _HAPROXY.value) as urls:
    turns = [
      turn(name, url, headers, body, count, _SECONDS.value if i else 1.0)
      for i in range(_ROUNDS.value + 1)
      for count in map(int, _CONNECTIONS.value)
      for name, (url, headers, body) in _rotated(list(urls.items()), i)
    ]
  # The first round warms all of them up.
  turns = turns[len(urls) * len(_CONNECTIONS.value) :]
  rows = [dataclasses.asdict(each) for each in turns]
  found = {'device': _device.name(), 'haproxy': _HAPROXY.value, 'turns': rows}
  out.write_text(json.dumps(found, indent=1) + '\n')
  print(summary(turns))


def _rotated(servers: list[Any], by: int) -> list[Any]:
  """Whoever comes first in a round comes last in the next."""
  return servers[by % len(servers) :] + servers[: by % len(servers)]


@contextlib.contextmanager
def running(workdir: str, haproxy: bool) -> Iterator[dict[str, tuple[str, Any, bytes]]]:
  """By name the address of each server, its request's headers and its body."""
  from ray import serve

  served = models.read(workdir, parse({}), None)
  smallest = int(np.argmin(served.profile.latency_ms))
  image, accuracy, latency = _request(served, smallest)
  with contextlib.ExitStack() as stack:
    root = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))

    def planned(name: str, defense: dict[str, Any]) -> Any:
      # A memory is of one server, so each gets a work directory of its own.
      (root / name).mkdir()
      for path in pathlib.Path(workdir).absolute().iterdir():
        if path.name != 'serving':
          (root / name / path.name).symlink_to(path)
      fields = {'name': name, 'defense': defense, 'haproxy': haproxy}
      return job.planned(fields, workdir=str(root / name), port=0)

    proxy = planned('proxy', {})
    plans = {
      name: planned(name, defense)
      for name, defense in SERVERS.items()
      if name in _SERVERS.value
    }
    # Ray is imported by the first plan, behind HAProxy's variable of the environment.
    from psml_jax.serving import deployments
    from psml_jax.serving.ingress import Ingress

    stack.enter_context(deployments.connected(proxy=(proxy.host, proxy.port)))
    found = {}
    for name, plan in plans.items():
      ingress = _straight(smallest) if name == 'without' else Ingress
      prefix = f'/v2/models/{name}'
      stack.enter_context(deployments.serving(plan, ingress, prefix=prefix))
      key = pathlib.Path(plan.vault, job.FIRST_KEY).read_text().strip()
      body, headers = protocol.encode_request(image, accuracy, latency)
      port = proxy.port if haproxy else plan.port
      url = f'http://{plan.host}:{port}/v2/models/{name}/infer'
      found[name] = url, headers | {'authorization': f'Bearer {key}'}, body
    if 'bare' in _SERVERS.value:
      bare: Any = serve.deployment(_bare())
      quiet = {'enable_access_log': False, 'log_level': 'WARNING'}
      deployed = bare.options(logging_config=quiet).bind(plans['without'], smallest)
      serve.run(deployed, name='bare', route_prefix='/bare')
      found['bare'] = f'http://{proxy.host}:{proxy.port}/bare', {}, image.tobytes()
    yield found


def turn(
  name: str, url: str, headers: Any, body: bytes, connections: int, seconds: float
) -> Turn:
  """Asks a server for some seconds, in a process of its own."""
  script = pathlib.Path(__file__).with_name('hammer.py')
  with tempfile.NamedTemporaryFile() as file:
    file.write(body)
    file.flush()
    flags_ = [url, file.name, str(connections), str(seconds), json.dumps(headers)]
    done = subprocess.run(
      [sys.executable, str(script), *flags_], stdout=subprocess.PIPE, check=True
    )
  told = json.loads(done.stdout)
  spent = told['latency_ms']
  p50, p99 = np.quantile(spent, [0.5, 0.99]).tolist()
  print(
    f'{name}, {connections}: {len(spent) / told["seconds"]:.0f} a second, {p50:.2f} ms',
    flush=True,
  )
  return Turn(name, connections, p50, p99, len(spent) / told['seconds'])


def summary(turns: Sequence[Turn]) -> str:
  """Medians over rounds, a server a line."""
  lines = []
  for count in sorted({each.connections for each in turns}):
    for name in dict.fromkeys(each.server for each in turns):
      own = [each for each in turns if (each.server, each.connections) == (name, count)]
      p50, p99, rate = (
        float(np.median([getattr(each, field) for each in own]))
        for field in ('p50_ms', 'p99_ms', 'per_second')
      )
      took = f'{p50:6.2f} ms, {p99:6.2f} ms'
      lines.append(f'{name:12} {count:3} clients: {took}, {rate:7.1f} a second')
  return '\n'.join(lines)


def _request(served: Any, smallest: int) -> tuple[np.ndarray, float, float]:
  """An image, and a spec well inside what the smallest model alone meets."""
  profile = served.profile
  fastest, second = np.sort(np.asarray(profile.latency_ms))[:2]
  accuracy = float(profile.accuracy[smallest])
  image = np.asarray(served.experiment.images().test_x[:1], np.float32)
  return image, 0.5 * accuracy, float((fastest + second) / 2)


def _straight(model: int) -> Any:
  """An ingress that hands each request to one model, and notes nothing."""
  from psml_jax.serving import ingress

  class Host(ingress.Host):
    async def decide(self, client: int, request: Any, name: int) -> list[Decision]:
      return [Decision(0, model)]

    async def reply(self, *args: Any) -> Any:
      from psml_jax.serving.gate import Replied

      return Replied(args[3], args[4])

  class Straight(ingress.Ingress):
    host = Host

  return Straight


def _bare() -> Any:
  """A deployment of one model, as a tutorial has it."""
  from starlette.requests import Request
  from starlette.responses import Response

  from psml_jax.serving.compiled import Compiled
  from psml_jax.serving.deployments import model_of
  from psml_jax.serving.keeper import kept

  class Bare:
    def __init__(self, plan: Any, model: int) -> None:
      found = kept(plan.keeper, model_of(plan.names[model]))
      self._shape = 1, *plan.zoo.image_shape
      self._model = Compiled(found, plan.zoo.image_shape, (1,))

    async def __call__(self, request: Request) -> Response:
      images = np.frombuffer(await request.body(), '<f4').reshape(self._shape)
      return Response(self._model(images).tobytes())

  return Bare


if __name__ == '__main__':
  app.run(main)
