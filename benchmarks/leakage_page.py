"""Makes docs/results/leakage.md and the README's picture of finished leakage studies.

python benchmarks/leakage_page.py --root=runs/leakage --seconds=900 --revision=abc

The root holds the work directories of configs/leakage.py, named as the zoos.
"""

import dataclasses
import pathlib

import jax
import matplotlib.style
import numpy as np
from absl import app, flags

from psml_jax.experiments import workdir
from psml_jax.metrics import interval
from psml_jax.report import plane, plane_plots
from psml_jax.report.plane_records import Attacked, Study

_ROOT = flags.DEFINE_string('root', 'runs/leakage', 'The work directories.')
_REVISION = flags.DEFINE_string('revision', None, 'Of the studies.', required=True)
_SECONDS = flags.DEFINE_float('seconds', 0, 'Wall-clock time of all six.')
_ZOOS = (
  'digits',
  'cifar10_published',
  'cifar100_published',
  'imagenet_timm',
  'llm_aider_polyglot',
  'llm_stats_gpqa',
)
_PICTURE = 'cifar10_published'
_SHOWN = (
  'capped', 'capped_corners', 'laplace', 'gaussian', 'laplace_tighten', 'laplace_log',
  'exponential', 'permute_and_flip', 'exponential_l1', 'epsilon_random', 'refusal',
)  # fmt: skip
_COLUMNS = (
  ('uniform', 0.95),
  ('uniform', 0.9),
  ('uniform', 0.8),
  ('log_latency', 0.8),
  ('frontier', 0.8),
  ('classes', 0.8),
)
_HEAD = """# What defenses give away: six zoos

```sh
{commands}
```

{device}, JAX {jax}, Python 3.11, revision {revision}. All six, two at a time, nothing
else running: {minutes:.0f} min {seconds:.0f} s.

**Rate**: victim answers a billed query of the best-informed attacker, for the worst
victim and the best spec; certified (its ceiling is at most 0.002 above, 0.005 for
ImageNet and LLMStats). **Bound**: the least rate of any memoryless server of the same
goodput ([theory](../theory.md), theorem 1). Every defense is calibrated to the goodput
in the head of a column; `off` means that no value but off keeps it. Random refusal
stands beside all others. Goodputs are exact; in the zoos of 900 and 157 models those
behind noise are drawn, 16 times each of 2,048 clients. The posterior attacker has 256
particles and 12 candidates a field here, fewer than by default.

![The plane of the published CIFAR-10 zoo](../images/leakage.png)
"""

_PROBES = """## Probes against noise

![Probes against the scale of the noise](../images/probes.png)

`python benchmarks/noisy_search.py --plot`: the digits profile, medium victim. Probes
after which the spec of the joint posterior (256 particles, 12 candidates a field) has
0.9 of the best rate in the mean of 16 seeds and keeps it, looked at every 20 probes,
and what any search by refusals needs ([theory](../theory.md), section 6). At 0.05 the
mean lies between 0.85 and 0.91 from 20 probes on. With its own settings (1,024
particles, 20 candidates) it has, after 60 probes, 0.911 [0.888, 0.934] of the best
rate at noise of 0.1 of the range and 0.960 [0.950, 0.971] at 0.02, over 32 seeds.
"""


def main(argv: list[str]) -> None:
  """Writes both files."""
  del argv
  root = pathlib.Path(_ROOT.value)
  docs = pathlib.Path(__file__).parents[1] / 'docs'
  studies = {
    name: workdir.read_json(root / name / 'study.json', Study) for name in _ZOOS
  }
  run = (
    'python launch/leakage.py --config=configs/leakage.py:{} --workdir=runs/leakage/{}'
  )
  head = _HEAD.format(
    commands='\n'.join(run.format(name, name) for name in _ZOOS),
    device=studies['digits'].device,
    jax=jax.__version__,
    revision=_REVISION.value,
    minutes=_SECONDS.value // 60,
    seconds=_SECONDS.value % 60,
  )
  parts = [head, *(_zoo(name, study) for name, study in studies.items()), _PROBES]
  page = '\n'.join(parts)
  (docs / 'results' / 'leakage.md').write_text(page)
  (docs / 'images' / 'leakage.png').write_bytes(_picture(studies[_PICTURE]))


def _picture(study: Study) -> bytes:
  shown = [d for d in study.defenses if d.defense in _SHOWN]
  bounds = {study.workload: study.bounds[study.workload]}
  with matplotlib.style.context('default'):
    return plane_plots.draw(
      dataclasses.replace(
        study, defenses=shown, bounds=bounds, attacked=[], accounts=[]
      )
    )['plane']


