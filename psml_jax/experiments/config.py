"""What an experiment is told: the fields of a config file, and their checks."""

import dataclasses
import re
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from psml_jax import (
  _registry,
  _validate,
  attacks,
  data,
  defenses,
  pareto,
  profiles,
  routers,
  train,
  workloads,
  zoo,
)
from psml_jax.attacks import fingerprint
from psml_jax.defenses import mechanisms

T = TypeVar('T')

PAPER = ('explicit', 'fingerprint', 'informed', 'naive')
"""The attacks of an experiment that lists none."""

_FINEST = 2.0**-23


_LARGEST = {
  'seeds': 10**5,
  'published.synthetic_models': 10**6,
  'defense.workload_size': 10**8,
}
"""Whole numbers above which no machine can hold the arrays."""
_MOST_STEPS, _LARGEST_BATCH, _MOST_DRAWS = 10**8, 10**6, 2**31 - 1


@dataclasses.dataclass(frozen=True)
class Data:
  """Which images, and how many in each of the disjoint splits.

  The zoo's accuracy is profiled on `profile_size` images of their own; where it is 0,
  on a quarter of `zoo_size`, which the zoo then does not train on. `fields` are those
  that `data.load` takes for this data set beside the sizes.
  """

  name: str
  zoo_size: int
  pool_size: int
  test_size: int
  profile_size: int = 0
  fields: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  def zoo_sizes(self) -> tuple[int, int]:
    """How many images the zoo is trained on, and how many it is profiled on."""
    if self.profile_size:
      return self.zoo_size, self.profile_size
    profile_size = max(1, self.zoo_size // 4)
    return self.zoo_size - profile_size, profile_size


@dataclasses.dataclass(frozen=True)
class Zoo:
  """Models to train, and how: by `hyper` (`Steps`) or by `recipe` (`Epochs`).

  `models` maps names to the fields of `zoo.create`. Beside them a model may have
  `copies`, how many of it to train as one population (their names end in -0, -1, ...),
  and with a recipe `recipe`, fields that replace the shared ones. `objective` is the
  `name` of one of `train.OBJECTIVES` and its fields. `stored` names the work directory
  of an experiment with the same seed, data, zoo and profiling, whose models, profile
  and answers are taken instead of training them again.
  """

  models: Mapping[str, Mapping[str, Any]]
  hyper: train.Steps | None = None
  recipe: train.Epochs | None = None
  objective: Mapping[str, Any] = dataclasses.field(
    default_factory=lambda: {'name': 'cross_entropy'}
  )
  stored: str = ''

  def module_fields(self, name: str) -> dict[str, Any]:
    """The fields of `zoo.create` of a model."""
    own = ('copies', 'recipe')
    return {k: value for k, value in self.models[name].items() if k not in own}

  def recipe_of(self, name: str) -> train.Steps | train.Epochs:
    """How a model is trained."""
    if self.recipe is None:
      assert self.hyper is not None
      return self.hyper
    fields = self.models[name].get('recipe', {})
    path = f'config.zoo.models.{name}.recipe'
    if not isinstance(fields, Mapping):
      raise ValueError(f'{path} is {fields!r}; it must be a mapping of fields')
    return build(
      train.Epochs,
      {**dataclasses.asdict(self.recipe), **fields},
      path,
    )

  def members(self, name: str) -> tuple[str, ...]:
    """The names of the models that one entry trains."""
    if 'copies' not in self.models[name]:
      return (name,)
    return tuple(f'{name}-{i}' for i in range(self.models[name]['copies']))


@dataclasses.dataclass(frozen=True)
class Profiling:
  """How latency is measured.

  The profile's latency is that of a request of one image, as attackers and clients
  send; requests of `batch_size` images are measured beside it. All models take `rounds`
  turns. `stored` names a profile.csv of these models, measured earlier: its latencies
  are taken instead, so that figures do not differ between machines.
  """

  batch_size: int
  rounds: int
  stored: str = ''


@dataclasses.dataclass(frozen=True)
class Published:
  """A zoo without models to run.

  One that others measured, `name` (one of `profiles.names()`) or `csv`, a table; or
  `synthetic_models`, how many `profiles.synthetic` makes up.
  """

  name: str = ''
  csv: str = ''
  synthetic_models: int = 0
  name_column: str = 'model'
  accuracy_column: str = 'top1_percent'
  latency_column: str = 'latency_ms'
  accuracy_unit: str = 'percent'
  latency_unit: str = 'ms'


@dataclasses.dataclass(frozen=True)
class Fingerprint:
  """Where bisection ends: an accuracy (fraction) and a share of the latency budget.

  Both at least 2 ** -23, the finest that float32 can bisect.
  """

  accuracy_resolution: float
  latency_resolution: float


@dataclasses.dataclass(frozen=True)
class Extraction:
  """The surrogates: architecture, training, query budgets and how many run at once.

  They are trained by `hyper` (`Steps`) or by `recipe` (`Epochs`) on `objective`, the
  `name` of one of `train.OBJECTIVES` and its fields. `rows_per_chunk` runs are trained
  by one call of the compiled program, between two savings; `width` of them run under
  one vmap on a device (1 on CPUs), and see `test_batch` test images at a time. With
  several `pieces`, a divisor of the epochs, their trainings are cut into so many calls,
  and their states are saved after each. `victims` are those that are stolen.
  """

  query_budgets: tuple[int, ...]
  surrogate: Mapping[str, Any]
  rows_per_chunk: int
  width: int
  hyper: train.Steps | None = None
  recipe: train.Epochs | None = None
  objective: Mapping[str, Any] = dataclasses.field(
    default_factory=lambda: {'name': 'cross_entropy'}
  )
  test_batch: int = 256
  pieces: int = 1
  victims: tuple[str, ...] = tuple(pareto.SIZES)

  def training(self, num_classes: int) -> train.Training:
    """The training of a surrogate."""
    module = zoo.create(num_classes=num_classes, **self.surrogate)
    recipe = self.hyper or self.recipe
    assert recipe is not None
    return train.Training(module, recipe, objective(self.objective))


@dataclasses.dataclass(frozen=True)
class Defense:
  """The defenses, and the honest clients who must keep their goodput.

  `mechanisms` maps names of `defenses.MECHANISMS` to `values` of the knob, to be
  attacked beside the one that keeps `target_goodput`, and the mechanism's own fields.
  `mechanism` and its `scales` stand for that one and random refusal beside it.
  The clients are those of `workload`, `name` of one of `workloads.WORKLOADS` and its
  fields. Where it is empty, `workload_csv` names a file of their specs; and where that
  is empty too, they ask for `workload_size` specs uniform over the feasible region.
  """

  target_goodput: float
  mechanisms: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
  mechanism: str = ''
  scales: tuple[float, ...] = ()
  workload: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  workload_size: int = 65_536
  workload_csv: str = ''
  workload_accuracy_column: str = 'min_accuracy'
  workload_latency_column: str = 'max_latency_ms'
  workload_accuracy_unit: str = 'fraction'
  workload_latency_unit: str = 'ms'

  def clients(self) -> tuple[str, dict[str, Any]]:
    """The name of the workload, and its fields."""
    if self.workload:
      fields = dict(self.workload)
      return fields.pop('name'), fields
    if not self.workload_csv:
      return 'uniform', {'size': self.workload_size}
    return 'csv', {
      'path': self.workload_csv,
      'accuracy_column': self.workload_accuracy_column,
      'latency_column': self.workload_latency_column,
      'accuracy_unit': self.workload_accuracy_unit,
      'latency_unit': self.workload_latency_unit,
    }

  def values(self, mechanism: str) -> tuple[float, ...]:
    """The values of a mechanism's knob that the config lists."""
    return tuple(map(float, self.mechanisms[mechanism].get('values', ())))

  def fields(self, mechanism: str) -> dict[str, Any]:
    """The fields of the mechanism itself."""
    return {k: v for k, v in self.mechanisms[mechanism].items() if k != 'values'}


@dataclasses.dataclass(frozen=True)
class Claims:
  """By what the claims are judged, fixed before the run.

  `margin` is what counts as equal, a fraction: intervals of differences must lie inside
  it on both sides (the paper's is one point).
  """

  margin: float = 0.01


@dataclasses.dataclass(frozen=True)
class Config:
  """One experiment.

  Either `published` is given, or `data`, `zoo`, `profiling` and `extraction` are.
  All randomness comes from `seed`, in [0, 2 ** 32); `seeds` is how many runs each cell
  of the result has. `policy` is one of `routers.POLICIES`; `attacks` maps names of
  `attacks.ATTACKS` to their fields, or names of one's own to fields of which `name` is
  one of those; the paper's, unless it is given.
  """

  name: str
  seed: int
  seeds: int
  fingerprint: Fingerprint
  defense: Defense
  policy: str = 'uniform'
  attacks: Mapping[str, Mapping[str, Any]] = dataclasses.field(
    default_factory=lambda: {name: {} for name in PAPER}
  )
  published: Published | None = None
  data: Data | None = None
  zoo: Zoo | None = None
  profiling: Profiling | None = None
  extraction: Extraction | None = None
  claims: Claims = Claims()


def parse(fields: Mapping[str, Any]) -> Config:
  """Makes a checked `Config` of a config file's nested mapping.

  Args:
    fields: an `ml_collections.ConfigDict` or any nested mapping.

  Returns:
    The config.

  Raises:
    ValueError: an unknown or missing field, or a value that is not allowed; the
      message names the field, the value and what is allowed.
  """
  config = build(Config, fields, 'config')
  config = dataclasses.replace(config, defense=_spelled_out(config.defense))
  check(config)
  return config


def _spelled_out(defense: Defense) -> Defense:
  """The defense with its one mechanism among its mechanisms."""
  if bool(defense.mechanism) == bool(defense.mechanisms):
    raise ValueError(
      f'config.defense has mechanism {defense.mechanism!r} and mechanisms '
      f'{sorted(defense.mechanisms)}; give exactly one'
    )
  if not defense.mechanism:
    return defense
  listed = {'refusal': {}, defense.mechanism: {'values': list(defense.scales)}}
  return dataclasses.replace(defense, mechanisms=listed, mechanism='', scales=())


def check(config: Config) -> None:
  """Raises a ValueError for the first field whose value is not allowed."""
  _validate.seed('config.seed', config.seed)
  _validate.positive_int('config.seeds', config.seeds)
  if config.seeds < 2:
    raise ValueError(f'config.seeds is {config.seeds}; an interval needs at least 2')
  trained = (config.data, config.zoo, config.profiling, config.extraction)
  missing = [part is None for part in trained]
  if config.published is None and any(missing):
    raise ValueError(
      'config lacks one of data, zoo, profiling, extraction; give all of them, or '
      'published'
    )
  if config.published is not None and not all(missing):
    raise ValueError(
      'config has published beside data, zoo, profiling or extraction; a published '
      'zoo has no models to run, so give one or the other'
    )
  if config.published is not None:
    _check_published(config.published)
  if config.data is not None:
    _check_data(config.data)
  for name, value in vars(config.fingerprint).items():
    if not _FINEST <= value < 1:
      raise ValueError(
        f'config.fingerprint.{name} is {value}; it must be in [2**-23, 1), of which '
        f'2**-23 ({_FINEST:.2g}) is what float32 can still bisect'
      )
  routers.POLICIES.find(config.policy, 'config.policy')
  margin, path = config.claims.margin, 'config.claims.margin'
  _validate.number(path, margin, lambda x: 0 < x < 1, 'a fraction in (0, 1)')
  _check_defense(config.defense)
  _check_sizes(config)
  if config.zoo is not None and config.data is not None:
    _check_zoo(config.zoo, config.data)
  if config.extraction is not None and config.data is not None:
    _check_extraction(config.extraction, config.fingerprint, config.data)
    _check_attacks(config.attacks)


def _check_sizes(config: Config) -> None:
  for path, most in _LARGEST.items():
    value: Any = config
    for name in path.split('.'):
      value = getattr(value, name, None)
    if value is not None and value > most:
      raise ValueError(f'config.{path} is {value}; it must be at most {most}')
  queries = config.seeds * config.defense.workload_size
  if not config.defense.workload_csv and queries > _MOST_DRAWS:
    raise ValueError(
      f'config.defense.workload_size is {config.defense.workload_size}, drawn for each '
      f'of config.seeds {config.seeds}; their product must be at most {_MOST_DRAWS}'
    )


def _check_data(config: Data) -> None:
  _validate.non_negative_int('config.data.profile_size', config.profile_size)
  for path, check_part in (
    ('config.data', lambda: data.check_name(config.name)),
    ('config.data.fields', lambda: data.check_fields(config.name, config.fields)),
  ):
    try:
      check_part()
    except ValueError as error:
      raise ValueError(f'{path}.{error}') from None


def _check_published(config: Published) -> None:
  given = [bool(config.name), bool(config.csv), config.synthetic_models != 0]
  if sum(given) != 1:
    raise ValueError(
      f'config.published has name {config.name!r}, csv {config.csv!r} and '
      f'synthetic_models {config.synthetic_models}; give exactly one'
    )
  if config.name:
    _validate.one_of('config.published.name', config.name, profiles.names())
  if config.synthetic_models:
    _validate.positive_int('config.published.synthetic_models', config.synthetic_models)


def _check_defense(defense: Defense) -> None:
  goodput, path = defense.target_goodput, 'config.defense.target_goodput'
  _validate.number(path, goodput, lambda x: 0 < x <= 1, 'a fraction in (0, 1]')
  _validate.positive_int('config.defense.workload_size', defense.workload_size)
  if defense.workload and 'name' not in defense.workload:
    raise ValueError(
      f'config.defense.workload is {dict(defense.workload)}; it must have a name, one '
      f'of {", ".join(workloads.WORKLOADS)}'
    )
  workloads.WORKLOADS.find(defense.clients()[0], 'config.defense.workload.name')
  for name, fields in _named('config.defense.mechanisms', defense.mechanisms):
    path = f'config.defense.mechanisms.{name}'
    knob = defenses.MECHANISMS.find(name, 'config.defense.mechanisms').knob
    values = fields.get('values', ())
    if not isinstance(values, (list, tuple)):
      raise ValueError(f'{path}.values is {values!r}; it must be a list of numbers')
    ends = f'between {knob.off:g} and {knob.strongest:g} that float32 can hold'
    for value in values:
      _validate.number(f'{path}.values', value, knob.allows, f'a {knob.name} {ends}')
    try:
      mechanisms.check(name, defense.fields(name))
    except ValueError as error:
      raise ValueError(f'{path}: {error}') from None


def _check_attacks(listed: Mapping[str, Mapping[str, Any]]) -> None:
  if not listed:
    raise ValueError(
      f'config.attacks is empty; name at least one of {", ".join(attacks.ATTACKS)}'
    )
  for name, fields in _named('config.attacks', listed):
    attacks.ATTACKS.find(fields.get('name', name), 'config.attacks')
    try:
      attacks.configured(listed, name)
    except ValueError as error:
      raise ValueError(f'config.attacks.{name}: {error}') from None


def _named(path: str, entries: Any) -> list[tuple[str, Mapping[str, Any]]]:
  """The entries of a mapping from names to mappings of fields."""
  for name, fields in entries.items():
    if not isinstance(fields, Mapping):
      raise ValueError(
        f'{path}.{name} is {fields!r}; it must be a mapping of fields, which may be '
        'empty'
      )
  return list(entries.items())


def objective(fields: Mapping[str, Any]) -> train.Objective:
  """The objective of a config's fields."""
  return train.objectives.make(**{'name': None, **fields})


def _given(config: Zoo | Extraction) -> str:
  return 'recipe' if config.hyper is None else 'hyper'


def _check_training(path: str, config: Zoo | Extraction) -> None:
  if (config.hyper is None) == (config.recipe is None):
    raise ValueError(
      f'{path} has hyper {config.hyper} and recipe {config.recipe}; give exactly one'
    )
  try:
    objective(config.objective)
  except ValueError as error:
    raise ValueError(f'{path}.objective: {error}') from None


def _check_steps(path: str, recipe: train.Steps | train.Epochs, size: int) -> None:
  """Bounds what a recipe draws of so many images."""
  steps, batch = recipe.epochs * recipe.epoch_steps(size), recipe.batch_size
  few = 0 < steps <= _MOST_STEPS and batch <= _LARGEST_BATCH
  if not few or steps * batch > _MOST_DRAWS:
    raise ValueError(
      f'{path} makes {steps} steps of batch_size {batch} out of {size} images; it must '
      f'make at least 1 and at most {_MOST_STEPS}, of a batch_size of at most '
      f'{_LARGEST_BATCH}, and {_MOST_DRAWS} images in all'
    )


def _check_unlabelled(
  path: str,
  config: Zoo | Extraction,
  recipe: train.Steps | train.Epochs,
  source: str,
  size: int,
) -> None:
  taken = objective(config.objective).unlabelled * recipe.batch_size
  if taken > size:
    raise ValueError(
      f'{path}.objective takes {taken} unlabelled images a step; it must be at most '
      f'{source} (see its field unlabelled)'
    )


def _check_zoo(config: Zoo, images: Data) -> None:
  models = config.models
  _check_training('config.zoo', config)
  if not isinstance(models, Mapping) or not models:
    raise ValueError(
      f'config.zoo.models is {models!r}; it must be a mapping of at least one model'
    )
  for name, fields in models.items():
    if not re.fullmatch(r'\w[\w.-]*', name):
      raise ValueError(
        f'config.zoo.models has the name {name!r}; it must be letters, digits, "_", '
        '"-" and ".", the first a letter or digit'
      )
    path = f'config.zoo.models.{name}'
    if not isinstance(fields, Mapping):
      raise ValueError(f'{path} is {fields!r}; it must be a mapping with a family')
    if 'recipe' in fields and config.recipe is None:
      raise ValueError(f'{path}.recipe needs config.zoo.recipe, which is absent')
    if 'copies' in fields:
      _validate.positive_int(f'{path}.copies', fields['copies'])
    of_model = (
      f'{path}.recipe' if 'recipe' in fields else f'config.zoo.{_given(config)}'
    )
    recipe, size = config.recipe_of(name), images.zoo_sizes()[0]
    _check_steps(of_model, recipe, size)
    _check_unlabelled(
      'config.zoo', config, recipe, f'the {size} images of {path}', size
    )
    _check_module(path, config.module_fields(name))
  names = [member for name in models for member in config.members(name)]
  repeated = {name for name in names if names.count(name) > 1}
  if repeated:
    raise ValueError(f'config.zoo.models gives the names {sorted(repeated)} twice')


def _check_module(path: str, fields: Any) -> None:
  if not isinstance(fields, Mapping) or 'family' not in fields:
    raise ValueError(f'{path} is {fields!r}; it must be a mapping with a family')
  if 'num_classes' in fields:
    raise ValueError(f'{path}.num_classes is no field; the data set tells the classes')
  try:
    zoo.create(num_classes=2, **fields)
  except ValueError as error:
    raise ValueError(f'{path}: {error}') from None


def _check_extraction(
  extraction: Extraction, fingerprint_config: Fingerprint, images: Data
) -> None:
  _check_module('config.extraction.surrogate', extraction.surrogate)
  _check_training('config.extraction', extraction)
  _validate.positive_int('config.extraction.test_batch', extraction.test_batch)
  _validate.positive_int('config.extraction.rows_per_chunk', extraction.rows_per_chunk)
  _validate.positive_int('config.extraction.width', extraction.width)
  if not extraction.victims:
    raise ValueError('config.extraction.victims is empty; name at least one')
  for size in extraction.victims:
    _validate.one_of('config.extraction.victims', size, pareto.SIZES)
  if not extraction.query_budgets:
    raise ValueError('config.extraction.query_budgets is empty; give at least one')
  recipe = extraction.hyper or extraction.recipe
  assert recipe is not None
  path = f'config.extraction.{_given(extraction)}'
  _check_steps(path, recipe, max(extraction.query_budgets))
  _validate.positive_int('config.extraction.pieces', extraction.pieces)
  if recipe.epochs % extraction.pieces:
    raise ValueError(
      f'config.extraction.pieces is {extraction.pieces}; it must divide the '
      f'{recipe.epochs} epochs of {path}'
    )
  pool = f'config.data.pool_size {images.pool_size}'
  _check_unlabelled('config.extraction', extraction, recipe, pool, images.pool_size)
  probes = fingerprint.max_probes(**vars(fingerprint_config))
  for budget in extraction.query_budgets:
    _validate.positive_int('config.extraction.query_budgets', budget)
    if budget <= probes:
      raise ValueError(
        f'config.extraction.query_budgets holds {budget}; it must be above the '
        f'{probes} probes that the fingerprint needs'
      )
    if budget > images.pool_size:
      raise ValueError(
        f'config.data.pool_size is {images.pool_size}; it must be at least the query '
        f'budget {budget}, one image a query'
      )


def build(kind: type[T], fields: Any, path: str) -> T:
  """A dataclass of a mapping's fields, nested ones too, each of its own type.

  Args:
    kind: the dataclass.
    fields: the mapping.
    path: what errors call it.

  Raises:
    ValueError: a field that is unknown, missing or of another type.
  """
  if not isinstance(fields, Mapping) and not hasattr(fields, 'items'):
    raise ValueError(f'{path} is {fields!r}; it must be a mapping of fields')
  hints = typing.get_type_hints(kind)
  known = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
  given = dict(fields.items())
  for name in given:
    if name not in known:
      hint = _registry.near(name, known)
      raise ValueError(f'{path}.{name} is no field{hint}; {path} has {sorted(known)}')
  for name, field in known.items():
    required = (
      field.default is dataclasses.MISSING
      and field.default_factory is dataclasses.MISSING
    )
    if required and name not in given:
      raise ValueError(f'{path}.{name} is missing; {path} has {sorted(known)}')
  values = {
    name: _convert(hints[name], value, f'{path}.{name}')
    for name, value in given.items()
  }
  try:
    return kind(**values)
  except ValueError as error:
    raise ValueError(f'{path}: {error}') from None


def _convert(hint: Any, value: Any, path: str) -> Any:
  origin, args = typing.get_origin(hint), typing.get_args(hint)
  if origin is types.UnionType:
    if value is None:
      return None
    return _convert(args[0], value, path)
  if dataclasses.is_dataclass(hint):
    return build(hint, value, path)  # type: ignore[arg-type]
  if origin is tuple:
    if not isinstance(value, (list, tuple)):
      raise ValueError(f'{path} is {value!r}; it must be a list')
    return tuple(_convert(args[0], item, path) for item in value)
  if hint is float and isinstance(value, int) and not isinstance(value, bool):
    return float(value)
  if hint in (int, float, str, bool):
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
      raise ValueError(f'{path} is {value!r}; it must be of type {hint.__name__}')
    return value
  if not hasattr(value, 'items'):
    raise ValueError(f'{path} is {value!r}; it must be a mapping')
  return _plain(value, path)


def _plain(value: Any, path: str) -> Any:
  """A nested mapping as dicts sorted by name, as a `ConfigDict` and JSON have it."""
  if hasattr(value, 'items'):
    for name in dict(value.items()):
      if not isinstance(name, str):
        raise ValueError(f'{path} has the name {name!r}; names must be strings')
    return {
      name: _plain(item, f'{path}.{name}') for name, item in sorted(value.items())
    }
  if isinstance(value, (list, tuple)):
    return [_plain(item, path) for item in value]
  return value
