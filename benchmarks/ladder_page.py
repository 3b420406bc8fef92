"""Makes docs/results/ladder.md and its picture of finished ladders.

python benchmarks/ladder_page.py --root=runs --revision=abc

The root holds the work directories of configs/ladder.py, `ladder`, and of its variants,
`channels` and `gain`, where they were run. What the page says of them is by hand, and
is kept.
"""

import pathlib

import by_hand
import jax
import matplotlib.style
from absl import app, flags

from psml_jax.experiments import workdir
from psml_jax.report import ladder, ladder_plot, text
from psml_jax.report.columns import Table
from psml_jax.report.ladder_records import Ladder

_ROOT = flags.DEFINE_string('root', 'runs', 'The work directories.')
_REVISION = flags.DEFINE_string('revision', None, 'Of the studies.', required=True)
_TABLES = {
  'ladder': ('worst', 'law', 'explicit', 'channels', 'neighbours', 'missing'),
  'channels': ('channels', 'informed'),
  'gain': ('gain', 'explicit'),
}
_HEAD = """
```sh
{commands}
```

{device}, JAX {jax}, Python 3.11, revision {revision}. Zoos of seeds {zoos},
{seeds} seeds each; bills include probes, and every defense is calibrated to a goodput
of uniform clients. Intervals are over zoos.

{studies}

{summary}

![The worst thief of every defense](../images/ladder.png)
"""
_SAYS = 'What it says of these zoos:'


def main(argv: list[str]) -> None:
  """Writes the page and the picture."""
  del argv
  root, docs = pathlib.Path(_ROOT.value), pathlib.Path(__file__).parents[1] / 'docs'
  studies = {
    name: workdir.read_json(root / name / 'study.json', Ladder)
    for name in _TABLES
    if (root / name / 'study.json').exists()
  }
  tables: list[Table] = []
  for name, study in studies.items():
    made = ladder.tables(study)
    tables += [
      _named(table, study.name) for key, table in made.items() if key in _TABLES[name]
    ]
  first = studies['ladder']
  suffix = {'ladder': '', 'channels': ':channels', 'gain': ':gain'}
  head = _HEAD.format(
    commands='\n'.join(
      f'python launch/ladder.py --config=configs/ladder.py{suffix[name]} '
      f'--workdir=runs/{name}'
      for name in studies
    ),
    device=first.device,
    jax=jax.__version__,
    revision=_REVISION.value,
    studies='\n'.join(map(_told, studies.values())),
    zoos=', '.join(map(str, first.zoos)),
    seeds=first.seeds,
    summary=ladder.summary(first),
  )
  page = docs / 'results' / 'ladder.md'
  kept = by_hand.kept(page, _SAYS)
  written = text.as_markdown('Thieves against defenses: digits', tables)
  title, rest = written.split('\n', 1)
  page.write_text(f'{title}\n{head}\n{kept}{rest}', 'utf-8')
  with matplotlib.style.context('default'):
    (docs / 'images' / 'ladder.png').write_bytes(ladder_plot.draw(first))


def _told(study: Ladder) -> str:
  """How large a study is and how long it took."""
  targets = {rung.target for rung in study.rungs if rung.target is not None}
  goodputs = ', '.join(f'{100 * each:g}' for each in sorted(targets, reverse=True))
  return (
    f'- {study.name}: {study.queries} queries, goodputs of {goodputs} %, '
    f'{study.seconds / 60:.0f} minutes.'
  )


def _named(table: Table, name: str) -> Table:
  """With the study's name; of attacks that choose images, one surrogate's rows."""
  heads = [column.header for column in table.columns]
  rows = table.rows
  if 'beyond' in heads:
    attack, surrogate = heads.index('attack'), heads.index('surrogate')
    rows = [r for r in rows if r[attack] == 'fingerprint' or r[surrogate] == 'mlp']
  return table._replace(title=f'{table.title} ({name})', rows=rows)


if __name__ == '__main__':
  app.run(main)
