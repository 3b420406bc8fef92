"""A zoo that others serve: its config, its guard, and the middleware in front of it."""

import dataclasses
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from psml_jax import _files, defenses, profiles, routers, servers
from psml_jax._validate import InputError
from psml_jax.core import ZooProfile
from psml_jax.experiments.config import build
from psml_jax.servers.base import Front
from psml_jax.serving import accounts, vault
from psml_jax.serving.asgi import Asgi
from psml_jax.serving.config import Defense, check_defense
from psml_jax.serving.gate import Gate
from psml_jax.serving.guard import Guard
from psml_jax.serving.middleware import Middleware
from psml_jax.serving.records import Log
from psml_jax.serving.rules import Rules, check


@dataclasses.dataclass(frozen=True)
class Table:
  """A table of models of one's own; see `ZooProfile.from_csv`.

  Attributes:
    csv: the file; a packaged profile is used where it is empty.
    name_column: of the models' names.
    accuracy_column: of their quality.
    accuracy_unit: 'fraction' or 'percent'.
    latency_column: of their latency.
    latency_unit: 's', 'ms' or 'us'.
  """

  csv: str = ''
  name_column: str = 'model'
  accuracy_column: str = 'accuracy'
  accuracy_unit: str = 'fraction'
  latency_column: str = 'latency_ms'
  latency_unit: str = 'ms'


@dataclasses.dataclass(frozen=True)
class Hosted:
  """A zoo that others serve.

  Attributes:
    name: that clients know it by.
    profile: one of `profiles.names()`.
    table: in the place of the profile.
    models: the models that are served, by their names in the profile, and what the host
      calls them. All of the profile under its names where none is named.
    policy: one of `routers.POLICIES`.
    defense: what protects the zoo; its value must be given.
    enforce: whether decisions are carried out; a shadow only logs them.
    log: a file, a line of JSON a query; none where it is empty. A shadow has one.
    keys: the table of API keys, see `accounts`.
    vault: the folder of the secret, of the queries' numbers and of the journals.
    rules: what passes a middleware, and its bounds.
  """

  name: str = 'zoo'
  profile: str = 'llm_aider_polyglot'
  table: Table = Table()
  models: Mapping[str, str] = dataclasses.field(default_factory=dict)
  policy: str = 'uniform'
  defense: Defense = dataclasses.field(default_factory=Defense)
  enforce: bool = True
  log: str = ''
  keys: str = 'keys.csv'
  vault: str = 'serving'
  rules: Rules = dataclasses.field(default_factory=Rules)


def parse(fields: Mapping[str, Any]) -> Hosted:
  """Makes a checked `Hosted` of a config file's nested mapping.

  Args:
    fields: any nested mapping.

  Returns:
    The config.

  Raises:
    ValueError: an unknown field, or a value that is not allowed; the message names the
      field, the value and what is allowed.

  >>> parse({'defense': {'name': 'capped', 'value': 0.3}}).profile
  'llm_aider_polyglot'
  """
  config = build(Hosted, fields, 'config')
  if not config.table.csv and config.profile not in profiles.names():
    raise ValueError(
      f'config.profile is {config.profile!r}; it must be one of '
      f'{", ".join(profiles.names())}, or config.table.csv a file'
    )
  routers.POLICIES.find(config.policy, 'config.policy')
  if config.defense.name:
    check_defense(config.defense)
    if config.defense.value < 0:
      raise ValueError(
        f'config.defense.value is {config.defense.value}; it must be that of its knob'
      )
  if not config.enforce and not config.log:
    raise ValueError("config.log is ''; a shadow must have a file to write to")
  check('config.rules', config.rules)
  return config


def zoo(config: Hosted) -> ZooProfile:
  """The profile of the models that are served.

  Raises:
    ValueError: a table that cannot be read, or a model that it does not have.

  >>> zoo(parse({'models': {'gpt-4.5-preview': 'openai/gpt-4.5'}})).names
  ('gpt-4.5-preview',)
  """
  table = config.table
  profile = (
    ZooProfile.from_csv(
      table.csv,
      name_column=table.name_column,
      accuracy_column=table.accuracy_column,
      accuracy_unit=table.accuracy_unit,
      latency_column=table.latency_column,
      latency_unit=table.latency_unit,
    )
    if table.csv
    else profiles.load(config.profile)
  )
  if not config.models:
    return profile
  places = np.array([profile.index(name) for name in config.models])
  return ZooProfile(
    profile.accuracy[places], profile.latency_ms[places], tuple(config.models)
  )


def front(config: Hosted, profile: ZooProfile) -> Front:
  """Router and defense of a zoo.

  Raises:
    ValueError: a defense that the zoo does not admit.
  """
  parts = defenses.Deployment()
  if config.defense.name:
    named, value = config.defense.name, config.defense.value
    parts = defenses.deploy(named, profile, value, **config.defense.fields)
  return servers.table(
    parts.router or routers.POLICIES[config.policy](profile),
    profile.latency_ms,
    jnp.ones((len(profile), 1, 1), jnp.float32),
    defense=parts.defense,
    reply=parts.reply,
  ).front


def guard(config: Hosted, directory: str | os.PathLike[str] = '.') -> Guard:
  """The guard of a zoo, with its secret and memory where the config keeps them.

  A defense that remembers its clients has one memory, so one process can have it; of
  others as many as the host runs.

  Args:
    config: of the zoo.
    directory: that the config's paths begin at.

  Returns:
    The guard; it knows again what it knew before it ended.

  Raises:
    InputError: files that cannot be read or written, a zoo that does not admit its
      defense, or a memory that another process has.
  """
  try:
    profile = zoo(config)
    made = front(config, profile)
  except ValueError as error:
    raise InputError(f'config: {error}') from error
  held = vault.Vault(_path(directory, 'vault', config.vault))
  if made.learns and not held.remember():
    raise InputError(
      f'{held.directory}: another process has the memory of this defense; it takes one '
      'worker'
    )
  queries = vault.read(held.directory)
  gate = Gate(
    made,
    vault.key(held.secret),
    num_classes=1,
    numbers=vault.Leased(held.lease),
    journal=vault.Journal(held.directory),
  )
  gate.recall(queries)
  log = Log(_path(directory, 'log', config.log)) if config.log else None
  backends = tuple(config.models.values())
  return Guard(profile, gate, enforce=config.enforce, log=log, backends=backends)


def middleware(
  app: Asgi, config: Hosted, directory: str | os.PathLike[str] = '.'
) -> Middleware:
  """An ASGI application with the defense in front.

  Args:
    app: the application behind.
    config: of the zoo.
    directory: that the config's paths begin at.

  Returns:
    The middleware.

  Raises:
    InputError: as `guard`; a table of keys that cannot be read, or that has a client
      whom the defense has no place for.
  """
  made = guard(config, directory)
  try:
    known = accounts.read(_path(directory, 'keys', config.keys))
    return Middleware(app, made, known, name=config.name, rules=config.rules)
  except ValueError as error:
    raise InputError(str(error)) from error


def _path(directory: str | os.PathLike[str], name: str, given: str) -> pathlib.Path:
  return _files.local('directory', directory) / _files.local(f'config.{name}', given)
