"""Makes docs/results/cifar10_fast.md and .json of finished experiments.

python benchmarks/cifar10_page.py --root=runs

The root holds the work directories of configs/cifar10_fast.py and of its variants, each
under its config's name, and `cifar10_fast_half_sharp`, whose command differs; a variant
that is not there, or not done, is left out. What the page says of them is by hand, and
is kept.
"""

import json
import pathlib
from typing import Any

import jax
import numpy as np
from absl import app, flags

from psml_jax import experiments, metrics
from psml_jax.experiments import workdir
from psml_jax.experiments.artifacts import SUMMARY
from psml_jax.report import text
from psml_jax.report.columns import Column, Table, parts, yes
from psml_jax.report.schema import METRICS

_ROOT = flags.DEFINE_string('root', 'runs', 'The work directories.')
_NAME = 'cifar10_fast'
_VARIANTS = {
  '': 'soft answers',
  '_hard': 'labels',
  '_fixmatch': 'FixMatch',
  '_mixmatch': 'MixMatch',
  '_half': 'soft answers',
  '_half_sharp': 'soft answers',
  '_answered': 'soft answers',
  '_soft_long': 'soft answers',
  '_fixmatch_long': 'FixMatch',
}
"""Objectives by the end of the work directory's name."""
_HEAD = """
```sh
python launch/reproduce.py --config=configs/cifar10_fast.py \\
  --workdir=runs/cifar10_fast --data_dir=DIR
python launch/reproduce.py --config=configs/cifar10_fast.py:hard \\
  --workdir=runs/cifar10_fast_hard --data_dir=DIR
python launch/reproduce.py --config=configs/cifar10_fast.py:half \\
  --config.extraction.objective.temperature=1.0 \\
  --workdir=runs/cifar10_fast_half_sharp --data_dir=DIR
```

The other variants as `:hard`. {device}, JAX {jax}, Python 3.11.
[cifar10_fast.json](cifar10_fast.json) is the summary of the first.
"""
_SAYS = '## What it says'
_EXPLICIT = (
  'Extraction from the named large victim, {seeds} seeds; differences are paired by '
  'seed. Seconds: of the surrogate that had least company of other jobs. The pool has '
  '10,000 images.'
)
_CLAIMS = 'Claims 2 and 3 for each objective, as in the table of all claims below.'


def main(argv: list[str]) -> None:
  """Writes the page."""
  del argv
  root = pathlib.Path(_ROOT.value)
  results = pathlib.Path(__file__).parents[1] / 'docs' / 'results'
  page, soft = results / f'{_NAME}.md', root / _NAME
  kept = page.read_text('utf-8').split(_SAYS)[1].split('\n## ')[0].strip()
  title = 'CIFAR-10, five ResNets and a strong thief'
  made = text.as_markdown(title, [_explicit(root), _claims(root), _training(soft)])
  title, tables = made.split('\n', 1)
  head = _HEAD.format(device=SUMMARY.read(soft).device, jax=jax.__version__)
  _, rest = (soft / 'results.md').read_text('utf-8').split('\n', 1)
  page.write_text(f'{title}\n{head}\n{_SAYS}\n\n{kept}\n{tables}{rest}', 'utf-8')
  (results / f'{_NAME}.json').write_bytes((soft / 'summary.json').read_bytes())


def _explicit(root: pathlib.Path) -> Table:
  """Extraction from the named large victim, by objective."""
  heads = ['objective', 'temperature', 'epochs', 'queries', 'seconds']
  shown = '{} (%)', '{}, against the first row (points)'
  heads += [form.format(metric) for metric in METRICS for form in shown]
  first, rows = _runs(root / _NAME), []
  for directory, objective in _done(root).items():
    extraction = workdir.read_config(directory).config['extraction']
    runs, fields = _runs(directory), extraction['objective']
    row = [
      objective,
      f'{fields["temperature"]:g}' if 'temperature' in fields else '–',
      str(extraction['recipe']['epochs']),
      f'{runs[0]["query_budget"]:,}',
      f'{min(run["seconds"] for run in runs):.0f}',
    ]
    for metric in METRICS:
      scores = np.array([[100 * run[metric] for run in each] for each in (first, runs)])
      row.append(_interval(scores[1], '.1f'))
      row.append(
        '' if directory.name == _NAME else _interval(scores[1] - scores[0], '+.1f')
      )
    rows.append(row)
  note = _EXPLICIT.format(seeds=len(first))
  return Table('Objectives', [*map(Column, heads)], rows, note)


def _done(root: pathlib.Path) -> dict[pathlib.Path, str]:
  """The variants that are done, and their objectives."""
  listed = {root / f'{_NAME}{end}': name for end, name in _VARIANTS.items()}
  return {d: name for d, name in listed.items() if SUMMARY.found(d)}


def _runs(directory: pathlib.Path) -> list[dict[str, Any]]:
  """The runs against the named large victim, by seed."""
  large = SUMMARY.read(directory).victims['large']
  runs = experiments.load(directory)
  found = [r for r in runs if (r['victim'], r['attack']) == (large, 'explicit')]
  return sorted(found, key=lambda run: run['seed'])


def _interval(values: np.ndarray, form: str) -> str:
  found = metrics.interval(values)
  return f'{found.mean:{form}} [{found.low:{form}}, {found.high:{form}}]'


def _claims(root: pathlib.Path) -> Table:
  """Claims 2 and 3, objective by objective."""
  rows: dict[str, list[list[Any]]] = {}
  for directory, objective in _done(root).items():
    for claim in SUMMARY.read(directory).claims:
      if claim.claim[0] in '23':
        row = [claim.claim, objective, claim.measured, claim.holds]
        rows.setdefault(claim.claim, []).append(row)
  columns = [
    Column('claim'),
    Column('objective'),
    Column('measured', parts),
    Column('holds', yes),
  ]
  listed = [row for claim in rows.values() for row in claim]
  return Table('Claims by objective', columns, listed, _CLAIMS)


def _training(directory: pathlib.Path) -> Table:
  """How the zoo was trained."""
  lines = (directory / 'zoo_metrics.jsonl').read_text('utf-8').splitlines()
  last = {record['model']: record for record in map(json.loads, lines)}
  zoo = sorted(SUMMARY.read(directory).zoo, key=lambda model: model.latency_ms)
  heads = ['model', 'epochs', 'loss', 'accuracy, augmented (%)', 'minutes']
  rows = [
    [
      model.name,
      str(last[model.name]['epoch']),
      f'{last[model.name]["loss"]:.3f}',
      f'{100 * last[model.name]["accuracy"]:.1f}',
      f'{last[model.name]["seconds"] / 60:.1f}',
    ]
    for model in zoo
  ]
  note = (
    'SGD with Nesterov momentum, cosine, warm-up of one epoch, crops and flips, batch '
    '128, on 38,000 images. Published, with 300 epochs on 50,000: resnet20 92.7 %.'
  )
  return Table('Training', [*map(Column, heads)], rows, note)


if __name__ == '__main__':
  app.run(main)
