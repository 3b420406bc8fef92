"""The protection-goodput plane of a zoo: every defense against the law, no training.

python launch/leakage.py --config=configs/leakage.py:cifar10_published \
  --workdir=runs/leakage_cifar10

Instead of `cifar10_published` any of `profiles.names()`, or `csv` with a table of your
own, `--config.published.csv=zoo.csv`, and the names of its columns in
`--config.published.name_column` (and `accuracy_column`, `latency_column`,
`accuracy_unit`).
"""

from ml_collections import ConfigDict

LARGE = ('imagenet_timm', 'llm_stats_gpqa', 'llm_stats_gpqa_price')


def get_config(name: str = 'cifar10_published') -> ConfigDict:
  """The study's fields; `psml_jax.experiments.plane.config` says what each means."""
  large = name in LARGE
  size = 2_048
  config = ConfigDict(
    {
      'name': name,
      'seed': 0,
      'published': {
        'name': '' if name == 'csv' else name,
        'csv': '',
        'name_column': 'model',
        'accuracy_column': 'top1_percent',
        'latency_column': 'latency_ms',
        'accuracy_unit': 'percent',
        'latency_unit': 'ms',
      },
      'targets': (0.95, 0.9, 0.8),
      'points': 6,
      'gap': 5e-3 if large else 2e-3,
      'workloads': {
        'uniform': {'size': size},
        'log_latency': {'size': size},
        'frontier': {'size': size},
        'classes': {'size': size},
      },
      'defenses': {
        'capped': {},
        'capped_corners': {},
        'refusal': {},
        'laplace': {},
        'gaussian': {},
        'uniform_noise': {},
        'laplace_tighten': {},
        'laplace_loosen': {},
        'laplace_log': {},
        'laplace_step': {},
        'best_effort': {},
        'quantised': {},
        'exponential': {},
        'exponential_l1': {},
        'exponential_quantile': {},
        'permute_and_flip': {},
        'epsilon_random': {},
        'most_accurate_random': {},
        'fastest_random': {},
      },
      'attackers': {
        'defenses': {
          'capped': ('fingerprint', 'bandit', 'signatures'),
          'laplace': (
            'fingerprint',
            'majority',
            'probabilistic',
            'scale_unknown',
            'bandit',
            'posterior',
            'signatures',
          ),
        },
        'attacks': {
          'fingerprint': {},
          'majority': {},
          'probabilistic': {},
          'scale_unknown': {},
          'bandit': {},
          'posterior': {},
          'signatures': {},
        },
        'target': 0.8,
        'probes': (100, 400),
        'seeds': 8,
      },
      'memory': {
        'defenses': {
          'budget': {'value': 10.0, 'cap': 0.25},
          'sticky': {'value': 0.07},
        },
        'accounts': (1, 10, 100, 1000),
      },
    }
  )
  if large:  # Their laws take long, and memory is counted for every model.
    del config.defenses.permute_and_flip, config.memory
  return config
