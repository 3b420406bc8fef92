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
  with ocp.StandardCheckpointer() as checkpointer:
    metadata = checkpointer.metadata(directory)
    stored = _shapes(metadata.item_metadata.tree)
    wanted = _shapes(abstract)
    differing = sorted(
      f'{name} is {stored.get(name, "absent")}, not {wanted.get(name, "absent")}'
      for name in stored.keys() | wanted.keys()
      if stored.get(name) != wanted.get(name)
    )
    if differing:
      raise ValueError(f'{path} holds another architecture: {"; ".join(differing[:5])}')
    return checkpointer.restore(directory, abstract)


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
  leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
  return {jax.tree_util.keystr(path): tuple(leaf.shape) for path, leaf in leaves}
