"""The zoo: families of Flax models, their training, checkpoints and profiles."""

from psml_jax.zoo.checkpoints import restore, save
from psml_jax.zoo.model import Model, abstract_variables, predict, train
from psml_jax.zoo.profiling import Measured, measure, write_profile
from psml_jax.zoo.registry import create, families, register

__all__ = [
  'Measured',
  'Model',
  'abstract_variables',
  'create',
  'families',
  'measure',
  'predict',
  'register',
  'restore',
  'save',
  'train',
  'write_profile',
]
