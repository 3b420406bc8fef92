"""Slow, obvious NumPy versions of what the package computes fast, and test zoos."""

import numpy as np
from hypothesis import Phase, settings
from hypothesis import strategies as st

from psml_jax.core import Spec, ZooProfile

PROPERTY = settings(
  derandomize=True,
  deadline=None,
  max_examples=20,
  database=None,
  phases=[Phase.generate],
)  # shrinking takes minutes: every attempt compiles
NUM_SPECS = 16
SIZES = (1, 3, 20, 70)  # few, for every size compiles once


def make_profile(accuracy, latency_ms):
  return ZooProfile(accuracy, latency_ms, [f'm{i}' for i in range(len(accuracy))])


def random_profile(seed, num_models, *, levels=12):
  """A zoo whose numbers come from few values, so that many of them are equal."""
  rng = np.random.default_rng(seed)
  return make_profile(
    rng.integers(0, levels, num_models) / levels,
    rng.integers(0, levels, num_models) * 1.5,
  )


def spaced_profile(seed, num_models):
  """A zoo without ties: accuracies 0.01 and latencies 1 ms apart at least."""
  rng = np.random.default_rng(seed)
  return make_profile(
    rng.choice(np.arange(1, 99), num_models, replace=False) / 100,
    rng.choice(np.arange(1, 99), num_models, replace=False),
  )


@st.composite
def profiles(draw):
  """Zoos of 1 to 70 models with ties; both ways to count models are crossed."""
  size = draw(st.sampled_from(SIZES))
  grid = st.integers(0, 8)
  numbers = st.lists(st.tuples(grid, grid), min_size=size, max_size=size)
  accuracy, latency = np.array(draw(numbers)).T
  return make_profile(accuracy / 8, latency * 2.5)


@st.composite
def specs(draw):
  """A batch of specs: on the zoo's numbers, between them, outside, infinite.

  None is subnormal: XLA takes such a number for zero, NumPy does not.
  """
  accuracy = st.one_of(
    st.integers(0, 8).map(lambda n: n / 8),
    st.floats(-0.5, 1.5, width=32, allow_subnormal=False),
    st.sampled_from([-np.inf, np.inf]),
  )
  latency = st.one_of(
    st.integers(0, 8).map(lambda n: n * 2.5),
    st.floats(-5.0, 30.0, width=32, allow_subnormal=False),
    st.sampled_from([-np.inf, np.inf]),
  )
  batch = st.lists(st.tuples(accuracy, latency), min_size=NUM_SPECS, max_size=NUM_SPECS)
  return Spec.of(*np.array(draw(batch), np.float32).T)


def arrays(profile):
  return np.asarray(profile.accuracy), np.asarray(profile.latency_ms)


def each(spec):
  """The specs of a batch, one pair of float32 at a time."""
  return zip(np.asarray(spec.min_accuracy), np.asarray(spec.max_latency_ms))


def feasible_set(profile, min_accuracy, max_latency_ms):
  accuracy, latency = arrays(profile)
  return np.flatnonzero(
    (accuracy >= min_accuracy) & (latency <= max_latency_ms)
  ).tolist()


def most_accurate_of(profile, models):
  accuracy, latency = arrays(profile)
  return min(models, key=lambda i: (-accuracy[i], latency[i], i))


def fastest_of(profile, models):
  accuracy, latency = arrays(profile)
  return min(models, key=lambda i: (latency[i], -accuracy[i], i))


def fallback(profile, max_latency_ms, infeasible):
  """What a router answers to an empty feasible set."""
  if infeasible == 'refuse':
    return -1
  fast = feasible_set(profile, -np.inf, max_latency_ms)
  if fast:
    return most_accurate_of(profile, fast)
  return fastest_of(profile, range(len(profile)))


def pareto_mask(profile):
  accuracy, latency = arrays(profile)
  mask = []
  for a, b in zip(accuracy, latency):
    no_worse = (accuracy >= a) & (latency <= b)
    better = (accuracy > a) | (latency < b)
    mask.append(not np.any(no_worse & better))
  return np.array(mask)


def frontier(profile):
  latency = np.asarray(profile.latency_ms)
  return sorted(np.flatnonzero(pareto_mask(profile)), key=lambda i: (latency[i], i))


def hypervolume(profile, limit):
  """The integral of the best accuracy over latency, breakpoint by breakpoint."""
  accuracy, latency = (x.astype(np.float64) for x in arrays(profile))
  points = sorted({0.0, float(limit), *(x for x in latency if x < limit)})
  area = 0.0
  for start, end in zip(points[:-1], points[1:]):
    best = max((a for a, b in zip(accuracy, latency) if b <= start), default=0.0)
    area += best * (end - start)
  return area


def goodput(profile, spec, models):
  met = 0
  for model, (min_accuracy, max_latency) in zip(np.asarray(models), each(spec)):
    met += bool(
      model >= 0 and model in feasible_set(profile, min_accuracy, max_latency)
    )
  return met / len(models)
