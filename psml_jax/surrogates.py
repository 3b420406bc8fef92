"""Surrogates: the models an attacker trains on what it harvested (paper, section 5)."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from psml_jax import _validate, training
from psml_jax.attacks.extraction import Harvest

Rows = TypeVar('Rows')
Results = TypeVar('Results')


def fit(
  key: jax.Array,
  module: nn.Module,
  pool: jax.Array,
  harvest: Harvest,
  hyper: training.Hyper,
) -> Any:
  """Trains one surrogate on one harvest.

  Args:
    key: consumed: initial parameters and minibatches.
    module: the surrogate's architecture.
    pool: f32[P, H, W, C], the attacker's images.
    harvest: the answered queries, B rows; where none was answered, the parameters
      stay as they were initialised.
    hyper: the training's settings (static).

  Returns:
    Flax variables.
  """
  variables, _ = training.fit(
    key, module, pool[harvest.inputs], harvest.targets, harvest.count, hyper
  )
  return variables


def over_population(
  row: Callable[[Rows], Results], rows: Rows, *, width: int = 1
) -> Results:
  """Maps a function over the rows of a population, sharded over all devices.

  Each row depends on its own entry alone, so its draws are the same however the
  population is batched or sharded; numbers then agree up to the order of
  floating-point sums.

  Args:
    row: pure, of one row without leading axis.
    rows: pytree whose leaves have leading axis R >= 1.
    width: rows to run under one vmap on a device. 1 is the fast way on CPUs (under
      vmap, convolutions with a kernel a row are slow there), many on GPUs.

  Returns:
    The results, leaves with leading axis R. Traceable: call it inside jit.

  Raises:
    ValueError: `width` is not a whole number >= 1.

  >>> over_population(lambda x: 2 * x, jnp.arange(3)).tolist()
  [0, 2, 4]
  """
  _validate.positive_int('width', width)
  devices = jax.devices()
  num_rows = jax.tree.leaves(rows)[0].shape[0]
  padding = -num_rows % len(devices)
  padded = jax.tree.map(
    lambda leaf: jnp.concatenate([leaf, jnp.repeat(leaf[:1], padding, axis=0)]), rows
  )
  mapped = functools.partial(jax.lax.map, row, batch_size=width)
  if len(devices) > 1:
    mapped = jax.shard_map(
      mapped,
      mesh=Mesh(devices, ('rows',)),
      in_specs=PartitionSpec('rows'),
      out_specs=PartitionSpec('rows'),
      check_vma=False,
    )
  return jax.tree.map(lambda leaf: leaf[:num_rows], mapped(padded))
