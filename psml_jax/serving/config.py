"""What a server is told: the fields of its config file, and their checks."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from psml_jax import _registry, _validate, defenses
from psml_jax.defenses import mechanisms
from psml_jax.experiments.config import build
from psml_jax.serving.application import Limits


@dataclasses.dataclass(frozen=True)
class Replicas:
  """How a model is run.

  Attributes:
    replicas: processes at least.
    most_replicas: processes at most, by load; 0 for no more than `replicas`.
    num_cpus: of each, that the cluster sets aside; 0 for none.
    num_gpus: likewise.
    batch_sizes: what it is compiled for, ascending; requests are filled up to one.
    batch_wait_ms: what a request waits for others; 0 takes those that wait already.
  """

  replicas: int = 1
  most_replicas: int = 0
  num_cpus: float = 0.0
  num_gpus: float = 0.0
  batch_sizes: tuple[int, ...] = (1, 8, 32)
  batch_wait_ms: float = 0.0


@dataclasses.dataclass(frozen=True)
class Defense:
  """What protects the zoo.

  Attributes:
    name: one of `defenses.MECHANISMS`; none where it is empty.
    value: of its knob; below 0, the one that keeps the target goodput by the defense
      stage of the work directory.
    fields: the mechanism's own.
  """

  name: str = ''
  value: float = -1.0
  fields: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Serving:
  """A server.

  Attributes:
    name: of the zoo, in the paths.
    defense: what protects it.
    reply: of `defenses.REPLIES`, by name their fields; applied to answers behind the
      defense's own, in the order of their names.
    model: how each model is run.
    models: by name, fields of `model` that differ.
    ingress: how many processes listen; they share the port. Where the defense remembers
      clients, one listens and the others stand by, and behind HAProxy it is one.
    haproxy: whether Ray's HAProxy listens in their place, and hands requests to them.
    most_rows: images in a request, at most.
    limits: what a client can ask.
    keys: the table of API keys; in the work directory unless given.
  """

  name: str = 'zoo'
  defense: Defense = Defense()
  reply: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
  model: Replicas = Replicas()
  models: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
  ingress: int = 1
  haproxy: bool = False
  most_rows: int = 32
  limits: Limits = dataclasses.field(default_factory=Limits)
  keys: str = ''

  def replicas(self, model: str) -> Replicas:
    """How one model is run."""
    own = self.models.get(model, {})
    fields = {**dataclasses.asdict(self.model), **own}
    return build(Replicas, fields, f'config.models.{model}')

  def replies(self) -> list[defenses.ReplyTransform]:
    """What is applied to answers, first to last.

    Raises:
      ValueError: an unknown one, or fields that it does not take.
    """
    made = []
    for name, fields in sorted(self.reply.items()):
      make = defenses.REPLIES.find(name, 'config.reply')
      _registry.check_fields(f'config.reply.{name}', make, 0, fields)
      try:
        made.append(make(**fields))
      except ValueError as error:
        raise ValueError(f'config.reply.{name}: {error}') from None
    return made


def parse(fields: Mapping[str, Any]) -> Serving:
  """Makes a checked `Serving` of a config file's nested mapping.

  Args:
    fields: any nested mapping.

  Returns:
    The config.

  Raises:
    ValueError: an unknown field, or a value that is not allowed; the message names the
      field, the value and what is allowed.

  >>> parse({'defense': {'name': 'capped', 'value': 0.3}}).defense.value
  0.3
  """
  serving = build(Serving, fields, 'config')
  if not re.fullmatch(r'[A-Za-z0-9][\w.-]*', serving.name):
    raise ValueError(
      f'config.name is {serving.name!r}; it must be letters, digits, "_", "." and "-"'
    )
  _validate.positive_int('config.ingress', serving.ingress)
  _validate.positive_int('config.most_rows', serving.most_rows)
  if serving.defense.name:
    check_defense(serving.defense)
  serving.replies()
  _check_limits(serving.limits)
  for path, replicas in (
    ('config.model', serving.model),
    *((f'config.models.{name}', serving.replicas(name)) for name in serving.models),
  ):
    _check_replicas(path, replicas, serving.most_rows)
  return serving


def check_defense(defense: Defense) -> None:
  """Raises a ValueError for a defense whose name, value or fields are not allowed."""
  path = 'config.defense'
  knob = defenses.MECHANISMS.find(defense.name, f'{path}.name').knob
  ends = f'between {knob.off:g} and {knob.strongest:g} that float32 can hold'
  if defense.value >= 0 or knob.off < 0:
    _validate.number(
      f'{path}.value', defense.value, knob.allows, f'a {knob.name} {ends}'
    )
  try:
    mechanisms.check(defense.name, defense.fields)
  except ValueError as error:
    raise ValueError(f'{path}.fields: {error}') from None


def _check_limits(limits: Limits) -> None:
  _validate.positive_int('config.limits.most_requests', limits.most_requests)
  _validate.positive('config.limits.body_seconds', limits.body_seconds)
  _validate.positive('config.limits.deadline_seconds', limits.deadline_seconds)
  _validate.non_negative_number('config.limits.hold_ms', limits.hold_ms)


def _check_replicas(path: str, replicas: Replicas, most_rows: int) -> None:
  _validate.positive_int(f'{path}.replicas', replicas.replicas)
  _validate.non_negative_int(f'{path}.most_replicas', replicas.most_replicas)
  for name in ('num_cpus', 'num_gpus', 'batch_wait_ms'):
    _validate.non_negative_number(f'{path}.{name}', getattr(replicas, name))
  sizes = replicas.batch_sizes
  for size in sizes:
    _validate.positive_int(f'{path}.batch_sizes', size)
  if not sizes or list(sizes) != sorted(set(sizes)) or sizes[-1] < most_rows:
    raise ValueError(
      f'{path}.batch_sizes is {sizes}; it must ascend, to config.most_rows, '
      f'{most_rows}, at least'
    )
