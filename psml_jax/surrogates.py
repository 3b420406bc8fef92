"""Surrogates: the models an attacker trains on what it harvested (paper, section 5)."""

from typing import Any

import flax.linen as nn
import jax

from psml_jax import training
from psml_jax.core import Harvest
from psml_jax.training import over_population

__all__ = ['fit', 'over_population']


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
