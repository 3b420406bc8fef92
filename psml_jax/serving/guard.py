"""A gate with the names of its zoo and a log, for hosts in front of others' models.

It enforces, or it is a shadow, which decides as it would and changes nothing. Either
logs each query, so that the goodput of a defense is known before it is turned on, see
`records`.
"""

import time
from collections.abc import Callable, Sequence

import numpy as np

from psml_jax.core import ZooProfile
from psml_jax.serving.gate import Decision, Gate
from psml_jax.serving.records import Record


class Guard:
  """Decides about queries by a gate, names the model, and keeps the log.

  Args:
    profile: of the zoo, in the order of the gate's router.
    gate: decides.
    enforce: whether the host carries decisions out; a shadow does not.
    log: takes every record.
    backends: the models' names where they are served; those of the profile unless
      given.

  Raises:
    ValueError: another number of backends than models, or one name twice.

  >>> import jax
  >>> from psml_jax import routers, servers
  >>> zoo = ZooProfile([0.7, 0.9], [1.0, 5.0], ('small', 'large'))
  >>> front = servers.table(routers.uniform(zoo), zoo.latency_ms, np.ones((2, 1, 1)))
  >>> lines = []
  >>> gate = Gate(front.front, jax.random.key(0), num_classes=1)
  >>> guard = Guard(zoo, gate, log=lines.append)
  >>> guard.decide(0, 0.8, 9.0), guard.decide(0, 0.95, 9.0)
  ('large', None)
  >>> lines[0].met, lines[1].feasible
  (True, False)
  """

  def __init__(
    self,
    profile: ZooProfile,
    gate: Gate,
    *,
    enforce: bool = True,
    log: Callable[[Record], None] | None = None,
    backends: Sequence[str] = (),
  ) -> None:
    self.backends = tuple(backends) or profile.names
    if len(self.backends) != len(profile.names) or len({*self.backends}) != len(
      self.backends
    ):
      raise ValueError(
        f'backends are {self.backends}; they must be {len(profile.names)} names, one '
        'of each model'
      )
    self.enforce = enforce
    self.clients = gate.clients
    self._names, self._gate, self._log = profile.names, gate, log
    self._accuracy = np.asarray(profile.accuracy, np.float32)
    self._latency = np.asarray(profile.latency_ms, np.float32)

  @property
  def slowest_ms(self) -> float:
    """The latency of the slowest model: what a spec without a limit may wait for."""
    return float(self._latency.max())

  @property
  def changes_replies(self) -> bool:
    """Whether the defense changes answers, which a host cannot do to text."""
    return self._gate.changes_replies

  def decide(
    self, client: int, min_accuracy: float, max_latency_ms: float
  ) -> str | None:
    """Decides about a query; see `gate.Gate.decide`.

    Returns:
      The backend that answers, or would; None for a refusal.
    """
    spec = min_accuracy, max_latency_ms
    (decision,) = self._gate.decide(client, *spec)
    if self._log:
      self._log(self._record(client, *spec, decision))
    return None if decision.model < 0 else self.backends[decision.model]

  def reject(self, status: int, client: int | None = None) -> None:
    """Logs a request that is no query."""
    if self._log:
      self._log(Record(time.time(), client, status=status, enforced=self.enforce))

  def _record(
    self, client: int, accuracy: float, latency: float, decision: Decision
  ) -> Record:
    with np.errstate(over='ignore'):
      meets = (self._accuracy >= np.float32(accuracy)) & (
        self._latency <= np.float32(latency)
      )
    served = decision.model >= 0
    return Record(
      time.time(),
      client,
      accuracy if np.isfinite(accuracy) else None,
      latency if np.isfinite(latency) else None,
      decision.number,
      self._names[decision.model] if served else None,
      bool(meets.any()),
      served and bool(meets[decision.model]),
      self.enforce,
    )
