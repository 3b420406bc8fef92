"""Makes docs/results/live.md and its picture of what was measured of a live server.

python benchmarks/live_page.py --root=runs/live --revision=abc

The root holds live.json of live.py, serving.json and serving_haproxy.json of
serving.py, siege.json of siege.py, and raids.json of raids.py. What the page says of
them is by hand.
"""

import io
import json
import pathlib
from typing import Any

import matplotlib.style
import numpy as np
from absl import app, flags
from scipy import stats

from psml_jax.experiments import workdir
from psml_jax.metrics import Interval
from psml_jax.report import canvas, styles, text
from psml_jax.report.columns import Column, Table, estimate
from psml_jax.serving.study import Live, Loaded

_ROOT = flags.DEFINE_string('root', 'runs/live', 'Where live.json lies.')
_REVISION = flags.DEFINE_string('revision', None, 'Of the study.', required=True)
_BAR = 0.55
_SIDES = {'HTTP (%)': 'wire', 'pure (%)': 'pure', 'pairs (points)': 'paired_difference'}
_HEAD = """
```sh
make demo
python launch/profile_zoo.py --config=configs/live.py --workdir=runs/live/zoo
python benchmarks/serving.py
python benchmarks/serving.py --haproxy --out=runs/live/serving_haproxy.json
python benchmarks/siege.py
python benchmarks/raids.py --workdir=runs/demo
python benchmarks/live.py --workdir=runs/live/zoo
```

{device}, client and server on the same cores, revision {revision}; the load average was
{busy:.1f} when the study of leaks began.

Models, accuracy and the latency that the wire's profile promises (its quantile
{quantile:g}): {models}. Answers are held to {hold}.

Loads are {queries} queries at {rate:g} a second in the mean, from the workload
`{workload}`; goodput is over all offered queries. *By profile*: answered by a model
whose profile meets the spec. *By clock*: answered by a model as accurate as asked for,
within the spec's latency by the client's clock, from when the query was due. Intervals
are 95 % and take queries as independent, which bursts are not.

![AUC of each channel, and what each switch costs](../images/live.png)
"""


def main(argv: list[str]) -> None:
  """Writes the page and the picture."""
  del argv
  live = workdir.read_json(pathlib.Path(_ROOT.value).expanduser() / 'live.json', Live)
  of = zip(live.models, live.accuracy, live.wire_ms, strict=True)
  head = _HEAD.format(
    device=live.device,
    revision=_REVISION.value,
    busy=live.busy,
    quantile=live.sizes.quantile,
    models=', '.join(f'{n} {100 * a:.1f} %, {ms:.1f} ms' for n, a, ms in of),
    hold='no time yet' if live.hold_ms is None else f'{live.hold_ms:g} ms',
    queries=live.sizes.queries,
    rate=live.sizes.rate,
    workload=live.sizes.workload,
  )
  tables = [*_costs(), *_sieges(), *_raids(), *_tables(live)]
  page = text.as_markdown('A live server', tables)
  title, rest = page.split('\n', 1)
  docs = pathlib.Path(__file__).parents[1] / 'docs'
  (docs / 'results' / 'live.md').write_text(title + '\n' + head + rest, 'utf-8')
  with matplotlib.style.context('default'):
    (docs / 'images' / 'live.png').write_bytes(_draw(live))


def _read(name: str) -> dict[str, Any]:
  found: dict[str, Any] = json.loads(
    (pathlib.Path(_ROOT.value).expanduser() / name).read_text()
  )
  return found


