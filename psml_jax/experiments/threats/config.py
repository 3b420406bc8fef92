"""What a study of threats is told: the fields of configs/threats.py, checked."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from psml_jax import _validate, attacks
from psml_jax.attacks import canvass
from psml_jax.experiments import config as experiments
from psml_jax.experiments import ladder


@dataclasses.dataclass(frozen=True)
class Membership:
  """Who was trained on.

  The whole zoo is trained `replicates` times, each time on another random half of the
  candidates: the images of the first zoo's training and as many test images. Each
  replicate is attacked with the others as shadows, every candidate asked up to
  `repeats` times.
  """

  replicates: int = 20
  repeats: tuple[int, ...] = (1, 4)
  false_positive_rates: tuple[float, ...] = (0.001, 0.01)


@dataclasses.dataclass(frozen=True)
class Transfer:
  """Inputs that fool: pixels move by `epsilon`, of [0, 1], in `steps` of ascent."""

  epsilon: float = 0.15
  steps: int = 20


@dataclasses.dataclass(frozen=True)
class Config:
  """A study of threats.

  All fields but `membership` and `transfer` are those of a ladder and mean the same;
  surrogates are trained on harvests as its are, without de-mixing. Attacks must end by
  sending one spec, as `fingerprint` does, for that spec is sent with candidates and
  adversarial images.
  """

  experiment: Mapping[str, Any]
  defenses: Mapping[str, Mapping[str, Any]]
  attacks: Mapping[str, Mapping[str, Any]]
  name: str = 'threats'
  zoos: tuple[int, ...] = (0, 1, 2)
  victims: tuple[str, ...] = ('medium', 'large')
  targets: tuple[float, ...] = (0.8,)
  workload: Mapping[str, Any] = dataclasses.field(
    default_factory=lambda: {'name': 'uniform', 'size': 4096}
  )
  seeds: int = 8
  membership: Membership = Membership()
  transfer: Transfer = Transfer()

  @property
  def ladder(self) -> ladder.Config:
    """The ladder whose zoos, defenses and harvests these are."""
    shared = {f.name for f in dataclasses.fields(self)} - {'membership', 'transfer'}
    return ladder.parse(
      {
        **{name: getattr(self, name) for name in shared},
        'surrogates': {'own': {}},
        'demixing': ('none',),
      }
    )


def parse(fields: Mapping[str, Any]) -> Config:
  """Makes a config of a mapping, and checks it.

  Args:
    fields: nested; what is not given keeps its default.

  Returns:
    The config.

  Raises:
    ValueError: a field that is unknown, missing, of another type or not allowed.
  """
  config = experiments.build(Config, fields, 'config')
  own = config.ladder.of_zoo(config.zoos[0])
  assert own.data is not None
  members, _ = own.data.zoo_sizes()
  if own.data.test_size < members:
    raise ValueError(
      f'config.experiment.data.test_size is {own.data.test_size}; it must be at least '
      f'the {members} images that a zoo is trained on, for as many are candidates too'
    )
  resources = attacks.Resources(1, **dataclasses.asdict(own.fingerprint))
  for name in config.attacks:
    try:
      registered, its = attacks.configured(config.attacks, name)
      canvass.parted(attacks.make(registered, resources, **its))
    except ValueError as error:
      raise ValueError(f'config.attacks.{name}: {error}') from None
  _check(config.membership)
  _validate.positive('config.transfer.epsilon', config.transfer.epsilon)
  _validate.positive_int('config.transfer.steps', config.transfer.steps)
  return config


def _check(given: Membership) -> None:
  path = 'config.membership'
  _validate.number(
    f'{path}.replicates',
    given.replicates,
    lambda n: n >= 8,
    'a whole number >= 8, for the others are shadows, half of them without a candidate',
  )
  for name in ('repeats', 'false_positive_rates'):
    if not getattr(given, name):
      raise ValueError(f'{path}.{name} is empty; give at least one')
  for times in given.repeats:
    _validate.positive_int(f'{path}.repeats', times)
  for rate in given.false_positive_rates:
    _validate.number(
      f'{path}.false_positive_rates', rate, lambda x: 0 < x < 1, 'in (0, 1)'
    )
