"""Config files, Python files with a `get_config`, and setting single fields."""

import ast
import difflib
import pathlib
import shlex
import traceback
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from psml_jax import _files, _registry


def load(source: str) -> dict[str, Any]:
  """Reads a config file.

  Args:
    source: its path; what follows a colon is passed to its `get_config`.

  Returns:
    The fields, nested mappings as dicts.

  Raises:
    ValueError: no such file, an exception in it (the message has its line), or no
      `get_config` that returns a mapping.
  """
  name, *arguments = source.split(':', 1)
  path = _files.local('--config', name)
  try:
    code = path.read_bytes()
  except OSError as error:
    raise ValueError(
      f'--config is {name!r}; it must be a Python file: {error.strerror}{_near(path)}'
    ) from None
  module: dict[str, Any] = {'__name__': path.stem, '__file__': str(path)}
  try:
    exec(compile(code, str(path), 'exec'), module)
    if not callable(module.get('get_config')):
      raise ValueError('it must define get_config()')
    fields = module['get_config'](*arguments)
  except Exception as error:
    raise ValueError(f'{_place(path, error)}: {_described(error)}') from error
  if not hasattr(fields, 'items'):
    raise ValueError(
      f'{path}: get_config() returns {fields!r}; it must be a mapping of fields'
    )
  return _dicts(fields)


def override(fields: dict[str, Any], path: str, text: str | None) -> None:
  """Sets one field, in place.

  Args:
    fields: as `load` returns them.
    path: names joined by dots.
    text: the value, read as the type that the field has; lists as `1,2` or `(1, 2)`.
      None where the command line has none, which is `true` of a switch.

  Raises:
    ValueError: no such field, or a value of another type.

  >>> fields = {'zoo': {'widths': [64], 'name': 'mlp'}, 'seed': 0}
  >>> override(fields, 'zoo.widths', '32,16')
  >>> override(fields, 'seed', '3')
  >>> fields
  {'zoo': {'widths': (32, 16), 'name': 'mlp'}, 'seed': 3}
  """
  place, rest = 'config', path
  while True:
    names = [name for name in fields if f'{rest}.'.startswith(f'{name}.')]
    if not names:
      unknown = rest.split('.')[0]
      hint = _registry.near(unknown, fields)
      raise ValueError(
        f'{place}.{unknown} is no field{hint}; {place} has {", ".join(sorted(fields))}'
      )
    name = max(names, key=len)
    place, rest = f'{place}.{name}', rest[len(name) + 1 :]
    if not rest:
      fields[name] = _read(place, text, fields[name])
      return
    if not isinstance(fields[name], dict):
      raise ValueError(f'{place} is {fields[name]!r}, which has no field {rest!r}')
    fields = fields[name]


def flags(fields: Mapping[str, Any], path: str = 'config') -> Iterator[str]:
  """The flags that set every field to the value it has.

  >>> list(flags({'zoo': {'widths': (32, 16)}, 'seed': 3}))
  ['--config.zoo.widths=32,16', '--config.seed=3']
  """
  for name, value in fields.items():
    if isinstance(value, dict):
      yield from flags(value, f'{path}.{name}')
    else:
      yield f'--{path}.{name}={shlex.quote(_written(value))}'


def _read(name: str, text: str | None, current: Any) -> Any:
  if isinstance(current, bool):
    known = {None: True, 'true': True, '1': True, 'false': False, '0': False}
    if (text and text.lower()) not in known:
      raise ValueError(f'{name} is {text!r}; it must be true or false')
    return known[text and text.lower()]
  if text is None:
    raise ValueError(f'{name} has no value; write --{name}=VALUE')
  if isinstance(current, str):
    return text
  if isinstance(current, (int, float)):
    return _number(name, text)
  if isinstance(current, (list, tuple)):
    return _sequence(name, text, current)
  value = _literal(text)
  if isinstance(current, dict) and not isinstance(value, dict):
    raise ValueError(
      f'{name} is {text!r}; it must be a mapping, or set one of its fields: '
      f'{", ".join(f"--{name}.{field}" for field in current)}'
    )
  return value


def _number(name: str, text: str) -> int | float:
  for kind in (int, float):
    try:
      return kind(text)
    except ValueError:
      pass
  raise ValueError(f'{name} is {text!r}; it must be a number')


def _sequence(name: str, text: str, current: Sequence[Any]) -> tuple[Any, ...]:
  value = _literal(text)
  if isinstance(value, str):
    value = tuple(_literal(part) for part in text.split(','))
  items = tuple(value) if isinstance(value, (list, tuple)) else (value,)
  for kinds, what in (((int, float), 'numbers'), ((str,), 'names')):
    fits = [isinstance(item, kinds) for item in current]
    if fits and all(fits) and not all(isinstance(item, kinds) for item in items):
      raise ValueError(
        f'{name} is {text!r}; it must be {what} with commas between, such as '
        f'{_written(current)}'
      )
  return items


def _literal(text: str) -> Any:
  try:
    return ast.literal_eval(text.strip())
  except (SyntaxError, TypeError, ValueError):
    return text


def _written(value: Any) -> str:
  if isinstance(value, (list, tuple)):
    plain = value and all(isinstance(item, (int, float, str)) for item in value)
    return ','.join(map(str, value)) if plain else repr(value)
  return str(value)


def _dicts(value: Any) -> Any:
  if hasattr(value, 'items'):
    return {name: _dicts(item) for name, item in value.items()}
  return value


def _near(path: pathlib.Path) -> str:
  if path.exists() or not path.parent.is_dir():
    return ''
  files = [file.name for file in path.parent.glob('*.py')]
  near = difflib.get_close_matches(path.name, files, n=1)
  return f' (did you mean {str(path.with_name(near[0]))!r}?)' if near else ''


def _place(path: pathlib.Path, error: Exception) -> str:
  if isinstance(error, SyntaxError):
    return f'{path}, line {error.lineno}'
  frames = traceback.extract_tb(error.__traceback__)
  lines = [frame.lineno for frame in frames if frame.filename == str(path)]
  return f'{path}, line {lines[-1]}' if lines else str(path)


def _described(error: Exception) -> str:
  message = error.msg if isinstance(error, SyntaxError) else str(error)
  return f'{type(error).__name__}: {message}'
