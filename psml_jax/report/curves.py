"""Pictures of surrogates and goodput: lines of means with their 95 % intervals."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from psml_jax.report import canvas, labels, schema, styles
from psml_jax.report.canvas import FONT
from psml_jax.report.labels import Label
from psml_jax.report.schema import METRICS, Defended, Estimate, Protection, Summary
from psml_jax.report.styles import Dashes

_TARGET: dict[str, Any] = {'color': 'black', 'ls': (0, (1, 2)), 'lw': 1.5}
_Row = TypeVar('_Row', bound=Defended)
_Line = tuple[Sequence[float], Sequence[float]]


def extraction(summary: Summary) -> Figure:
  """Surrogates' accuracy and fidelity against the queries billed, by victim.

  Where there is one query budget only, attacks and defenses stand side by side.
  """
  stolen = {row.victim for row in summary.extraction}
  sizes = [size for size in schema.SIZES if summary.victims[size] in stolen]
  budgets = sorted({row.query_budget for row in summary.extraction})
  beside, place = len(budgets) == 1, 'Queries billed, probes included'
  high = 9.0 if beside else 7.4
  figure, grid = canvas.subplots(2, len(sizes), (max(6.0, 4.0 * len(sizes)), high))
  billed = [row.queries_billed for row in summary.extraction]
  for panels, size in zip(grid.T, sizes, strict=True):
    victim = summary.victims[size]
    name = labels.plain(labels.short(victim, 30))
    panels[0].set_title(f'{size} victim\n{name}', fontsize=FONT)
    for axes, metric in zip(panels, METRICS, strict=True):
      names = _draw_extraction(axes, summary, victim, metric, beside)
      if beside:
        canvas.name_ticks(axes, names)
      else:
        canvas.query_ticks(axes, budgets, billed)
  for axes, metric in zip(grid[:, 0], METRICS, strict=True):
    axes.set_ylabel(f'Surrogate {metric} (%)', fontsize=FONT)
  for axes in grid[1, 1:2] if len(sizes) == 3 else grid[1]:
    axes.set_xlabel(f'{place}: {budgets[0]:,}' if beside else place, fontsize=FONT)
  if not beside:
    canvas.legend(figure, canvas.labelled(grid.flat), 4)
  canvas.freeze(figure)
  return figure


def _draw_extraction(
  axes: Axes, summary: Summary, victim: str, metric: str, beside: bool
) -> list[str]:
  """A line per attack and defense, or points side by side at 0, 1, ...; their names."""
  rows = [row for row in summary.extraction if row.victim == victim]
  alone = len({row.query_budget for row in rows}) == 1
  rows = [row for row in rows if getattr(row, metric).known]
  rows.sort(key=lambda row: row.query_budget)
  shown = {'none': 'none'} | schema.shown_defenses(summary)
  looks = styles.defenses(summary.knobs, shown)
  names: list[str] = []
  for attack, look in _attacks(summary).items():
    for defense, label in shown.items():
      line = [
        row
        for row in rows
        if (row.attack, row.defense, row.label) == (attack, defense, label)
      ]
      if len(line) > 1 or (line and alone):
        x = [len(names)] if beside else [row.queries_billed for row in line]
        parts = [attack] if defense == 'none' else [attack, label]
        names.append(labels.plain('\n'.join(parts)))
        canvas.error_line(
          axes,
          [Estimate(value).times(1) for value in x],
          [getattr(row, metric).times() for row in line],
          look.color,
          look.marker,
          label=', defended by '.join(parts),
          dashes=looks[defense].dashes,
          width=4 if summary.roles.get(attack) == 'reference' else 1.8,
          hollow=defense != 'none',
        )
  canvas.note_if_empty(axes)
  return names


def _attacks(summary: Summary) -> dict[str, styles.Attack]:
  rows = (*summary.extraction, *summary.protection)
  return styles.attacks(summary.roles, (row.attack for row in rows))


def protection(summary: Summary) -> Figure:
  """What the defense takes from surrogates, against the goodput that it leaves."""
  figure, ((*panels, last),) = canvas.subplots(1, 3, (13, 5.6))
  victim = summary.victims['medium']
  rows = [row for row in summary.protection if row.victim == victim]
  written = [
    _draw_protection(axes, summary, rows, metric)
    for axes, metric in zip(panels, METRICS, strict=True)
  ]
  title = f'medium victim {labels.plain(labels.short(victim, 40))}'
  for defense in list(_by_defense(summary, rows))[:1]:
    title += f'; numbers at points: {labels.plain(_knob(summary, defense))}'
  figure.suptitle(title, fontsize=FONT + 1)
  looks, clients = _draw_goodput(last, summary)
  looks |= styles.defenses(summary.knobs, (row.defense for row in rows))
  entries = {
    f'{attack} attack': Line2D([], [], color=look.color, lw=4)
    for attack, look in _attacks(summary).items()
    if any(row.attack == attack for row in rows)
  }
  _legend(figure, summary, entries, looks, clients)
  canvas.freeze(figure)
  for axes, (data, texts) in zip(panels, written, strict=True):
    data = [*data, ([100 * summary.target_goodput] * 2, axes.get_ylim())]
    covered = [labels.along(axes, *line) for line in data]
    labels.place(axes, texts, np.concatenate(covered))
  return figure


def _draw_protection(
  axes: Axes, summary: Summary, rows: Sequence[Protection], metric: str
) -> tuple[list[_Line], list[Label]]:
  """Draws a line per attack and defense; what is drawn, and the first one's scales."""
  rows = [row for row in rows if row.goodput.known and getattr(row, metric).known]
  drawn: list[_Line] = []
  texts: list[Label] = []
  looks = styles.defenses(summary.knobs, (row.defense for row in rows))
  for attack, look in _attacks(summary).items():
    mine = [row for row in rows if row.attack == attack]
    for defense, line in _by_defense(summary, mine).items():
      x = [row.goodput.times() for row in line]
      y = [getattr(row, metric).times() for row in line]
      style = looks[defense]
      canvas.error_line(axes, x, y, look.color, style.marker, dashes=style.dashes)
      texts = texts or [
        Label(at.mean, up.mean, f'{row.value:.3g}', look.color)
        for row, at, up in zip(line, x, y, strict=True)
      ]
      drawn.append(([at.mean for at in x], [up.mean for up in y]))
      drawn += [([at.mean] * 2, up[1:]) for at, up in zip(x, y, strict=True)]
  canvas.note_if_empty(axes)
  axes.axvline(100 * summary.target_goodput, **_TARGET)
  axes.margins(0.12)
  axes.set_xlabel('Goodput (%)', fontsize=FONT)
  axes.set_ylabel(f'Surrogate {metric} (%)', fontsize=FONT)
  return drawn, texts


