"""A zoo of five ResNets on CIFAR-10 that two CPU cores can train.

python launch/reproduce.py --config=configs/cifar10_fast.py \
  --workdir=runs/cifar10_fast --data_dir=DIR

One hour on two CPU cores, 40 minutes of it training, resnet20 at 82 %. At 4,000 queries
and the medium victim: fingerprint against naive +0.2 +-0.2 points accuracy and +0.6
+-0.4 fidelity (a surrogate this small learns as well from the other models); against
explicit within 0.7 points for every victim; at a goodput of 81 %, the defense takes
7.7 +-2.3 and 9.8 +-2.7 points back, but leaves the naive attack as it was.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
  """The experiment's fields; `psml_jax.experiments.config` says what each means."""
  return ConfigDict(
    {
      'name': 'cifar10_fast',
      'seed': 0,
      'seeds': 16,
      'data': {
        'name': 'cifar10',
        'zoo_size': 38_000,
        'profile_size': 2_000,
        'pool_size': 10_000,
        'test_size': 5_000,
      },
      'zoo': {
        'models': {
          'resnet8-8px': {'family': 'resnet', 'depth': 8, 'size': 8},
          'resnet8-16px': {'family': 'resnet', 'depth': 8, 'size': 16},
          'resnet14-16px': {'family': 'resnet', 'depth': 14, 'size': 16},
          'resnet8': {'family': 'resnet', 'depth': 8},
          'resnet20': {'family': 'resnet20', 'recipe': {'epochs': 10}},
        },
        'recipe': {'epochs': 8, 'batch_size': 128, 'learning_rate': 0.1},
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
