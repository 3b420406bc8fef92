"""Pictures of the protection-goodput plane."""

import io
from collections.abc import Sequence

from matplotlib.axes import Axes

from psml_jax.metrics import Interval
from psml_jax.report import canvas
from psml_jax.report.plane_records import Accounts, Attacked, Defense, Study
from psml_jax.report.styles import GREY, RED

_COLORS = (
  '#0072B2', '#009E73', '#E69F00', '#AA3377', '#56B4E9', '#8C6D1F', '#332288',
  '#117733', '#882255', '#44AA99', '#999933', '#CC6677', '#6699CC', '#444444',
)  # fmt: skip
_MARKERS = 'sD^vPX<p>h*d8H'
_CAPPED, _CONTROL = 'capped', 'refusal'


def draw(study: Study) -> dict[str, bytes]:
  """The pictures of a study, PNG by name: `plane`, and `accounts` and `attackers`."""
  pictures = {'plane': _plane(study)}
  if study.attacked:
    pictures['attackers'] = _attackers(study.attacked)
  if study.accounts:
    pictures['accounts'] = _accounts(study.accounts)
  return pictures


def _plane(study: Study) -> bytes:
  names = sorted(study.bounds, key=lambda name: (name != study.workload, name))
  columns = min(2, len(names))
  rows = -(-len(names) // columns)
  figure, grid = canvas.subplots(rows, columns, (6.2 * columns, 4.6 * rows + 1.4))
  for axes, workload in zip(grid.flat, names, strict=False):
    _panel(axes, study, workload)
  for axes in grid.flat[len(names) :]:
    axes.set_visible(False)
  canvas.legend(figure, canvas.labelled(grid.flat), 5)
  return _png(figure)


def _panel(axes: Axes, study: Study, workload: str) -> None:
  rates, kept = zip(*study.bounds[workload], strict=True)
  axes.fill_betweenx(rates, kept, 1.0, color='#dddddd', lw=0, zorder=0)
  axes.plot(kept, rates, color='black', lw=2.6, label='bound: nothing lies below')
  for i, defense in enumerate(study.defenses):
    color, marker = _style(defense, i)
    main = defense.defense == _CAPPED
    axes.plot(
      [point.goodput[workload] for point in defense.points],
      [point.worst_rate for point in defense.points],
      color=color,
      marker=marker,
      ms=6 if main else 4,
      lw=1.8 if main else 1.1,
      ls='-' if main else '--',
      label=defense.defense,
      zorder=4 if main else 3,
    )
  axes.set_title(f'{study.name}, clients: {workload}', fontsize=canvas.FONT)
  axes.set_xlim(0.4, 1.005)
  axes.set_ylim(0.0, 1.02)
  axes.set_xlabel('goodput of honest clients (fraction)', fontsize=canvas.FONT)
  axes.set_ylabel('worst rate (victim answers a query)', fontsize=canvas.FONT)


def _style(defense: Defense, place: int) -> tuple[str, str]:
  if defense.defense == _CAPPED:
    return RED, 'o'
  if defense.defense == _CONTROL:
    return GREY, 'x'
  return _COLORS[place % len(_COLORS)], _MARKERS[place % len(_MARKERS)]


def _attackers(attacked: Sequence[Attacked]) -> bytes:
  """Each attacker's mean share of the best rate, by defense and probes."""
  probes = sorted({one.probes for one in attacked})
  names = list(dict.fromkeys(one.attack for one in attacked))
  behind = list(dict.fromkeys(one.defense for one in attacked))
  figure, grid = canvas.subplots(1, len(probes), (6.2 * len(probes), 4.8))
  for axes, count in zip(grid.flat, probes, strict=True):
    for i, name in enumerate(names):
      shares = []
      for place, defense in enumerate(behind):
        for one in attacked:
          if (one.attack, one.defense, one.probes) == (name, defense, count):
            shares.append((place + (i - len(names) / 2) * 0.1, _share(one)))
      if shares:
        axes.plot(
          *zip(*shares, strict=True),
          _MARKERS[i % len(_MARKERS)],
          color=_COLORS[i % len(_COLORS)],
          label=name,
        )
    axes.axhline(1.0, color='black', lw=1.4)
    axes.set_xticks(range(len(behind)), behind, rotation=30, ha='right')
    axes.set_ylim(0, 1.08)
    axes.set_title(f'after {count} probes', fontsize=canvas.FONT)
    axes.set_ylabel('share of the best rate', fontsize=canvas.FONT)
  canvas.legend(figure, canvas.labelled(grid.flat), 5)
  return _png(figure)


def _share(one: Attacked) -> float:
  return sum(one.rate) / len(one.rate) / one.best if one.best else float('nan')


def _accounts(accounts: Sequence[Accounts]) -> bytes:
  names = list(dict.fromkeys(one.defense for one in accounts))
  figure, grid = canvas.subplots(1, len(names), (6.2 * len(names), 4.6))
  for axes, name in zip(grid.flat, names, strict=True):
    own = [one for one in accounts if one.defense == name]
    at = [one.accounts for one in own]
    axes.plot(at, [one.bound / one.queries for one in own], 'k-', lw=2, label='bound')
    answers = [
      Interval(
        *(x / one.queries for x in (one.answers, one.answers_low, one.answers_high))
      )
      for one in own
    ]
    exactly = [Interval(k, k, k) for k in at]
    canvas.error_line(axes, exactly, answers, RED, 'o', label='measured', dashes='--')
    axes.set_xscale('log')
    axes.set_ylim(0, 1.05)
    axes.set_title(f'{name}, {own[0].queries:,} queries', fontsize=canvas.FONT)
    axes.set_xlabel("the thief's accounts", fontsize=canvas.FONT)
    axes.set_ylabel('victim answers a query', fontsize=canvas.FONT)
  canvas.legend(figure, canvas.labelled(grid.flat), 2)
  return _png(figure)


def _png(figure: object) -> bytes:
  file = io.BytesIO()
  figure.savefig(file, format='png')  # type: ignore[attr-defined]
  return file.getvalue()
