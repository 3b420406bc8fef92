"""Whole experiments: a config in, a work directory of artifacts and a report out."""

from psml_jax.experiments.config import Config, parse
from psml_jax.experiments.experiment import STAGES
from psml_jax.experiments.run import run

__all__ = ['STAGES', 'Config', 'parse', 'run']
