"""The real server on Ray Serve, started and stopped by the launch script."""

import contextlib
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import httpx
import jax
import jax.numpy as jnp
import numpy as np
import psutil
import pytest
import tritonclient.http as triton

from psml_jax import attacks, experiments, servers, session
from psml_jax._validate import InputError
from psml_jax.attacks import fingerprint
from psml_jax.core import Knowledge, Query, Spec
from psml_jax.experiments import deployment, raid
from psml_jax.experiments.experiment import Experiment, latency_budget
from psml_jax.serving import accounts, deployments, job, protocol, vault
from tests import malformed, serving_zoo

ROOT = pathlib.Path(__file__).parents[1]
KEY = jax.random.key(5)
ENVIRONMENT = os.environ | {'PYTHONPATH': str(ROOT)}
"""Of the processes; Ray changes that of one that has started it."""
SECONDS = int(os.environ.get('PSML_JAX_SERVE_SECONDS', '60'))
"""How long a start, or what replaces a killed replica, may take."""
pytestmark = [pytest.mark.serve, pytest.mark.slow]


class Server:
  """A server that runs, and what it has printed so far."""

  def __init__(self, zoo, folder, *flags, cluster=None):
    self.log, self.cluster = folder / 'log', cluster
    folder.mkdir()
    environment = ENVIRONMENT
    if cluster:
      flags = *flags, f'--address={cluster.address}'
      environment = ENVIRONMENT | {'RAY_AUTH_MODE': 'token'}
    self.vault = zoo / 'serving'
    self.vault.mkdir(mode=0o700, exist_ok=True)
    table = self.vault / 'keys.csv'
    self.keys = [accounts.add(table, client) for client in (0, 1)]
    # Ray's sockets have paths of at most 107 characters.
    self.ray = pathlib.Path(os.environ.get('RAY_TMPDIR', '/tmp'))
    with self.log.open('w') as log:
      self.process = subprocess.Popen(
        [
          sys.executable,
          'launch/serve.py',
          f'--workdir={zoo}',
          '--port=0',
          '--config.model.batch_sizes=1,8',
          '--config.most_rows=8',
          *flags,
        ],
        cwd=ROOT,
        env=environment,
        stdout=log,
        stderr=subprocess.STDOUT,
      )
    self.url = self.wait_for(r'Serving 3 models at (\S+)')

  def wait_for(self, pattern):
    end = time.monotonic() + SECONDS
    while time.monotonic() < end and self.process.poll() is None:
      if found := re.search(pattern, self.log.read_text()):
        return found[1]
      time.sleep(0.1)
    raise AssertionError(self.log.read_text())

  def client(self, client=0, **kwargs):
    return servers.http(self.url, self.keys[client], **kwargs)

  def post(self, body, headers=None):
    own = {'authorization': f'Bearer {self.keys[0]}'}
    return httpx.post(f'{self.url}/infer', content=body, headers=own | (headers or {}))

  def kill_ingress(self):
    """Kills the one that listens, and waits until the server answers again."""
    port, name = int(self.url.split('/')[2].split(':')[1]), self.url.split('/')[-1]
    ours = psutil.Process(self.cluster.process.pid).children(recursive=True)
    title = f'ray::ServeReplica:psml_jax-{name}:ingress'
    (found,) = [
      each
      for each in ours
      if each.cmdline()[:1] == [title]
      and any(
        at.laddr.port == port and at.status == psutil.CONN_LISTEN
        for at in each.net_connections()
      )
    ]
    found.kill()
    ready = self.url.replace(f'/models/{name}', '/health/ready')
    end, times = time.monotonic() + SECONDS, 0
    while times < 3:
      assert time.monotonic() < end
      with contextlib.suppress(httpx.TransportError):
        times += httpx.get(ready).status_code == 200
      time.sleep(0.2)

  def stop(self):
    self.process.send_signal(signal.SIGTERM)
    self.process.wait(SECONDS)

  def end(self):
    """At once, and nobody is heard."""
    for child in psutil.Process(self.process.pid).children(recursive=True):
      child.kill()
    self.process.kill()
    self.process.wait(SECONDS)


class Cluster:
  """A Ray cluster of this machine, for servers that are told its address."""

  code = """
import ray
from psml_jax.serving.deployments import ALONE
print(ray.init('local', log_to_driver=False, **ALONE).address_info['address'])
input()
"""

  def __init__(self):
    self.process = subprocess.Popen(
      [sys.executable, '-uc', self.code],
      env=ENVIRONMENT,
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      text=True,
    )
    self.address = self.process.stdout.readline().strip()

  def stop(self):
    self.process.communicate('\n', timeout=SECONDS)


@contextlib.contextmanager
def running(zoo, folder, *flags, cluster=None):
  server = Server(zoo, folder, *flags, cluster=cluster)
  try:
    yield server
  finally:
    with contextlib.suppress(subprocess.TimeoutExpired):
      server.stop()
    if server.process.poll() is None:
      server.end()


