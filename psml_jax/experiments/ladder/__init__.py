"""The ladder: every defense against every thief, over zoos, at equal goodput."""

from psml_jax.experiments.ladder.config import Config, parse
from psml_jax.experiments.ladder.study import run

__all__ = ['Config', 'parse', 'run']
