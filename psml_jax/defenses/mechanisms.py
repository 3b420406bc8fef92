"""Mechanisms: defenses that a config names, each with the knob of its strength."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from psml_jax import _registry, _validate, routers
from psml_jax.core import Router, ZooProfile
from psml_jax.defenses.reply import ReplyTransform
from psml_jax.defenses.transform import MemoryRouter, SpecTransform, defend, identity


class Knob(NamedTuple):
  """What sets the strength of a mechanism.

  Attributes:
    name: of the value, such as 'scale' or 'epsilon'.
    unit: of the value, in words.
    off: the value that protects nothing; may be infinite.
    weakest: the value at which calibration begins.
    strongest: the value at which it ends, above `weakest` or below it.
  """

  name: str
  unit: str
  off: float
  weakest: float
  strongest: float

  def at(self, strength: jax.Array) -> jax.Array:
    """The value of a strength: 0 is off, above it geometric from weakest to strongest.

    Args:
      strength: f32[], in [0, 1].

    >>> [float(Knob('scale', '', 0.0, 0.25, 4.0).at(s)) for s in (0.0, 0.5, 1.0)]
    [0.0, 1.0, 4.0]
    """
    strength = jnp.asarray(strength, jnp.float32)
    ratio = jnp.float32(self.strongest / self.weakest)
    value = jnp.float32(self.weakest) * ratio**strength
    return jnp.where(strength > 0, value, jnp.float32(self.off))

  def allows(self, value: float) -> bool:
    """Whether a value is off, or lies before strongest and float32 can hold it."""
    low, high = sorted((self.off, self.strongest))
    held = bool(_validate.in_float32(value))
    return value == self.off or (low <= value <= high and held)


class Deployment(NamedTuple):
  """A defended server's parts; None leaves one as it is.

  Attributes:
    defense: in front of the router.
    reply: behind the model.
    router: in the place of the experiment's router; with memory or without.
  """

  defense: SpecTransform | None = None
  reply: ReplyTransform | None = None
  router: Router | MemoryRouter | None = None


@dataclasses.dataclass(frozen=True)
class Mechanism:
  """An entry of `MECHANISMS`.

  Attributes:
    knob: its strength.
    make: `(profile, value, **fields) -> Deployment`; the value, f32[], may be traced,
      and at `knob.off` the deployment changes nothing. Fields are those of the config.
    control: whether it is what the others are compared with.
    answers_all: whether it answers queries that no model meets too, so that no refusal
      tells anything, at whatever strength.
  """

  knob: Knob
  make: Callable[..., Deployment]
  control: bool = False
  answers_all: bool = False


MECHANISMS = _registry.Registry[Mechanism]('mechanism', Mechanism)
"""Mechanisms by the names that configs give them."""


def deploy(name: str, profile: ZooProfile, value: Any, **fields: Any) -> Deployment:
  """A mechanism of a strength for a zoo.

  Args:
    name: one of `MECHANISMS`.
    profile: the zoo.
    value: of the mechanism's knob, f32[]; may be traced.
    **fields: the mechanism's own.

  Returns:
    The parts of the server that it sets.

  Raises:
    ValueError: an unknown name or field.
  """
  check(name, fields)
  return MECHANISMS[name].make(profile, value, **fields)


def defended(profile: ZooProfile, name: str, value: Any, **fields: Any) -> Router:
  """The router of a zoo behind a mechanism: uniform, unless that brings its own.

  Args:
    profile: the zoo.
    name: one of `MECHANISMS`.
    value: of its knob, f32[]; may be traced.
    **fields: the mechanism's own.

  Returns:
    The router, without what the mechanism does to replies.

  Raises:
    ValueError: an unknown name or field, or a mechanism that keeps state.

  >>> from psml_jax import Spec
  >>> zoo = ZooProfile([0.7, 0.9], [1.0, 5.0], ('small', 'large'))
  >>> router = defended(zoo, 'refusal', 1.0)
  >>> router(jax.random.key(0), Spec.of([0.8], 9.0)).model.tolist()
  [-1]
  """
  parts = deploy(name, profile, value, **fields)
  whole = defend(parts.router or routers.uniform(profile), parts.defense or identity())
  return whole if parts.defense else whole.router


def check(name: str, fields: Mapping[str, Any]) -> None:
  """Raises a ValueError for an unknown mechanism, or fields that it does not take."""
  entry = MECHANISMS.find(name)
  _registry.check_fields(f'mechanism {name!r}', entry.make, 2, fields)
