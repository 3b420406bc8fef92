"""The work directory: whole files only, so that a killed run can continue."""

import contextlib
import dataclasses
import json
import os
import pathlib
import shutil
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

import psml_jax
from psml_jax import _files
from psml_jax._validate import InputError
from psml_jax.experiments import lock

T = TypeVar('T')

FORMAT = 3
"""Version of what a work directory holds; raised when older results must not be mixed
with new ones."""

_CONFIG, _INPUTS = 'config.json', 'inputs.json'

PROFILE_ANEW = (
  'remove profile.csv, profile.json, fingerprint.json, defense.json and all of '
  "extraction.* (of a study's zoo also the .jsonl files beside its folder), and the "
  'same command makes them anew'
)
"""What mends a damaged profile; what was made with it must not meet another one."""

ANEW = 'remove it, and the same command makes it anew'
"""What mends a damaged artifact."""

write = _files.write
_UNREADABLE = (msgspec.MsgspecError, ValueError)


@dataclasses.dataclass(frozen=True)
class Stored:
  """The content of config.json."""

  config: dict[str, Any] = dataclasses.field(default_factory=dict)
  format: int = 1
  psml_jax: str = '0.1.0 or older'


@dataclasses.dataclass(frozen=True)
class Input:
  """A file that was read, in inputs.json."""

  path: str
  digest: str


def open_workdir(
  path: str | os.PathLike[str], config: Any, *, moved: Collection[str] = ()
) -> pathlib.Path:
  """Makes or reopens the work directory of an experiment.

  Args:
    path: the directory; created where it does not exist.
    config: the experiment, a frozen dataclass.
    moved: fields that name files, as 'config.published.csv'; another path is allowed
      there, because `check_inputs` compares what the files hold.

  Returns:
    The directory, with `config.json` in it.

  Raises:
    ValueError: the directory holds another experiment, one of another format or other
      files, or cannot be made or written; nothing in it is touched.
  """
  directory = _files.local('workdir', path)
  try:
    if directory.exists() and not directory.is_dir():
      raise ValueError(f'workdir is {str(path)!r}, a file; it must be a directory')
    directory.mkdir(parents=True, exist_ok=True)
    stored = directory / _CONFIG
    if not stored.exists():
      if any(not _is_own(file) for file in directory.iterdir()):
        raise ValueError(
          f'workdir is {str(path)!r}, which holds files but no config.json; it must be '
          'empty, new, or the directory of this config'
        )
      with lock.hold(directory):
        if not stored.exists():
          _files.write_text(stored, to_json(config))
    found = read_config(directory)
  except OSError as error:
    raise ValueError(
      f'workdir is {str(path)!r}; it must be a directory that can be made and written: '
      f'{error}'
    ) from error
  wanted = json.loads(to_json(config))['config']
  for field in moved:
    _forget(field, found.config, wanted)
  if found.config != wanted:
    raise ValueError(
      f'workdir is {str(path)!r}, which holds an experiment of another config '
      f'({difference(found.config, wanted)}); give an empty or new directory'
    )
  return directory


def check_inputs(directory: pathlib.Path, inputs: Mapping[str, pathlib.Path]) -> None:
  """Checks that the experiment reads the files that it read before.

  What they hold is compared, not where they are. A directory without results remembers
  them, in `inputs.json`.

  Args:
    directory: the work directory.
    inputs: name -> file, as `Experiment.inputs` gives them.

  Raises:
    InputError: a file that cannot be read, has changed, is new to the directory's
      results or is absent now; the message names it.
  """
  given = {name: _remembered(name, path) for name, path in inputs.items()}
  stored = directory / _INPUTS
  if stored.exists():
    known = read_json(stored, dict[str, Input], 'give an empty or new directory')
  elif any(not _is_own(file) for file in directory.iterdir()):
    known = {}
  else:
    write_json(stored, given)
    return
  for name in sorted(known.keys() | given.keys()):
    if name not in known:
      trouble = f'was made without {name}, which is {given[name].path} now'
    elif name not in given:
      trouble = f'was made with {name}, {known[name].path}, which is not given now'
    elif known[name].digest != given[name].digest:
      trouble = f'was made before {given[name].path} changed, which is {name}'
    else:
      continue
    raise InputError(
      f'workdir is {str(directory)!r}, which {trouble}; give the input that it was '
      'made with, or an empty or new directory'
    )


@contextlib.contextmanager
def held(directory: pathlib.Path) -> Iterator[None]:
  """Locks a directory that is made and removes what a killed run left half written.

  Raises:
    InputError: another run has it.
  """
  with contextlib.ExitStack() as resources:
    try:
      resources.enter_context(lock.hold(directory))
    except ValueError as error:
      raise InputError(str(error)) from error
    remove_unfinished(directory)
    yield


def remove_unfinished(directory: pathlib.Path) -> None:
  """Removes what a killed run was writing; only for the holder of the lock."""
  for path in list(directory.rglob(f'{_files.UNFINISHED}*')):
    if path.is_dir():
      shutil.rmtree(path)
    else:
      path.unlink()


def to_json(config: Any) -> str:
  """The content of config.json: the config, the format and the library's version."""
  content = Stored(dataclasses.asdict(config), FORMAT, psml_jax.__version__)
  return json.dumps(dataclasses.asdict(content), indent=2, sort_keys=True) + '\n'


