"""Checkpoints of trained models, by orbax."""

import contextlib
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import jax
import orbax.checkpoint as ocp

from psml_jax import _files
from psml_jax._validate import InputError

_INDEX = 'manifest.ocdbt'  # Without it orbax leaves tracebacks of its threads behind.


def options() -> ocp.options.MultiprocessingOptions:
  """Those of a checkpoint that concerns this process alone."""
  if jax.process_count() == 1:
    return ocp.options.MultiprocessingOptions()
  process = jax.process_index()
  return ocp.options.MultiprocessingOptions(
    primary_host=process,
    active_processes={process},
    barrier_sync_key_prefix=f'process{process}',
  )


def _checkpointer() -> ocp.StandardCheckpointer:
  return ocp.StandardCheckpointer(multiprocessing_options=options())


def save(path: str | os.PathLike[str], variables: Any) -> None:
  """Saves variables; the directory appears whole or not at all.

  Args:
    path: a directory that does not exist yet.
    variables: Flax variables.

  Raises:
    ValueError: a path that exists, or a URL.
  """
  directory = _files.local('path', path).absolute()
  with _checkpointer() as checkpointer:
    checkpointer.save(directory, jax.device_get(variables))


def restore(path: str | os.PathLike[str], abstract: Any) -> Any:
  """Restores the variables of one architecture.

  Args:
    path: a directory that `save` made.
    abstract: the variables' shapes and dtypes, from `jax.eval_shape` of the module's
      init.

  Returns:
    Flax variables.

  Raises:
    ValueError: no checkpoint there, a damaged one, or one of another architecture; the
      message names the entries that differ.
  """
  directory = _files.local('path', path).absolute()
  if not directory.is_dir():
    raise ValueError(f'path is {str(path)!r}; it must be the directory of a checkpoint')
  with whole(directory), _checkpointer() as checkpointer:
    require_same(directory, abstract)
    return checkpointer.restore(directory, on_device(abstract))


@contextlib.contextmanager
def whole(directory: pathlib.Path) -> Iterator[None]:
  """Turns whatever orbax raises over a damaged checkpoint into one line of its own.

  Args:
    directory: of the checkpoint that is read.

  Raises:
    InputError: names the directory and what to do.
  """
  try:
    yield
  except (InputError, jax.errors.JaxRuntimeError, MemoryError):
    raise
  except Exception as error:
    reason = str(error).strip().partition('\n')[0][:200] or type(error).__name__
    raise InputError(
      f'{directory} is no whole checkpoint ({reason}); remove it and the run makes it '
      'anew'
    ) from error


def require_same(directory: pathlib.Path, abstract: Any) -> None:
  """Checks that a checkpoint holds the entries that a tree has.

  Args:
    directory: of the checkpoint.
    abstract: the tree's shapes and dtypes.

  Raises:
    InputError: other entries; call it within `whole` for damaged checkpoints.
  """
  if not (directory / _INDEX).is_file():
    raise FileNotFoundError(f'it has no {_INDEX}')
  with _checkpointer() as checkpointer:
    found = checkpointer.metadata(directory).item_metadata
    if found is None:
      raise FileNotFoundError('it has no metadata')
    stored = _shapes(found.tree)
  wanted = _shapes(abstract)
  differing = sorted(
    f'{name} is {stored.get(name, "absent")}, not {wanted.get(name, "absent")}'
    for name in stored.keys() | wanted.keys()
    if stored.get(name) != wanted.get(name)
  )
  if differing:
    raise InputError(
      f'{directory} holds another architecture: {"; ".join(differing[:5])}'
    )


def on_device(abstract: Any) -> Any:
  """The same tree of shapes, to be restored to the first device."""
  sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  return jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
    abstract,
  )


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
  """Shapes by path; a state saved as a dataclass comes back as nested mappings."""
  leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
  return {
    '.'.join(_entry(part) for part in path): tuple(leaf.shape) for path, leaf in leaves
  }


def _entry(part: Any) -> str:
  for field in ('key', 'idx', 'name'):
    if hasattr(part, field):
      return str(getattr(part, field))
  return str(part)
