"""Whole experiments: a config in, a work directory of artifacts and a report out."""

from typing import TYPE_CHECKING

from psml_jax import _lazy

if TYPE_CHECKING:
  from psml_jax.experiments.config import Config, parse
  from psml_jax.experiments.experiment import STAGES
  from psml_jax.experiments.pipeline import run
  from psml_jax.experiments.results import compare, load

__all__ = ['STAGES', 'Config', 'compare', 'load', 'parse', 'run']

if not TYPE_CHECKING:
  __getattr__, __dir__ = _lazy.attach(
    __name__,
    __all__,
    {
      'Config': 'psml_jax.experiments.config',
      'STAGES': 'psml_jax.experiments.experiment',
      'compare': 'psml_jax.experiments.results',
      'load': 'psml_jax.experiments.results',
      'parse': 'psml_jax.experiments.config',
      'run': 'psml_jax.experiments.pipeline',
    },
  )
