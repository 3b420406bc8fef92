"""The whole experiment on scikit-learn's digits: what `make demo` runs.

python launch/reproduce.py --config=configs/digits.py --workdir=runs/digits

One minute on two CPU cores. Expect, at 400 queries and the medium victim: fingerprint
against naive +13.6 +-1.4 points accuracy and +12.8 +-1.3 fidelity; against explicit
within 1 point; at a goodput of 80 %, the defense takes 3.9 +-2.5 and 4.7 +-2.4 back.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
  """The experiment's fields; `psml_jax.experiments.config` says what each means."""
  return ConfigDict(
    {
      'name': 'digits',
      'seed': 0,
      'seeds': 64,
      'data': {
        'name': 'digits',
        'zoo_size': 360,
        'profile_size': 520,
        'pool_size': 450,
        'test_size': 460,
      },
      'zoo': {
        'models': {
          'linear2': {'family': 'linear', 'size': 2},
          'mlp2': {'family': 'mlp', 'size': 2, 'widths': (32,)},
          'mlp2-wide': {'family': 'mlp', 'size': 2, 'widths': (1024, 512)},
          'cnn4': {'family': 'cnn', 'size': 4, 'widths': (4,), 'depth': 2},
          'mlp4-wide': {'family': 'mlp', 'size': 4, 'widths': (1024, 512)},
          'cnn8': {'family': 'cnn', 'widths': (4, 8), 'depth': 2},
          'cnn8-wide': {'family': 'cnn', 'widths': (24, 48), 'depth': 2},
          'cnn8-wider': {'family': 'cnn', 'widths': (64, 128), 'depth': 2},
        },
        'hyper': {'steps': 600, 'batch_size': 64, 'learning_rate': 3e-3},
      },
      'profiling': {'batch_size': 64, 'rounds': 60, 'stored': ''},
      'fingerprint': {'accuracy_resolution': 1e-3, 'latency_resolution': 5e-3},
      'extraction': {
        'query_budgets': (100, 200, 400),
        'surrogate': {'family': 'mlp', 'widths': (64,)},
        'hyper': {'steps': 600, 'batch_size': 64, 'learning_rate': 3e-3},
        'rows_per_chunk': 128,
        'width': 4,
      },
      'defense': {
        'mechanism': 'laplace',
        'scales': (0.02, 0.05, 0.1, 0.2, 0.4),
        'target_goodput': 0.8,
        'workload_csv': '',
        'workload_size': 65_536,
        'workload_accuracy_column': 'min_accuracy',
        'workload_latency_column': 'max_latency_ms',
        'workload_accuracy_unit': 'fraction',
        'workload_latency_unit': 'ms',
      },
    }
  )
