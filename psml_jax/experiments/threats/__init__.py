"""A thief's other goals through the router: membership, and inputs that fool it."""

from psml_jax.experiments.threats.config import Config, parse
from psml_jax.experiments.threats.study import run

__all__ = ['Config', 'parse', 'run']
