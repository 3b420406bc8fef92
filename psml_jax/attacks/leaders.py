"""Leader clustering: what is near no leader yet becomes one."""

import dataclasses

import jax
import jax.numpy as jnp

from psml_jax import struct


@struct.dataclass(eq=False)
class Leaders:
  """Clusters, each known by its first member.

  Attributes:
    points: f32[G, D].
    count: i32[], how many of them are there.
  """

  points: jax.Array
  count: jax.Array

  @classmethod
  def none(cls, most: int, size: int) -> 'Leaders':
    """No cluster yet, of `most` at most, of points of a size."""
    return cls(jnp.zeros((most, size), jnp.float32), jnp.int32(0))

  def place(
    self, point: jax.Array, tolerance: jax.Array, exists: jax.Array
  ) -> tuple['Leaders', jax.Array]:
    """The clusters with one more point, and which one it is in.

    Args:
      point: f32[D].
      tolerance: f32[], the largest difference in any coordinate within a cluster.
      exists: bool[], whether there is a point; where not, nothing changes.

    Returns:
      The clusters, and i32[]: the cluster of the nearest leader, if it is within the
      tolerance or no more clusters are allowed; `G` where there is no point.

    >>> leaders = Leaders.none(4, 1)
    >>> for value in (0.1, 0.5, 0.12):
    ...   leaders, which = leaders.place(jnp.array([value]), 0.05, True)
    >>> int(which), int(leaders.count)
    (0, 2)
    """
    most = len(self.points)
    distance = jnp.max(jnp.abs(self.points - point[None]), axis=-1)
    distance = jnp.where(jnp.arange(most) < self.count, distance, jnp.inf)
    nearest = jnp.argmin(distance).astype(jnp.int32)
    new = exists & (distance[nearest] > tolerance) & (self.count < most)
    slot = jnp.where(new, self.count, most)
    grown = dataclasses.replace(
      self,
      points=self.points.at[slot].set(point, mode='drop'),
      count=self.count + new.astype(jnp.int32),
    )
    return grown, jnp.where(exists, jnp.where(new, self.count, nearest), most)