def _costs() -> list[Table]:
  """What the gate costs, in each mode: medians, and differences within a round."""
  names = {
    'serving.json': 'What gate and defense cost',
    'serving_haproxy.json': "Behind Ray's HAProxy",
  }
  heads = ['clients', 'server', 'p50 (ms)', 'p99 (ms)', 'answers a second']
  heads += ['p50 (ms), more', 'p99 (ms), more', 'throughput, ratio']
  tables = []
  for file, name in names.items():
    turns = _read(file)['turns']
    servers = list(dict.fromkeys(turn['server'] for turn in turns))
    rows = []
    for count in sorted({turn['connections'] for turn in turns}):
      own = {
        server: [
          [turn[field] for field in ('p50_ms', 'p99_ms', 'per_second')]
          for turn in turns
          if (turn['server'], turn['connections']) == (server, count)
        ]
        for server in servers
      }
      without = np.array(own['without'])
      for server in ('without', *(each for each in servers if each != 'without')):
        mine = np.array(own[server])
        more, ratio = mine[:, :2] - without[:, :2], mine[:, 2] / without[:, 2]
        cells = [_middle(mine[:, i], digits) for i, digits in enumerate((2, 1, 0))]
        cells += [_spread(column, 2) for column in (*more.T, ratio)]
        if server == 'without':
          cells[3:] = ['', '', '']
        rows.append([str(count), server, *cells])
    rounds = len(turns) // len(rows)
    note = (
      f'Medians over {rounds} rounds; differences are from the server without gate in '
      'the same round, with 95 % bootstrap intervals of their median; bare is Ray '
      'Serve with one deployment.'
    )
    tables.append(Table(name, [Column(head) for head in heads], rows, note))
  return tables


def _middle(values: np.ndarray, digits: int) -> str:
  return f'{np.median(values):.{digits}f}'


def _spread(values: np.ndarray, digits: int) -> str:
  low, high = _interval(values)
  return f'{np.median(values):.{digits}f} ({low:.{digits}f} to {high:.{digits}f})'


def _interval(values: np.ndarray) -> tuple[float, float]:
  if not np.ptp(values):
    return values[0], values[0]
  low, high = stats.bootstrap((values,), np.median, rng=0).confidence_interval
  return float(low), float(high)


def _sieges() -> list[Table]:
  """Kills, overload and malformed requests, as they were counted."""
  found = _read('siege.json')
  heads = [Column('what'), Column('measured')]
  return [
    Table(
      name,
      heads,
      [[what.replace('_', ' '), _said(value)] for what, value in found[part].items()],
    )
    for part, name in {
      'kills': 'A replica is killed every five seconds',
      'overload': 'Three times what it answers',
      'malformed': 'Malformed requests',
    }.items()
  ]


def _said(value: Any) -> str:
  if isinstance(value, dict):
    return ', '.join(f'{name}: {_said(each)}' for name, each in value.items())
  if isinstance(value, list):
    return ', '.join(map(_said, value)) or 'none'
  return f'{value:,.1f}' if isinstance(value, float) else str(value)


def _raids() -> list[Table]:
  """Attacks by HTTP against the pure run, and the capped server."""
  found = _read('raids.json')
  heads = ['attack', 'victim', 'queries', 'probes (pure run)']
  heads += [f'{m}, {who}' for m in ('accuracy', 'fidelity') for who in _SIDES]
  raids = []
  for row in found['raids']:
    cells = [
      estimate(Interval(*(100 * end for end in row[metric][side].values())))
      for metric in ('accuracy', 'fidelity')
      for side in _SIDES.values()
    ]
    probes = f'{row["probes"]} ({row["probes_of_the_pure_run"]})'
    raids.append([row['attack'], row['victim'], str(row['queries']), probes, *cells])
  capped = [
    [
      row['victim'],
      str(row['queries']),
      str(row['victim_answers']),
      f'{row["rate"]:.3f}',
      f'{row["cap"]:g}',
      f'{row["p_value_above_the_cap"]:.3f}',
    ]
    for row in found['capped']
  ]
  asked = ['victim', 'queries', "victim's answers", 'rate', 'cap', 'p']
  return [
    Table('Attacks by HTTP', [Column(head) for head in heads], raids),
    Table('A capped server under its worst query', [*map(Column, asked)], capped),
  ]


