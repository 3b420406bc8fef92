"""Launch scripts that are no experiment: a config file, and flags of their own."""

import functools
import importlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from absl import app, flags

from psml_jax.experiments import command_line, config_file, launcher

_DEFINE: dict[type, Any] = {
  str: flags.DEFINE_string,
  int: flags.DEFINE_integer,
  float: flags.DEFINE_float,
}


def main(
  run: str,
  config: str,
  known: Mapping[str, tuple[type, Any, str]],
) -> None:
  """Runs a launch script: `run(fields of the config, **flags)`.

  A mistake of the user ends in one line and exit code 2. Heavy modules are imported
  after the flags are read.

  Args:
    run: 'module:function'.
    config: the config file, unless --config names another.
    known: the flags: name -> (type, default, help).
  """
  flags.DEFINE_string(
    'config', config, 'Config file; --config.FIELD=VALUE sets a field.'
  )
  for name, (kind, default, text) in known.items():
    _DEFINE[kind](name, default, text)

  def parse(argv: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    try:
      return read(argv, flags.FLAGS, known)
    except (ValueError, flags.Error) as error:
      launcher.fail(error)

  app.run(functools.partial(_run, run), flags_parser=parse)


def read(
  argv: Sequence[str], values: flags.FlagValues, known: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
  """The fields of the config, and the flags; prints help and exits where it is asked.

  Raises:
    ValueError: any mistake in the command line or the config file.
  """
  asked = [word for word in argv[1:] if word not in command_line.HELP]
  plain, overrides = command_line.split(asked)
  rest = values([argv[0], *plain])[1:]
  if rest:
    raise ValueError(f'unknown argument {rest[0]!r}; all settings are flags')
  fields = config_file.load(values.config)
  for path, text in overrides:
    config_file.override(fields, path, text)
  if len(asked) < len(argv) - 1:
    print(command_line.help_of(['config', *known], values, fields))
    sys.exit(0)
  return fields, {name: values[name].value for name in known}


def _run(run: str, parsed: tuple[dict[str, Any], dict[str, Any]]) -> None:
  from absl import logging

  from psml_jax import _validate

  logging.set_verbosity(logging.WARNING)
  module, function = run.split(':')
  fields, given = parsed
  try:
    getattr(importlib.import_module(module), function)(fields, **given)
  except (_validate.InputError, OSError) as error:
    launcher.fail(error)
  sys.stdout.flush()
