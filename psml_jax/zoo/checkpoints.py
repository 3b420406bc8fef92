"""Checkpoints of trained models, by orbax."""

import pathlib
from typing import Any

import jax
import orbax.checkpoint as ocp


def save(path: str | pathlib.Path, variables: Any) -> None:
  """Saves variables; the directory appears whole or not at all.

  Args:
    path: a directory that does not exist yet.
    variables: Flax variables.
  """
  with ocp.StandardCheckpointer() as checkpointer:
    checkpointer.save(pathlib.Path(path).absolute(), variables)


def restore(path: str | pathlib.Path, abstract: Any) -> Any:
  """Restores the variables of one architecture.

  Args:
    path: a directory that `save` made.
    abstract: the variables' shapes and dtypes, from `jax.eval_shape` of the module's
      init.

  Returns:
    Flax variables.

  Raises:
    ValueError: no checkpoint there, or one of another architecture; the message
      names the entries that differ.
  """
  directory = pathlib.Path(path).absolute()
  if not directory.is_dir():
    raise ValueError(f'path is {str(path)!r}; it must be the directory of a checkpoint')
  require_same(directory, abstract)
  with ocp.StandardCheckpointer() as checkpointer:
    return checkpointer.restore(directory, on_device(abstract))


def require_same(directory: pathlib.Path, abstract: Any) -> None:
  """Raises a ValueError where a checkpoint holds other entries than a tree has.

  Args:
    directory: of the checkpoint.
    abstract: the tree's shapes and dtypes.
  """
  with ocp.StandardCheckpointer() as checkpointer:
    stored = _shapes(checkpointer.metadata(directory).item_metadata.tree)
  wanted = _shapes(abstract)
  differing = sorted(
    f'{name} is {stored.get(name, "absent")}, not {wanted.get(name, "absent")}'
    for name in stored.keys() | wanted.keys()
    if stored.get(name) != wanted.get(name)
  )
  if differing:
    raise ValueError(
      f'{directory} holds another architecture: {"; ".join(differing[:5])}'
    )


def on_device(abstract: Any) -> Any:
  """The same tree of shapes, to be restored to the first device."""
  sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
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
