"""Zoos on a grid, and specs that cover the plane around them."""

import jax
import jax.numpy as jnp
import numpy as np

from psml_jax.core import Spec
from tests import references

SIZE, GRID = 6, 40


def zoo_of(seed, *, levels=40):
  """Numbers on a grid of so many steps a field; both ends are some model's."""
  rng = np.random.default_rng(seed)
  place = rng.integers(0, levels + 1, (2, SIZE))
  place[:, 0], place[:, 1] = (0, 0), (levels, levels)
  return references.make_profile(0.2 + 0.6 * place[0] / levels, 1 + place[1] / 4)


def grid_of(zoo, beyond=0.0, ends=()):
  """40 x 40 specs, the middles of the range's cells; or of a wider range's."""
  axes = []
  for field in references.arrays(zoo):
    share = (np.arange(GRID) + 0.5) / GRID * (1 + 2 * beyond) - beyond
    axes.append(np.concatenate([field.min() + share * np.ptp(field), ends]))
  return Spec.of(*(axis.ravel() for axis in np.meshgrid(*axes)))


def wide(zoo):
  """Specs within the range, outside of it, infinite, and every model's own."""
  spec = grid_of(zoo, 0.6, (-np.inf, np.inf))
  both = zip(jax.tree.leaves(spec), (zoo.accuracy, zoo.latency_ms), strict=True)
  return Spec(*(jnp.concatenate(pair) for pair in both))


def inside(zoo):
  spec = grid_of(zoo)
  met = np.asarray(zoo.meets(spec))
  return jax.tree.map(lambda field: field[met.any(-1)], spec), met[met.any(-1)]
