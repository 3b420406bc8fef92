"""The server on Ray Serve: a deployment a model, an ingress, and a keeper.

Each model is one deployment, whose replicas batch what waits for them. The ingress is
one too, so that Ray replaces a replica that dies; but each of its replicas listens at
the port itself (see `listener`), which saves the hop of Ray's proxy and lets bodies be
bounded before they are read. Secret and numbers are the keeper's, a named actor that
outlives all of them and comes back by itself from what lies on the disk. A defense
without memory is computed in the ingress, by the secret that the keeper hands it; one
that remembers clients has a single gate, in the keeper, so that replicas of the ingress
come and go and no budget is forgotten.
"""

import asyncio
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from psml_jax.servers.base import Front
from psml_jax.serving import accounts, vault
from psml_jax.serving._extra import needs
from psml_jax.serving.application import Application
from psml_jax.serving.compiled import Compiled
from psml_jax.serving.config import Serving
from psml_jax.serving.gate import Decision, Gate, Replied
from psml_jax.serving.listener import Listener
from psml_jax.serving.protocol import Inference, Zoo

with needs('serve'):
  import ray
  from ray import serve
  from ray.exceptions import RayActorError
  from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError

NAMESPACE = 'psml_jax'
_GONE = (RayActorError, BackPressureError, DeploymentUnavailableError)
_AGAIN_SECONDS = 0.02


class Plan(NamedTuple):
  """What every process of a server is told; it holds no secret.

  Attributes:
    directory: the experiment's work directory, which the keeper reads.
    data_dir: of the experiment.
    serving: the config.
    zoo: what clients may know.
    names: of the models, in the order of the router's.
    keys: the table of API keys.
    learns: whether the defense remembers.
    host: where the ingress listens.
    port: likewise.
  """

  directory: str
  data_dir: str | None
  serving: Serving
  zoo: Zoo
  names: tuple[str, ...]
  keys: str
  learns: bool
  host: str
  port: int

  @property
  def vault(self) -> str:
    """The folder of secret, numbers and journals."""
    return os.path.join(self.directory, 'serving')

  @property
  def keeper(self) -> str:
    """The name of the keeper."""
    return f'keeper-{self.serving.name}'

  @property
  def application(self) -> str:
    """The name of the application."""
    return f'psml_jax-{self.serving.name}'


class Keeper:
  """Holds what a server must not forget, see `vault`, and reads its zoo."""

  def __init__(self, plan: Plan) -> None:
    from psml_jax.serving import models  # Nothing else needs what it imports.

    self._models = models
    self._vault = vault.Vault(plan.vault)
    self._served = models.read(plan.directory, plan.serving, plan.data_dir)
    self._front = models.front(
      plan.directory,
      self._served.experiment.config,
      self._served.profile,
      plan.serving,
    )
    self._gate = None
    if plan.learns:
      queries = vault.read(plan.vault)
      numbers = vault.Leased(self._vault.lease)
      self._gate = _gate(plan, self._front, self._vault.secret, numbers)
      self._gate.recall(queries)

  def started(self) -> tuple[Front, bytes]:
    """The front and the secret, for a gate elsewhere."""
    return self._front, self._vault.secret

  def model(self, name: str) -> Any:
    """A model of the zoo, on the host."""
    return self._models.model(self._served, name)

  def lease(self, count: int) -> int:
    """See `vault.Vault.lease`."""
    return self._vault.lease(count)

  def decide(self, *asked: Any) -> list[Decision]:
    """See `gate.Gate.decide`."""
    assert self._gate is not None
    return self._gate.decide(*asked)

  def reply(self, *answered: Any) -> Replied:
    """See `gate.Gate.reply`."""
    assert self._gate is not None
    return self._gate.reply(*answered)


class Model:
  """A replica of a model."""

  def __init__(self, plan: Plan, name: str) -> None:
    _dispatch_at_once()
    replicas = plan.serving.replicas(name)
    sizes = replicas.batch_sizes
    model = ray.get(_keeper(plan).model.remote(name))
    self._model = Compiled(model, plan.zoo.image_shape, sizes)
    batched: Any = self._batched
    batched.set_max_batch_size(sizes[-1])
    batched.set_batch_wait_timeout_s(replicas.batch_wait_ms / 1e3)

  async def __call__(self, images: np.ndarray) -> np.ndarray:
    answers: np.ndarray = await self._batched(images)
    return answers

  async def ready(self) -> bool:
    """True, once it is there."""
    return True

  @serve.batch(batch_size_fn=lambda requests: sum(map(len, requests)))
  async def _batched(self, requests: list[np.ndarray]) -> list[np.ndarray]:
    answers = self._model(np.concatenate(requests) if requests[1:] else requests[0])
    return np.split(answers, np.cumsum([len(images) for images in requests])[:-1])


