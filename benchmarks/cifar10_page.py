"""Makes docs/results/cifar10_fast.md and .json of finished experiments.

python benchmarks/cifar10_page.py --root=runs --data_dir=DIR

The root holds the work directories of configs/cifar10_fast.py and of its variants, each
under its config's name, and `cifar10_fast_half_sharp`, whose command differs. What is
done there replaces what docs/results/cifar10_fast_variants.json holds of it, and all
that this file then holds is on the page. What the page says of it is by hand, and is
kept.
"""

import dataclasses
import functools
import json
import pathlib

import by_hand
import jax
import numpy as np
from absl import app, flags

from psml_jax import experiments, metrics
from psml_jax.experiments import extraction_stage, harness, workdir
from psml_jax.experiments.artifacts import SUMMARY, Artifact
from psml_jax.experiments.experiment import Experiment
from psml_jax.report import schema, text
from psml_jax.report.columns import Column, Table, parts, yes

_ROOT = flags.DEFINE_string('root', 'runs', 'The work directories.')
_DATA = flags.DEFINE_string('data_dir', '.', 'The images, as the experiments had them.')
_NAME = 'cifar10_fast'
_DRAWS = 64
_OBJECTIVES = {
  'cifar10_fast': 'soft answers',
  'cifar10_fast_hard': 'labels',
  'cifar10_fast_fixmatch': 'FixMatch',
  'cifar10_fast_mixmatch': 'MixMatch',
  'cifar10_fast_half': 'soft answers',
  'cifar10_fast_half_sharp': 'soft answers',
  'cifar10_fast_answered': 'soft answers',
  'cifar10_fast_soft_long': 'soft answers',
  'cifar10_fast_fixmatch_long': 'FixMatch',
}
"""What surrogates learn by, by work directory."""


@dataclasses.dataclass(frozen=True)
class Variant:
  """What the page says of a work directory.

  Scores, fractions, are those of extraction from the named large victim, a seed each,
  and so are the seconds of the surrogate that had least company of other jobs.
  """

  temperature: float | None
  epochs: int
  queries: int
  seconds: float
  accuracy: list[float]
  fidelity: list[float]
  claims: list[schema.Claim]
  device: str
  revision: str


_VARIANTS = Artifact(f'{_NAME}_variants.json', dict[str, Variant])
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
_SAYS, _TRAINING = '## What it says', '## Training'
_EXPLICIT = (
  'Extraction from the named large victim, {seeds} seeds; differences are paired by '
  'seed. Seconds: of the surrogate that had least company of other jobs. The pool has '
  '10,000 images.'
)
_ENDS = (
  'What the fingerprint attack takes behind noise, of {draws} secrets of the server: '
  'answers to its {budget:,} queries, of which those after its probes count, and the '
  "victim's share of them; no surrogate is trained. Quartiles, and the least and most."
)
_CLAIMS = 'Claims 2 and 3 for each objective, as in the table of all claims below.'


def main(argv: list[str]) -> None:
  """Writes the page."""
  del argv
  root = pathlib.Path(_ROOT.value)
  results = pathlib.Path(__file__).parents[1] / 'docs' / 'results'
  page, soft = results / f'{_NAME}.md', root / _NAME
  old, kept = page.read_text('utf-8'), by_hand.kept(page, _SAYS)
  found = _VARIANTS.found(results) or {}
  done = {n: _variant(root / n) for n in _OBJECTIVES if SUMMARY.found(root / n)}
  variants = {n: (found | done)[n] for n in _OBJECTIVES if n in found | done}
  _VARIANTS.write(results, variants)
  tables = [_explicit(variants), _claims(variants)]
  rest = '\n' + old[old.index(_TRAINING) :]
  if _NAME in done:
    tables += [_training(soft), _ends(soft)]
    _, rest = (soft / 'results.md').read_text('utf-8').split('\n', 1)
    (results / f'{_NAME}.json').write_bytes((soft / 'summary.json').read_bytes())
  title = 'CIFAR-10, five ResNets and a strong thief'
  title, made = text.as_markdown(title, tables).split('\n', 1)
  head = _HEAD.format(device=variants[_NAME].device, jax=jax.__version__)
  page.write_text(f'{title}\n{head}\n{kept}{made}{rest}', 'utf-8')


