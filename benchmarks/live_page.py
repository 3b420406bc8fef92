"""Makes docs/results/live_leaks.md and its picture of live.json.

python benchmarks/live_page.py --root=runs/live --revision=abc
"""

import io
import pathlib

import matplotlib.style
import numpy as np
from absl import app, flags

from psml_jax.experiments import workdir
from psml_jax.metrics import Interval
from psml_jax.report import canvas, styles, text
from psml_jax.report.columns import Column, Table, estimate
from psml_jax.serving.study import Live, Loaded

_ROOT = flags.DEFINE_string('root', 'runs/live', 'Where live.json lies.')
_REVISION = flags.DEFINE_string('revision', None, 'Of the study.', required=True)
_BAR = 0.55
_HEAD = """
```sh
python launch/serve.py --workdir=runs/live/zoo  # the server, one switch at a time
python benchmarks/live.py --root=runs/live && python benchmarks/live_page.py
```

{device}, revision {revision}; {busy:.1f} processes wanted a core when it began{loaded}.

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
  busy = '; **taken on a loaded machine: rough, run again**' if live.busy > 0.5 else ''
  head = _HEAD.format(
    device=live.device,
    revision=_REVISION.value,
    busy=live.busy,
    loaded=busy,
    quantile=live.sizes.quantile,
    models=', '.join(f'{n} {100 * a:.1f} %, {ms:.1f} ms' for n, a, ms in of),
    hold='no time yet' if live.hold_ms is None else f'{live.hold_ms:g} ms',
    queries=live.sizes.queries,
    rate=live.sizes.rate,
    workload=live.sizes.workload,
  )
  page = text.as_markdown('A live server: goodput, and what leaks', _tables(live))
  title, rest = page.split('\n', 1)
  docs = pathlib.Path(__file__).parents[1] / 'docs'
  (docs / 'results' / 'live_leaks.md').write_text(title + '\n' + head + rest, 'utf-8')
  with matplotlib.style.context('default'):
    (docs / 'images' / 'live.png').write_bytes(_draw(live))


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
  left.axvline(_BAR, color='#777777', ls=':', lw=1.4)
  left.set_yticks(range(len(channels)), channels)
  left.invert_yaxis()
  left.set_xlim(0.4, 1.02)
  left.set_xlabel('AUC; dotted: the bar of 0.55', fontsize=canvas.FONT)
  p50 = [load.p50_ms.mean for switch in live.switches for load in switch.loads]
  canvas.value_axis(right, p50)
  right.set_xlabel('median latency (ms); hollow in bursts', fontsize=canvas.FONT)
  right.set_ylabel("goodput by the client's clock (%)", fontsize=canvas.FONT)
  canvas.legend(figure, canvas.labelled([left]), 7)
  file = io.BytesIO()
  figure.savefig(file, format='png')
  return file.getvalue()


if __name__ == '__main__':
  app.run(main)
