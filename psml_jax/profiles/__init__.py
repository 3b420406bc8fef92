"""Zoos without models to run: published profiles, and made-up ones of any size.

`SOURCES.md` beside this file says where each comes from, under which licence, and what
is to be doubted; `about` reads it.

A `ZooProfile` has one field for what an answer costs its client, `latency_ms`. The
profiles of dollars (`llm_aider_polyglot_cost`, `llm_stats_gpqa_price`) hold dollars
there: the `max_latency_ms` of a spec is then the highest price that a client pays, and
all that the library says in milliseconds is in the unit of `about(name).cost_unit`. In
the same way `accuracy` is the score that `about(name).quality` names.
"""

import importlib.resources
import re
from typing import NamedTuple

import jax
import jax.numpy as jnp

from psml_jax import _validate
from psml_jax.core import ZooProfile

__all__ = ['About', 'about', 'load', 'names', 'synthetic']


class About(NamedTuple):
  """What a profile holds, and how far to trust it.

  Attributes:
    source: who measured or collected it, and what was left out.
    licence: of the numbers, and whose.
    doubts: what its numbers do not say.
    quality: what `accuracy` is, a fraction.
    cost: what `latency_ms` is.
    cost_unit: the unit that `latency_ms` is in: 'ms', or dollars.
  """

  source: str
  licence: str
  doubts: str
  quality: str
  cost: str
  cost_unit: str


class _Columns(NamedTuple):
  """Which table a profile reads, and which of its columns are what."""

  table: str
  quality: str
  cost: str = 'milliseconds of a request of one image'
  cost_unit: str = 'ms'
  quality_column: str = 'top1_percent'
  cost_column: str = 'latency_ms'


_TOP1 = 'top-1 accuracy on {}'.format
_AIDER = "pass rate of aider's polyglot benchmark, two tries"
_GPQA = 'GPQA score, as reported'
_PROFILES = {
  'cifar100_published': _Columns('cifar100_published', _TOP1('CIFAR-100')),
  'cifar10_published': _Columns('cifar10_published', _TOP1('CIFAR-10')),
  'digits': _Columns('digits', _TOP1("scikit-learn's digits")),
  'imagenet_timm': _Columns(
    'imagenet_timm', _TOP1('ImageNet'), 'milliseconds an image, in batches'
  ),
  'llm_aider_polyglot': _Columns(
    'llm_aider_polyglot',
    _AIDER,
    'milliseconds a case, in the mean',
    quality_column='quality_percent',
  ),
  'llm_aider_polyglot_cost': _Columns(
    'llm_aider_polyglot',
    _AIDER,
    'dollars a case, in the mean',
    'USD a case',
    'quality_percent',
    'cost_usd_per_case',
  ),
  'llm_stats_gpqa': _Columns(
    'llm_stats_gpqa',
    _GPQA,
    'milliseconds to the 500th token',
    quality_column='quality_percent',
  ),
  'llm_stats_gpqa_price': _Columns(
    'llm_stats_gpqa',
    _GPQA,
    'price of a million output tokens',
    'USD per million tokens',
    'quality_percent',
    'price_usd_per_million',
  ),
}


def names() -> tuple[str, ...]:
  """The published profiles that ship with the package.

  >>> names()[:3]
  ('cifar100_published', 'cifar10_published', 'digits')
  """
  return tuple(_PROFILES)


def load(name: str) -> ZooProfile:
  """Reads a published profile.

  Args:
    name: one of `names()`.

  Returns:
    The profile; `latency_ms` is in `about(name).cost_unit`.

  Raises:
    ValueError: a name that does not ship with the package.

  >>> len(load('cifar10_published'))
  22
  >>> prices = load('llm_stats_gpqa_price')
  >>> float(prices.latency_ms[0])  # dollars per million tokens
  5.0
  """
  _validate.one_of('name', name, names())
  columns = _PROFILES[name]
  table = importlib.resources.files(__name__) / f'{columns.table}.csv'
  with importlib.resources.as_file(table) as path:
    return ZooProfile.from_csv(
      path,
      name_column='model',
      accuracy_column=columns.quality_column,
      latency_column=columns.cost_column,
      accuracy_unit='percent',
    )


def about(name: str) -> About:
  """What a published profile holds, where it comes from and what is to be doubted.

  Args:
    name: one of `names()`.

  Returns:
    Texts.

  Raises:
    ValueError: a name that does not ship with the package.

  >>> about('llm_aider_polyglot_cost').cost_unit
  'USD a case'
  >>> about('imagenet_timm').licence
  'Apache-2.0, Copyright Ross Wightman.'
  """
  _validate.one_of('name', name, names())
  columns = _PROFILES[name]
  text = (importlib.resources.files(__name__) / 'SOURCES.md').read_text('utf-8')
  section = re.split(r'^## (\S+)$', text, flags=re.MULTILINE)
  entry = section[section.index(columns.table) + 1]
  told = {
    field: ' '.join(words.split())
    for field, words in re.findall(
      r'^- (\w+): ((?:.+\n(?!- ))*.+)', entry, re.MULTILINE
    )
  }
  return About(
    **told, quality=columns.quality, cost=columns.cost, cost_unit=columns.cost_unit
  )


def synthetic(key: jax.Array, num_models: int) -> ZooProfile:
  """Makes up a zoo of any size, for tests and measurements at scale.

  Latencies are log-uniform between 1 and 100 ms. Accuracy saturates with the logarithm
  of latency, `0.5 + 0.45 (1 - exp(-3 log(latency) / log(100)))`, less an exponential
  shortfall of 0.03 on average, so that most models are dominated, as in tables of
  real ones. Accuracies are multiples of 1e-4, as of 10,000 test images, and latencies
  of 1e-3 ms.

  Args:
    key: consumed.
    num_models: at least 1.

  Returns:
    The profile; its models are named model-0, model-1, ...

  Raises:
    ValueError: `num_models` is not a whole number >= 1, or no key of jax.random.key.

  >>> len(synthetic(jax.random.key(0), 1000))
  1000
  """
  _validate.key('key', key)
  _validate.positive_int('num_models', num_models)
  size_key, shortfall_key = jax.random.split(key)
  size = jax.random.uniform(size_key, (num_models,), jnp.float32)
  best = 0.5 + 0.45 * (1 - jnp.exp(-3 * size))
  shortfall = jax.random.exponential(shortfall_key, (num_models,), jnp.float32)
  accuracy = best - 0.03 * shortfall
  return ZooProfile(
    jnp.round(jnp.clip(accuracy, 0.1, 1.0), 4),
    jnp.round(100**size, 3),
    tuple(f'model-{i}' for i in range(num_models)),
  )
