"""Routing behind the Laplace defense, against NumPy: speed and memory."""

import functools
import json
import resource
import subprocess
import sys
import time
import tracemalloc
from typing import Any

import jax
import numpy as np
from numpy_router import SCALE, NumPy, Specs
from records import MIB, Row, rates

from psml_jax import defenses, profiles, routers
from psml_jax.core import Spec, ZooProfile

NUM_SPECS = 1_000_000
# Half as many: the program's temporaries then stay below the 32 MiB at which glibc
# takes an allocation from the system and gives it back on every call.
NUM_SPECS_IN_HEAP = 500_000


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
  return _published() + _capped() + _large()


def _published() -> list[Row]:
  zoo = profiles.load('cifar10_published')
  specs, key = random_specs(zoo), jax.random.key(0)
  numpy = NumPy(zoo)
  some = (specs[0][:20_000], specs[1][:20_000])
  rows = []
  for count, bar in ((NUM_SPECS_IN_HEAP, '>= 300x'), (NUM_SPECS, '')):
    batch = (specs[0][:count], specs[1][:count])
    program, seconds = compiled(zoo, batch)
    print(f'routing {count:,} specs, {len(zoo)} models: compiled in {seconds:.2f} s')
    work = functools.partial(program, key, Spec.of(*batch))
    rows.append(
      rates(
        f'zoo of 22: routing {count:,} specs a call',
        (work, count),
        (lambda: numpy.one_by_one(some), len(some[0])),
        rounds=5,
        unit='specs/s',
        peer_name='NumPy, query by query',
        bar=bar,
      )
    )
  temporaries = program.memory_analysis().temp_size_in_bytes / MIB
  tracemalloc.start()
  numpy.dense(specs, NUM_SPECS)
  dense_peak = tracemalloc.get_traced_memory()[1] / MIB
  tracemalloc.stop()
  name = f'zoo of 22: temporaries, {NUM_SPECS:,} specs'
  mask = NUM_SPECS * len(zoo) / MIB
  limit = '<= 200 MiB'
  return [
    *rows,
    Row(name, temporaries, mask, 'MiB', 'feasibility matrix alone', bar=limit),
    Row(name, temporaries, dense_peak, 'MiB', 'dense NumPy, peak', bar=limit),
  ]


def _capped() -> list[Row]:
  """Capped routing beside the uniform router, neither behind a defense."""
  zoo = profiles.load('cifar10_published')
  spec, key = Spec.of(*random_specs(zoo)), jax.random.key(0)
  programs = [
    jax.jit(router).lower(key, spec).compile()
    for router in (defenses.capped(zoo, 0.27), routers.uniform(zoo))
  ]
  ours, peer = (functools.partial(program, key, spec) for program in programs)
  memory: Any = programs[0].memory_analysis()
  temporaries = memory.temp_size_in_bytes / MIB
  name = f'zoo of 22: capped, {NUM_SPECS:,} specs'
  return [
    rates(
      name,
      (ours, NUM_SPECS),
      (peer, NUM_SPECS),
      rounds=5,
      unit='specs/s',
      peer_name='uniform',
      bar='>= 0.6x',
    ),
    Row(f'{name}: temporaries', temporaries, 200.0, 'MiB', 'limit', bar='<= 200 MiB'),
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
