"""Every defense against every thief on three zoos of digits.

python launch/ladder.py --config=configs/ladder.py --workdir=runs/ladder

16 minutes on two CPU cores, `:gain` 10, `:channels` 6; docs/results/ladder.md has what
to expect.
`--config=configs/ladder.py:channels` compares the ways to de-mix behind two defenses at
one goodput; `:gain` is what the fingerprint gains over naive clients, for several
surrogates, several naive clients and queries that are chosen in rounds; `:tiny` is the
ladder of one small zoo, for tests.
"""

from ml_collections import ConfigDict

_STEPS = {'steps': 600, 'batch_size': 64, 'learning_rate': 3e-3}
_SURROGATES = {
  'mlp': {},
  'mlp-hard': {'objective': {'name': 'cross_entropy', 'hard': True}},
  'mlp-short': {'hyper': {**_STEPS, 'steps': 150}},
  'mlp-wide': {'surrogate': {'family': 'mlp', 'widths': (256,)}},
  'mlp-turned': {'hyper': {**_STEPS, 'crop_padding': 1, 'rotation_degrees': 10.0}},
  'mlp-fixmatch': {
    'hyper': {**_STEPS, 'ema_decay': 0.99, 'rotation_degrees': 10.0},
    'objective': {'name': 'fixmatch', 'unlabelled': 2, 'threshold': 0.8},
  },
  'linear': {'surrogate': {'family': 'linear'}},
}


def get_config(name: str = 'digits') -> ConfigDict:
  """The ladder's fields; `psml_jax.experiments.ladder.config` says what each means."""
  config = ConfigDict(
    {
      'name': f'ladder_{name}',
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
          'hyper': _STEPS,
        },
        'profiling': {'batch_size': 64, 'rounds': 60, 'stored': ''},
        'extraction': {
          'query_budgets': (50, 100, 200, 400),
          'surrogate': {'family': 'mlp', 'widths': (64,)},
          'hyper': _STEPS,
          'rows_per_chunk': 128,
          'width': 4,
        },
      },
      'defenses': {'capped': {}, 'laplace': {}, 'exponential': {}, 'refusal': {}},
      'attacks': {
        'naive': {},
        'fingerprint': {},
        'posterior': {'probes': 60},
        'informed': {},
      },
      'surrogates': {
        'soft': {},
        'hard': {'objective': {'name': 'cross_entropy', 'hard': True}},
      },
      'demixing': ('none', 'latency', 'known_latency'),
      'zoos': (0, 1, 2),
      'victims': ('medium', 'large'),
      'targets': (0.95, 0.9, 0.8),
      'workload': {'name': 'uniform', 'size': 4096},
      'seeds': 16,
    }
  )
  if name == 'channels':
    config.defenses = {'capped': {}, 'laplace': {}}
    config.attacks = {'naive': {}, 'informed': {}, 'informed_repeats': {'times': 3}}
    config.demixing = ('none', 'latency', 'known_latency', 'confidence', 'surrogates')
    config.targets = (0.8,)
    config.surrogates = {'soft': {}}
  if name == 'gain':
    config.defenses = {'refusal': {}}
    config.targets = (0.8,)
    config.demixing = ('none',)
    config.attacks = {
      'naive': {},
      'asking_50': {'name': 'naive', 'min_accuracy': 0.5},
      'asking_70': {'name': 'naive', 'min_accuracy': 0.7},
      'fingerprint': {},
      'fingerprint_k_center': {},
      'fingerprint_uncertainty': {},
    }
    config.surrogates = _SURROGATES
    config.experiment.extraction.query_budgets = (50, 100, 200)
  if name == 'tiny':
    own = config.experiment
    own.data.update(zoo_size=120, profile_size=120, pool_size=160, test_size=100)
    keep = ('linear2', 'cnn4', 'cnn8')
    own.zoo.models = {model: own.zoo.models[model] for model in keep}
    own.zoo.hyper.steps = own.extraction.hyper.steps = 60
    own.profiling.update(batch_size=16, rounds=3)
    own.extraction.query_budgets = (40, 120)
    config.update(zoos=(0,), targets=(0.8,), seeds=2, victims=('medium',))
    config.defenses = {'capped': {}, 'laplace': {}}
    config.attacks = {'naive': {}, 'informed': {}}
    config.surrogates = {'soft': {}}
  return config
