"""The whole experiment on CIFAR-10, small enough for two CPU cores.

python launch/reproduce.py --config=configs/cifar10_small.py \
  --workdir=runs/cifar10_small --data_dir=DIR

50 minutes on two CPU cores. At 4,000 queries and the medium victim: fingerprint against
naive +4.3 +-0.4 points accuracy and +7.7 +-0.6 fidelity; against explicit within 0.7
points for every victim (1.1 at 1,000 queries); at a goodput of 81 %, the defense takes
3.7 +-1.8 and 9.1 +-2.4 points back, and 1.4 +-0.7 and 6.2 +-0.8 from a thief who knows
the corner.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
  """The experiment's fields; `psml_jax.experiments.config` says what each means."""
  return ConfigDict(
    {
      'name': 'cifar10_small',
      'seed': 0,
      'seeds': 16,
      'data': {
        'name': 'cifar10',
        'zoo_size': 25_000,
        'profile_size': 5_000,
        'pool_size': 10_000,
        'test_size': 2_000,
      },
      'zoo': {
        'stored': '',
        'models': {
          'linear4': {'family': 'linear', 'size': 4},
          'mlp8': {'family': 'mlp', 'size': 8, 'widths': (256,)},
          'cnn8': {'family': 'cnn', 'size': 8, 'widths': (32, 64)},
          'cnn16': {'family': 'cnn', 'size': 16, 'widths': (16, 32, 64)},
          'cnn16-wide': {'family': 'cnn', 'size': 16, 'widths': (32, 64, 128)},
          'mlp32': {'family': 'mlp', 'widths': (1024, 512)},
          'cnn32': {'family': 'cnn', 'widths': (32, 64, 128)},
        },
        'hyper': {
          'steps': 2500,
          'batch_size': 64,
          'learning_rate': 2e-3,
          'weight_decay': 1e-3,
        },
      },
      'profiling': {'batch_size': 64, 'rounds': 60, 'stored': ''},
      'fingerprint': {'accuracy_resolution': 2e-4, 'latency_resolution': 1e-3},
      'extraction': {
        'query_budgets': (1000, 2000, 4000),
        'surrogate': {'family': 'cnn', 'size': 16, 'widths': (16, 32)},
        'hyper': {
          'steps': 400,
          'batch_size': 64,
          'learning_rate': 4e-3,
          'weight_decay': 1e-3,
        },
        'rows_per_chunk': 16,
        'width': 1,
      },
      'policy': 'uniform',
      'claims': {'margin': 0.01},
      'defense': {
        'target_goodput': 0.8,
        'mechanisms': {
          'laplace': {'values': (0.05, 0.1, 0.2)},
          'refusal': {},
        },
        'workload_csv': '',
        'workload_size': 4096,
        'workload_accuracy_column': 'min_accuracy',
        'workload_latency_column': 'max_latency_ms',
        'workload_accuracy_unit': 'fraction',
        'workload_latency_unit': 'ms',
      },
      'attacks': {'explicit': {}, 'naive': {}, 'fingerprint': {}, 'informed': {}},
    }
  )
