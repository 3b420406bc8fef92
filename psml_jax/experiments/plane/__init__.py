"""The protection-goodput plane: every defense of a zoo against the law, no training."""

from psml_jax.experiments.plane.config import Config, parse
from psml_jax.experiments.plane.study import run

__all__ = ['Config', 'parse', 'run']
