"""The server on Ray Serve: a deployment a model, an ingress, and a keeper.

Each model is one deployment, whose replicas batch what waits for them. The ingress is
one too, so that Ray replaces a replica that dies; but each of its replicas listens at
the port itself (see `listener`), which saves the hop of a proxy; or Ray's HAProxy does
and deals requests out to them. The ingress decides, by secret and numbers of the vault.
Where the defense remembers clients, one replica has the memory and the others stand by:
when it dies, the next one gets the vault's lock, reads from the journal what was asked,
and listens. The keeper, a named actor that outlives all of them, has defense and models
for them.
"""

import asyncio
import gc
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from psml_jax.serving import accounts, vault
from psml_jax.serving._extra import needs
from psml_jax.serving.application import Application
from psml_jax.serving.compiled import Compiled
from psml_jax.serving.config import Serving
from psml_jax.serving.gate import Decision, Gate, Replied
from psml_jax.serving.keeper import Keeper
from psml_jax.serving.listener import Listener
from psml_jax.serving.protocol import Inference, Zoo

with needs('serve'):
  import ray
  from ray import serve
  from ray.exceptions import RayActorError
  from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError

NAMESPACE = 'psml_jax'
FRONT = 'front'
_GONE = (RayActorError, BackPressureError, DeploymentUnavailableError)
_AGAIN_SECONDS = 0.02


class Plan(NamedTuple):
  """What every process of a server is told; it holds no secret.

  Attributes:
    directory: the experiment's work directory.
    data_dir: of the experiment.
    serving: the config.
    zoo: what clients may know.
    names: of the models, in the order of the router's.
    keys: the table of API keys.
    host: where the ingress listens.
    port: likewise.
    keeper: its name, of this server alone: a cluster may have one of another run.
  """

  directory: str
  data_dir: str | None
  serving: Serving
  zoo: Zoo
  names: tuple[str, ...]
  keys: str
  host: str
  port: int
  keeper: str

  @property
  def vault(self) -> str:
    """The folder of secret, numbers and journals."""
    return os.path.join(self.directory, 'serving')

  @property
  def url(self) -> str:
    """Of the zoo."""
    return f'http://{self.host}:{self.port}/v2/models/{self.serving.name}'

  @property
  def application(self) -> str:
    """The name of the application."""
    return f'psml_jax-{self.serving.name}'


class Model:
  """A replica of a model."""

  def __init__(self, plan: Plan, name: str) -> None:
    _dispatch_at_once()
    replicas = plan.serving.replicas(name)
    sizes = replicas.batch_sizes
    self._model = Compiled(kept(plan, model_of(name)), plan.zoo.image_shape, sizes)
    batched: Any = self._batched
    batched.set_max_batch_size(sizes[-1])
    batched.set_batch_wait_timeout_s(replicas.batch_wait_ms / 1e3)
    _freeze()

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


class Host:
  """What the application of an ingress asks, see `application.Host`.

  Attributes:
    opened: whether the ingress listens.
  """

  def __init__(self, gate: Gate, handles: Sequence[Any]) -> None:
    self._gate, self._handles = gate, handles
    self.opened = self._warm = False
    self._warming = asyncio.create_task(self._wait())

  @property
  def ready(self) -> bool:
    return self.opened and self._warm

  async def warm(self) -> None:
    """Waits for every model."""
    await asyncio.shield(self._warming)

  async def _wait(self) -> None:
    await asyncio.gather(*(handle.ready.remote() for handle in self._handles))
    self._warm = True

  async def decide(
    self, client: int, request: Inference, name: int
  ) -> Sequence[Decision]:
    spec = request.min_accuracy, request.max_latency_ms
    return self._gate.decide(client, *spec, len(request.images), name)

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
    return self._gate.reply(decision, client, *spec, outputs, latency_ms)


class Ingress:
  """A replica of the ingress: it listens, decides, and has the models answer."""

  host: type[Host] = Host

  async def __init__(self, plan: Plan, *handles: Any) -> None:  # type: ignore[misc]
    _dispatch_at_once()
    self._vault = vault.Vault(plan.vault)
    self._gate = Gate(
      kept(plan, FRONT),
      vault.key(self._vault.secret),
      num_classes=plan.zoo.num_classes,
      numbers=vault.Leased(self._vault.lease),
      journal=vault.Journal(plan.vault),
    )
    self._host = self.host(self._gate, handles)
    clients = accounts.read(plan.keys)
    limits = plan.serving.limits
    self._application = Application(plan.zoo, self._host, clients, limits, plan.names)
    self._listener = None
    if not plan.serving.haproxy:
      self._listener = Listener(self._application, plan.host, plan.port)
    self._opened = asyncio.create_task(self._open())
    if not self._gate.learns or self._vault.remember():
      await self._opened

  def __serve_build_asgi_app__(self) -> Application:
    """What Ray serves where it listens itself."""
    return self._application

  async def _open(self) -> None:
    """Listens; where the defense remembers, when no other process does."""
    if self._gate.learns:
      while not self._vault.remember():
        await asyncio.sleep(_AGAIN_SECONDS)
      await asyncio.to_thread(
        lambda: self._gate.recall(vault.read(self._vault.directory))
      )
    _freeze()
    if self._listener is not None:
      await self._listener.start()
    self._host.opened = True

  def check_health(self) -> None:
    """Raises where it does not listen and does not stand by; Ray then replaces it."""
    if self._opened.done():
      self._opened.result()
      if self._listener is not None:
        self._listener.check()

  async def ready(self) -> bool:
    """True, once every model can answer."""
    await self._host.warm()
    return True

  async def __del__(self) -> None:
    self._opened.cancel()
    if self._listener is not None:
      await self._listener.stop()


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
      graceful_shutdown_wait_loop_s=_AGAIN_SECONDS,
      logging_config=quiet,
      **number,
    )
    handles.append(made.bind(plan, name))
  door: Any = serve.deployment(
    serve.ingress()(ingress) if plan.serving.haproxy else ingress,
    name='ingress',
    num_replicas=plan.serving.ingress,
    ray_actor_options={'num_cpus': 0},
    max_ongoing_requests=2 * limits.most_requests,
    health_check_period_s=2,
    health_check_timeout_s=10,
    graceful_shutdown_wait_loop_s=_AGAIN_SECONDS,
    logging_config=quiet,
  )
  return door.bind(plan, *handles)


def start_keeper(plan: Plan, held: Mapping[str, Any]) -> Any:
  """Starts the keeper of a server.

  Args:
    plan: of the server.
    held: what `kept` finds by name: `FRONT`, and each model by `model_of`.

  Returns:
    The actor.
  """
  options = {
    'name': plan.keeper,
    'namespace': NAMESPACE,
    'lifetime': 'detached',
    'max_restarts': -1,
    'num_cpus': 0,
  }
  pickled = {name: ray.cloudpickle.dumps(value) for name, value in held.items()}
  return ray.remote(Keeper).options(**options).remote(pickled)


def kept(plan: Plan, name: str) -> Any:
  """What the keeper of a server has by a name."""
  keeper = ray.get_actor(plan.keeper, namespace=NAMESPACE)
  found: Any = ray.get(keeper.get.remote(name))
  return ray.cloudpickle.loads(found)


def model_of(name: str) -> str:
  """What the keeper calls a model."""
  return f'model-{name}'


def _dispatch_at_once() -> None:
  """Small programs run in the thread that calls them."""
  jax.config.update('jax_cpu_enable_async_dispatch', False)


def _freeze() -> None:
  """What is there at the start stays, so the garbage collector need not look at it."""
  gc.collect()
  gc.freeze()
