"""What launch/serve.py runs: a server from its start to its end."""

import os
import pathlib
import secrets
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any

from psml_jax import _files
from psml_jax._validate import InputError
from psml_jax.serving import accounts, models, vault
from psml_jax.serving.config import Serving, parse
from psml_jax.serving.plan import Plan

FIRST_KEY = 'first.key'


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
  plan = planned(fields, workdir=workdir, data_dir=data_dir, host=host, port=port)
  from psml_jax.serving import deployments

  proxy = (plan.host, plan.port) if plan.serving.haproxy else None
  with deployments.connected(address, proxy=proxy), deployments.serving(plan):
    print(f'Serving {len(plan.names)} models at {plan.url}', flush=True)
    (wait or _told_to_stop())()
    print('stopping', flush=True)
  total = vault.bill(vault.read(plan.vault))
  print(f'Queries: {int(total.queries)}, of which served: {int(total.served)}')


def planned(
  fields: Mapping[str, Any],
  *,
  workdir: str | None,
  data_dir: str | None = None,
  host: str = '127.0.0.1',
  port: int = 8000,
) -> Plan:
  """A server's plan, its vault and keys made where there are none.

  Args:
    fields: see `run`; so are the others.
    workdir: of the experiment that trained the zoo.
    data_dir: where image files lie.
    host: where to listen.
    port: likewise; 0 for a free one.

  Returns:
    The plan.

  Raises:
    InputError: anything that cannot be served, or an extra that is missing.
  """
  if not workdir:
    raise InputError('--workdir is missing; it must be the directory of a trained zoo')
  try:
    serving = parse(fields)
  except ValueError as error:
    raise InputError(str(error)) from error
  if serving.haproxy:  # Ray reads it when it is imported.
    os.environ['RAY_SERVE_ENABLE_HA_PROXY'] = '1'
  from psml_jax.serving import deployments  # noqa: F401  A missing extra is found now.

  port = _free(host, port)
  served = models.read(workdir, serving, data_dir)
  config, profile = served.experiment.config, served.profile
  front = models.front(workdir, config, profile, serving)
  if front.learns and serving.haproxy and serving.ingress > 1:
    raise InputError(
      f'config.ingress is {serving.ingress}; it must be 1 behind HAProxy, for one '
      'process has the memory of this defense and HAProxy asks all'
    )
  directory = served.experiment.directory.absolute()
  held = vault.Vault(directory / 'serving')
  if front.learns and not held.remember():
    raise InputError(
      f'{directory} is served already, and this defense has one memory: stop that '
      'server first'
    )
  del held  # What was asked for is the ingress's to have.
  return Plan(
    str(directory),
    data_dir,
    serving,
    served.zoo,
    profile.names,
    str(_keys(directory / 'serving', serving, front.clients)),
    host,
    port,
    f'keeper-{secrets.token_hex(8)}',
  )


def _keys(directory: pathlib.Path, serving: Serving, clients: int) -> pathlib.Path:
  """The table of keys; a new one has one client, whose key lies beside it."""
  path = directory / 'keys.csv'
  try:
    if serving.keys:
      path = _files.local('config.keys', serving.keys).absolute()
    elif not path.exists():
      key = accounts.add(path, 0)
      handle = os.open(
        directory / FIRST_KEY, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600
      )
      with os.fdopen(handle, 'w') as file:
        file.write(f'{key}\n')
      print(f"The first client's API key is in {directory / FIRST_KEY}", flush=True)
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
