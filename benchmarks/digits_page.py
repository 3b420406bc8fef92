"""Makes docs/results/digits.md of finished experiments.

python benchmarks/digits_page.py --root=runs

The root holds the work directories of configs/digits.py for config seeds 0 to 4,
`demo` and `demo1` to `demo4`, and that of its variant `:strong` on the first one's
zoo, `strong`.
What the page says of them is by hand, and is kept.
"""

import pathlib
import warnings

import by_hand
import jax
import numpy as np
from absl import app, flags

from psml_jax import experiments, metrics
from psml_jax.experiments.artifacts import DEFENSES, SUMMARY
from psml_jax.report import text
from psml_jax.report.columns import Column, Table
from psml_jax.report.schema import METRICS, Summary

_ROOT = flags.DEFINE_string('root', 'runs', 'The work directories.')
_SEEDS = range(5)
_HEAD = """
```sh
make demo
python launch/reproduce.py --config=configs/digits.py --config.seed=1 \\
  --workdir=runs/demo1
python launch/reproduce.py --config=configs/digits.py:strong --workdir=runs/strong
```

{device}, JAX {jax}, Python 3.11. Made at the revision that the Provenance table names.
"""
_SAYS = '## What it says'
_ZOOS = (
  'The intervals of the tables further below cover surrogates and serving, but one '
  'zoo. Five config seeds, each with its own splits, zoo, profile and surrogates, '
  'cover zoos too. Changes are accuracy / fidelity in points, at {most} queries; those '
  'of noise and of random refusal (the same goodput) are against the undefended '
  'fingerprint, medium victim; the last row is the mean over the five zoos with its '
  '95 % interval.'
)
_THIEVES = (
  'A CNN as the surrogate in place of an MLP, on the zoo of seed 0: extraction from '
  'the named model, {seeds} seeds of either. Differences are paired by seed.'
)
_CELL = 'victim', 'query_budget', 'attack', 'defense'
_CHANGES = {
  'gain over naive, medium': ('medium', 'fingerprint', 'none', 'naive', 'none'),
  'large': ('large', 'fingerprint', 'none', 'naive', 'none'),
  'noise: fingerprint': ('medium', 'fingerprint', 'laplace', 'fingerprint', 'none'),
  'noise: told its best spec': ('medium', 'informed', 'laplace', 'fingerprint', 'none'),
  'random refusal': ('medium', 'informed', 'refusal', 'fingerprint', 'none'),
  'told, noise against refusal': (
    'medium',
    'informed',
    'laplace',
    'informed',
    'refusal',
  ),
  'told against naive, both noise': (
    'medium',
    'informed',
    'laplace',
    'naive',
    'laplace',
  ),
}


def main(argv: list[str]) -> None:
  """Writes the page."""
  del argv
  root, docs = pathlib.Path(_ROOT.value), pathlib.Path(__file__).parents[1] / 'docs'
  found = [root / f'demo{seed or ""}' for seed in _SEEDS]
  summary = SUMMARY.read(found[0])
  made = text.as_markdown('Digits', [_zoos(found), _thieves(found[0], root / 'strong')])
  title, tables = made.split('\n', 1)
  head = _HEAD.format(device=summary.device, jax=jax.__version__)
  _, rest = (found[0] / 'results.md').read_text('utf-8').split('\n', 1)
  page = docs / 'results' / 'digits.md'
  kept = by_hand.kept(page, _SAYS)
  page.write_text(f'{title}\n{head}\n{kept}{tables}{rest}', 'utf-8')


def _zoos(found: list[pathlib.Path]) -> Table:
  """A row for each zoo, and their mean."""
  heads = ['config seed', 'Pareto models', 'medium victim', 'claims that hold']
  rows, changes = [], []
  for seed, directory in zip(_SEEDS, found, strict=True):
    summary = SUMMARY.read(directory)
    changes.append(_changes(summary, directory))
    victim = next(m for m in summary.zoo if m.name == summary.victims['medium'])
    rows.append(
      [
        str(seed),
        str(sum(model.pareto for model in summary.zoo)),
        f'{victim.name} ({100 * victim.accuracy:.0f} %)',
        _holding(summary),
        *(' / '.join(f'{100 * v:+.1f}' for v in each) for each in changes[-1]),
      ]
    )
  means = []
  for zoos in np.moveaxis(np.array(changes), 0, -1):
    intervals = [metrics.interval(100 * each) for each in zoos]
    means.append(
      ' / '.join(f'{i.mean:+.1f} [{i.low:+.1f}, {i.high:+.1f}]' for i in intervals)
    )
  note = _ZOOS.format(most=max(row.query_budget for row in summary.extraction))
  columns = [Column(head) for head in (*heads, *_CHANGES)]
  rows.append(['all', '', '', '', *means])
  return Table('Five zoos', columns, rows, note)


def _holding(summary: Summary) -> str:
  """The numbers of the claims that hold in all their rows, and of the others."""
  holds: dict[str, bool] = {}
  for claim in summary.claims:
    number = claim.claim.split('.')[0]
    holds[number] = holds.get(number, True) and claim.holds
  yes, no = (
    [n for n, all_ in holds.items() if all_ is which] for which in (True, False)
  )
  return ', '.join(yes) + (f' (not {", ".join(no)})' if no else '')


def _changes(summary: Summary, directory: pathlib.Path) -> list[list[float]]:
  """Differences of mean scores, as fractions, in the order of `_CHANGES`."""
  calibrated = DEFENSES.read(directory).calibrated | {'none': 0.0}
  most = max(row.query_budget for row in summary.extraction)
  means = {
    (row.victim, row.attack, row.defense): [getattr(row, m).mean for m in METRICS]
    for row in summary.extraction
    if row.query_budget == most
    and abs(row.value - calibrated[row.defense]) <= 1e-6 * abs(row.value)
  }
  return [
    [
      a - b
      for a, b in zip(
        means[summary.victims[size], attack, defense],
        means[summary.victims[size], other, than],
        strict=True,
      )
    ]
    for size, attack, defense, other, than in _CHANGES.values()
  ]


def _thieves(weak: pathlib.Path, strong: pathlib.Path) -> Table:
  """Extraction from the named model by both, and the paired difference."""
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')
    compared = experiments.compare(weak, strong)
  pairs = min(cell['pairs'] for cell in compared)
  runs = [
    [run for run in experiments.load(d) if run['seed'] < pairs] for d in (weak, strong)
  ]
  heads = ['victim', 'queries']
  shown = 'MLP (%)', 'CNN (%)', 'difference (points)'
  heads += [f'{metric}, {what}' for metric in METRICS for what in shown]
  rows = []
  for cell in compared:
    if cell['attack'] != 'explicit':
      continue
    row = [cell['victim'], str(cell['query_budget'])]
    for metric in METRICS:
      for each in runs:
        own = [r for r in each if all(r[k] == cell[k] for k in _CELL)]
        score = metrics.interval([100 * run[metric] for run in own])
        row.append(f'{score.mean:.1f} [{score.low:.1f}, {score.high:.1f}]')
      low, high = (100 * cell[f'{metric}_{end}'] for end in ('low', 'high'))
      row.append(f'{100 * cell[metric]:+.1f} [{low:+.1f}, {high:+.1f}]')
    rows.append(row)
  note = _THIEVES.format(seeds=pairs)
  return Table('A stronger thief', [*map(Column, heads)], rows, note)


if __name__ == '__main__':
  app.run(main)
