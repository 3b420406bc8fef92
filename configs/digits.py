"""The whole experiment on scikit-learn's digits: what `make demo` runs.

python launch/reproduce.py --config=configs/digits.py --workdir=runs/demo

Two minutes on two CPU cores. At 400 queries: fingerprint against naive, medium victim,
+12.1 +-0.6 points accuracy and +16.3 +-0.6 fidelity (large: +8.2 and +9.1); within 1
point of explicit, but not at 100 and 200 queries, of which 18 are probes; at a goodput
of 80 %, noise changes the fingerprint attack by -3.2 +-1.3 and -8.4 +-1.3, and a thief
told the best spec under it by +1.7 +-0.4 and -3.6 +-0.3. These intervals cover one zoo;
docs/results/digits.md has five.

`--config=configs/digits.py:strong` steals from the zoo of runs/demo
(`--config.zoo.stored`) with a CNN in place of an MLP.
"""

from ml_collections import ConfigDict


def get_config(name: str = 'digits') -> ConfigDict:
  """The experiment's fields; `psml_jax.experiments.config` says what each means."""
  if name not in ('digits', 'strong'):
    raise ValueError(f'name is {name!r}; it must be digits or strong')
  config = ConfigDict(
    {
      'name': name,
      'seed': 0,
      'seeds': 64,
      'data': {
        'name': 'digits',
        'zoo_size': 360,
        'profile_size': 520,
        'pool_size': 450,
        'test_size': 460,
      },
      'zoo': {
        'stored': '',
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
      'fingerprint': {'accuracy_resolution': 1e-3, 'latency_resolution': 5e-3},
      'extraction': {
        'query_budgets': (100, 200, 400),
        'surrogate': {'family': 'mlp', 'widths': (64,)},
        'hyper': {'steps': 600, 'batch_size': 64, 'learning_rate': 3e-3},
        'rows_per_chunk': 128,
        'width': 4,
      },
      'policy': 'uniform',
      'claims': {'margin': 0.01},
      'defense': {
        'target_goodput': 0.8,
        'mechanisms': {
          'laplace': {'values': (0.02, 0.05, 0.1, 0.2, 0.4)},
          'refusal': {},
        },
        'workload_csv': '',
        'workload_size': 65_536,
        'workload_accuracy_column': 'min_accuracy',
        'workload_latency_column': 'max_latency_ms',
        'workload_accuracy_unit': 'fraction',
        'workload_latency_unit': 'ms',
      },
      'attacks': {'explicit': {}, 'naive': {}, 'fingerprint': {}, 'informed': {}},
    }
  )
  if name == 'strong':
    config.zoo.stored = 'runs/demo'
    config.seeds = 32
    config.extraction.surrogate = {'family': 'cnn', 'widths': (16, 32), 'depth': 2}
    config.extraction.update(query_budgets=(100, 400), victims=('medium', 'large'))
    # Convolutions with a kernel for each surrogate are slow on CPUs.
    config.extraction.update(width=1, rows_per_chunk=32)
    config.defense.mechanisms = {'refusal': {}}
    config.attacks = {'explicit': {}, 'naive': {}, 'fingerprint': {}}
  return config
