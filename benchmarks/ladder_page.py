"""Makes docs/results/ladder.md and its picture of finished ladders.

python benchmarks/ladder_page.py --root=runs --revision=abc

The root holds the work directories of configs/ladder.py, `ladder`, and of its variants,
`channels` and `gain`, where they were run.
"""

import pathlib

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
  'channels': ('channels',),
  'gain': ('gain', 'explicit'),
}
_HEAD = """
```sh
{commands}
```

{device}, JAX {jax}, Python 3.11, revision {revision}. {times}. Zoos of seeds {zoos},
{seeds} seeds each, {queries} billed queries, probes included; every defense is
calibrated to three goodputs of uniform clients. Intervals are over zoos.

{summary}

![The worst thief of every defense](../images/ladder.png)

{says}
"""
_SAYS = """What it says of these zoos:

- **Who recognises the victim's answers pays 1 / t.** The informed thief who knows every
  model's clock has, behind capped routing, Laplace noise and random refusal, at every
  goodput, the fidelity of extraction from the named model with rate x queries, within 2
  points; where capping leaves the victim alone to answer, within half a point without a
  clock. Behind the exponential mechanism it falls short by up to 3.2 points: there a
  seventh of what it keeps is others'.
- **Fidelity is not the rate.** The worst thief of the large victim keeps all answers:
  behind Laplace noise at a goodput of 80 % it gets 92.9 %, and 86.0 % from those that
  it recognises, as the law says (85.9 %). The other models of a digits zoo agree with
  the victim on nine images of ten, and three times as many answers of a slightly worse
  teacher teach more. Theorem 1 bounds what is taken of one model; where its neighbours
  are as good there is little to protect.
- **At equal goodput** of 80 % the worst thief has 87.1 and 92.6 % fidelity (medium and
  large victim) behind capped routing, 86.9 and 92.1 % behind the exponential mechanism,
  88.7 and 92.9 % behind Laplace noise, 92.3 and 94.8 % behind random refusal, and 92.8
  and 95.5 % without a defense. Intervals over three zoos overlap.
- **A clock without knowledge of the zoo separates well and helps little.** Its AUC is
  0.69 to 0.99, but neighbours overlap (0.49 to 0.99 for one measured latency against
  the next slower model's), and what it leaves out of its own victim's answers costs
  more than what it sorts out, except for the naive client of the medium victim.
- **Soft answers** are worth 3 points of fidelity for the medium and half a point for
  the large victim, and far more where answers are mixed: naive extraction of the medium
  victim is 15 points worse from labels.
- **The gain over naive is a range.** At 200 queries the fingerprint gains 8 to 27
  points of fidelity for the medium victim and 4 to 16 for the large one, by the
  surrogate alone. It is also worth no more than what a client does not think of asking
  for: who asks for an accuracy of 70 % gets the medium victim and nothing else, and is
  as good as the fingerprint (within 0.6 points); for the large victim it is within 2.1.
- **Images chosen in rounds**, by k-center or by uncertainty, bring 2 points more than
  images at random for the medium and 3 for the large victim, at equal bills.
- **FixMatch** on the images that were not asked brings 5.6, 2.8 and 1.4 points for the
  large victim at 50, 100 and 200 queries, and takes 1.7 at 200 for the medium one: it
  learns what the images are, not what a mediocre victim says of them. Turning and
  shifting alone costs fidelity everywhere.
"""


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
    times=', '.join(f'{s.name} {s.seconds / 60:.0f} min' for s in studies.values()),
    zoos=', '.join(map(str, first.zoos)),
    seeds=first.seeds,
    queries=first.queries,
    summary=ladder.summary(first),
    says=_SAYS,
  )
  page = text.as_markdown('Thieves against defenses: digits', tables)
  title, rest = page.split('\n', 1)
  (docs / 'results' / 'ladder.md').write_text(title + '\n' + head + rest, 'utf-8')
  with matplotlib.style.context('default'):
    (docs / 'images' / 'ladder.png').write_bytes(ladder_plot.draw(first))


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
