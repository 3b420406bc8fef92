"""The ingress on Ray Serve: it listens, decides, and has the models answer.

Each of its processes listens at the port itself (see `listener`), which saves the hop
of a proxy; or Ray's HAProxy does and deals requests out to them. It decides by secret
and numbers of the vault. Where the defense remembers clients, one process has the
memory and the others stand by: when it dies, the next one gets the vault's lock, reads
from the journal what was asked, and listens.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np

from psml_jax.serving import accounts, vault
from psml_jax.serving._extra import needs
from psml_jax.serving.application import Application
from psml_jax.serving.gate import Decision, Gate, Replied
from psml_jax.serving.keeper import kept
from psml_jax.serving.listener import Listener
from psml_jax.serving.plan import Plan
from psml_jax.serving.protocol import Inference
from psml_jax.serving.replica import dispatch_at_once, freeze

with needs('serve'):
  from ray.exceptions import RayActorError
  from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError

FRONT = 'front'
"""What the keeper calls router, defense and reply."""
_GONE = (RayActorError, BackPressureError, DeploymentUnavailableError)
_AGAIN_SECONDS = 0.02


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
    dispatch_at_once()
    self._vault = vault.Vault(plan.vault)
    self._gate = Gate(
      kept(plan.keeper, FRONT),
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
    freeze()
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
