"""The paper's zoo: every published architecture that trains from scratch on 32 px.

python launch/reproduce.py --config=configs/cifar10_paper.py \
  --workdir=runs/cifar10_paper --data_dir=DIR

For an accelerator; no such run has been recorded yet, so neither its time nor its
numbers are stated here (nor is there a docs/results/cifar10_paper.md). Published, with
300 epochs on all 50,000 images: resnet20 92.7 %, vgg16_bn 93.9 %, repvgg_a2 95.2 %.
Its largest program takes 11 GiB, by XLA's analysis for CPUs; on a device with less set
`--config.zoo.recipe.accumulate=4` and a smaller `--config.extraction.width`.
"""

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


def get_config() -> ConfigDict:
  """The experiment's fields; `psml_jax.experiments.config` says what each means."""
  return ConfigDict(
    {
      'name': 'cifar10_paper',
      'seed': 0,
      'seeds': 16,
      'data': {
        'name': 'cifar10',
        'zoo_size': 38_000,
        'profile_size': 3_000,
        'pool_size': 9_000,
        'test_size': 9_000,
      },
      'zoo': {
        'models': {
          name: {
            'family': name,
            'dtype': 'bfloat16',
            'mean': (0.4914, 0.4822, 0.4465),
            'std': (0.2023, 0.1994, 0.2010),
            # Their minibatches at once would take 18 and 26 GiB.
            **({'recipe': {'accumulate': 2}} if name in WIDE else {}),
          }
          for name in MODELS
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
        'surrogate': {'family': 'cnn', 'widths': (64, 128, 256)},
        'hyper': {
          'steps': 2000,
          'batch_size': 128,
          'learning_rate': 2e-3,
          'weight_decay': 1e-3,
        },
        'rows_per_chunk': 64,
        'width': 16,
      },
      'policy': 'uniform',
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
