"""What launch/serve.py runs: a server from its start to its end."""

import os
import pathlib
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from psml_jax import _files
from psml_jax._validate import InputError
from psml_jax.serving import accounts, models, vault
from psml_jax.serving.config import Serving, parse

_FIRST_KEY = 'first.key'
_ALONE = {
  'include_dashboard': False,
  'num_cpus': os.cpu_count(),
  '_node_ip_address': '127.0.0.1',
}
"""Of a cluster of this machine, which nobody else can reach."""


def run(
  fields: Mapping[str, Any],
  *,
  workdir: str | None,
  data_dir: str | None = None,
  address: str | None = None,
  host: str = '127.0.0.1',
  port: int = 8000,
  wait: Callable[[], object] | None = None,
) -> None:
  """Serves the zoo of a work directory until it is told to stop.

  Args:
    fields: of the config, see `config.Serving`.
    workdir: of the experiment that trained the zoo.
    data_dir: where image files lie, for data sets that need them.
    address: of a Ray cluster; one of this machine is started unless given.
    host: where to listen.
    port: likewise.
    wait: returns when the server shall stop; SIGINT or SIGTERM unless given.

  Raises:
    InputError: anything that cannot be served, or an extra that is missing.
  """
  if not workdir:
    raise InputError('--workdir is missing; it must be the directory of a trained zoo')
  try:
    serving = parse(fields)
  except ValueError as error:
    raise InputError(str(error)) from error
  # Ray reads these when it is imported.
  os.environ.setdefault('RAY_USAGE_STATS_ENABLED', '0')
  from psml_jax.serving import deployments

  served = models.read(workdir, serving, data_dir)
  config, profile = served.experiment.config, served.profile
  front = models.front(workdir, config, profile, serving)
  directory = served.experiment.directory.absolute()
  vault.Vault(directory / 'serving')  # Tells of trouble with it here and now.
  plan = deployments.Plan(
    str(directory),
    data_dir,
    serving,
    served.zoo,
    profile.names,
    str(_keys(directory / 'serving', serving, front.clients)),
    front.learns,
    host,
    _free(host, port),
  )
  _serve(deployments, plan, address, wait or _told_to_stop())


def _serve(
  deployments: Any,
  plan: Any,
  address: str | None,
  wait: Callable[[], object],
) -> None:
  ray, serve = deployments.ray, deployments.serve
  # Ray's processes execute another program at once.
  warnings.filterwarnings('ignore', r'os\.fork\(\) was called', RuntimeWarning)
  own: dict[str, Any] = {} if address else _ALONE
  ray.init(
    address=address or 'local',
    namespace=deployments.NAMESPACE,
    log_to_driver=False,
    configure_logging=False,
    **own,
  )
  keeper = None
  try:
    keeper = deployments.start_keeper(plan)
    ray.get(keeper.started.remote())
    serve.start(
      proxy_location='Disabled',
      logging_config={'enable_access_log': False, 'log_level': 'WARNING'},
    )
    handle = serve.run(
      deployments.application(plan), name=plan.application, route_prefix=None
    )
    handle.ready.remote().result(timeout_s=600)
    url = f'http://{plan.host}:{plan.port}/v2/models/{plan.serving.name}'
    print(f'Serving {len(plan.names)} models at {url}', flush=True)
    wait()
    print('stopping', flush=True)
  finally:
    if address:
      serve.delete(plan.application)
    else:
      serve.shutdown()
    if keeper is not None:
      ray.kill(keeper)
    ray.shutdown()
  total = vault.bill(vault.read(plan.vault))
  print(f'Queries: {int(total.queries)}, of which served: {int(total.served)}')


def _keys(directory: pathlib.Path, serving: Serving, clients: int) -> pathlib.Path:
  """The table of keys; a new one has one client, whose key lies beside it."""
  path = directory / 'keys.csv'
  try:
    if serving.keys:
      path = _files.local('config.keys', serving.keys).absolute()
    elif not path.exists():
      key = accounts.add(path, 0)
      handle = os.open(
        directory / _FIRST_KEY, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600
      )
      with os.fdopen(handle, 'w') as file:
        file.write(f'{key}\n')
      print(f"The first client's API key is in {directory / _FIRST_KEY}", flush=True)
    largest = accounts.read(path).largest
  except (OSError, ValueError) as error:
    raise InputError(str(error)) from error
  if largest >= clients:
    raise InputError(
      f'{path} has a client {largest}; this defense tells {clients} clients apart, '
      'from 0 on (config.defense.fields.clients)'
    )
  return path


def _free(host: str, port: int) -> int:
  """The port, or a free one for 0; nothing else may listen there."""
  import socket

  family = socket.AF_INET6 if ':' in host else socket.AF_INET
  with socket.socket(family, socket.SOCK_STREAM) as opened:
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
      opened.bind((host, port))
    except (OSError, OverflowError) as error:
      raise InputError(f'--host and --port are {host}:{port}: {error}') from error
    found: int = opened.getsockname()[1]
    return found


def _told_to_stop() -> Callable[[], object]:
  """Waits for SIGINT or SIGTERM."""
  stop = threading.Event()

  def wait() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
      signal.signal(number, lambda *_: stop.set())
    while not stop.wait(0.5):
      sys.stdout.flush()

  return wait
