"""Populations: one function over many rows, spread over devices."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, PartitionSpec

from psml_jax import _validate

Rows = TypeVar('Rows')
Results = TypeVar('Results')

AXIS = 'rows'


def local_mesh() -> Mesh:
  """All devices of this process, in one axis."""
  return Mesh(jax.local_devices(), (AXIS,))


def global_mesh() -> Mesh:
  """All devices of all processes, in one axis."""
  return Mesh(jax.devices(), (AXIS,))


def check_mesh(mesh: Any) -> None:
  """Raises a ValueError for what is no mesh of one axis."""
  if not isinstance(mesh, Mesh):
    raise ValueError(f'mesh is {mesh!r}; it must be a jax.sharding.Mesh')
  if len(mesh.axis_names) != 1:
    raise ValueError(f'mesh has the axes {mesh.axis_names}; it must have one')


def over_population(
  row: Callable[[Rows], Results],
  rows: Rows,
  *,
  width: int = 1,
  mesh: Mesh | None = None,
) -> Results:
  """Maps a function over the rows of a population, sharded over devices.

  Each row depends on its own entry alone, so its draws are the same however the
  population is batched or sharded; numbers then agree up to the order of
  floating-point sums.

  Args:
    row: pure, of one row without leading axis.
    rows: pytree whose leaves have leading axis R >= 1.
    width: rows to run under one vmap on a device. 1 is the fast way on CPUs (under
      vmap, convolutions with a kernel a row are slow there), many on GPUs.
    mesh: of one axis; all devices of this process unless given.

  Returns:
    The results, leaves with leading axis R. Traceable: call it inside jit. Where the
    mesh spans processes, each has its own part; `gather` makes them whole.

  Raises:
    ValueError: `width` is not a whole number >= 1, no rows or leaves of different
      numbers of them, or a mesh that is none or of several axes.

  >>> over_population(lambda x: 2 * x, jnp.arange(3)).tolist()
  [0, 2, 4]
  """
  _validate.positive_int('width', width)
  mesh = local_mesh() if mesh is None else mesh
  check_mesh(mesh)
  lengths = {jnp.shape(leaf)[:1] for leaf in jax.tree.leaves(rows)}
  if len(lengths) != 1 or lengths & {(), (0,)}:
    raise ValueError(
      f'rows has leaves with the leading axes {sorted(lengths)}; they must be equal, '
      'and at least 1'
    )
  ((num_rows,),) = lengths
  padding = -num_rows % mesh.size
  padded = jax.tree.map(
    lambda leaf: jnp.concatenate([leaf, jnp.repeat(leaf[:1], padding, axis=0)]), rows
  )
  mapped = functools.partial(jax.lax.map, row, batch_size=width)
  if mesh.size > 1:
    spec = PartitionSpec(mesh.axis_names[0])
    mapped = jax.shard_map(
      mapped, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False
    )
  return jax.tree.map(lambda leaf: leaf[:num_rows], mapped(padded))


def gather(results: Any) -> Any:
  """A population's results as NumPy arrays, whole in every process."""
  if all(leaf.is_fully_addressable for leaf in jax.tree.leaves(results)):
    return jax.tree.map(np.asarray, results)
  return multihost_utils.process_allgather(results, tiled=True)
