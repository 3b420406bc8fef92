"""Draws of selection mechanisms, against NumPy, draw by draw."""

import functools
from collections.abc import Callable

import jax
import numpy as np
from records import Row, rates
from routing import random_specs

from psml_jax import defenses, profiles
from psml_jax.core import Spec, ZooProfile

EPSILON = 5.0
NUM_SPECS, NUM_PEER = 500_000, 5_000


class NumPy:
  """The mechanisms as NumPy code has them, a query at a time."""

  def __init__(self, zoo: ZooProfile) -> None:
    self.accuracy = np.asarray(zoo.accuracy)
    self.latency_ms = np.asarray(zoo.latency_ms)
    self.rng = np.random.default_rng(0)

  def exponential(self, accuracy: float, latency_ms: float) -> int:
    chances = self._chances(accuracy, latency_ms)
    return int(self.rng.choice(len(chances), p=chances / chances.sum()))

  def permute_and_flip(self, accuracy: float, latency_ms: float) -> int:
    chances = self._chances(accuracy, latency_ms)
    while True:
      for model in self.rng.permutation(len(chances)):
        if self.rng.random() < chances[model]:
          return int(model)

  def _chances(self, accuracy: float, latency_ms: float) -> np.ndarray:
    met = (self.accuracy >= accuracy) & (self.latency_ms <= latency_ms)
    score = met.astype(np.float64)
    return np.asarray(np.exp(EPSILON * (score - score.max()) / 2))


def measure() -> list[Row]:
  """A row for each mechanism, with the score of goodput."""
  zoo = profiles.load('cifar10_published')
  accuracy, latency_ms = (field[:NUM_SPECS] for field in random_specs(zoo))
  spec, key, numpy = Spec.of(accuracy, latency_ms), jax.random.key(0), NumPy(zoo)
  some = list(zip(accuracy[:NUM_PEER], latency_ms[:NUM_PEER], strict=True))

  def one_by_one(draw: Callable[[float, float], int]) -> list[int]:
    return [draw(*each) for each in some]

  makes = (
    (defenses.exponential, numpy.exponential),
    (defenses.permute_and_flip, numpy.permute_and_flip),
  )
  return [
    rates(
      f'zoo of 22: {make.__name__}, {NUM_SPECS:,} specs a call',
      (functools.partial(jax.jit(make(zoo, EPSILON)), key, spec), NUM_SPECS),
      (functools.partial(one_by_one, draw), NUM_PEER),
      rounds=5,
      unit='draws/s',
      peer_name='NumPy, draw by draw',
      bar='>= 100x',
    )
    for make, draw in makes
  ]
