"""Training: one loop for zoo models, populations and surrogates.

A `Training` is a module, a recipe (`Steps`, `Epochs`) and an objective, one of
`OBJECTIVES`, all of them values. `pure_fit` is a whole one as a traceable function, to
be mapped by `over_population`; `fit` runs one with checkpoints, metrics and resume.
"""

from typing import TYPE_CHECKING

from psml_jax import _lazy

if TYPE_CHECKING:
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

if not TYPE_CHECKING:
  __getattr__, __dir__ = _lazy.attach(
    __name__,
    __all__,
    {
      'Aux': 'psml_jax.train.objectives',
      'Batch': 'psml_jax.train.objectives',
      'CROSS_ENTROPY': 'psml_jax.train.objectives',
      'CrossEntropy': 'psml_jax.train.objectives',
      'Epochs': 'psml_jax.train.recipes',
      'FixMatch': 'psml_jax.train.fixmatch',
      'Learner': 'psml_jax.train.objectives',
      'Metrics': 'psml_jax.train.loop',
      'MixMatch': 'psml_jax.train.mixmatch',
      'Model': 'psml_jax.train.model',
      'OBJECTIVES': 'psml_jax.train.objectives',
      'Objective': 'psml_jax.train.objectives',
      'Steps': 'psml_jax.train.recipes',
      'TrainState': 'psml_jax.train.loop',
      'Trained': 'psml_jax.train.runner',
      'Training': 'psml_jax.train.loop',
      'abstract_variables': 'psml_jax.train.model',
      'augment': 'psml_jax.train.augmentation',
      'epoch': 'psml_jax.train.loop',
      'fit': 'psml_jax.train.runner',
      'gather': 'psml_jax.train.population',
      'global_mesh': 'psml_jax.train.population',
      'in_batches': 'psml_jax.train.model',
      'local_mesh': 'psml_jax.train.population',
      'over_population': 'psml_jax.train.population',
      'predict': 'psml_jax.train.model',
      'probabilities': 'psml_jax.train.objectives',
      'pure_fit': 'psml_jax.train.loop',
      'restore': 'psml_jax.train.checkpoints',
      'save': 'psml_jax.train.checkpoints',
      'start': 'psml_jax.train.loop',
      'strong': 'psml_jax.train.augmentation',
    },
  )
