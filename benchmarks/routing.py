"""Routing behind the Laplace defense, against NumPy: speed and memory."""

import json
import resource
import subprocess
import sys
import time
import tracemalloc
from typing import Any

import jax
import numpy as np
from records import MIB, Row, rates

from psml_jax import defenses, profiles, routers
from psml_jax.core import Spec, ZooProfile

NUM_SPECS = 1_000_000
SCALE = 0.1

Specs = tuple[np.ndarray, np.ndarray]


def random_zoo(num_models: int = 10_000) -> ZooProfile:
  """A zoo of models that nobody trained."""
  rng = np.random.default_rng(0)
  return ZooProfile(
    jax.numpy.asarray(rng.uniform(0.5, 1.0, num_models)),
    jax.numpy.asarray(rng.lognormal(3.0, 1.0, num_models)),
    tuple(map(str, range(num_models))),
  )


def random_specs(zoo: ZooProfile) -> Specs:
  """f32[NUM_SPECS] minimum accuracies and maximum latencies in the zoo's range."""
  rng = np.random.default_rng(1)
  fields = (np.asarray(zoo.accuracy), np.asarray(zoo.latency_ms))
  accuracy, latency = (
    rng.uniform(field.min(), field.max(), NUM_SPECS).astype(np.float32)
    for field in fields
  )
  return accuracy, latency


def compiled(zoo: ZooProfile, specs: Specs) -> tuple[Any, float]:
  """The program `(key, spec) -> Route`, and the seconds its compilation took."""
  noise = defenses.laplace(*defenses.relative_scale(zoo, SCALE))
  route = jax.jit(defenses.defend(routers.uniform(zoo), noise))
  began = time.perf_counter()
  program = route.lower(jax.random.key(0), Spec.of(*specs)).compile()
  return program, time.perf_counter() - began


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


def measure_peak_rss() -> Row:
  """The peak memory of a new process that routes behind a large zoo.

  Call it before anything large is in memory: on Linux, a child's peak counts what
  its parent held when it started.
  """
  child = subprocess.run(
    [sys.executable, __file__], check=True, stdout=subprocess.PIPE, text=True
  )
  peak = json.loads(child.stdout)
  limit = 'the limit'
  return Row('large zoo: peak RSS', peak, 4096.0, 'MiB', limit, bar='<= 4096 MiB')


def measure() -> list[Row]:
  """All rows on routing but the peak memory; prints the seconds of compilations."""
  return _published() + _large()


def _published() -> list[Row]:
  zoo = profiles.load('cifar10_published')
  specs, key = random_specs(zoo), jax.random.key(0)
  program, seconds = compiled(zoo, specs)
  print(f'routing, {len(zoo)} models: compiled in {seconds:.2f} s')
  device_spec, numpy = Spec.of(*specs), NumPy(zoo)
  some = (specs[0][:20_000], specs[1][:20_000])
  temporaries = program.memory_analysis().temp_size_in_bytes / MIB
  tracemalloc.start()
  numpy.dense(specs, NUM_SPECS)
  dense_peak = tracemalloc.get_traced_memory()[1] / MIB
  tracemalloc.stop()
  name = 'zoo of 22: temporaries'
  mask = NUM_SPECS * len(zoo) / MIB
  return [
    rates(
      'zoo of 22: routing',
      (lambda: program(key, device_spec), NUM_SPECS),
      (lambda: numpy.one_by_one(some), len(some[0])),
      rounds=9,
      unit='specs/s',
      peer_name='NumPy, query by query',
      bar='>= 200x',
    ),
    Row(name, temporaries, mask, 'MiB', 'feasibility matrix alone', bar='<= 200 MiB'),
    Row(name, temporaries, dense_peak, 'MiB', 'dense NumPy, peak', bar='<= 200 MiB'),
  ]


def _large() -> list[Row]:
  zoo = random_zoo()
  specs, key = random_specs(zoo), jax.random.key(0)
  program, seconds = compiled(zoo, specs)
  print(f'routing, {len(zoo)} models: compiled in {seconds:.2f} s')
  device_spec, numpy = Spec.of(*specs), NumPy(zoo)
  some = (specs[0][:2_000], specs[1][:2_000])
  temporaries = program.memory_analysis().temp_size_in_bytes / MIB
  mask = NUM_SPECS * len(zoo) / MIB
  return [
    rates(
      'large zoo: routing',
      (lambda: program(key, device_spec), NUM_SPECS),
      (lambda: numpy.dense(some, chunk=200), len(some[0])),
      rounds=5,
      unit='specs/s',
      peer_name='dense NumPy',
    ),
    Row('large zoo: temporaries', temporaries, mask, 'MiB', 'feasibility matrix alone'),
  ]


def _report_own_peak() -> None:
  zoo = random_zoo()
  specs = random_specs(zoo)
  program, _ = compiled(zoo, specs)
  jax.block_until_ready(program(jax.random.key(0), Spec.of(*specs)))
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  print(json.dumps(peak / (MIB if sys.platform == 'darwin' else 1024)))


if __name__ == '__main__':
  _report_own_peak()