def _tables(live: Live) -> list[Table]:
  goodputs = [
    [
      switch.name,
      load.pattern,
      *(_percent(v) for v in (load.simulated, load.by_profile, load.by_clock)),
      estimate(load.p50_ms),
      estimate(load.p99_ms),
      _ends(load),
    ]
    for switch in live.switches
    for load in switch.loads
  ]
  leaks = [
    [
      switch.name,
      leak.channel,
      str(leak.responses),
      *(['–'] * 2 if leak.auc is None else _told(leak.auc, leak.chance, leak.bits)),
    ]
    for switch in live.switches
    for leak in switch.leaks
  ]
  first = ['switch', 'load', 'simulated (%)', 'by profile (%)', 'by clock (%)']
  second = ['switch', 'channel', 'answers', 'AUC (chance is 0.5 +-)', 'bits']
  ends = 'served / refused / missed / broken / turned away; logged'
  return [
    Table(
      'Goodput and latency',
      [Column(name) for name in [*first, 'p50 (ms)', 'p99 (ms)', ends]],
      goodputs,
    ),
    Table(
      'What each channel tells of the model that answered',
      [Column(name) for name in second],
      leaks,
    ),
  ]


def _told(auc: float, chance: float | None, bits: Interval | None) -> list[str]:
  assert bits is not None
  return [f'{auc:.3f} (+-{chance:.3f})', estimate(bits, '.2f')]


def _percent(value: Interval) -> str:
  return estimate(Interval(*(100 * part for part in value)))


def _ends(load: Loaded) -> str:
  ends = load.served, load.refused, load.missed, load.in_doubt, load.turned_away
  return f'{" / ".join(map(str, ends))}; {load.logged}'


def _draw(live: Live) -> bytes:
  """AUC by channel on the left, latency and goodput by switch on the right."""
  figure, ((left, right),) = canvas.subplots(1, 2, (13, 5.2))
  channels = list(dict.fromkeys(k.channel for s in live.switches for k in s.leaks))
  looks = styles.attacks({}, [switch.name for switch in live.switches])
  for at, switch in enumerate(live.switches):
    look, shift = looks[switch.name], 0.1 * (at - len(live.switches) / 2)
    told = [leak for leak in switch.leaks if leak.auc is not None]
    left.scatter(
      [leak.auc for leak in told],
      [channels.index(leak.channel) + shift for leak in told],
      color=look.color,
      marker=look.marker,
      s=45,
      label=switch.name,
    )
    for load in switch.loads:
      hollow = load.pattern == 'bursts'
      right.errorbar(
        load.p50_ms.mean,
        100 * load.by_clock.mean,
        yerr=100 * np.abs(np.array([load.by_clock[1:]]).T - load.by_clock.mean),
        color=look.color,
        marker=look.marker,
        mfc='white' if hollow else look.color,
        capsize=2.5,
        ms=8,
      )
  leaks = [leak for switch in live.switches for leak in switch.leaks]
  widest = max(leak.chance for leak in leaks if leak.chance is not None)
  left.axvspan(0.5 - widest, 0.5 + widest, color='#eeeeee', zorder=0)
  left.axvline(_BAR, color='#777777', ls=':', lw=1.4)
  left.set_yticks(range(len(channels)), channels)
  left.invert_yaxis()
  left.set_xlim(0.4, 1.02)
  left.set_xlabel('AUC; grey: by chance; dotted: 0.55', fontsize=canvas.FONT)
  right.set_xlim(left=0)
  right.set_xlabel('median latency (ms); hollow: bursts', fontsize=canvas.FONT)
  right.set_ylabel("goodput by the client's clock (%)", fontsize=canvas.FONT)
  canvas.legend(figure, canvas.labelled([left]), 7)
  file = io.BytesIO()
  figure.savefig(file, format='png')
  return file.getvalue()


if __name__ == '__main__':
  app.run(main)