def read_config(directory: pathlib.Path) -> Stored:
  """Reads config.json, which may hold infinite numbers and so no other program's JSON.

  Raises:
    ValueError: a damaged one, or one of another format.
  """
  path = directory / _CONFIG
  try:
    found = msgspec.convert(json.loads(path.read_text('utf-8')), Stored)
  except _UNREADABLE as error:
    raise damaged(path, error, 'give an empty or new directory') from error
  if found.format != FORMAT:
    raise ValueError(
      f'workdir is {str(directory)!r}, of format {found.format} (psml_jax '
      f'{found.psml_jax}); psml_jax {psml_jax.__version__} reads and writes format '
      f'{FORMAT}, so give an empty or new directory, or one of this format'
    )
  return found


def write_json(path: pathlib.Path, value: Any, kind: Any = None) -> None:
  """Writes a dataclass or JSON-like value whole, or a ValidationError.

  What could not be read back as its kind, or its own type unless given, is not written,
  such as a NaN where a number must be; where it may be None, it is null.
  """
  data = msgspec.json.format(_encoded(value, kind or type(value)), indent=2)
  _files.write_bytes(path, data + b'\n')


def write_jsonl(path: pathlib.Path, records: Sequence[Any]) -> None:
  """Writes a file of values, one a line, as `write_json` writes one."""
  lines = (_encoded(record, type(record)) + b'\n' for record in records)
  _files.write_bytes(path, b''.join(lines))


def read_json(path: pathlib.Path, kind: type[T], remedy: str = ANEW) -> T:
  """Reads what `write_json` wrote; fields that the type does not have are ignored.

  Args:
    path: the file.
    kind: a dataclass or another type that the value must have.
    remedy: what mends a damaged file.

  Raises:
    InputError: a file that is damaged.
  """
  try:
    return msgspec.json.decode(path.read_bytes(), type=kind)
  except _UNREADABLE as error:
    raise damaged(path, error, remedy) from error


def read_jsonl(
  path: pathlib.Path, kind: Any = dict[str, Any], remedy: str = ANEW
) -> list[Any]:
  """All lines of a file, as `read_json` reads one; none where it does not exist."""
  if not path.exists():
    return []
  try:
    return msgspec.json.Decoder(kind).decode_lines(path.read_bytes())
  except _UNREADABLE as error:
    raise damaged(path, error, remedy) from error


def study(
  directory: str | os.PathLike[str],
  config: Any,
  work: Callable[[pathlib.Path], None],
) -> pathlib.Path:
  """Opens a study's work directory, and does its work where there is no report yet.

  Args:
    directory: new, empty, or of the same config.
    config: a dataclass.
    work: given the directory, it leaves report.html as its last file.

  Returns:
    The directory.

  Raises:
    InputError: a directory of another config, or in use.
  """
  try:
    path = open_workdir(_files.local('workdir', directory), config)
  except ValueError as error:
    raise InputError(str(error)) from error
  if not (path / 'report.html').exists():
    with held(path):
      work(path)
  return path


def job_by_job(
  path: pathlib.Path, kind: type[T], jobs: Mapping[str, Callable[[], list[T]]]
) -> list[T]:
  """The records of a file, made job by job; those that lie there are kept.

  Args:
    path: the file, written anew after every job.
    kind: of a record.
    jobs: what makes the records of each job, by a name that does not change.
  """
  done: list[Any] = read_jsonl(path, tuple[str, list[kind]])  # type: ignore[valid-type]
  names = {job for job, _ in done}
  for job, make in jobs.items():
    if job in names:
      continue
    began = time.perf_counter()
    done.append((job, make()))
    write_jsonl(path, done)
    print(f'{path.stem}: {job}, {time.perf_counter() - began:.1f} s', flush=True)
  return [record for job, records in done if job in jobs for record in records]


def damaged(path: pathlib.Path, why: object, remedy: str = ANEW) -> InputError:
  """The error of an artifact that cannot be read."""
  return InputError(f'{path} is damaged ({why}); {remedy}')


def _encoded(value: Any, kind: Any) -> bytes:
  data = msgspec.json.encode(value)
  msgspec.json.decode(data, type=kind)
  return data


def _is_own(path: pathlib.Path) -> bool:
  own = (_CONFIG, _INPUTS, lock.NAME)
  return path.name in own or path.name.startswith(_files.UNFINISHED)


def _forget(field: str, found: dict[str, Any], wanted: dict[str, Any]) -> None:
  """Makes a field equal, where both have a value."""
  *parents, name = field.removeprefix('config.').split('.')
  for parent in parents:
    found, wanted = found.get(parent) or {}, wanted.get(parent) or {}
  if found.get(name) and wanted.get(name):
    found[name] = wanted[name]


def _remembered(name: str, path: pathlib.Path) -> Input:
  try:
    return Input(str(path.absolute()), _files.digest(path))
  except OSError as error:
    raise InputError(f'{name} is {str(path)!r}; it must be a file: {error}') from None


def difference(found: Any, wanted: Any, path: str = 'config') -> str:
  """The first field in which two values of JSON differ, and its two values."""
  if isinstance(found, dict) and isinstance(wanted, dict):
    for name in sorted(found.keys() | wanted.keys()):
      if found.get(name) != wanted.get(name):
        return difference(found.get(name), wanted.get(name), f'{path}.{name}')
  return f'{path} is {found!r} there and {wanted!r} here'
