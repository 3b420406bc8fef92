"""A zoo whose every answer is known, and what its server does, worked out by hand.

Images have 16 pixels, and a class is which of the first 8 is bright, so that any
surrogate learns it. Model m answers every image with its class plus m, so that two
models never agree and only model 0 is right.
"""

import numpy as np
import scipy.stats

ACCURACY = (0.5, 0.7, 0.9)
LATENCY = (1.0, 2.0, 4.0)
NAMES = ('small', 'medium', 'large')
CLASSES = 8
MEDIUM = 1
BUDGET_MS = 3.0
"""Half-way between the medium and the large model."""


def images(seed, size):
  rng = np.random.default_rng(seed)
  classes = rng.integers(0, CLASSES, size)
  x = rng.uniform(0, 0.2, (size, 16)).astype(np.float32)
  x[np.arange(size), classes] += 0.7
  return x.reshape(size, 4, 4, 1), classes.astype(np.int32)


def classes_of(x):
  return np.argmax(x.reshape(len(x), -1)[:, :CLASSES], axis=1)


def answers(x):
  """f32[3, N, K]: each model's answer, certain."""
  labels = [(classes_of(x) + model) % CLASSES for model in range(len(NAMES))]
  return np.eye(CLASSES, dtype=np.float32)[np.stack(labels)]


def kernel(min_accuracy, max_latency, accuracy_scale=0.0, latency_scale=0.0):
  """The probability that each model answers a spec: Laplace noise, then uniform.

  Which models are feasible changes only where the noise moves the spec past one, so
  the cells between these places are counted one by one.
  """
  accuracy, latency = np.array(ACCURACY), np.array(LATENCY)
  min_accuracy = max(min_accuracy, accuracy.min())
  max_latency = min(max_latency, latency.max())

  def cells(edges, scale):
    """Points inside the cells between sorted edges, and the noise's mass of each."""
    if not scale:
      return [(0.0, 1.0)]
    inner = np.sort(edges)
    points = np.concatenate(
      [[inner[0] - 1], (inner[1:] + inner[:-1]) / 2, [inner[-1] + 1]]
    )
    cdf = scipy.stats.laplace(scale=scale).cdf(inner)
    return list(zip(points, np.diff(np.concatenate([[0], cdf, [1]]))))

  answered = np.zeros(len(NAMES))
  for up, up_mass in cells(accuracy - min_accuracy, accuracy_scale):
    for slack, slack_mass in cells(latency - max_latency, latency_scale):
      feasible = (accuracy >= min_accuracy + up) & (latency <= max_latency + slack)
      if feasible.any():
        answered += up_mass * slack_mass * feasible / feasible.sum()
  return answered


def bisection(served, budget, accuracy_resolution, latency_resolution):
  """A plain bisection: the corner, the probes, and how many of them were served."""
  low, high, probes, answered = 0.0, 1.0, 0, 0
  while high - low > accuracy_resolution:
    middle = (low + high) / 2
    probes += 1
    if served(middle, budget):
      low, answered = middle, answered + 1
    else:
      high = middle
  fast, slow = 0.0, budget
  while slow - fast > latency_resolution:
    middle = (fast + slow) / 2
    probes += 1
    if served(low, middle):
      slow, answered = middle, answered + 1
    else:
      fast = middle
  return (low, slow), probes, answered


def is_served(min_accuracy, max_latency):
  return kernel(min_accuracy, max_latency).sum() > 0


def fields(query_budgets, resolution, seeds=2):
  """An experiment on this zoo, as a config file would have it."""
  return {
    'name': 'known',
    'seed': 0,
    'seeds': seeds,
    'data': {
      'name': 'npz',
      'zoo_size': 60,
      'pool_size': 400,
      'test_size': 200,
      'profile_size': 40,
    },
    'zoo': {
      'models': {name: {'family': 'linear'} for name in NAMES},
      'hyper': {'steps': 1, 'batch_size': 1, 'learning_rate': 1e-3},
    },
    'profiling': {'batch_size': 8, 'rounds': 1},
    'fingerprint': {
      'accuracy_resolution': resolution,
      'latency_resolution': resolution,
    },
    'extraction': {
      'query_budgets': query_budgets,
      'surrogate': {'family': 'linear'},
      'hyper': {'steps': 150, 'batch_size': 64, 'learning_rate': 0.05},
      'rows_per_chunk': 64,
      'width': 1,
    },
    'defense': {
      'mechanisms': {'laplace': {'values': (0.25,)}, 'refusal': {}},
      'target_goodput': 0.8,
      'workload_size': 4096,
    },
    'attacks': {'explicit': {}, 'naive': {}, 'fingerprint': {}, 'informed': {}},
  }