def _by_defense(summary: Summary, rows: Sequence[_Row]) -> dict[str, list[_Row]]:
  """Rows by defense, weakest first; the one without a defense starts each of them."""
  rows = sorted(rows, key=lambda row: schema.strength(summary.knobs, row))
  names = list(styles.defenses(summary.knobs, (row.defense for row in rows)))
  groups = {name: [row for row in rows if row.defense == name] for name in names}
  if list(groups) != ['none']:
    without = groups.pop('none', [])
    groups = {name: without + group for name, group in groups.items()}
  return groups


def goodput(summary: Summary) -> Figure:
  """The goodput that each defense leaves, against the value of its knob."""
  figure, ((axes,),) = canvas.subplots(1, 1, (8, 5))
  looks, clients = _draw_goodput(axes, summary)
  looks = {name: look._replace(dashes='-') for name, look in looks.items()}
  _legend(figure, summary, {}, looks, clients)
  canvas.freeze(figure)
  return figure


def _draw_goodput(
  axes: Axes, summary: Summary
) -> tuple[dict[str, styles.Defense], dict[str, Dashes]]:
  """A line per defense, and thin ones for the classes of its clients; their styles."""
  rows = [row for row in summary.goodput if row.goodput.known]
  looks = styles.defenses(summary.knobs, (row.defense for row in rows))
  rows = [row for row in rows if row.defense != 'none']
  clients = styles.clients(name for row in rows for name in row.classes)
  for defense, line in _by_defense(summary, rows).items():
    x = [Estimate(row.value).times(1) for row in line]
    y = [row.goodput.times() for row in line]
    look = looks[defense]
    canvas.error_line(axes, x, y, look.color, look.marker)
    for name, dashes in clients.items():
      known = [row for row in line if name in row.classes]
      axes.plot(
        [row.value for row in known],
        [row.classes[name].times().mean for row in known],
        color=look.color,
        ls=dashes,
        lw=1,
        marker='.',
      )
  axes.axhline(100 * summary.target_goodput, **_TARGET)
  canvas.value_axis(axes, [row.value for row in rows])
  knobs = '\n'.join(_knob(summary, name) for name in summary.knobs)
  axes.set_xlabel(labels.plain(knobs), fontsize=FONT - 1)
  axes.set_ylabel('Goodput (%)', fontsize=FONT)
  return looks, clients


def _knob(summary: Summary, defense: str) -> str:
  """What the values of a defense mean."""
  knob = summary.knobs.get(defense)
  unit = f' ({knob.unit})' if knob and knob.unit else ''
  return f'{knob.name if knob else "value"} of {defense}{unit}'


def _legend(
  figure: Figure,
  summary: Summary,
  entries: dict[str, Line2D],
  looks: Mapping[str, styles.Defense],
  clients: Mapping[str, Dashes],
) -> None:
  """The entries, then the defenses, the target and the clients."""

  def line(**look: Any) -> Line2D:
    return Line2D([], [], **{'lw': 1.8, 'color': '#444444', **look})

  for name, look in looks.items():
    if name != 'none':
      entries[f'{name} defense'] = line(
        color=look.color, marker=look.marker, ls=look.dashes
      )
  entries[f'goodput target, {100 * summary.target_goodput:g} %'] = line(**_TARGET)
  if clients:
    entries['goodput, all clients'] = line()
  for name, dashes in clients.items():
    entries[f'goodput, {name} clients'] = line(lw=1, marker='.', ls=dashes)
  canvas.legend(figure, entries, 5)
