"""The zoo: architectures, trained weights and profiles; `train` trains its models."""

from psml_jax.train.checkpoints import restore, save
from psml_jax.train.model import Model, abstract_variables, predict
from psml_jax.train.runner import Trained, fit
from psml_jax.zoo.layers import Conv
from psml_jax.zoo.profiling import Latency, Measured, measure
from psml_jax.zoo.registry import create, families, register
from psml_jax.zoo.repvgg import fuse
from psml_jax.zoo.serving import check_served
from psml_jax.zoo.state_dict import import_state_dict
from psml_jax.zoo.tables import read_profiles, stored_profile, write_profile

__all__ = [
  'Conv',
  'Latency',
  'Measured',
  'Model',
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
  'write_profile',
]
