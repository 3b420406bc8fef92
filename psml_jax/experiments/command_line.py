"""The command line of the launch scripts, read before anything slow is imported."""

import dataclasses
import re
import sys
from collections.abc import Sequence
from typing import Any

from absl import flags

from psml_jax.experiments import config_file

_FLAGS = (
  'config',
  'workdir',
  'data_dir',
  'coordinator',
  'num_processes',
  'process_id',
)
HELP = ('-h', '-?', '-help', '--help', '-helpshort', '--helpshort')


@dataclasses.dataclass(frozen=True)
class Arguments:
  """What a command line says: config, directories, and the processes to join."""

  fields: dict[str, Any]
  workdir: str
  data_dir: str | None
  coordinator: str | None
  num_processes: int | None
  process_id: int | None


def define(flag_values: flags.FlagValues) -> None:
  """Defines the launchers' flags."""
  flags.DEFINE_string(
    'config',
    None,
    'Config file, e.g. configs/digits.py. What follows a colon is passed to it, as in '
    'configs/published_profiles.py:csv. --config.FIELD=VALUE sets a field of it.',
    flag_values=flag_values,
  )
  flags.DEFINE_string(
    'workdir',
    None,
    'Directory of the results; an interrupted run continues there.',
    flag_values=flag_values,
  )
  flags.DEFINE_string(
    'data_dir',
    None,
    "Folder of the data set's files, for data sets that need one.",
    flag_values=flag_values,
  )
  flags.DEFINE_string(
    'coordinator',
    None,
    'HOST:PORT of the first of several processes that share the surrogates, started by '
    'the same command on the same files; "auto" on a cluster that JAX knows.',
    flag_values=flag_values,
  )
  for name, text in (
    ('num_processes', 'How many processes there are.'),
    ('process_id', 'Which of them this one is, from 0.'),
  ):
    flags.DEFINE_integer(name, None, text, flag_values=flag_values)


def parse(argv: Sequence[str], flag_values: flags.FlagValues) -> Arguments | None:
  """Reads the command line.

  Args:
    argv: the script's name and its arguments.
    flag_values: where `define` has defined the flags.

  Returns:
    What it says; None where it asks for help, which has been printed then.

  Raises:
    ValueError: any mistake in it, or in the config file that it names.
  """
  try:
    expanded = flag_values.read_flags_from_files(list(argv), force_gnu=False)
    asked = [word for word in expanded[1:] if word not in HELP]
    plain, overrides = split(asked)
    rest = flag_values([argv[0], *plain])[1:]
  except flags.Error as error:
    raise ValueError(str(error)) from None
  if rest:
    raise ValueError(
      f'unknown argument {rest[0]!r}; all settings are flags, such as --config'
    )
  fields = None
  if flag_values.config:
    fields = config_file.load(flag_values.config)
    for path, text in overrides:
      config_file.override(fields, path, text)
  if len(asked) < len(expanded) - 1:
    print(help_of(_FLAGS, flag_values, fields))
    return None
  if fields is None:
    raise ValueError('--config is missing; it must be a file, e.g. configs/digits.py')
  if not flag_values.workdir:
    raise ValueError('--workdir is missing; it must be the directory of the results')
  others: dict[str, Any] = {name: flag_values[name].value for name in _FLAGS[1:]}
  return Arguments(fields, **others)


def split(words: Sequence[str]) -> tuple[list[str], list[tuple[str, str | None]]]:
  """Takes `--config.FIELD=VALUE` out: what is left, and (FIELD, VALUE) in order."""
  plain: list[str] = []
  overrides: list[tuple[str, str | None]] = []
  left = list(words)
  while left:
    word = left.pop(0)
    found = re.fullmatch(r'--?(no)?config\.([^=]*)(?:=(.*))?', word, re.DOTALL)
    if word == '--' or not found:
      plain.append(word)
      continue
    negated, path, text = found.groups()
    if negated:
      text = 'false'
    elif text is None and left and not left[0].startswith('--'):
      text = left.pop(0)
    overrides.append((path, text))
  return plain, overrides


def help_of(
  names: Sequence[str], flag_values: flags.FlagValues, fields: dict[str, Any] | None
) -> str:
  """What `--help` says: the script's text, its flags, and the config's fields."""
  lines = [str(sys.modules['__main__'].__doc__ or '').strip(), '', 'Flags:']
  for name in names:
    text = flags.text_wrap(flag_values[name].help, indent='    ')
    lines += [f'  --{name}', text]
  if fields is None:
    lines += ['', 'With --config, --help lists the fields that can be set.']
  else:
    lines += ['', f'Fields of {flag_values.config}, and their values:']
    lines += [f'  {flag}' for flag in config_file.flags(fields)]
  return '\n'.join([*lines, '', '--helpfull lists all other flags.'])
