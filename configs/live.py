"""Three models of digits whose clocks differ on a wire, for the study of a live server.

python launch/profile_zoo.py --config=configs/live.py --workdir=runs/live/zoo

Half a minute on two CPU cores; `benchmarks/live.py` does it by itself. One image takes
the slowest model milliseconds, for its 10 million weights come from memory every time.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
  """The experiment's fields; `psml_jax.experiments.config` says what each means."""
  return ConfigDict(
    {
      'name': 'live',
      'seed': 0,
      'seeds': 2,
      'data': {
        'name': 'digits',
        'zoo_size': 360,
        'profile_size': 420,
        'pool_size': 100,
        'test_size': 900,
      },
      'zoo': {
        'models': {
          'small': {'family': 'linear', 'size': 4},
          'medium': {'family': 'mlp', 'size': 4, 'widths': (1536, 1536)},
          'large': {'family': 'mlp', 'widths': (3072, 3072)},
        },
        'hyper': {'steps': 150, 'batch_size': 64, 'learning_rate': 1e-3},
      },
      'profiling': {'batch_size': 8, 'rounds': 10, 'stored': ''},
      'fingerprint': {'accuracy_resolution': 1e-3, 'latency_resolution': 5e-3},
      'extraction': {
        'query_budgets': (100,),
        'surrogate': {'family': 'linear'},
        'hyper': {'steps': 100, 'batch_size': 16, 'learning_rate': 1e-2},
        'rows_per_chunk': 8,
        'width': 1,
      },
      'policy': 'uniform',
      'defense': {
        'mechanisms': {'capped': {}},
        'target_goodput': 0.8,
        'workload_size': 4096,
      },
    }
  )
