"""The server on Ray Serve: a deployment a model, and one of the ingress.

Ray replaces a replica that dies, of a model as of the ingress. What replicas start with
they have of the `keeper`.
"""

import contextlib
import os
import socket
import warnings
from collections.abc import Iterator
from typing import Any

from psml_jax._validate import InputError
from psml_jax.serving import models
from psml_jax.serving._extra import needs
from psml_jax.serving.ingress import FRONT, Ingress
from psml_jax.serving.keeper import NAMESPACE, keeping
from psml_jax.serving.plan import Plan
from psml_jax.serving.replica import Model

with needs('serve'):
  import ray
  from ray import serve

_STOP_SECONDS = 0.02
_REACH_SECONDS = 5.0
ALONE = {'include_dashboard': False, 'num_cpus': os.cpu_count()}
"""Of a cluster of this machine. Its ports ask for Ray's token."""


@contextlib.contextmanager
def connected(
  address: str | None = None, *, proxy: tuple[str, int] | None = None
) -> Iterator[None]:
  """Connects to a Ray cluster, or starts one of this machine and stops it again.

  Args:
    address: of a cluster that runs.
    proxy: host and port where Ray listens; nowhere unless given.

  Raises:
    InputError: Ray does not start, or is not at the address.
  """
  os.environ.setdefault('RAY_USAGE_STATS_ENABLED', '0')
  # Ray's processes execute another program at once.
  warnings.filterwarnings('ignore', r'os\.fork\(\) was called', RuntimeWarning)
  own: dict[str, Any] = {} if address else ALONE
  listens: dict[str, Any] = {'proxy_location': 'Disabled'}
  if proxy:
    options = dict(zip(('host', 'port'), proxy, strict=True))
    listens = {'proxy_location': 'HeadOnly', 'http_options': options}
  try:
    if address and '://' not in address and ':' in address:
      _reach(address)  # Ray itself tries for many minutes.
    ray.init(
      address=address or 'local',
      namespace=NAMESPACE,
      log_to_driver=False,
      configure_logging=False,
      **own,
    )
  except Exception as error:  # Ray raises nothing more exact.
    reason = 'does not start'
    if address:
      reason = f'is not at --address {address}, or wants a token (RAY_AUTH_MODE=token)'
    raise InputError(f'Ray {reason}: {error}') from error
  try:
    quiet = {'enable_access_log': False, 'log_level': 'WARNING'}
    serve.start(logging_config=quiet, **listens)
    yield
  finally:
    ray.shutdown()


@contextlib.contextmanager
def serving(
  plan: Plan, ingress: type[Ingress] = Ingress, *, prefix: str = '/'
) -> Iterator[None]:
  """Starts a server in the cluster that this process is connected to, and ends it.

  Args:
    plan: of the server.
    ingress: what listens and decides.
    prefix: of the paths that HAProxy hands to it.
  """
  experiment = models.stored(plan.directory, plan.data_dir)
  config, profile = experiment.config, experiment.profile()
  served = models.Served(experiment, profile, plan.zoo)
  held: dict[str, Any] = {
    model_of(name): models.model(served, name) for name in plan.names
  }
  held[FRONT] = models.front(plan.directory, config, profile, plan.serving)
  with keeping(plan.keeper, held):
    try:
      handle = serve.run(
        application(plan, ingress),
        name=plan.application,
        route_prefix=prefix if plan.serving.haproxy else None,
      )
      handle.ready.remote().result(timeout_s=600)
      yield
    finally:
      serve.delete(plan.application)


def application(plan: Plan, ingress: type[Ingress] = Ingress) -> Any:
  """The Ray Serve application of a server.

  Args:
    plan: of the server.
    ingress: what listens and decides.

  Returns:
    What `ray.serve.run` takes; the keeper must be there.
  """
  limits = plan.serving.limits
  quiet = {'enable_access_log': False, 'log_level': 'WARNING'}
  handles = []
  for name in plan.names:
    replicas = plan.serving.replicas(name)
    number: dict[str, Any] = {'num_replicas': replicas.replicas}
    if replicas.most_replicas > replicas.replicas:
      ends = {
        'min_replicas': replicas.replicas,
        'max_replicas': replicas.most_replicas,
      }
      number = {'autoscaling_config': ends}
    resources = {'num_cpus': replicas.num_cpus, 'num_gpus': replicas.num_gpus}
    made: Any = serve.deployment(
      Model,
      name=model_of(name),
      ray_actor_options=resources,
      # The ingress admits no more; were it full, its status would tell of the model,
      # and Ray's router would wait longer and longer before it tries again.
      max_ongoing_requests=plan.serving.ingress * limits.most_requests,
      max_queued_requests=2 * limits.most_requests,
      health_check_period_s=2,
      health_check_timeout_s=10,
      graceful_shutdown_wait_loop_s=_STOP_SECONDS,
      logging_config=quiet,
      **number,
    )
    handles.append(
      made.bind(
        plan.keeper,
        model_of(name),
        plan.zoo.image_shape,
        replicas.batch_sizes,
        replicas.batch_wait_ms,
      )
    )
  door: Any = serve.deployment(
    serve.ingress()(ingress) if plan.serving.haproxy else ingress,
    name='ingress',
    num_replicas=plan.serving.ingress,
    ray_actor_options={'num_cpus': 0},
    max_ongoing_requests=2 * limits.most_requests,
    health_check_period_s=2,
    health_check_timeout_s=10,
    graceful_shutdown_wait_loop_s=_STOP_SECONDS,
    logging_config=quiet,
  )
  return door.bind(plan, *handles)


def _reach(address: str) -> None:
  """Raises an OSError or a ValueError where nothing listens at 'host:port'."""
  host, _, port = address.rpartition(':')
  socket.create_connection((host.strip('[]'), int(port)), _REACH_SECONDS).close()


def model_of(name: str) -> str:
  """What keeper and cluster call a model."""
  return f'model-{name}'
