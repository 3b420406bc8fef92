"""The paper's zoo, and a thief who learns from unlabelled images too, for accelerators.

python launch/reproduce.py --config=configs/cifar10_paper.py \
  --workdir=runs/cifar10_paper --data_dir=DIR

Every published architecture that trains from scratch on 32 px; the surrogate is a
WRN-28-2 trained by FixMatch with the settings of Sohn et al. (2020) but for the number
of steps, 8,000 in place of 2 ** 20. It has run on no accelerator yet, so there are no
numbers (nor a docs/results/cifar10_paper.md). Published, with 300 epochs on all 50,000
images: resnet20 92.7 %, vgg16_bn 93.9 %, repvgg_a2 95.2 %.

A zoo's model is saved after every epoch, and surrogates, four at a time, after every
sixteenth of their training: a run that was killed loses no more. By analysis alone
(benchmarks/memory.py, docs/bench.md) every program fits into 40 GiB, the largest taking
16, and no unit takes longer than six minutes on a device that sustains 5 TFLOP/s: 10
hours for the zoo and 78 for the surrogates. Compilation is not in that;
`JAX_COMPILATION_CACHE_DIR=DIR` in the environment keeps what was compiled. On several
devices make `rows_per_chunk` a multiple of their number.

`--config=configs/cifar10_paper.py:tiny` is the same in small, on made-up images, for
tests: the smallest of the architectures, and a WRN-10-1.
"""

from typing import Any

from ml_collections import ConfigDict

MODELS = (
  'resnet20',
  'resnet32',
  'resnet44',
  'resnet56',
  'vgg11_bn',
  'vgg13_bn',
  'vgg16_bn',
  'vgg19_bn',
  'mobilenetv2_x0_5',
  'mobilenetv2_x0_75',
  'mobilenetv2_x1_0',
  'mobilenetv2_x1_4',
  'shufflenetv2_x0_5',
  'shufflenetv2_x1_0',
  'shufflenetv2_x1_5',
  'shufflenetv2_x2_0',
  'repvgg_a0',
  'repvgg_a1',
  'repvgg_a2',
)


WIDE = ('mobilenetv2_x1_0', 'mobilenetv2_x1_4')

_OF_ALL = {
  'dtype': 'bfloat16',
  'mean': (0.4914, 0.4822, 0.4465),
  'std': (0.2023, 0.1994, 0.2010),
}


def get_config(name: str = 'cifar10') -> ConfigDict:
  """The experiment's fields; `psml_jax.experiments.config` says what each means."""
  if name not in ('cifar10', 'tiny'):
    raise ValueError(f'name is {name!r}; it must be cifar10 or tiny')
  config = ConfigDict(
    {
      'name': f'{name}_paper',
      'seed': 0,
      'seeds': 4,
      'data': {
        'name': 'cifar10',
        'zoo_size': 38_000,
        'profile_size': 3_000,
        'pool_size': 9_000,
        'test_size': 9_000,
      },
      'zoo': {
        'stored': '',
        'models': {
          model: {
            'family': model,
            **_OF_ALL,
            # Their minibatches at once would take 18 and 26 GiB.
            **({'recipe': {'accumulate': 2}} if model in WIDE else {}),
          }
          for model in MODELS
        },
        'recipe': {
          'epochs': 100,
          'batch_size': 256,
          'learning_rate': 0.1,
          'weight_decay': 5e-4,
          'warmup_epochs': 2.0,
          'accumulate': 1,
        },
      },
      'profiling': {'batch_size': 64, 'rounds': 100, 'stored': ''},
      'fingerprint': {'accuracy_resolution': 5e-5, 'latency_resolution': 1e-4},
      'extraction': {
        'query_budgets': (2000, 4000, 8000),
        'surrogate': {'family': 'wide_resnet', 'depth': 28, 'factor': 2, **_OF_ALL},
        # 64 passes of 125 steps over 8,000 answers, or more passes over fewer.
        'recipe': {
          'epochs': 64,
          'batch_size': 64,
          'learning_rate': 0.03,
          'weight_decay': 5e-4,
          'warmup_epochs': 0.0,
          'ema_decay': 0.999,
          'accumulate': 1,
        },
        'objective': {
          'name': 'fixmatch',
          'unlabelled': 7,
          'threshold': 0.95,
          'weight': 1.0,
        },
        # A step shows the network 960 images, which fill a device without a vmap.
        'rows_per_chunk': 4,
        'width': 1,
        'pieces': 16,
      },
      'policy': 'uniform',
      'claims': {'margin': 0.01},
      'defense': {
        'target_goodput': 0.8,
        'mechanisms': {
          'laplace': {'values': (0.05, 0.1, 0.2)},
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
  if name == 'tiny':
    _shrink(config)
  return config


def _shrink(config: Any) -> None:
  """Leaves the smallest architecture and few images, steps and runs of everything."""
  config.seeds = 2
  config.data = {
    'name': 'synthetic',
    'zoo_size': 64,
    'profile_size': 32,
    'pool_size': 64,
    'test_size': 32,
    'fields': {'image_size': 16, 'difficulty': 0.2},
  }
  config.zoo.models = {'resnet20': config.zoo.models.resnet20}
  config.zoo.recipe.update(epochs=2, batch_size=16, warmup_epochs=0.0)
  config.profiling.update(batch_size=4, rounds=2)
  config.fingerprint.update(accuracy_resolution=0.02, latency_resolution=0.05)
  config.extraction.update(query_budgets=(32,), rows_per_chunk=3, pieces=2)
  config.extraction.surrogate.update(depth=10, factor=1)
  config.extraction.recipe.update(epochs=2, batch_size=16)
  config.extraction.objective.unlabelled = 2
  config.defense.workload_size = 256
  config.defense.mechanisms = {'laplace': {}}
  config.attacks = {'explicit': {}, 'fingerprint': {}}