@pytest.fixture(scope='module')
def zoo(once):
  """A work directory with three trained models."""
  return once('served', serving_zoo.make) / 'zoo'


@pytest.fixture(scope='module')
def cluster():
  """A Ray cluster that has no server."""
  started = Cluster()
  yield started
  started.stop()


@pytest.fixture(scope='module')
def server(zoo, cluster, tmp_path_factory):
  """An undefended server."""
  folder = tmp_path_factory.mktemp('serve') / 'plain'
  with running(zoo, folder, cluster=cluster) as started:
    yield started


def experiment(zoo):
  stored = zoo.parent / 'profile.csv'
  config = experiments.parse(serving_zoo.fields(str(stored)))
  return Experiment(config, zoo)


def test_a_public_client_works_unchanged(server, zoo):
  images = experiment(zoo).images().test_x[:3]
  client = triton.InferenceServerClient(server.url.split('/')[2])
  assert client.is_server_live()
  assert client.is_server_ready()
  names = experiment(zoo).profile().names
  predicted = np.load(zoo / 'predictions.npz')['test'][names.index('large'), :3]
  for binary in (True, False):
    tensor = triton.InferInput('images', list(images.shape), 'FP32')
    tensor.set_data_from_numpy(images, binary_data=binary)
    found = client.infer(
      'zoo',
      [tensor],
      outputs=[triton.InferRequestedOutput('probabilities', binary_data=binary)],
      parameters={'min_accuracy': 0.9},
      headers={'authorization': f'Bearer {server.keys[0]}'},
    )
    np.testing.assert_allclose(found.as_numpy('probabilities'), predicted, atol=1e-5)
  client.close()


def test_fingerprints_find_the_corners_of_the_pure_run(server, zoo):
  profile, images = experiment(zoo).profile(), experiment(zoo).images()
  config = experiment(zoo).config
  pure = deployment.serve(config, profile, 'none', 0.0)
  attack = fingerprint.bisection(**serving_zoo.RESOLUTION)
  client = server.client()
  for victim in range(len(profile)):
    budget = jnp.float32(latency_budget(profile, victim))
    found = session.run(
      KEY, attack, pure, pure.init(KEY), Knowledge(budget), budget=100
    )
    knowledge = Knowledge(budget, pool_size=1, num_classes=10)
    (harvest,), (bill,) = raid.raid(
      KEY, attack, client, knowledge, images.pool_x[:1], budget=100
    )
    assert bill.queries == found.bill.queries
    assert harvest.spec.min_accuracy == found.harvest.spec.min_accuracy
    assert harvest.spec.max_latency_ms == found.harvest.spec.max_latency_ms
  assert client.ledger.in_doubt == 0
  client.close()


def test_the_code_of_the_docs_runs(server, tmp_path, capsys):
  text = (ROOT / 'docs' / 'serving.md').read_text('utf-8')
  (code,) = re.findall(r'```py\n(.*?)```', text, re.DOTALL)
  key = tmp_path / 'key'
  key.write_text(server.keys[0])
  code = code.replace('http://127.0.0.1:8000/v2/models/zoo', server.url)
  code = code.replace('runs/demo/serving/first.key', str(key))
  code = code.replace('Knowledge(0.1)', 'Knowledge(3.0)')  # Of this zoo.
  names = {}
  exec(compile(code, 'serving.md', 'exec'), names)
  names['client'].close()
  assert 'in_doubt=0' in capsys.readouterr().out
  assert names['found'].harvest.spec.max_latency_ms == pytest.approx(2.0, abs=0.03)


def test_malformed_requests_leave_it_healthy(server):
  for name, (body, head) in malformed.BODIES.items():
    about = {} if head is None else {protocol.HEAD_LENGTH: head.encode()}
    reply = server.post(body, about)
    # The shapes of that table are of another zoo, whose bodies may be too long here.
    assert reply.status_code in (400, 413), name
    assert set(reply.json()) == {'error'}, name
    assert 'Traceback' not in reply.text
  image = np.zeros((1, 8, 8, 1), np.float32)
  body, headers = protocol.encode_request(image, 0.0, np.inf)
  assert server.post(body, headers).status_code == 200


def test_a_raid_by_the_launch_script(server, tmp_path):
  key = tmp_path / 'key'
  key.write_text(server.keys[1])
  before = vault.bill(vault.read(server.vault), 1)
  done = subprocess.run(
    [
      sys.executable,
      'launch/attack.py',
      f'--target={server.url}',
      f'--key_file={key}',
      '--attack=fingerprint_k_center',  # It needs its images and trains on the way.
      '--latency_budget_ms=3',
      '--queries=60',
      '--config.fingerprint.accuracy_resolution=2e-3',
      '--config.fingerprint.latency_resolution=1e-2',
      '--config.extraction.hyper.steps=100',
      f'--workdir={tmp_path}/raid',
    ],
    cwd=ROOT,
    env=ENVIRONMENT,
    capture_output=True,
    text=True,
    timeout=SECONDS,
    check=True,
  )
  found = json.loads(done.stdout)
  assert found == json.loads((tmp_path / 'raid' / 'attack.json').read_text())
  assert found['max_latency_ms'] == pytest.approx(2.0, abs=0.03)
  assert (found['queries_billed'], found['probes']) == (60, 16)
  after = vault.bill(vault.read(server.vault), 1)
  assert int(after.queries - before.queries) == found['queries_billed']
  assert int(after.served - before.served) == found['served']


