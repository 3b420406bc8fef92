"""The work directory: whole files only, so that a killed run can continue."""

import dataclasses
import json
import os
import pathlib
import tempfile
from collections.abc import Callable
from typing import Any

from psml_jax.experiments.config import Config

_UNFINISHED = '.unfinished-'


def open_workdir(path: str | pathlib.Path, config: Config) -> pathlib.Path:
  """Makes or reopens the work directory of an experiment.

  Args:
    path: the directory; created where it does not exist.
    config: the experiment.

  Returns:
    The directory, with `config.json` in it.

  Raises:
    ValueError: the directory holds another experiment or other files; nothing in
      it is touched.
  """
  directory = pathlib.Path(path)
  if directory.exists() and not directory.is_dir():
    raise ValueError(f'workdir is {str(path)!r}, a file; it must be a directory')
  try:
    directory.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise ValueError(
      f'workdir is {str(path)!r}; it must be a directory that can be made: {error}'
    ) from error
  for unfinished in directory.glob(f'{_UNFINISHED}*'):
    unfinished.unlink()
  stored, wanted = directory / 'config.json', json.loads(to_json(config))
  if stored.exists():
    found = json.loads(stored.read_text(encoding='utf-8'))
    if found != wanted:
      raise ValueError(
        f'workdir is {str(path)!r}, which holds an experiment of another config '
        f'({_difference(found, wanted)}); give an empty or new directory'
      )
  elif any(directory.iterdir()):
    raise ValueError(
      f'workdir is {str(path)!r}, which holds files but no config.json; it must be '
      'empty, new, or the directory of this config'
    )
  else:
    write(stored, lambda temporary: temporary.write_text(to_json(config), 'utf-8'))
  return directory


def to_json(config: Config) -> str:
  """The config as JSON text."""
  return json.dumps(dataclasses.asdict(config), indent=2, sort_keys=True) + '\n'


def write(path: pathlib.Path, fill: Callable[[pathlib.Path], Any]) -> None:
  """Writes a file so that it exists whole or not at all.

  Args:
    path: the file.
    fill: writes the content to the path that it is given, in the same directory and
      with the same suffix.
  """
  handle, name = tempfile.mkstemp(
    dir=path.parent, prefix=_UNFINISHED, suffix=path.suffix
  )
  os.close(handle)
  temporary = pathlib.Path(name)
  try:
    fill(temporary)
    with temporary.open('rb') as file:
      os.fsync(file.fileno())
    temporary.chmod(0o644)
    temporary.replace(path)
  finally:
    temporary.unlink(missing_ok=True)


def write_json(path: pathlib.Path, value: Any) -> None:
  """Writes a JSON file whole."""
  text = json.dumps(value, indent=2, allow_nan=False) + '\n'
  write(path, lambda temporary: temporary.write_text(text, 'utf-8'))


def write_jsonl(path: pathlib.Path, records: list[dict[str, Any]]) -> None:
  """Writes a file of records, one a line, whole."""
  text = ''.join(json.dumps(record, allow_nan=False) + '\n' for record in records)
  write(path, lambda temporary: temporary.write_text(text, 'utf-8'))


def read_jsonl(path: pathlib.Path) -> list[dict[str, Any]]:
  """All records of a file; none where it does not exist."""
  if not path.exists():
    return []
  return [json.loads(line) for line in path.read_text('utf-8').splitlines()]


def _difference(found: Any, wanted: Any, path: str = 'config') -> str:
  if isinstance(found, dict) and isinstance(wanted, dict):
    for name in sorted(found.keys() | wanted.keys()):
      if found.get(name) != wanted.get(name):
        return _difference(found.get(name), wanted.get(name), f'{path}.{name}')
  return f'{path} is {found!r} there and {wanted!r} here'
