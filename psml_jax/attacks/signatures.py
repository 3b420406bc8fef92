"""Signatures: models told apart by what they answer to the same images.

Where nothing is refused, a refusal tells nothing; the answers do. A few images, the
canaries, are sent with specs over the whole plane, and equal answers are one model's.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.typing import ArrayLike

from psml_jax import _validate
from psml_jax.attacks.base import ATTACKS, Entry, Phases, Resources
from psml_jax.attacks.extraction import choose_inputs, replay
from psml_jax.attacks.leaders import Leaders
from psml_jax.core import Knowledge, Observation, Query, Spec

__all__ = ['Map', 'signatures']

RULES = ('strictest', 'slowest')
TELLS = ('probabilities', 'labels')


@struct.dataclass(eq=False)
class Map:
  """The plane of specs as its answers show it, S specs and C canaries.

  Attributes:
    spec: the one with the highest rate, of shape []; of equal ones the strictest.
    grid: Spec of shape [S].
    responder: i32[S, C], the cluster that answered each canary most often there,
      numbered canary by canary; -1 where none was answered.
    purity: f32[S], how much of a cell's answers are of its `responder`, as the
      attacker sees it: the mean over canaries.
    rate: f32[S], how much of a cell's queries was answered as by the target.
    target: i32[C], the clusters of the model that is sought.
    count: i32[C], how many models each canary tells apart.
    probes: i32[], queries sent.
  """

  spec: Spec
  grid: Spec
  responder: jax.Array
  purity: jax.Array
  rate: jax.Array
  target: jax.Array
  count: jax.Array
  probes: jax.Array