def test_budgets_survive_a_killed_ingress_and_no_secret_is_told(zoo, cluster, tmp_path):
  profile = experiment(zoo).profile()
  flags = (
    '--config.defense.name=budget',
    '--config.defense.value=3',
    '--config.defense.fields={"cap": 0.0, "clients": 4}',
    '--config.ingress=2',
    '--config.name=budget',
  )
  with running(zoo, tmp_path / 'budget', *flags, cluster=cluster) as server:
    victim = profile.index('medium')
    corner = Spec.of(profile.accuracy[victim], profile.latency_ms[victim])
    image = np.zeros((1, 8, 8, 1), np.float32)
    client, before = server.client(1), vault.bill(vault.read(server.vault), 1)
    ask = lambda: bool(client(Query.of(image, corner)).served[0])  # noqa: E731
    # The journal of the undefended server counts too: nothing of a client is forgotten.
    while ask():
      assert client.ledger.served <= 3
    server.kill_ingress()
    assert not any(ask() for _ in range(3))
    after = vault.bill(vault.read(server.vault), 1)
    billed, doubt = client.ledger.billed, client.ledger.in_doubt
    assert billed - doubt <= int(after.queries - before.queries) <= billed
    client.close()
    server.stop()
    secret = (server.vault / 'secret').read_text()
    told = [server.log]
    sessions = server.ray / 'ray' / 'session_latest'
    told += [path for path in sessions.rglob('*') if path.is_file()]
    words = np.frombuffer(bytes.fromhex(secret), '<u4')
    secrets = [secret, *map(str, words.tolist()), *server.keys]
    for path in told:
      text = path.read_bytes()
      assert not any(each.encode() in text for each in secrets), path


def test_a_memory_is_of_one_process(zoo):
  budget = {'name': 'budget', 'value': 3.0, 'fields': {'clients': 4}}
  two = {'defense': budget, 'haproxy': True, 'ingress': 2}
  with pytest.raises(InputError, match='config.ingress is 2; it must be 1 behind HAP'):
    job.planned(two, workdir=str(zoo))
  held = vault.Vault(zoo / 'serving')
  assert held.remember()
  with pytest.raises(InputError, match='is served already'):
    job.planned({'defense': budget}, workdir=str(zoo))


@pytest.mark.parametrize('address', ['127.0.0.1:1', '127.0.0.1:x', 'no.such.host:6379'])
def test_a_cluster_that_is_not_there(address):
  with pytest.raises(InputError, match=f'Ray is not at --address {address}'):
    deployments.connected(address).__enter__()


def test_a_missing_extra_is_one_line(zoo):
  code = """
import sys
sys.modules['ray'] = None
from psml_jax._validate import InputError
from psml_jax.serving import job
try:
  job.planned({}, workdir=sys.argv[1])
except InputError as error:
  print(error)
"""
  said = subprocess.run(
    [sys.executable, '-c', code, str(zoo)],
    env=ENVIRONMENT,
    capture_output=True,
    text=True,
    check=True,
  ).stdout
  assert said.startswith("ray is missing; install the extra 'serve'")


def test_behind_haproxy_it_is_the_same_server(zoo, tmp_path):
  profile = experiment(zoo).profile()
  with running(zoo, tmp_path / 'haproxy', '--config.haproxy=True') as server:
    replies = []
    for spec in [*zip(profile.accuracy.tolist(), profile.latency_ms.tolist()), (1, 0)]:
      body, headers = protocol.encode_request(np.zeros((1, 8, 8, 1), np.float32), *spec)
      replies.append(server.post(body, headers))
    assert [reply.status_code for reply in replies] == [200, 200, 200, 412]
    assert len({frozenset(reply.headers) for reply in replies[:3]}) == 1
    assert len({len(reply.content) for reply in replies[:3]}) == 1
    journal = vault.read(server.vault)[-4:]
    assert [asked.model for asked in journal] == [0, 1, 2, -1]
    server.end()  # HAProxy would wait half a minute for its clients.


def test_attacks_need_nothing_of_the_operator():
  """What a raid imports holds no server code but the wire."""
  code = 'import sys; from psml_jax import servers; print(*sys.modules)'
  loaded = subprocess.run(
    [sys.executable, '-c', code],
    env=ENVIRONMENT,
    capture_output=True,
    text=True,
    check=True,
  ).stdout.split()
  assert not {'ray', 'httpx', 'uvicorn', 'psml_jax.serving.gate'} & set(loaded)
  assert attacks.ATTACKS
