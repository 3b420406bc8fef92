"""A raid: any registered attack on a server elsewhere, then extraction, black box.

The attacker has an address, an API key and images of its own. It sees what a client
sees; nothing here reads a zoo, a profile or a router.
"""

import dataclasses
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import msgspec

from psml_jax import _files, _keys, attacks, metrics, session, train
from psml_jax._validate import InputError
from psml_jax.core import Bill, Harvest, Knowledge, Spec
from psml_jax.data import Splits
from psml_jax.experiments import config as experiment_config
from psml_jax.experiments import workdir
from psml_jax.experiments.config import Config
from psml_jax.experiments.experiment import Experiment
from psml_jax.servers import Http, http

KEY_VARIABLE = 'PSML_JAX_API_KEY'
_FOUND = 'attack.json'


@dataclasses.dataclass(frozen=True)
class Found:
  """What a raid came to, as attack.json has it.

  Attributes:
    attack: its name.
    target: the server's address.
    queries_billed: by the client's ledger, retries included.
    queries_asked: by the attack.
    served: answered.
    ledger: attempts by what came of them.
    min_accuracy: of the corner that it found; None where it looked for none.
    max_latency_ms: likewise.
    probes: queries of all phases before the last; of the only one, where it trains no
      surrogate.
    images: with an answer, to train the surrogate on.
    accuracy: of the surrogate on the attacker's own test images; None without one.
  """

  attack: str
  target: str
  queries_billed: int
  queries_asked: int
  served: int
  ledger: dict[str, int]
  min_accuracy: float | None
  max_latency_ms: float | None
  probes: int
  images: int
  accuracy: float | None


def raid(
  key: jax.Array,
  attack: attacks.Attack | attacks.Phases,
  client: Any,
  knowledge: Knowledge,
  pool: Any,
  *,
  budget: int,
) -> tuple[list[Any], list[Bill]]:
  """`session.run_live`, phase by phase.

  Args:
    key: of the attack.
    attack: the attack, or its phases.
    client: `Query -> Observation`, such as `servers.http`.
    knowledge: what the attacker knows beforehand.
    pool: f32[P, H, W, C], the attacker's images.
    budget: queries, at most.

  Returns:
    What each phase has harvested, and its bill.
  """
  phases = attack.attacks if isinstance(attack, attacks.Phases) else (attack,)
  harvests: list[Any] = []
  bills: list[Bill] = []
  for phase in phases:
    left = budget - sum(int(bill.queries) for bill in bills)
    found = session.run_live(key, phase, client, knowledge, budget=left, pool=pool)
    knowledge = dataclasses.replace(knowledge, found=found.harvest)
    harvests.append(found.harvest)
    bills.append(found.bill)
  return harvests, bills


def corner(harvests: list[Any]) -> Spec | None:
  """The spec of the last phase that found one; None where none did."""
  for harvest in reversed(harvests):
    spec = getattr(harvest, 'spec', None)
    if isinstance(spec, Spec) and jnp.ndim(spec.min_accuracy) == 0:
      return spec
  return None


def run(
  fields: Mapping[str, Any],
  *,
  target: str | None,
  attack: str,
  key_file: str | None,
  latency_budget_ms: float | None,
  queries: int | None,
  concurrency: int,
  workdir: str | None,
  data_dir: str | None = None,
) -> None:
  """What launch/attack.py runs: the attack, the extraction, and what came of both.

  Args:
    fields: of an experiment's config, for the attacker's images, attacks, resolutions
      and surrogate.
    target: the address of the zoo.
    attack: one of the config's, or of `attacks.ATTACKS`.
    key_file: with the API key; the environment's `PSML_JAX_API_KEY` unless given.
    latency_budget_ms: what the attacker can afford.
    queries: to be billed at most; the config's largest budget unless given.
    concurrency: requests under way at once.
    workdir: for the results; nothing is written unless given.
    data_dir: where image files are, for data sets that need them.

  Raises:
    InputError: what the command line or the config has wrong, or what the server says
      to it.
  """
  for name, value in (('target', target), ('latency_budget_ms', latency_budget_ms)):
    if value is None:
      raise InputError(f'--{name} is missing')
  assert target is not None
  assert latency_budget_ms is not None
  if not latency_budget_ms > 0:
    raise InputError(f'--latency_budget_ms is {latency_budget_ms}; it must be > 0')
  directory = _files.local('--workdir', workdir) if workdir else None
  if directory is not None and (directory / _FOUND).exists():
    raise InputError(f'--workdir {workdir} holds the results of a raid; take another')
  try:
    config = experiment_config.parse(fields)
    _attack(config, attack, queries)
    client = http(target, _api_key(key_file), concurrency=concurrency)
  except ValueError as error:
    raise InputError(str(error)) from error
  assert config.extraction is not None
  splits = Experiment(config, pathlib.Path('.'), data_dir).images()
  if splits.pool_x.shape[1:] != client.image_shape:
    raise InputError(
      f'the images are {splits.pool_x.shape[1:]}; {target} takes {client.image_shape}'
    )
  training = config.extraction.training(client.num_classes)
  made, budget = _attack(
    config, attack, queries, pool=jnp.asarray(splits.pool_x), training=training
  )
  attacker_key, surrogate_key = jax.random.split(_keys.purpose(config.seed, 'attack'))
  knowledge = Knowledge(
    jnp.float32(latency_budget_ms),
    pool_size=len(splits.pool_x),
    num_classes=client.num_classes,
  )
  try:
    harvests, bills = raid(
      attacker_key, made, client, knowledge, splits.pool_x, budget=budget
    )
  except ValueError as error:
    raise InputError(f'{attack}: {error}') from error
  finally:
    client.close()
  accuracy, surrogate = None, None
  harvest = harvests[-1] if isinstance(harvests[-1], Harvest) else None
  if harvest is not None and int(harvest.count):
    surrogate, accuracy = extract(surrogate_key, training, splits, harvest)
  found = _found(attack, target, client, harvests, bills, harvest, accuracy)
  print(msgspec.json.format(msgspec.json.encode(found), indent=2).decode())
  if directory is not None:
    _write(directory, found, surrogate)