def _variant(directory: pathlib.Path) -> Variant:
  """What a finished experiment says."""
  summary = SUMMARY.read(directory)
  extraction = workdir.read_config(directory).config['extraction']
  named = summary.victims['large'], 'explicit'
  runs = [r for r in experiments.load(directory) if (r['victim'], r['attack']) == named]
  runs.sort(key=lambda run: run['seed'])
  return Variant(
    temperature=extraction['objective'].get('temperature'),
    epochs=extraction['recipe']['epochs'],
    queries=runs[0]['query_budget'],
    seconds=min(run['seconds'] for run in runs),
    accuracy=[run['accuracy'] for run in runs],
    fidelity=[run['fidelity'] for run in runs],
    claims=[claim for claim in summary.claims if claim.claim[0] in '23'],
    device=summary.device,
    revision=summary.provenance['revision'],
  )


def _explicit(variants: dict[str, Variant]) -> Table:
  """Extraction from the named large victim, by variant."""
  heads = ['objective', 'temperature', 'epochs', 'queries', 'seconds']
  shown = '{} (%)', '{}, against the first row (points)'
  heads += [form.format(metric) for metric in schema.METRICS for form in shown]
  first, rows = variants[_NAME], []
  for name, variant in variants.items():
    row = [
      _OBJECTIVES[name],
      '–' if variant.temperature is None else f'{variant.temperature:g}',
      str(variant.epochs),
      f'{variant.queries:,}',
      f'{variant.seconds:.0f}',
    ]
    for metric in schema.METRICS:
      own, base = (100 * np.array(getattr(each, metric)) for each in (variant, first))
      row.append(_interval(own, '.1f'))
      row.append('' if variant is first else _interval(own - base, '+.1f'))
    rows.append(row)
  note = _EXPLICIT.format(seeds=len(first.accuracy))
  return Table('Objectives', [*map(Column, heads)], rows, note)


def _interval(values: np.ndarray, form: str) -> str:
  found = metrics.interval(values)
  return f'{found.mean:{form}} [{found.low:{form}}, {found.high:{form}}]'


def _claims(variants: dict[str, Variant]) -> Table:
  """Claims 2 and 3, objective by objective."""
  rows: dict[str, list[list[object]]] = {}
  for name, variant in variants.items():
    for claim in variant.claims:
      row = [claim.claim, _OBJECTIVES[name], claim.measured, claim.holds]
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


def _ends(directory: pathlib.Path) -> Table:
  """Where the bisection ends behind noise."""
  config = experiments.parse(workdir.read_config(directory).config)
  config = dataclasses.replace(config, seeds=_DRAWS)
  assert config.extraction is not None
  experiment = Experiment(config, directory, _DATA.value)
  profile, tables = experiment.profile(), extraction_stage.tables_of(experiment)
  heads = ['victim', 'answers', "victim's share (%)", 'share at least 90 % (draws)']
  which = 'fingerprint', 'laplace'
  one = functools.partial(harness.collect, *which, config, profile, tables)
  every, rows = jax.jit(jax.vmap(one)), []
  for cell in extraction_stage.cells(experiment):
    if (cell.attack, cell.defense) != which:
      continue
    spoils = every(extraction_stage.runs_of(experiment, profile, cell))
    answers, share = np.asarray(spoils.harvest.count), 100 * np.asarray(spoils.purity)
    row = [cell.victim, _quartiles(answers), _quartiles(share[answers > 0])]
    rows.append([*row, f'{np.sum(share >= 90)} of {_DRAWS}'])
  note = _ENDS.format(draws=_DRAWS, budget=max(config.extraction.query_budgets))
  return Table('Where the bisection ends', [*map(Column, heads)], rows, note)


def _quartiles(values: np.ndarray) -> str:
  least, low, middle, high, most = np.percentile(values, [0, 25, 50, 75, 100])
  return f'{middle:,.0f} [{low:,.0f}, {high:,.0f}], {least:,.0f} to {most:,.0f}'


if __name__ == '__main__':
  app.run(main)
