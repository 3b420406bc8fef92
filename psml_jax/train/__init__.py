"""Training: one loop for zoo models, populations and surrogates.

A `Training` is a module, a recipe (`Steps`, `Epochs`) and an objective, one of
`OBJECTIVES`, all of them values. `pure_fit` is a whole one as a traceable function, to
be mapped by `over_population`; `fit` runs one with checkpoints, metrics and resume.
"""

from psml_jax.train.augmentation import augment, strong
from psml_jax.train.checkpoints import restore, save
from psml_jax.train.fixmatch import FixMatch
from psml_jax.train.loop import Metrics, Training, TrainState, epoch, pure_fit, start
from psml_jax.train.mixmatch import MixMatch
from psml_jax.train.model import Model, abstract_variables, in_batches, predict
from psml_jax.train.objectives import (
  CROSS_ENTROPY,
  OBJECTIVES,
  Aux,
  Batch,
  CrossEntropy,
  Learner,
  Objective,
  probabilities,
)
from psml_jax.train.population import gather, global_mesh, local_mesh, over_population
from psml_jax.train.recipes import Epochs, Steps
from psml_jax.train.runner import Trained, fit

__all__ = [
  'CROSS_ENTROPY',
  'OBJECTIVES',
  'Aux',
  'Batch',
  'CrossEntropy',
  'Epochs',
  'FixMatch',
  'Learner',
  'Metrics',
  'MixMatch',
  'Model',
  'Objective',
  'Steps',
  'TrainState',
  'Trained',
  'Training',
  'abstract_variables',
  'augment',
  'epoch',
  'fit',
  'gather',
  'global_mesh',
  'in_batches',
  'local_mesh',
  'over_population',
  'predict',
  'probabilities',
  'pure_fit',
  'restore',
  'save',
  'start',
  'strong',
]
