"""Pictures of surrogates and goodput: lines of means with their 95 % intervals."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from psml_jax.report import canvas, labels
from psml_jax.report import summary as summaries
from psml_jax.report.canvas import FONT
from psml_jax.report.labels import Label
from psml_jax.report.summary import Estimate, Summary

_METRICS = ('accuracy', 'fidelity')
_DASHES = ('--', ':', '-.')
_FAMILIES = ((canvas.GREEN, 'o'), (canvas.ORANGE, 'v'), ('black', 'P'))
_TARGET = f'goodput target, {100 * summaries.GOODPUT_TARGET:g} %'


def extraction(summary: Summary) -> Figure:
  """Surrogates' accuracy and fidelity against the queries billed, by victim."""
  figure, grid = canvas.subplots(2, 3, (12, 7.4))
  defenses = summaries.shown_defenses(summary)
  budgets = sorted({row['query_budget'] for row in summary['extraction']})
  billed = [row['queries_billed'] for row in summary['extraction']]
  for panels, size in zip(grid.T, summaries.SIZES, strict=True):
    victim = summary['victims'][size]
    name = labels.plain(labels.short(victim, 30))
    panels[0].set_title(f'{size} victim\n{name}', fontsize=FONT)
    for axes, metric in zip(panels, _METRICS, strict=True):
      _draw_extraction(axes, summary, victim, metric, defenses)
      canvas.query_ticks(axes, budgets, billed)
  for axes, metric in zip(grid[:, 0], _METRICS, strict=True):
    axes.set_ylabel(f'Surrogate {metric} (%)', fontsize=FONT)
  grid[1, 1].set_xlabel('Queries billed, probes included', fontsize=FONT)
  canvas.legend(figure, grid.flat, 4)
  canvas.freeze(figure)
  return figure


def _draw_extraction(
  axes: Axes, summary: Summary, victim: str, metric: str, defenses: list[str]
) -> None:
  rows = [row for row in summary['extraction'] if row['victim'] == victim]
  attacks = sorted({row['attack'] for row in rows}, key=summaries.attack_order)
  styles = {'none': '-'}
  styles |= {name: _DASHES[i % len(_DASHES)] for i, name in enumerate(defenses)}
  for attack in attacks:
    for defense, dashes in styles.items():
      line = sorted(
        (r for r in rows if (r['attack'], r['defense']) == (attack, defense)),
        key=lambda row: row['query_budget'],
      )
      if line:
        canvas.error_line(
          axes,
          [Estimate(*(row['queries_billed'],) * 3) for row in line],
          [summaries.percent(row[metric]) for row in line],
          *canvas.attack_style(attack),
          label=attack if defense == 'none' else f'{attack}, defended by {defense}',
          dashes=dashes,
          width=4 if attack == 'explicit' else 1.8,
        )


def protection(summary: Summary) -> Figure:
  """What the defense takes from surrogates, against the goodput that it leaves."""
  figure, ((*panels, last),) = canvas.subplots(1, 3, (13, 5.6))
  victim = summary['victims']['medium']
  rows = [row for row in summary['protection'] if row['victim'] == victim]
  rows.sort(key=lambda row: (summaries.attack_order(row['attack']), row['scale']))
  written = [
    _draw_protection(axes, rows, metric)
    for axes, metric in zip(panels, _METRICS, strict=True)
  ]
  name = labels.plain(labels.short(victim, 40))
  figure.suptitle(
    f'medium victim {name}; numbers at points: noise scale b', fontsize=FONT + 1
  )
  _draw_goodput(last, summary)
  canvas.legend(figure, [*panels, last], 5)
  canvas.freeze(figure)
  for axes, lines in zip(panels, written, strict=True):
    data = [labels.along(axes, [100 * summaries.GOODPUT_TARGET] * 2, axes.get_ylim())]
    data += [
      labels.along(axes, [t.x for t in line], [t.y for t in line]) for line in lines
    ]
    labels.place(axes, [text for line in lines for text in line], np.concatenate(data))
  return figure


def _draw_protection(
  axes: Axes, rows: list[dict[str, Any]], metric: str
) -> list[list[Label]]:
  """Draws a line per attack; the scales to write beside each line's points."""
  written = []
  for attack in dict.fromkeys(row['attack'] for row in rows):
    line = [
      row
      for row in rows
      if row['attack'] == attack and summaries.known(row[metric], row['goodput'])
    ]
    if not line:
      continue
    x = [summaries.percent(row['goodput']) for row in line]
    y = [summaries.percent(row[metric]) for row in line]
    color, marker = canvas.attack_style(attack)
    canvas.error_line(axes, x, y, color, marker, label=f'{attack} attack')
    written.append(
      [
        Label(at.mean, up.mean, f'{row["scale"]:.3g}', color)
        for row, at, up in zip(line, x, y, strict=True)
      ]
    )
  axes.axvline(
    100 * summaries.GOODPUT_TARGET, color='black', ls=':', lw=1.5, label=_TARGET
  )
  axes.margins(0.12)
  axes.set_xlabel('Goodput (%)', fontsize=FONT)
  axes.set_ylabel(f'Surrogate {metric} (%)', fontsize=FONT)
  return written


def goodput(summary: Summary) -> Figure:
  """The goodput that each defense leaves, against its scale."""
  figure, ((axes,),) = canvas.subplots(1, 1, (8, 5))
  _draw_goodput(axes, summary)
  canvas.legend(figure, [axes], 4)
  canvas.freeze(figure)
  return figure


def _draw_goodput(axes: Axes, summary: Summary) -> None:
  """One line per kind of defense; a row without noise starts each of them."""
  kinds: dict[str, list] = {}
  for row in summary['goodput']:
    kinds.setdefault(row['defense'].split('(')[0], []).append(row)
  without = kinds.pop('none', [])
  for i, (kind, rows) in enumerate((kinds or {'none': []}).items()):
    line = sorted([*without, *rows], key=lambda row: row['scale'])
    if line:
      canvas.error_line(
        axes,
        [Estimate(*(row['scale'],) * 3) for row in line],
        [summaries.percent(row['goodput']) for row in line],
        *_FAMILIES[i % len(_FAMILIES)],
        label=f'goodput, {kind}',
      )
  target = 100 * summaries.GOODPUT_TARGET
  axes.axhline(target, color='black', ls=':', lw=1.5, label=_TARGET)
  axes.set_xlabel("Noise scale b (share of the zoo's range)", fontsize=FONT)
  axes.set_ylabel('Goodput (%)', fontsize=FONT)
