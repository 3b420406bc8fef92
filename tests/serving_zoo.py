"""A small trained zoo for servers: three models of digits, with made-up latencies."""

from psml_jax import experiments
from tests import stored

LATENCIES = {'small': 1.0, 'medium': 2.0, 'large': 4.0}
RESOLUTION = {'accuracy_resolution': 2e-3, 'latency_resolution': 1e-2}


def fields(profile):
  """The experiment, its latencies stored in a profile.csv."""
  return {
    'name': 'served',
    'seed': 0,
    'seeds': 2,
    'data': {
      'name': 'digits',
      'zoo_size': 360,
      'profile_size': 500,
      'pool_size': 200,
      'test_size': 200,
    },
    'zoo': {
      'models': {
        'small': {'family': 'linear', 'size': 2},
        'medium': {'family': 'mlp', 'size': 4, 'widths': (16,)},
        'large': {'family': 'mlp', 'widths': (64,)},
      },
      'hyper': {'steps': 200, 'batch_size': 32, 'learning_rate': 1e-2},
    },
    'profiling': {'batch_size': 8, 'rounds': 1, 'stored': profile},
    'fingerprint': RESOLUTION,
    'extraction': {
      'query_budgets': (60,),
      'surrogate': {'family': 'linear'},
      'hyper': {'steps': 100, 'batch_size': 16, 'learning_rate': 1e-2},
      'rows_per_chunk': 8,
      'width': 1,
    },
    'defense': {
      'mechanisms': {'capped': {}},
      'target_goodput': 0.8,
      'workload_size': 1024,
    },
  }


def make(folder):
  """Trains it: folder/zoo is its work directory."""
  profile = stored.profile(folder, LATENCIES, 0.05)
  config = experiments.parse(fields(profile))
  experiments.run(config, folder / 'zoo', until='predictions')
