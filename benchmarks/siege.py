"""A live server whose replicas are killed, and one that is asked for too much.

python benchmarks/siege.py --workdir=runs/live/zoo --out=runs/live/siege.json

Kills: two processes of the ingress, of which one listens and one stands by, and two of
each model, behind a defense with a budget a client; one replica, a model's and the
ingress that listens in turns, is killed every five seconds under a Poisson load. Every
attempt has a name, so the client's ledger and the server's journal are compared attempt
by attempt, and the journal's decisions are made again from its secret. Overload: three
times what the server answers, for as long; then calm probes until they are as fast as
before. Malformed: requests that no server must answer.
"""

import collections
import contextlib
import functools
import itertools
import json
import logging
import pathlib
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np
import psutil
from absl import app, flags

from psml_jax import _device
from psml_jax.core import Spec
from psml_jax.serving import arrivals, deployments, inventory, models, protocol, vault
from psml_jax.serving.application import name as digest
from psml_jax.serving.config import parse
from psml_jax.serving.gate import Gate
from psml_jax.serving.load import Offered, Seen
from psml_jax.serving.target import Target, listening

sys.path.append(str(pathlib.Path(__file__).parents[1]))
from tests import malformed

_WORKDIR = flags.DEFINE_string('workdir', 'runs/live/zoo', 'Of a trained zoo.')
_OUT = flags.DEFINE_string('out', 'runs/live/siege.json', 'What is written.')
_SECONDS = flags.DEFINE_float('seconds', 60.0, 'Of each load.', lower_bound=5.0)
_RATE = flags.DEFINE_float('rate', 40.0, 'Of the load, queries a second.')
_PARTS = flags.DEFINE_list('parts', ['kills', 'overload', 'malformed'], 'What is done.')
_EVERY_SECONDS = 5.0
_DEADLINE_SECONDS = 10.0
_MOST_REQUESTS = 64
_BUDGET = {'name': 'budget', 'value': 20.0, 'fields': {'cap': 0.3, 'clients': 4}}


def main(argv: list[str]) -> None:
  """Measures and writes it."""
  del argv
  logging.getLogger('httpx').setLevel(logging.WARNING)
  out = pathlib.Path(_OUT.value)
  out.parent.mkdir(parents=True, exist_ok=True)
  found: dict[str, Any] = {'device': _device.name()}
  if out.exists():
    found = json.loads(out.read_text())
  for part in _PARTS.value:
    found[part] = {'kills': kills, 'overload': overload, 'malformed': bad}[part]()
    out.write_text(json.dumps(found, indent=1) + '\n')
    print(json.dumps(found[part], indent=1), flush=True)


def kills() -> dict[str, Any]:
  """Replicas are killed under load."""
  fields = {'defense': _BUDGET, 'ingress': 2, 'model': {'replicas': 2}}
  with _fresh(fields) as (target, served):
    profile = served.profile
    count = int(_RATE.value * _SECONDS.value)
    due_s = arrivals.poisson(jax.random.key(0), count, _RATE.value)
    # The corners of all models, in turns.
    at = np.arange(count) % len(profile)
    accuracy, latency = np.asarray(profile.accuracy), np.asarray(profile.latency_ms)
    offered = _offered(target, due_s, Spec(accuracy[at], latency[at]))  # type: ignore[arg-type]
    with _beside(functools.partial(_kill, target)) as killed:
      seen = target.offer(offered, patience_s=3 * _DEADLINE_SECONDS, retries=20)
    # Once more with nobody killed: what was spent stays spent.
    after = target.offer(
      _offered(
        target,
        arrivals.evenly(30, 0.2),
        jax.tree.map(lambda field: field[0], offered.spec),
      )
    )
    return _accounts(target, served, seen, after) | {'killed': killed}


