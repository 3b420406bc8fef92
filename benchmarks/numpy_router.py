"""The peer of the routing benchmarks: the same defense and router in NumPy."""

import numpy as np

from psml_jax import defenses
from psml_jax.core import ZooProfile

SCALE = 0.1  # of the Laplace noise, a share of the zoo's range

Specs = tuple[np.ndarray, np.ndarray]


class NumPy:
  """The same routing as NumPy code would do it."""

  def __init__(self, zoo: ZooProfile) -> None:
    self.accuracy, self.latency_ms = (
      np.asarray(zoo.accuracy),
      np.asarray(zoo.latency_ms),
    )
    self.scales = [float(b) for b in defenses.relative_scale(zoo, SCALE)]
    self.rng = np.random.default_rng(0)

  def one_by_one(self, specs: Specs) -> np.ndarray:
    """A loop over the queries, as public code for this defense has it."""
    models = np.empty(len(specs[0]), np.int32)
    for i, (accuracy, latency_ms) in enumerate(zip(*specs, strict=True)):
      noisy_accuracy = accuracy + self.rng.laplace(0.0, self.scales[0])
      noisy_latency_ms = latency_ms + self.rng.laplace(0.0, self.scales[1])
      feasible = np.flatnonzero(
        (self.accuracy >= noisy_accuracy) & (self.latency_ms <= noisy_latency_ms)
      )
      models[i] = self.rng.choice(feasible) if feasible.size else -1
    return models

  def dense(self, specs: Specs, chunk: int) -> np.ndarray:
    """Chunk by chunk, a matrix that says which model meets which spec."""
    count = len(specs[0])
    return np.concatenate(
      [
        self._dense(specs[0][start : start + chunk], specs[1][start : start + chunk])
        for start in range(0, count, chunk)
      ]
    )

  def _dense(self, accuracy: np.ndarray, latency_ms: np.ndarray) -> np.ndarray:
    shape = accuracy.shape
    accuracy = accuracy + self.rng.laplace(0.0, self.scales[0], shape)
    latency_ms = latency_ms + self.rng.laplace(0.0, self.scales[1], shape)
    mask = self.accuracy >= accuracy[:, None]
    mask &= self.latency_ms <= latency_ms[:, None]
    place = np.cumsum(mask, axis=1, dtype=np.int32)
    nth = self.rng.integers(0, np.maximum(place[:, -1], 1))
    return np.where(place[:, -1] > 0, np.argmax(place > nth[:, None], axis=1), -1)
