"""Makes docs/results/threats.md and its picture of a finished study of threats.

python benchmarks/threats_page.py --workdir=runs/threats --revision=abc

What the page says of it is by hand, and is kept.
"""

import importlib.metadata
import pathlib
import platform

import by_hand
import matplotlib.style
from absl import app, flags

from psml_jax.experiments import workdir
from psml_jax.report import text, threats, threats_plot
from psml_jax.report.threats_records import Threats

_WORKDIR = flags.DEFINE_string('workdir', 'runs/threats', 'The work directory.')
_REVISION = flags.DEFINE_string('revision', None, 'Of the study.', required=True)
_HEAD = """
```sh
python launch/threats.py --config=configs/threats.py --workdir=runs/threats
```

{device}, JAX {jax}, Python {python}, revision {revision}. {seconds:,.0f} s in all.

**Membership**: {replicates} replicates of the zoo of seed {first}, each trained on
another half of {candidates} candidates ({others:,} images that are no members in all);
each is attacked with the other {shadows} as shadows.
**Transfer**: zoos of seeds {zoos}, {seeds} surrogates each of {queries} billed queries,
images that {steps} steps of projected gradient ascent move by {epsilon:g} a pixel.

{summary}

![Members found and images that fool](../images/threats.png)
"""
_SAYS = 'What it says of these zoos:'


def main(argv: list[str]) -> None:
  """Writes the page and the picture."""
  del argv
  study = workdir.read_json(
    pathlib.Path(_WORKDIR.value).expanduser() / 'study.json', Threats
  )
  head = _HEAD.format(
    device=study.device,
    replicates=study.replicates,
    candidates=study.candidates,
    seeds=study.seeds,
    queries=study.queries,
    steps=study.steps,
    epsilon=study.epsilon,
    seconds=study.seconds,
    zoos=', '.join(map(str, study.zoos)),
    first=study.zoos[0],
    others=study.replicates * study.candidates // 2,
    shadows=study.replicates - 1,
    jax=importlib.metadata.version('jax'),
    python='.'.join(platform.python_version_tuple()[:2]),
    revision=_REVISION.value,
    summary=threats.summary(study),
  )
  docs = pathlib.Path(__file__).parents[1] / 'docs'
  page = docs / 'results' / 'threats.md'
  kept = by_hand.kept(page, _SAYS)
  written = text.as_markdown(
    'Membership and transfer through the router: digits',
    threats.tables(study).values(),
  )
  title, rest = written.split('\n', 1)
  page.write_text(f'{title}\n{head}\n{kept}{rest}', 'utf-8')
  with matplotlib.style.context('default'):
    (docs / 'images' / 'threats.png').write_bytes(threats_plot.draw(study))


if __name__ == '__main__':
  app.run(main)
