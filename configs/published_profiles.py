"""Fingerprint and goodput on a zoo that others measured; nothing is trained.

python launch/reproduce.py --config=configs/published_profiles.py:cifar10_published \
  --workdir=runs/cifar10_published

Instead of `cifar10_published`: `cifar100_published`, or `csv` with a table of your
own, `--config.published.csv=zoo.csv`, and the names of its columns in
`--config.published.name_column` (and `accuracy_column`, `latency_column`,
`accuracy_unit`).

Under a minute on two CPU cores. Expect every corner: 7 of 7 on both published zoos, 33
of 33 on a table of 900 ImageNet models, and a goodput of 80.3 +-0.3 % at the calibrated
scale.
"""

from ml_collections import ConfigDict


def get_config(name: str = 'cifar10_published') -> ConfigDict:
  """The experiment's fields; `psml_jax.experiments.config` says what each means."""
  return ConfigDict(
    {
      'name': name,
      'seed': 0,
      'seeds': 16,
      'published': {
        'name': '' if name == 'csv' else name,
        'csv': '',
        'name_column': 'model',
        'accuracy_column': 'top1_percent',
        'latency_column': 'latency_ms',
        'accuracy_unit': 'percent',
        'latency_unit': 'ms',
      },
      'fingerprint': {'accuracy_resolution': 5e-6, 'latency_resolution': 1e-6},
      'policy': 'uniform',
      'defense': {
        'target_goodput': 0.8,
        'mechanisms': {
          'laplace': {'values': (0.01, 0.02, 0.05, 0.1, 0.2, 0.4)},
          'refusal': {},
        },
        'workload_csv': '',
        'workload_size': 65_536,
        'workload_accuracy_column': 'min_accuracy',
        'workload_latency_column': 'max_latency_ms',
        'workload_accuracy_unit': 'fraction',
        'workload_latency_unit': 'ms',
      },
    }
  )
