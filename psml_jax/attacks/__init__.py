"""Attacks: what a client can do with specs, inputs and observations alone.

Nothing here knows the router or the zoo. Each attack decides which queries to send
and what to make of the answers; `psml_jax.session` carries them to a server.
"""

from psml_jax.attacks import (
  adaptive,
  bandit,
  canvass,
  extraction,
  fingerprint,
  majority,
  posterior,
  probabilistic,
  repeats,
  signatures,
  sybils,
)
from psml_jax.attacks.base import (
  ATTACKS,
  Attack,
  Entry,
  Phases,
  Recorded,
  Resources,
  Trail,
  configured,
  make,
)

__all__ = [
  'ATTACKS',
  'Attack',
  'Entry',
  'Phases',
  'Recorded',
  'Resources',
  'Trail',
  'adaptive',
  'bandit',
  'canvass',
  'configured',
  'extraction',
  'fingerprint',
  'majority',
  'make',
  'posterior',
  'probabilistic',
  'repeats',
  'signatures',
  'sybils',
]