class Ingress:
  """A replica of the ingress: it listens, decides, and has the models answer."""

  async def __init__(self, plan: Plan, *handles: Any) -> None:  # type: ignore[misc]
    _dispatch_at_once()
    keeper, gate = _keeper(plan), None
    if not plan.learns:
      front, secret = await keeper.started.remote()
      numbers = vault.Leased(lambda count: ray.get(keeper.lease.remote(count)))
      gate = _gate(plan, front, secret, numbers)
    self._host = _Host(gate, keeper, handles)
    clients = accounts.read(plan.keys)
    limits = plan.serving.limits
    application = Application(plan.zoo, self._host, clients, limits, plan.names)
    self._listener = Listener(application, plan.host, plan.port)
    await self._listener.start()
    self._warming = asyncio.create_task(self._host.warm())

  def check_health(self) -> None:
    """Raises where it does not listen; Ray then replaces it."""
    self._listener.check()

  async def ready(self) -> bool:
    """Whether every model can answer."""
    await asyncio.shield(self._warming)
    return self._host.ready

  async def __del__(self) -> None:
    await self._listener.stop()


class _Host:
  """See `application.Host`: by one's own gate, or the keeper's."""

  def __init__(self, gate: Gate | None, keeper: Any, handles: Sequence[Any]) -> None:
    self._gate, self._keeper, self._handles = gate, keeper, handles
    self.ready = False

  async def warm(self) -> None:
    """Waits for every model."""
    await asyncio.gather(*(handle.ready.remote() for handle in self._handles))
    self.ready = True

  async def decide(
    self, client: int, request: Inference, name: int
  ) -> Sequence[Decision]:
    asked = (
      client,
      request.min_accuracy,
      request.max_latency_ms,
      len(request.images),
      name,
    )
    if self._gate is not None:
      return self._gate.decide(*asked)
    decisions: list[Decision] = await self._keeper.decide.remote(*asked)
    return decisions

  async def answer(self, model: int, images: np.ndarray) -> np.ndarray:
    # A model answers again what it answered before, so a lost question is asked anew.
    while True:
      try:
        answers: np.ndarray = await self._handles[model].remote(images)
        return answers
      except _GONE:
        await asyncio.sleep(_AGAIN_SECONDS)

  async def reply(
    self,
    decision: Decision,
    client: int,
    request: Inference,
    outputs: np.ndarray,
    latency_ms: float,
  ) -> Replied:
    spec = request.min_accuracy, request.max_latency_ms
    answered = (decision, client, *spec, outputs, latency_ms)
    if self._gate is not None:
      return self._gate.reply(*answered)
    replied: Replied = await self._keeper.reply.remote(*answered)
    return replied


def application(plan: Plan) -> Any:
  """The Ray Serve application of a server.

  Args:
    plan: of the server.

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
      name=f'model-{name}',
      ray_actor_options=resources,
      max_ongoing_requests=2 * replicas.batch_sizes[-1],
      # The ingress admits no more; were it full, its status would tell of the model.
      max_queued_requests=2 * limits.most_requests,
      health_check_period_s=2,
      health_check_timeout_s=10,
      logging_config=quiet,
      **number,
    )
    handles.append(made.bind(plan, name))
  ingress: Any = serve.deployment(
    Ingress,
    name='ingress',
    num_replicas=plan.serving.ingress,
    ray_actor_options={'num_cpus': 0},
    max_ongoing_requests=8,
    health_check_period_s=2,
    health_check_timeout_s=10,
    logging_config=quiet,
  )
  return ingress.bind(plan, *handles)


def start_keeper(plan: Plan) -> Any:
  """Starts the keeper of a server, or finds it where it runs already."""
  options = {
    'name': plan.keeper,
    'namespace': NAMESPACE,
    'lifetime': 'detached',
    'get_if_exists': True,
    'max_restarts': -1,
    'num_cpus': 0,
  }
  return ray.remote(Keeper).options(**options).remote(plan)


def _keeper(plan: Plan) -> Any:
  return ray.get_actor(plan.keeper, namespace=NAMESPACE)


def _gate(plan: Plan, front: Front, secret: bytes, numbers: vault.Leased) -> Gate:
  return Gate(
    front,
    vault.key(secret),
    num_classes=plan.zoo.num_classes,
    numbers=numbers,
    journal=vault.Journal(plan.vault),
  )


def _dispatch_at_once() -> None:
  """Small programs run in the thread that calls them."""
  jax.config.update('jax_cpu_enable_async_dispatch', False)
