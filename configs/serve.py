"""A server of the zoo that an experiment trained, see `psml_jax.serving.config`.

python launch/serve.py --workdir=runs/demo

Undefended unless it is told otherwise: `--config.defense.name=capped
--config.defense.value=0.3`, or another of `psml_jax.defenses.MECHANISMS`; a name of ''
is none. A negative value stands for the one that the experiment has calibrated.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
  """The server's fields."""
  return ConfigDict(
    {
      'name': 'zoo',
      'defense': {'name': '', 'value': -1.0, 'fields': {}},
      'reply': {},
      'model': {
        'replicas': 1,
        'most_replicas': 0,
        'num_cpus': 0.0,
        'num_gpus': 0.0,
        'batch_sizes': (1, 8, 32),
        'batch_wait_ms': 0.0,
      },
      'models': {},
      'ingress': 1,
      'most_rows': 32,
      'limits': {
        'most_requests': 64,
        'body_seconds': 10.0,
        'deadline_seconds': 30.0,
        'hold_ms': 0.0,
        'disclose': False,
      },
      'keys': '',
    }
  )
