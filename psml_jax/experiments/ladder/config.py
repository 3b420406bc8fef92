"""What a ladder is told: the fields of configs/ladder.py, and their checks."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from psml_jax import _registry, _validate, demix, pareto, workloads
from psml_jax.experiments import config as experiments
from psml_jax.experiments import plan

_OWN = frozenset({'surrogate', 'hyper', 'recipe', 'objective'})


@dataclasses.dataclass(frozen=True)
class Config:
  """A ladder.

  `experiment` are the fields of an experiment of one zoo: `data`, `zoo`, `profiling`,
  `fingerprint` and `extraction`, whose query budgets are those of the explicit attack
  without a defense; at the largest all others run. Each seed of `zoos` makes a zoo.
  `defenses` maps names of `defenses.MECHANISMS` to fields, `attacks` is as in an
  experiment, and `surrogates` maps names of one's own to the fields of `extraction`
  that replace the experiment's: `surrogate`, `hyper` or `recipe`, `objective`. Every
  defense is calibrated to every goodput of `targets` for the clients of `workload`;
  every attack on every one of `victims` trains a surrogate on its harvest as each entry
  of `demixing` leaves it, with each of the surrogates, over `seeds`. De-mixing that
  knows the zoo is for informed attacks alone.
  """

  experiment: Mapping[str, Any]
  defenses: Mapping[str, Mapping[str, Any]]
  attacks: Mapping[str, Mapping[str, Any]]
  surrogates: Mapping[str, Mapping[str, Any]]
  name: str = 'ladder'
  demixing: tuple[str, ...] = ('none', 'latency')
  zoos: tuple[int, ...] = (0, 1, 2)
  victims: tuple[str, ...] = ('medium', 'large')
  targets: tuple[float, ...] = (0.95, 0.9, 0.8)
  workload: Mapping[str, Any] = dataclasses.field(
    default_factory=lambda: {'name': 'uniform', 'size': 4096}
  )
  seeds: int = 16

  def of_zoo(self, seed: int, surrogate: str = '') -> experiments.Config:
    """The experiment of one zoo, with the surrogate of a name or with its own."""
    extraction = {**self.experiment.get('extraction', {})}
    own = self.surrogates.get(surrogate, {})
    if own.keys() & {'hyper', 'recipe'}:
      extraction = {**extraction, 'hyper': None, 'recipe': None}
    return experiments.parse(
      {
        **self.experiment,
        'extraction': {**extraction, **own},
        'name': f'{self.name}-{seed}',
        'seed': seed,
        'seeds': self.seeds,
        'attacks': {'explicit': {}, **self.attacks},
        'defense': {'target_goodput': min(self.targets), 'mechanisms': self.defenses},
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
  for name in ('zoos', 'victims', 'targets', 'demixing', 'surrogates'):
    if not getattr(config, name):
      raise ValueError(f'config.{name} is empty; give at least one')
  for seed in config.zoos:
    _validate.seed('config.zoos', seed)
  _validate.at_least_two('config.seeds', config.seeds)
  for victim in config.victims:
    _validate.one_of('config.victims', victim, pareto.SIZES)
  for target in config.targets:
    _validate.number('config.targets', target, lambda x: 0 < x <= 1, 'in (0, 1]')
  for method in config.demixing:
    demix.METHODS.find(method, 'config.demixing')
  its = dict(config.workload)
  entry = workloads.WORKLOADS.find(its.pop('name', None), 'config.workload.name')
  _registry.check_fields('config.workload', entry, 0, its)
  if 'extraction' not in config.experiment:
    raise ValueError('config.experiment has no extraction; nothing would be stolen')
  made = config.of_zoo(config.zoos[0])
  assert made.extraction is not None
  if made.extraction.pieces > 1:
    raise ValueError(
      f'config.experiment.extraction.pieces is {made.extraction.pieces}; it must be 1, '
      'for the surrogates of a rung are trained by one call'
    )
  for name in config.attacks:
    if plan.entry(made, name).role == 'reference':
      raise ValueError(f'config.attacks has {name!r}, which always runs; leave it out')
  for name, fields in config.surrogates.items():
    unknown = set(fields) - _OWN
    if unknown:
      raise ValueError(
        f'config.surrogates.{name} has {sorted(unknown)}; it may have {sorted(_OWN)}'
      )
    try:
      config.of_zoo(config.zoos[0], name)
    except ValueError as error:
      raise ValueError(f'config.surrogates.{name}: {error}') from None
  return config
