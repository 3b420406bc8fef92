"""Fingerprint and goodput on a made-up zoo of 1,000 models; nothing is trained.

python launch/reproduce.py --config=configs/synthetic_large.py \
  --workdir=runs/synthetic_large

One minute on two CPU cores. Expect every corner, 124 of 124 in at most 38 probes each,
and a goodput of 80.1 +-0.1 % at the calibrated scale.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
  """The experiment's fields; `psml_jax.experiments.config` says what each means."""
  return ConfigDict(
    {
      'name': 'synthetic_large',
      'seed': 0,
      'seeds': 16,
      'published': {'synthetic_models': 1000},
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
