"""A zoo of five ResNets on CIFAR-10 that two CPU cores can train.

python launch/reproduce.py --config=configs/cifar10_fast.py \
  --workdir=runs/cifar10_fast --data_dir=DIR

On two CPU cores an hour and a half, 15 minutes of them the zoo (resnet20 at 82 %; on
slower cores it took under four hours), and it resumes. At 4,000 queries the thief, a
ResNet-9, gets 76.0 +-0.7 % accuracy and 82.8 +-0.5 % fidelity from the named large
victim; fingerprint against naive +7.1 +-0.6 and +9.3 +-1.0 points (medium: +4.5 and
+4.9); and at a goodput of 81 %, noise took 3.2 +-1.2 and 4.2 +-1.2 points from a thief
told the best spec, who stayed 3.9 and 4.5 above naive (docs/results/cifar10_fast.md).

Others take the zoo of runs/cifar10_fast (`--config.zoo.stored`) and as long a
surrogate: `--config=configs/cifar10_fast.py:hard` learns from labels alone, `:fixmatch`
and `:mixmatch` also from all 10,000 images of the pool, 6,000 of them without an
answer. What those can be worth is told by ablations, with the named large victim alone:
`:half` has as many epochs as FixMatch has time for, `:answered` asks for all 10,000
images; in 2.2 times the time, `:fixmatch_long` has as many epochs as soft answers have,
`:soft_long` only the latter.
"""

from ml_collections import ConfigDict

OBJECTIVES = {
  'soft': {'name': 'cross_entropy', 'temperature': 3.0},
  'hard': {'name': 'cross_entropy', 'hard': True},
  'fixmatch': {'name': 'fixmatch', 'unlabelled': 1, 'threshold': 0.8},
  'mixmatch': {'name': 'mixmatch', 'copies': 1, 'mixing': 0.05, 'weight': 5.0},
}
EPOCHS = {'soft': 32, 'hard': 32, 'fixmatch': 14, 'mixmatch': 14}
"""All take as long."""
ABLATIONS = {
  'half': ('soft', 14),
  'answered': ('soft', 13),
  'fixmatch_long': ('fixmatch', 32),
  'soft_long': ('soft', 75),
}
"""Objective and epochs."""


def get_config(variant: str = 'soft') -> ConfigDict:
  """The experiment's fields; `psml_jax.experiments.config` says what each means."""
  variants = {name: (name, epochs) for name, epochs in EPOCHS.items()} | ABLATIONS
  if variant not in variants:
    raise ValueError(f'variant is {variant!r}; it must be one of {[*variants]}')
  objective, epochs = variants[variant]
  config = ConfigDict(
    {
      'name': 'cifar10_fast' if variant == 'soft' else f'cifar10_fast_{variant}',
      'seed': 0,
      'seeds': 4,
      'data': {
        'name': 'cifar10',
        'zoo_size': 38_000,
        'profile_size': 2_000,
        'pool_size': 10_000,
        'test_size': 5_000,
      },
      'zoo': {
        'stored': '',
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
        'query_budgets': (4000,),
        'victims': ('large', 'medium'),
        'surrogate': {'family': 'resnet9', 'width': 16, 'mirror': True},
        'recipe': {
          'epochs': epochs,
          'batch_size': 64,
          'learning_rate': 0.1,
          'warmup_epochs': epochs / 8,
        },
        'objective': OBJECTIVES[objective],
        'rows_per_chunk': 2,
        'width': 1,
        'pieces': epochs,
      },
      'policy': 'uniform',
      'claims': {'margin': 0.01},
      'defense': {
        'target_goodput': 0.8,
        'mechanisms': {
          'laplace': {},
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
  if variant == 'soft':
    return config
  config.zoo.stored = 'runs/cifar10_fast'
  if variant in ABLATIONS:
    config.extraction.victims = ('large',)
    config.attacks = {'explicit': {}}
  if variant == 'answered':
    config.extraction.query_budgets = (10_000,)
  return config