def _accounts(
  target: Target, zoo: models.Served, seen: Seen, after: Seen
) -> dict[str, Any]:
  """The client's ledger against the server's journal, and that against its secret."""
  journal = vault.read(target.plan.vault)
  times: dict[int, int] = {}
  for asked in journal:
    times[asked.request] = times.get(asked.request, 0) + 1
  decided = {asked.request: asked.model for asked in journal}
  final = [digest(name) for name in seen.name]
  broken = [digest(name) for name in seen.broken]
  known = {*final, *broken, *(digest(name) for name in after.name)}
  wrong = 0
  for name, status in zip(final, seen.status.tolist(), strict=True):
    model = decided.get(name)
    wrong += {
      200: model is None or model < 0,
      412: model != -1,
      504: model is None,
      429: model is not None,
      503: model is not None,
    }.get(status, False)
  front = models.front(
    target.plan.directory,
    zoo.experiment.config,
    zoo.profile,
    target.plan.serving,
  )
  secret = vault.key(vault.Vault(target.plan.vault).secret)
  numbers = _Recorded(asked.number for asked in journal)
  pure = Gate(front, secret, num_classes=zoo.zoo.num_classes, numbers=numbers)
  again = [
    pure.decide(asked.client, asked.min_accuracy, asked.max_latency_ms)[0].model
    for asked in journal
  ]
  statuses, counts = np.unique(seen.status, return_counts=True)
  served = seen.status == 200
  return {
    'queries': len(final),
    'statuses': dict(zip(map(str, statuses.tolist()), counts.tolist(), strict=True)),
    'broken_off_and_asked_again': len(broken),
    'broken_off_and_in_the_journal': sum(name in decided for name in broken),
    'later_than_the_deadline': int(
      (seen.latency_ms > 1e3 * (_DEADLINE_SECONDS + 1)).sum()
    ),
    'slowest_ms': float(np.nanmax(seen.latency_ms)),
    'p50_ms_of_answers': float(np.median(seen.latency_ms[served])),
    'p99_ms_of_answers': float(np.quantile(seen.latency_ms[served], 0.99)),
    'status_against_journal': wrong,
    'decided_twice': sum(count > 1 for count in times.values()),
    'in_the_journal_and_never_sent': sum(each not in known for each in decided),
    'journal': len(journal),
    'decisions_unlike_those_of_the_secret': sum(
      asked.model != model for asked, model in zip(journal, again, strict=True)
    ),
    'served_by_corner': {
      name: int((seen.status[i :: len(zoo.profile)] == 200).sum())
      for i, name in enumerate(zoo.profile.names)
    },
    'served_afterwards': int((after.status == 200).sum()),
  }


class _Recorded:
  """The numbers of a journal's queries, in its order."""

  def __init__(self, numbers: Iterable[int]) -> None:
    self._numbers = iter(numbers)

  def take(self, count: int) -> list[int]:
    return list(itertools.islice(self._numbers, count))


@contextlib.contextmanager
def _beside(work: Callable[[threading.Event, list[Any]], None]) -> Iterator[list[Any]]:
  """Does some work in a thread until the block ends; gives what it has found so far."""
  stopped, found = threading.Event(), list[Any]()
  thread = threading.Thread(target=work, args=(stopped, found))
  thread.start()
  try:
    yield found
  finally:
    stopped.set()
    thread.join()


