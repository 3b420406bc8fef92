"""The zoo: architectures, their training, trained weights, checkpoints and profiles."""

from psml_jax.zoo.checkpoints import restore, save
from psml_jax.zoo.layers import Conv
from psml_jax.zoo.model import Model, abstract_variables, predict, train
from psml_jax.zoo.profiling import Latency, Measured, measure
from psml_jax.zoo.recipe import Recipe
from psml_jax.zoo.registry import create, families, register
from psml_jax.zoo.repvgg import fuse
from psml_jax.zoo.serving import check_served
from psml_jax.zoo.state_dict import import_state_dict
from psml_jax.zoo.tables import read_profiles, stored_profile, write_profile
from psml_jax.zoo.trainer import Trained, fit

__all__ = [
  'Conv',
  'Latency',
  'Measured',
  'Model',
  'Recipe',
  'Trained',
  'abstract_variables',
  'check_served',
  'create',
  'families',
  'fit',
  'fuse',
  'import_state_dict',
  'measure',
  'predict',
  'read_profiles',
  'register',
  'restore',
  'save',
  'stored_profile',
  'train',
  'write_profile',
]