def extract(
  key: jax.Array, training: train.Training, splits: Splits, harvest: Harvest
) -> tuple[Any, float]:
  """A surrogate's variables, and its accuracy on the attacker's own test images."""
  variables, _ = jax.jit(train.pure_fit, static_argnums=1)(
    key, training, jnp.asarray(splits.pool_x), harvest
  )
  answers = train.predict(train.Model(training.module, variables), splits.test_x)
  return variables, float(
    metrics.accuracy(jnp.asarray(answers), jnp.asarray(splits.test_y))
  )


def _attack(
  config: Config, name: str, queries: int | None, **own: Any
) -> tuple[attacks.Attack | attacks.Phases, int]:
  """An attack that a client can run, and the most queries that it sends.

  Args:
    config: of the experiment.
    name: of the attack.
    queries: its budget, the config's largest unless given.
    **own: the attacker's `pool` and `training`, without which none that chooses its
      images can start.
  """
  if config.extraction is None:
    raise ValueError('config has no extraction; a raid trains a surrogate by it')
  listed = config.attacks if name in config.attacks else {name: {}}
  registered, fields = attacks.configured(listed, name)
  role = attacks.ATTACKS[registered].role
  if role in ('reference', 'informed'):
    raise ValueError(
      f'attack is {name!r}, of role {role}: it is told what no client is told'
    )
  resources = attacks.Resources(
    num_queries=queries or max(config.extraction.query_budgets),
    accuracy_resolution=config.fingerprint.accuracy_resolution,
    latency_resolution=config.fingerprint.latency_resolution,
    **own,
  )
  return attacks.make(registered, resources, **fields), resources.num_queries


def _api_key(path: str | None) -> str:
  if path is None:
    if KEY_VARIABLE not in os.environ:
      raise ValueError(f'give --key_file, or the API key in {KEY_VARIABLE}')
    return os.environ[KEY_VARIABLE]
  try:
    return _files.local('--key_file', path).read_text('ascii').strip()
  except (OSError, UnicodeDecodeError) as error:
    raise ValueError(f'--key_file is {path!r}: {error}') from None


def _found(
  attack: str,
  target: str,
  client: Http,
  harvests: list[Any],
  bills: list[Bill],
  harvest: Harvest | None,
  accuracy: float | None,
) -> Found:
  spec = corner(harvests)
  probing = bills if harvest is None else bills[:-1]
  return Found(
    attack=attack,
    target=target,
    queries_billed=client.ledger.billed,
    queries_asked=sum(int(bill.queries) for bill in bills),
    served=client.ledger.served,
    ledger=dataclasses.asdict(client.ledger),
    min_accuracy=None if spec is None else float(spec.min_accuracy),
    max_latency_ms=None if spec is None else float(spec.max_latency_ms),
    probes=sum(int(bill.queries) for bill in probing),
    images=0 if harvest is None else int(harvest.count),
    accuracy=accuracy,
  )


def _write(directory: pathlib.Path, found: Found, surrogate: Any) -> None:
  """Writes attack.json and the surrogate's checkpoint."""
  directory.mkdir(parents=True, exist_ok=True)
  if surrogate is not None:
    train.save(directory / 'surrogate', surrogate)
  workdir.write_json(directory / _FOUND, found)