def _kill(target: Target, stopped: threading.Event, killed: list[str]) -> None:
  turn = 0
  while not stopped.wait(_EVERY_SECONDS):
    names = [f'model-{name}' for name in target.plan.names]
    name = 'ingress' if turn % 2 else names[turn // 2 % len(names)]
    # Of the ingress the one that listens, and not one that stands by.
    found = _replicas(target.plan, name)
    found = [each for each in found if _listens(each, target.plan.port)] or found
    with contextlib.suppress(psutil.NoSuchProcess, IndexError):
      found[0].send_signal(signal.SIGKILL)
      killed.append(name)
    turn += 1


def overload() -> dict[str, Any]:
  """Three times what the server answers, for a while; then calm again."""
  slow = {'batch_sizes': (1,)}  # Nothing is gained by a queue.
  fields = {
    'model': slow,
    'most_rows': 1,
    'limits': {'most_requests': _MOST_REQUESTS},
  }
  with _fresh(fields) as (target, served):
    profile = served.profile
    slowest = int(np.argmax(profile.latency_ms))
    corner = Spec(profile.accuracy[slowest], np.float32(np.inf))  # type: ignore[arg-type]
    calm = _offered(target, arrivals.evenly(100, 0.05), corner)
    before = target.offer(calm)
    rate = _capacity(target, corner)
    count = int(3 * rate * _SECONDS.value)
    due_s = arrivals.poisson(jax.random.key(1), count, 3 * rate)
    with _beside(_watch) as memory:
      seen = target.offer(_offered(target, due_s, corner), patience_s=30.0)
      after = target.offer(_offered(target, arrivals.evenly(200, 0.05), corner))
    usual = float(np.quantile(before.latency_ms, 0.99))
    # Recovered when this probe and all after it are answered as they were before.
    late = np.flatnonzero((after.status != 200) | (after.latency_ms > 2 * usual))
    answered = seen.status == 200
    behind = seen.sent_ms - 1e3 * due_s
    statuses, counts = np.unique(seen.status, return_counts=True)
    return {
      'capacity_per_second': rate,
      'offered_per_second': count / float(due_s[-1]),
      'statuses': dict(zip(map(str, statuses.tolist()), counts.tolist(), strict=True)),
      'answered_per_second': float(answered.sum() / due_s[-1]),
      'client_sent_late_ms_p99': float(np.quantile(behind, 0.99)),
      'p50_ms_calm': float(np.median(before.latency_ms)),
      'p99_ms_calm': usual,
      'p50_ms_of_answers': float(np.median(inventory.clock(seen, due_s)[answered])),
      'p99_ms_of_answers': float(
        np.quantile(inventory.clock(seen, due_s)[answered], 0.99)
      ),
      'memory_mib': [memory[0], max(memory), memory[-1]],
      'recovered_after_s': float(0.05 * (late[-1] + 1)) if len(late) else 0.0,
      'calm_probes_late': len(late),
    }


def _capacity(target: Target, spec: Spec) -> float:
  """Queries a second that are answered with eight of them always under way."""
  count = 400
  offered = _offered(target, np.zeros(count), spec)
  began = time.perf_counter()
  seen = target.offer(offered, connections=8)
  assert (seen.status == 200).all()
  return count / (time.perf_counter() - began)


def _watch(stopped: threading.Event, memory: list[float]) -> None:
  """MiB of the server's processes, once a second."""
  while True:
    total = 0
    for process in psutil.Process().children(recursive=True):
      with contextlib.suppress(psutil.Error):
        if _title(process).startswith('ray::'):
          total += process.memory_info().rss
    memory.append(total / 2**20)
    if stopped.wait(1.0):
      return


def bad() -> dict[str, Any]:
  """Malformed requests, and bodies without end."""
  import httpx

  counts, unlike, traces = collections.Counter[int](), list[str](), 0
  with _fresh({}) as (target, _), _beside(_watch) as memory:
    with httpx.Client(
      headers={'authorization': f'Bearer {target.key}'}, timeout=60, trust_env=False
    ) as client:

      def post(name: str, body: Any, headers: dict[str, Any]) -> None:
        nonlocal traces
        status = 0
        # The server may have said its status and hung up on the rest of a body.
        with contextlib.suppress(httpx.WriteError, httpx.ReadError):
          reply = client.post(f'{target.plan.url}/infer', content=body, headers=headers)
          status = reply.status_code
          traces += 'Traceback' in reply.text or 'File "' in reply.text
        counts[status] += 1
        if not 400 <= status < 500:
          unlike.append(name)

      for name, (body, head) in malformed.BODIES.items():
        post(name, body, {} if head is None else {protocol.HEAD_LENGTH: head.encode()})
      for headers in ({}, {'content-length': str(2**30)}):
        chunks = itertools.repeat(bytes(2**20), 1024)
        post(f'a body of 1 GiB, {headers}', chunks, headers)
    corner = Spec(np.float32(0), np.float32(np.inf))  # type: ignore[arg-type]
    after = target.offer(_offered(target, arrivals.evenly(20, 0.05), corner))
  return {
    'requests': counts.total(),
    'statuses': {str(status): count for status, count in sorted(counts.items())},
    'not_4xx': unlike,
    'traces': traces,
    'memory_mib': [memory[0], max(memory), memory[-1]],
    'answered_afterwards': int((after.status == 200).sum()),
  }


@contextlib.contextmanager
def _fresh(fields: dict[str, Any]) -> Iterator[tuple[Target, models.Served]]:
  """A server of the work directory, with a new vault."""
  workdir = pathlib.Path(_WORKDIR.value)
  for old in (workdir / 'serving').glob('*'):
    old.unlink()
  served = models.read(workdir, parse(fields), None)
  with deployments.connected(), listening(workdir, served, fields) as target:
    yield target, served


def _offered(target: Target, due_s: np.ndarray, spec: Spec) -> Offered:
  return Offered.of(target.images, spec, due_s, timeout_s=_DEADLINE_SECONDS)


def _replicas(plan: Any, name: str) -> list[psutil.Process]:
  """The processes of a deployment."""
  title = f'ray::ServeReplica:{plan.application}:{name}'
  ours = psutil.Process().children(recursive=True)
  return [each for each in ours if _title(each).startswith(title)]


def _listens(process: psutil.Process, port: int) -> bool:
  with contextlib.suppress(psutil.Error):
    listening = [
      at.laddr.port
      for at in process.net_connections()
      if at.status == psutil.CONN_LISTEN
    ]
    return port in listening
  return False


def _title(process: psutil.Process) -> str:
  with contextlib.suppress(psutil.Error, IndexError):
    return str(process.cmdline()[0])
  return ''


if __name__ == '__main__':
  app.run(main)