def _table(header: list[str], rows: list[list[str]], texts: int = 1) -> str:
  rule = ['---'] * texts + ['---:'] * (len(header) - texts)
  return '\n'.join(f'| {" | ".join(line)} |' for line in (header, rule, *rows)) + '\n'


def _zoo(name: str, study: Study) -> str:
  parts = [
    f'## {name}\n',
    f'{study.models} models, {len(study.frontier)} corners on the frontier; '
    f'{study.cost}. {study.seconds:,.0f} s.\n',
    plane.advice(study) + '\n',
    _defenses(study),
    'Goodput (%) of uniform clients by the frontier model that their latency limit '
    'reaches, at 80 %:\n',
    _clients(study),
    'Attackers who know what a client knows, victim '
    f'{study.attacked[0].victim}, at uniform 80 %: the true rate of the spec that each '
    'has chosen, mean and 95 % interval over 8 seeds, and the best there is:\n',
    _attackers(study.attacked),
  ]
  if study.accounts:
    parts += [
      'Memory, 2,000 queries for the medium victim: budget of 10 answers of a model to '
      'a client, then a cap of 0.25; sticky noise of 0.07 of the range, one cell an '
      'account. Honest clients: 200 with 100 queries each.\n',
      _accounts(study),
      'The bound of a budget is one that a run passes once in a thousand; that of '
      'sticky noise is on the mean.\n',
    ]
  return '\n'.join(parts)


def _defenses(study: Study) -> str:
  rows_of = {
    d.defense: {(r.workload, r.target_goodput): r for r in d.rows}
    for d in study.defenses
  }
  last = ('uniform', 0.8)
  order = sorted(
    rows_of, key=lambda d: rows_of[d][last].worst_rate if last in rows_of[d] else 2
  )
  bound = {}
  for workload, target in _COLUMNS:
    capped = rows_of['capped'].get((workload, target))
    points = np.array(study.bounds[workload])
    bound[workload, target] = (
      float(np.interp(target, points[:, 1], points[:, 0]))
      if capped is None
      else capped.bound_rate
    )
  rows = [['**bound**', *(f'{bound[key]:.3f}' for key in _COLUMNS), '', '', '']]
  for defense in order:
    of = rows_of[defense]
    end = of.get(last)
    rows.append(
      [
        defense,
        *(f'{of[key].worst_rate:.3f}' if key in of else 'off' for key in _COLUMNS),
        '' if end is None else ('∞' if end.value is None else f'{end.value:.3g}'),
        '' if end is None else end.worst_victim,
        '' if end is None else f'{end.purity:.2f}',
      ]
    )
  heads = [f'{workload} {100 * target:.0f} %' for workload, target in _COLUMNS]
  ends = ['value (uniform 80 %)', 'worst victim there', 'purity']
  return _table(['defense', *heads, *ends], rows)


def _clients(study: Study) -> str:
  steps = study.defenses[0].steps[:12]
  rows = [['share of clients', *(f'{100 * step.share:.1f}' for step in steps)]]
  for defense in study.defenses:
    if defense.defense in ('capped', 'laplace', 'refusal'):
      kept = [step.goodput for step in defense.steps[:12]]
      cells = ['–' if x is None else f'{100 * x:.1f}' for x in kept]
      rows.append([defense.defense, *cells])
  return _table(['', *(step.model for step in steps)], rows)


def _attackers(attacked: list[Attacked]) -> str:
  budgets = sorted({one.probes for one in attacked})
  rows = []
  for first in (one for one in attacked if one.probes == budgets[0]):
    cells = []
    for budget in budgets:
      (own,) = (
        one
        for one in attacked
        if (one.defense, one.attack, one.probes)
        == (first.defense, first.attack, budget)
      )
      found = interval(own.rate)
      cells.append(f'{found.mean:.3f} ±{found.high - found.mean:.3f}')
    rows.append([first.defense, first.attack, first.knows, *cells, f'{first.best:.3f}'])
  heads = [f'{budget} probes' for budget in budgets]
  return _table(['defense', 'attack', 'is told', *heads, 'best'], rows, 3)


def _accounts(study: Study) -> str:
  rows = [
    [
      one.defense,
      f'{one.accounts:,}',
      f'{one.answers:,.0f} [{one.answers_low:,.0f}, {one.answers_high:,.0f}]',
      f'{one.bound:,.0f}',
      f'{100 * one.goodput:.1f} [{100 * one.goodput_low:.0f}, '
      f'{100 * one.goodput_high:.0f}]',
    ]
    for one in study.accounts
  ]
  return _table(
    [
      *('defense', 'accounts', 'victim answers', 'bound'),
      'honest goodput (%), mean [5 %, 95 % of clients]',
    ],
    rows,
  )


if __name__ == '__main__':
  app.run(main)
