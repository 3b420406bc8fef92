"""Membership inference and adversarial examples through the router, on digits.

python launch/threats.py --config=configs/threats.py --workdir=runs/threats

Seven to eleven minutes on two CPU cores; docs/results/threats.md has what to expect.

`--config=configs/threats.py:tiny` is the same of one small zoo, for tests.
"""

from ml_collections import ConfigDict


def get_config(name: str = 'digits') -> ConfigDict:
  """The study's fields; `psml_jax.experiments.threats.config` says what each means."""
  config = ConfigDict(
    {
      'name': f'threats_{name}',
      'experiment': {
        'fingerprint': {'accuracy_resolution': 1e-3, 'latency_resolution': 5e-3},
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
        'extraction': {
          'query_budgets': (400,),
          'surrogate': {'family': 'mlp', 'widths': (64,)},
          'hyper': {'steps': 600, 'batch_size': 64, 'learning_rate': 3e-3},
          'rows_per_chunk': 128,
          'width': 4,
        },
      },
      'defenses': {'capped': {}, 'laplace': {}, 'refusal': {}},
      'attacks': {'naive': {}, 'fingerprint': {}, 'informed': {}},
      'zoos': (0, 1, 2),
      'victims': ('medium', 'large'),
      'targets': (0.8,),
      'workload': {'name': 'uniform', 'size': 4096},
      'seeds': 8,
      'membership': {
        'replicates': 20,
        'repeats': (1, 4),
        'false_positive_rates': (0.001, 0.01),
      },
      'transfer': {'epsilon': 0.15, 'steps': 20},
    }
  )
  if name == 'tiny':
    own = config.experiment
    own.data.update(zoo_size=80, profile_size=120, pool_size=160, test_size=100)
    keep = ('linear2', 'mlp2', 'mlp4-wide')
    own.zoo.models = {model: own.zoo.models[model] for model in keep}
    own.zoo.hyper.steps = own.extraction.hyper.steps = 60
    own.profiling.update(batch_size=16, rounds=3)
    own.extraction.query_budgets = (120,)
    config.update(zoos=(0,), seeds=2, victims=('medium',))
    config.defenses = {'refusal': {}}
    config.attacks = {'naive': {}, 'informed': {}}
    config.membership.replicates = 8
    config.transfer.steps = 5
  return config
