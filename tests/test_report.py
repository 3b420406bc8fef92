"""The report: nothing clipped, nothing fetched, nothing taken for markup."""

import csv
import dataclasses
import itertools
import json
import os
import pathlib
import re
import subprocess
import sys

import matplotlib
import numpy as np
import pytest
from matplotlib.image import imread
from matplotlib.text import Text

from psml_jax import report
from psml_jax.experiments import workdir
from psml_jax.report import plots, schema, styles
from psml_jax.report.schema import checked

NAMES = ('tiny', 'linear_8', 'linear', 'mlp_16', 'mlp_64', 'slow_mlp', 'cnn')
ACCURACY = (0.43, 0.71, 0.874, 0.912, 0.953, 0.9, 0.972)
LATENCY = (0.021, 0.034, 0.058, 0.11, 0.24, 0.31, 0.9)
VICTIMS = {'small': 'tiny', 'medium': 'linear', 'large': 'cnn'}
SCALES = (0.02, 0.05, 0.1, 0.14, 0.2, 0.3)


TABLES = (
  'setting',
  'claims',
  'zoo',
  'fingerprint',
  'extraction',
  'protection',
  'goodput',
  'provenance',
)
UNKNOWN = {'mean': None, 'ci95': None}


def estimate(mean, spread=0.008):
  return {'mean': mean, 'ci95': [mean - spread, mean + spread]}


def label(defense, value):
  return f'{defense}({value:g})' if value else 'none'


def knob(name, unit, control):
  ends = {'weakest': 1e-6, 'strongest': 64.0}
  return {'name': name, 'unit': unit, 'control': control, **ends}


def bisection(accuracy, latency, rng):
  """Probes that halve the latency, then the accuracy, as a fingerprint would."""
  rows = [(0.0, np.inf, True)]
  low, high = 0.0, 1.2
  for _ in range(9):
    middle = (low + high) / 2
    rows.append((accuracy - 0.001, middle, middle >= latency))
    low, high = (low, middle) if middle >= latency else (middle, high)
  low, high = 0.0, 1.0
  for _ in range(9):
    middle = (low + high) / 2
    rows.append((middle, latency * 1.001, middle <= accuracy))
    low, high = (middle, high) if middle <= accuracy else (low, middle)
  return rows


def extraction_rows(rng):
  rows = []
  for name in VICTIMS.values():
    top = ACCURACY[NAMES.index(name)]
    for budget in (100, 200, 400):
      gain = 0.06 * float(np.log2(budget / 100)) / 2
      for attack, defense, scale, loss, purity in (
        ('explicit', 'none', 0.0, 0.0, 1.0),
        ('naive', 'none', 0.0, 0.09, 0.2),
        ('fingerprint', 'none', 0.0, 0.004, 1.0),
        ('fingerprint', 'laplace', 0.05, 0.03, 0.8),
        ('fingerprint', 'laplace', 0.14, 0.055, 0.5),
        ('fingerprint', 'laplace', 0.3, 0.08, None),
      ):
        rows.append(
          extraction_row(name, top, budget, attack, defense, scale, purity)
          | {
            'accuracy': estimate(min(top, 0.97 * top + gain / 2 - loss)),
            'fidelity': estimate(
              0.92 + gain - loss + 0.004 * float(rng.normal()), 0.012
            ),
          }
        )
  return [*rows, extraction_row('linear', 0.8, 400, 'naive', 'refusal', 0.2, 0.2)]


def extraction_row(victim, score, budget, attack, defense, value, purity):
  return {
    'victim': victim,
    'attack': attack,
    'knows': 'its latency budget',
    'defense': defense,
    'value': value,
    'label': label(defense, value),
    'query_budget': budget,
    'queries_billed': budget - 0.4 * (attack == 'fingerprint'),
    'queries_served': estimate(budget * (0.8 if value else 1.0), 3.0),
    'victim_purity': UNKNOWN if purity is None else estimate(purity, 0.0),
    'accuracy': estimate(score),
    'fidelity': estimate(score),
    'seeds': 5,
    'diverged': 0,
    'unserved': 0,
  }


def protection_row(attack, defense, value, goodput):
  top = {'fingerprint': 0.09, 'informed': 0.07, 'naive': 0.01}[attack]
  start = 0.78 if attack == 'naive' else 0.86
  return extraction_row('linear', start, 400, attack, defense, value, None) | {
    'goodput': estimate(goodput),
    'accuracy': estimate(start - top * min(1, 4 * value), 0.005),
    'fidelity': estimate(start + 0.11 - 1.4 * top * min(1, 4 * value), 0.006),
    'victim_purity': estimate(max(0.3, 1 - 3 * value), 0.0),
    'queries_served': estimate(320, 4),
  }


def goodput_row(defense, value, goodput):
  return {
    'defense': defense,
    'value': value,
    'label': label(defense, value),
    'goodput': estimate(goodput, 0.004),
    'classes': {
      'corner': UNKNOWN if value > 0.25 else estimate(1 - 3 * value),
      'fast': estimate(goodput - 0.05),
      'slow': estimate(min(1, goodput + 0.05)),
    },
  }


@pytest.fixture
def summary():
  rng = np.random.default_rng(0)
  goodput = {scale: 1 - 1.35 * scale + scale**2 for scale in (0.0, *SCALES)}
  corners = {name: (ACCURACY[i], LATENCY[i]) for i, name in enumerate(NAMES)}
  return {
    'dataset': 'digits',
    'seeds': 5,
    'device': 'cpu (2 cores)',
    'wall_seconds': {'zoo': 31.2, 'profile': 8.0, 'attack': 64.9, 'report': 3.1},
    'zoo': [
      {'name': name, 'accuracy': a, 'latency_ms': ms, 'pareto': name != 'slow_mlp'}
      for name, a, ms in zip(NAMES, ACCURACY, LATENCY, strict=True)
    ],
    'victims': VICTIMS,
    'target_goodput': 0.8,
    'provenance': {'seed': '0', 'revision': '5410148', 'versions': 'jax 0.10.2'},
    'twins': [],
    'roles': {
      'explicit': 'reference',
      'fingerprint': 'attack',
      'informed': 'informed',
      'naive': 'baseline',
    },
    'knobs': {
      'laplace': knob('scale', "share of the zoo's range", False),
      'refusal': knob('share', 'share of queries', True),
    },
    'fingerprint': [
      {
        'victim': name,
        'probes': 19,
        'bound': 17.3,
        'min_accuracy': corners[name][0],
        'max_latency_ms': corners[name][1],
        'identified': True,
      }
      for name in VICTIMS.values()
    ],
    'probes': [
      {
        'victim': name,
        'min_accuracy': [row[0] for row in rows],
        'max_latency_ms': [row[1] for row in rows],
        'served': [bool(row[2]) for row in rows],
      }
      for name in VICTIMS.values()
      if (rows := bisection(*corners[name], rng))
    ],
    'extraction': extraction_rows(rng),
    'protection': [
      protection_row(attack, 'laplace' if scale else 'none', scale, goodput[scale])
      for attack in ('fingerprint', 'informed', 'naive')
      for scale in (0.0, *SCALES)
    ]
    + [
      protection_row(attack, 'refusal', 0.2, 0.8)
      for attack in ('fingerprint', 'informed', 'naive')
    ],
    'goodput': [
      goodput_row('laplace' if scale else 'none', scale, goodput[scale])
      for scale in (0.0, *SCALES)
    ]
    + [goodput_row('refusal', 0.2, 0.8)],
    'claims': [
      {
        'claim': 'fingerprinting beats the naive attack (accuracy, medium victim)',
        'paper': 'up to 14.6 % accuracy and 7.7 % fidelity',
        'measured': '+8.6 % (8.1 to 9.1) accuracy and +8.5 % (8.0 to 9.0) fidelity',
        'holds': True,
      },
      {
        'claim': 'useful at goodput above 80 %',
        'paper': 'yes',
        'measured': '84.2 % at b = 0.14',
        'holds': False,
      },
    ],
  }


@pytest.fixture
def published(summary):
  """What a run over a published profile has: no surrogates, no probes drawn."""
  return summary | {'extraction': [], 'protection': [], 'probes': []}


@pytest.fixture
def crowd(published):
  """A zoo of 300 models with long names."""
  rng = np.random.default_rng(1)
  more = [
    {
      'name': f'vit_so400m_patch14_siglip_gap_378.webli_ft_in1k_{i}',
      'accuracy': float(0.4 * rng.random()),
      'latency_ms': float(np.exp(4 * rng.random())),
      'pareto': False,
    }
    for i in range(300)
  ]
  return published | {'zoo': [*published['zoo'], *more]}


def assert_nothing_clipped(figure):
  figure.draw_without_rendering()
  box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
  assert box.x0 >= 0
  assert box.y0 >= 0
  assert box.x1 <= width
  assert box.y1 <= height


def assert_legend_beside_axes(figure):
  (legend,) = figure.legends
  box = legend.get_window_extent()
  for axes in figure.axes:
    assert not box.overlaps(axes.get_tightbbox())


@pytest.mark.parametrize('kind', ['summary', 'published', 'crowd'])
def test_pictures_are_whole(kind, request):
  figures = plots.figures(checked(request.getfixturevalue(kind)))
  assert set(figures) == (
    {'zoo', 'extraction', 'protection'} if kind == 'summary' else {'zoo', 'goodput'}
  )
  for figure in figures.values():
    assert_nothing_clipped(figure)
    assert_legend_beside_axes(figure)


def test_zoo_names_models_without_overlap(summary):
  figure = plots.zoo(checked(summary))
  figure.draw_without_rendering()
  (axes,) = figure.axes
  boxes = [Text.get_window_extent(text) for text in axes.texts]
  assert {text.get_text().split(' ')[0] for text in axes.texts} == set(NAMES)
  assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))


def test_large_zoo_names_only_the_victims(crowd):
  (axes,) = plots.zoo(checked(crowd)).axes
  assert [text.get_text() for text in axes.texts] == [
    'tiny (small)',
    'linear (medium)',
    'cnn (large)',
  ]


def test_zoo_draws_every_probe_of_the_medium_victim(summary):
  (axes,) = plots.zoo(checked(summary)).axes
  lines = {line.get_label(): line for line in axes.lines}
  (served,) = (row['served'] for row in summary['probes'] if row['victim'] == 'linear')
  assert len(lines['probe for the medium victim, served'].get_xdata()) == sum(served)
  refused = lines['probe for the medium victim, refused']
  assert len(refused.get_xdata()) == len(served) - sum(served)
  assert max(lines['probe for the medium victim, served'].get_xdata()) < np.inf


def test_extraction_shows_the_strongest_defense_above_the_target(summary):
  def drawn():
    (legend,) = plots.figures(checked(summary))['extraction'].legends
    return [text.get_text() for text in legend.get_texts()]

  assert drawn() == [
    'explicit',
    'fingerprint',
    'fingerprint, defended by laplace(0.14)',
    'naive',
  ]
  for row in (*summary['goodput'], *summary['protection']):
    row['goodput'] = estimate(0.5)
  assert 'fingerprint, defended by laplace(0.05)' in drawn()


def test_write(summary, tmp_path):
  written = report.write(summary, tmp_path / 'new' / 'folder')
  directory = tmp_path / 'new' / 'folder'
  tables = [f'tables/{name}.{kind}' for name in TABLES for kind in ('csv', 'tex')]
  pictures = ['zoo.png', 'extraction.png', 'protection.png']
  names = [*pictures, *tables, 'report.html']
  assert [path.relative_to(directory).as_posix() for path in written] == names
  files = [path for path in directory.rglob('*') if path.is_file()]
  assert sorted(files) == sorted(written)
  for name in pictures:
    height, width, _ = imread(directory / name).shape
    assert min(height, width) > 700
  page = written[-1].read_text('utf-8')
  sources = re.findall(r'(?:src|href)="([^"]{0,40})', page)
  assert len(sources) == 3
  assert all(source.startswith('data:image/png;base64,') for source in sources)
  rest = re.sub(r'base64,[^"]*', '', page)
  assert not re.search(r'https?:|url\(|@import|<script|<link', rest)
  order = [rest.index(f'<h2>{title}</h2>') for title in ('Claims', 'Setting', 'Zoo')]
  assert order == sorted(order)


def test_write_replaces_a_file_only_when_the_new_one_is_whole(
  published, tmp_path, monkeypatch
):
  (tmp_path / 'zoo.png').write_bytes(b'old')

  def full_disk(self, data):
    with open(self, 'wb') as file:
      file.write(data[:10])
    raise OSError('disk full')

  monkeypatch.setattr(pathlib.Path, 'write_bytes', full_disk)
  with pytest.raises(OSError, match='disk full'):
    report.write(published, tmp_path)
  assert sorted(os.listdir(tmp_path)) == ['tables', 'zoo.png']
  assert (tmp_path / 'zoo.png').read_bytes() == b'old'


def test_without_surrogates(published, tmp_path):
  written = report.write(published, tmp_path)
  assert [path.name for path in written if path.suffix in ('.png', '.html')] == [
    'zoo.png',
    'goodput.png',
    'report.html',
  ]
  assert not (tmp_path / 'tables' / 'extraction.csv').exists()
  page = written[-1].read_text('utf-8')
  for text in (page, report.markdown(published)):
    assert 'Left out: this run has no extraction results.' in text
    assert 'Left out: this run has no protection results.' in text


def test_names_are_never_markup(published, tmp_path):
  name = '<b>$\\frac{1}{x}$ | `a` *b*_</b>'
  hostile = published | {
    'dataset': name,
    'device': name,
    'victims': dict.fromkeys(VICTIMS, name),
    'zoo': [{'name': name, 'accuracy': 0.5, 'latency_ms': 1.0, 'pareto': True}],
    'claims': [{'claim': name, 'paper': name, 'measured': name, 'holds': True}],
  }
  page = report.write(hostile, tmp_path)[-1].read_text('utf-8')
  assert '<b>' not in page
  assert '&lt;b&gt;' in page
  text = report.markdown(hostile)
  assert not re.search(r'(?<!\\)<', text)
  assert r'\<b\>$\\frac{1}{x}$ \| \`a\` \*b\*\_\</b\>' in text
  assert_nothing_clipped(plots.zoo(checked(hostile)))


def test_estimates_count_numbers_alone():
  known = [0.5, None, float('nan'), 0.7, float('inf')]
  mean, low, high = schema.metrics.interval([0.5, 0.7]).within(0.0, 1.0)
  assert schema.Estimate.of(known) == schema.Estimate(mean, (low, high))
  assert schema.Estimate.of(np.array([0.5, np.nan])) == schema.Estimate(0.5)
  assert schema.Estimate.of([None]) == schema.Estimate()
  assert schema.Estimate(0.5).times() == (50.0, 50.0, 50.0)
  assert np.isnan(schema.Estimate().times()).all()
  assert schema.Estimate.of([0.0, 8.0], np.inf).ci95[1] > 8


def test_a_summary_is_its_own_json(published, tmp_path):
  made = checked(published)
  assert checked(made) is made
  workdir.write_json(tmp_path / 'summary.json', made)
  assert workdir.read_json(tmp_path / 'summary.json', schema.Summary) == made
  assert report.markdown(made) == report.markdown(published)
  with pytest.raises(ValueError, match=r"twins has \['cnn'\]; each must name"):
    dataclasses.replace(made, twins=[['cnn']])


def test_claims_table(summary):
  table = report.claims_table(summary)
  assert table == report.claims_table(summary)
  lines = table.splitlines()
  assert lines[0].split() == ['claim', '|', 'paper', '|', 'measured', '|', 'holds']
  assert max(map(len, lines)) <= 100
  assert re.search(r'useful at goodput above 80 % .* 84.2 % at b = 0.14 .* no$', table)
  columns = [line.split(' | ') for line in lines if '-+-' not in line]
  claim = ' '.join(row[0].strip() for row in columns)
  assert summary['claims'][0]['claim'] in claim


def test_short_claims_are_not_padded_to_the_full_width(summary):
  summary['claims'] = [{'claim': 'c', 'paper': 'p', 'measured': 'm', 'holds': True}]
  assert report.claims_table(summary) == (
    'claim | paper | measured | holds\n'
    '------+-------+----------+------\n'
    'c     | p     | m        | yes\n'
  )


def test_markdown_has_every_cell_with_its_interval(summary):
  text = report.markdown(summary)
  rows = [line for line in text.splitlines() if line.startswith('|')]
  assert '| slow_mlp | 90.00 | 0.31 | no |' in rows
  assert '| linear | 19 | 17.3 | 87.40 | 0.058 | yes |' in rows
  assert (
    '| laplace | 0.1 | 87.5 (87.1–87.9) | 70.0 (69.2–70.8) | 82.5 (81.7–83.3) | '
    '92.5 (91.7–93.3) |'
  ) in rows
  assert any(row.startswith('| laplace | 0.3 | 68.5 (68.1–68.9) | – |') for row in rows)
  assert (
    '| linear | naive | refusal | 0.2 | 80.0 (79.2–80.8) | 320 (316–324) | 40.0 | '
    '77.2 (76.7–77.7) | 87.9 (87.3–88.5) |'
  ) in rows
  assert sum('naive' in row and '(' in row for row in rows) == 9 + 1 + 8 + 1
  attacked = [row for row in rows if 'laplace(0.3)' in row and 'fingerprint' in row]
  assert len(attacked) == 9
  assert all(row.split(' | ')[6] == '–' for row in attacked)
  assert '| seconds, total | 107.2 |' in rows
  assert '| versions | jax 0.10.2 |' in rows
  assert [line for line in text.splitlines() if line.startswith('## ')] == [
    '## Setting',
    '## Claims',
    '## Zoo',
    '## Fingerprint',
    '## Extraction',
    '## Protection',
    '## Goodput',
    '## Provenance',
  ]


def test_markdown_lists_only_the_frontier_of_a_large_zoo(crowd):
  text = report.markdown(crowd)
  assert '307 models, 6 on the Pareto frontier. Only the frontier is listed.' in text
  assert 'slow_mlp' not in text


def test_a_single_seed_has_no_interval(summary):
  for row in summary['goodput']:
    row['goodput']['ci95'] = None
  assert '| laplace | 0.1 | 87.5 |' in report.markdown(summary)
  assert_nothing_clipped(plots.figures(checked(summary))['protection'])


def test_unknown_means_are_left_blank(summary):
  summary['protection'][0]['accuracy'] = {'mean': None, 'ci95': None}
  row = (
    '| linear | fingerprint | none | 0 | 100.0 (99.2–100.8) | 320 (316–324) | 100.0 |'
  )
  assert f'{row} – |' in report.markdown(summary)
  assert_nothing_clipped(plots.figures(checked(summary))['protection'])


def test_target_is_the_configs(summary, tmp_path):
  summary['target_goodput'] = 0.9
  figures = plots.figures(checked(summary))
  (legend,) = figures['extraction'].legends
  shown = [text.get_text() for text in legend.get_texts()]
  assert 'fingerprint, defended by laplace(0.05)' in shown
  (legend,) = figures['protection'].legends
  assert 'goodput target, 90 %' in [text.get_text() for text in legend.get_texts()]
  accuracy, _, goodput = figures['protection'].axes
  assert [90.0, 90.0] in [list(line.get_xdata()) for line in accuracy.lines]
  assert [90.0, 90.0] in [list(line.get_ydata()) for line in goodput.lines]
  page = report.write(summary, tmp_path)[-1].read_text('utf-8')
  assert 'goodput target of 90 %' in page
  assert 'goodput above 90 %' in page
  assert '80 % ' not in re.sub(
    r'base64,[^"]*|<section id="claims".*?</section>', '', page
  )


def test_twins_are_one_point_with_both_names(summary):
  twin = summary['zoo'][2] | {'name': 'linear_copy'}
  summary |= {'zoo': [*summary['zoo'], twin], 'twins': [['linear', 'linear_copy']]}
  (axes,) = plots.zoo(checked(summary)).axes
  texts = [text.get_text() for text in axes.texts]
  assert 'linear = linear_copy (medium)' in texts
  assert len(texts) == len(NAMES)
  lines = {line.get_label(): line for line in axes.lines}
  assert len(lines['Pareto-optimal model'].get_xdata()) == 6
  assert axes.get_title() == 'digits: 8 models, 7 on the Pareto frontier'
  text = report.markdown(summary)
  assert 'they share one corner: linear = linear_copy.' in text


def free(summary, count):
  """The summary with its fastest models free of cost."""
  zoo = [
    model | {'latency_ms': 0.0 if i < count else model['latency_ms']}
    for i, model in enumerate(summary['zoo'])
  ]
  return summary | {'zoo': zoo}


def test_free_models_are_drawn_at_zero(summary):
  figure = plots.zoo(checked(free(summary, 2)))
  assert_nothing_clipped(figure)
  (axes,) = figure.axes
  assert axes.get_xscale() == 'symlog'
  low, high = axes.get_xlim()
  assert low < 0 < high
  ticks = {text.get_text() for text in axes.get_xticklabels()}
  assert {'0', '0.1', '0.5'} <= ticks
  assert '| tiny | 43.00 | 0 | yes |' in report.markdown(free(summary, 2))
  (axes,) = plots.zoo(checked(summary)).axes
  assert axes.get_xscale() == 'log'


@pytest.mark.parametrize('latency', [0.0, 3.7])
def test_equal_latencies(published, latency):
  zoo = [model | {'latency_ms': latency} for model in published['zoo']]
  figure = plots.zoo(checked(published | {'zoo': zoo}))
  assert_nothing_clipped(figure)
  (axes,) = figure.axes
  low, high = axes.get_xlim()
  assert low < latency < high
  assert (
    f'{latency:g}' in {text.get_text() for text in axes.get_xticklabels()} or latency
  )


def test_diverged_runs_are_reported(summary):
  assert 'diverged' not in report.markdown(summary)
  summary['extraction'][3]['diverged'] = 3
  summary['extraction'][4] |= {
    'diverged': 5,
    'accuracy': UNKNOWN,
    'fidelity': UNKNOWN,
    'victim_purity': UNKNOWN,
  }
  text = report.markdown(summary)
  (table,) = re.findall(r'## Extraction.*?(?=\n## )', text, re.S)
  rows = [line for line in table.splitlines() if line.startswith('|')]
  assert rows[0].endswith('| remark |')
  assert sum(row.endswith('| 3 of 5 diverged |') for row in rows) == 1
  assert sum(row.endswith('| – | – | – | 5 of 5 diverged |') for row in rows) == 1
  assert '8 of all 275 surrogates diverged' in text
  assert_nothing_clipped(plots.figures(checked(summary))['extraction'])


def test_pictures_without_one_number(summary):
  for row in (*summary['extraction'], *summary['protection'], *summary['goodput']):
    row |= {
      name: UNKNOWN for name in ('accuracy', 'fidelity', 'goodput') if name in row
    }
  for figure in plots.figures(checked(summary)).values():
    assert_nothing_clipped(figure)


def test_one_budget_and_one_value(summary):
  for name, kept in (('extraction', 'query_budget'), ('goodput', 'value')):
    value = summary[name][-1][kept]
    summary[name] = [row for row in summary[name] if row[kept] == value]
  figures = plots.figures(checked(summary | {'protection': summary['protection'][:1]}))
  for figure in figures.values():
    assert_nothing_clipped(figure)
  drawn = [axes.get_legend_handles_labels()[1] for axes in figures['extraction'].axes]
  assert 'naive, defended by refusal(0.2)' in drawn[1]
  assert 'explicit' in drawn[0]
  panel = figures['extraction'].axes[1]
  named = [text.get_text() for text in panel.get_xticklabels()]
  assert len(set(named)) == len(named) == len(drawn[1])
  assert 'naive\nrefusal(0.2)' in named
  places = [line.get_xdata()[0] for line in panel.lines if line.get_marker() in 'os^vD']
  assert sorted(places) == [*range(len(named))]
  figures = plots.figures(checked(summary | {'protection': []}))
  assert_nothing_clipped(figures['goodput'])


@pytest.mark.parametrize('sizes', [['large'], ['medium', 'large']])
def test_extraction_has_a_panel_for_each_victim_that_was_attacked(summary, sizes):
  attacked = [summary['victims'][size] for size in sizes]
  rows = [row for row in summary['extraction'] if row['victim'] in attacked]
  figure = plots.figures(checked(summary | {'extraction': rows}))['extraction']
  titles = [axes.get_title().split() for axes in figure.axes]
  assert [title[0] for title in titles if title] == sizes
  assert_nothing_clipped(figure)
  assert_legend_beside_axes(figure)


def test_cells_at_one_of_many_budgets_are_left_to_the_protection_plot(summary):
  drawn = (
    plots.figures(checked(summary))['extraction'].axes[1].get_legend_handles_labels()[1]
  )
  assert not any('refusal' in name for name in drawn)


def test_protection_shows_attacks_by_color_and_defenses_by_marker(summary):
  figure = plots.figures(checked(summary))['protection']
  lines = [line for line in figure.axes[0].lines if len(line.get_xdata()) in (2, 7)]
  looks = {
    (line.get_color(), line.get_marker(), line.get_linestyle())
    for line in lines
    if line.get_marker() in ('o', 'X')
  }
  found = styles.attacks(summary['roles'], summary['roles'])
  colors = {found[name].color for name in ('fingerprint', 'informed')}
  assert {('o', '--'), ('X', ':')} == {look[1:] for look in looks}
  assert len(looks) == 6
  assert colors < {look[0] for look in looks}


def test_goodput_draws_classes_thin(summary):
  axes = plots.figures(checked(summary))['protection'].axes[2]
  thin = [line for line in axes.lines if line.get_linewidth() == 1]
  assert len(thin) == 2 * 3
  assert len({line.get_linestyle() for line in thin}) == 3


def test_eight_unknown_names_have_eight_styles():
  names = [f'mine_{i}' for i in range(8)]
  roles = {'named': 'reference', **dict.fromkeys(names, 'attack')}
  attacks = styles.attacks(roles, [*names, 'named'])
  assert list(attacks) == ['named', *names]
  assert len({look.color for look in attacks.values()}) == 9
  assert len({look.marker for look in attacks.values()}) == 9
  knobs = {
    name: schema.Knob('x', '', 0.1, 1.0, control=name == 'mine_0') for name in names
  }
  defenses = styles.defenses(knobs, [*names, 'none'])
  assert list(defenses) == ['none', *names[1:], 'mine_0']
  assert len({look.color for look in defenses.values()}) == 9
  assert len({look.dashes for look in defenses.values()}) == 9


def test_the_defense_that_is_shown_is_attacked_at_the_most_budgets(summary):
  """Also where a stronger value that keeps the target was attacked at one budget."""
  known = schema.shown_defenses(checked(summary))['laplace']
  row = extraction_row('linear', 0.8, 400, 'fingerprint', 'laplace', 0.141, 0.5)
  summary['extraction'].append(row)
  summary['goodput'].append(goodput_row('laplace', 0.141, 0.83))
  assert (
    schema.shown_defenses(checked(summary))['laplace']
    == known
    == label('laplace', 0.14)
  )


def test_a_knob_that_weakens_as_it_grows_is_sorted_by_strength(summary):
  epsilon = knob('epsilon', '', False) | {'weakest': 1e3, 'strongest': 1e-3}
  summary['knobs']['laplace'] = epsilon
  shown = schema.shown_defenses(checked(summary))['laplace']
  useful = [
    row['value']
    for row in summary['extraction']
    if row['defense'] == 'laplace'
    and any(
      g['label'] == row['label'] and g['goodput']['mean'] >= 0.8
      for g in summary['goodput']
    )
  ]
  assert shown == label('laplace', min(useful))


def test_many_attacks_have_a_legend_that_fits(summary):
  rows = [row for row in summary['extraction'] if row['attack'] == 'fingerprint']
  summary['extraction'] += [
    row | {'attack': f'fingerprint_number_{i}'} for i in range(8) for row in rows
  ]
  figure = plots.figures(checked(summary))['extraction']
  assert_nothing_clipped(figure)
  assert_legend_beside_axes(figure)


def test_pictures_are_drawn_under_default_settings(summary):
  wanted = plots.draw(checked(summary))
  hostile = {
    'text.usetex': True,
    'savefig.dpi': 30,
    'savefig.transparent': True,
    'font.family': 'No Such Font',
    'axes.facecolor': 'red',
    'lines.markersize': 20,
    'axes.prop_cycle': matplotlib.cycler(color=['yellow']),
  }
  with matplotlib.rc_context(hostile):
    assert plots.draw(checked(summary)) == wanted
    assert matplotlib.rcParams['text.usetex']


def test_pictures_under_a_users_matplotlibrc(published, tmp_path):
  (tmp_path / 'matplotlibrc').write_text('text.usetex: True\nsavefig.dpi: 30\n')
  (tmp_path / 'summary.json').write_text(json.dumps(published))
  code = (
    'import json, matplotlib; from psml_jax import report;'
    "assert matplotlib.rcParams['text.usetex'];"
    "report.write(json.load(open('summary.json')), 'out')"
  )
  root = str(pathlib.Path(report.__file__).parents[2])
  environment = os.environ | {'PYTHONPATH': root}
  subprocess.run(
    [sys.executable, '-c', code], cwd=tmp_path, env=environment, check=True
  )
  report.write(published, tmp_path / 'wanted')
  for name in ('zoo.png', 'goodput.png'):
    wanted = (tmp_path / 'wanted' / name).read_bytes()
    assert (tmp_path / 'out' / name).read_bytes() == wanted


def read_csv(path):
  with path.open(encoding='utf-8', newline='') as file:
    return list(csv.DictReader(file))


def test_csv_tables_hold_numbers(summary, tmp_path):
  summary['extraction'][4]['accuracy'] = UNKNOWN
  report.write(summary, tmp_path)
  rows = read_csv(tmp_path / 'tables' / 'goodput.csv')
  assert len(rows) == len(summary['goodput'])
  (row,) = (row for row in rows if row['value'] == '0.3')
  wanted = 100 * np.asarray([0.685, 0.681, 0.689])
  found = [float(row[f'goodput (%){end}']) for end in ('', ' low', ' high')]
  np.testing.assert_allclose(found, wanted, rtol=1e-10)
  assert row['corner clients (%)'] == row['corner clients (%) low'] == ''
  rows = read_csv(tmp_path / 'tables' / 'extraction.csv')
  assert len(rows) == len(summary['extraction'])
  assert sum(row['accuracy (%)'] == '' for row in rows) == 1
  assert {row['defense'] for row in rows} >= {'none', 'laplace(0.14)', 'refusal(0.2)'}
  rows = read_csv(tmp_path / 'tables' / 'claims.csv')
  assert [row['holds'] for row in rows] == ['yes', 'no']


def test_latex_tables_are_escaped(summary, tmp_path):
  summary['provenance'] = {'a&b_c': '100 % #1 {x} ~ ^ $\\alpha$ <b> – [1]'}
  summary['claims'][0]['measured'] = 'first part; second part'
  report.write(summary, tmp_path)
  for name in TABLES:
    text = (tmp_path / 'tables' / f'{name}.tex').read_text('utf-8')
    lines = text.splitlines()
    assert re.fullmatch(r'\\begin\{tabular\}\{.*\}', lines[0])
    assert lines[1] == r'\toprule'
    assert lines[3] == r'\midrule'
    assert lines[-2:] == [r'\bottomrule', r'\end{tabular}']
    counts = {len(re.findall(r'(?<!\\)&', line)) for line in (lines[2], *lines[4:-2])}
    assert len(counts) == 1
    assert text.count('{') - text.count(r'\{') == text.count('}') - text.count(r'\}')
  text = (tmp_path / 'tables' / 'provenance.tex').read_text('utf-8')
  assert text.splitlines()[4] == (
    r'a\&b\_c & 100 \% \#1 \{x\} \textasciitilde{} \textasciicircum{} '
    r'\$\textbackslash{}alpha\$ \textless{}b\textgreater{} -- {[}1] \\'
  )
  text = (tmp_path / 'tables' / 'claims.tex').read_text('utf-8')
  assert r'first part;\newline second part' in text
  assert r'\raggedright\arraybackslash}p{' in text
  text = (tmp_path / 'tables' / 'zoo.tex').read_text('utf-8')
  assert text.startswith(r'\begin{tabular}{lrrl}')


def test_parts_of_a_claim_are_on_lines_of_their_own(summary, tmp_path):
  parts = [f'victim {i}: accuracy -3.0 [-4.1, -1.8], fidelity -4.1' for i in range(4)]
  summary['claims'][0]['measured'] = '; '.join(parts)
  lines = report.claims_table(summary).splitlines()
  assert max(map(len, lines)) <= 100
  for i in range(4):
    assert any(f'| victim {i}:' in line for line in lines)
  assert r'fidelity -4.1;<br>victim 1: accuracy -3.0 \[-4.1' in report.markdown(summary)
  page = report.write(summary, tmp_path)[-1].read_text('utf-8')
  assert 'fidelity -4.1;\nvictim 1: accuracy' in page
  assert 'white-space: pre-line' in page


@pytest.mark.parametrize('directory', ['', 'gs://bucket/run'])
def test_bad_directories(published, directory):
  with pytest.raises(ValueError, match='directory is '):
    report.write(published, directory)


def test_home_is_expanded(published, tmp_path, monkeypatch):
  monkeypatch.setenv('HOME', str(tmp_path))
  assert report.write(published, '~/run')[-1] == tmp_path / 'run' / 'report.html'


def first(section, **fields):
  """A change of the first row of a section; None takes the field out."""

  def change(summary):
    row = summary[section][0] | fields
    row = {name: value for name, value in row.items() if value is not None}
    summary[section] = [row, *summary[section][1:]]

  return change


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (lambda s: s.pop('claims'), 'missing required field `claims`'),
    (first('goodput', value=None), r'missing required field `value` .* `\$\.goodput\['),
    (lambda s: s.update(zoo=[]), r'length >= 1 - at `\$\.zoo`'),
    (first('zoo', accuracy=43.0), r'`float` <= 1\.0 - at `\$\.zoo\[0\]\.accuracy`'),
    (first('zoo', accuracy='a'), r'got `str` - at `\$\.zoo\[0\]\.accuracy`'),
    (first('zoo', latency_ms=-1.0), r'>= 0\.0 - at `\$\.zoo\[0\]\.latency_ms`'),
    (first('zoo', latency_ms=np.inf), r'<= .* - at `\$\.zoo\[0\]\.latency_ms`'),
    (first('zoo', latency_ms=np.nan), r'>= 0\.0 - at `\$\.zoo\[0\]\.latency_ms`'),
    (lambda s: s.update(target_goodput=80.0), r'<= 1\.0 - at `\$\.target_goodput`'),
    (lambda s: s.update(target_goodput=0.0), r'> 0\.0 - at `\$\.target_goodput`'),
    (lambda s: s.update(target_goodput='0.8'), r'got `str` - at `\$\.target_goodput`'),
    (
      first('extraction', victim_purity=0.5),
      r'got `float` - at `\$\.extraction\[0\]\.victim_purity`',
    ),
    (
      first('goodput', classes={'fast': None}),
      r'got `null` - at `\$\.goodput\[0\]\.classes\[',
    ),
    (lambda s: s.update(twins=[['cnn', 'tiny']]), r"twins has \['cnn', 'tiny'\]"),
    (lambda s: s.update(twins=[['cnn', 'none']]), r"twins has \['cnn', 'none'\]"),
    (lambda s: s.update(twins=[['cnn']]), r"twins has \['cnn'\]; each must name"),
    (
      lambda s: s.update(victims=VICTIMS | {'large': 'slow_mlp'}),
      r"victims\.large is 'slow_mlp'; it must be .*Pareto-optimal",
    ),
    (lambda s: s.update(victims={}), r"victims\.small is ''"),
  ],
)
def test_bad_summaries(summary, change, message, tmp_path):
  change(summary)
  for use in (
    lambda: report.write(summary, tmp_path / 'out'),
    lambda: report.claims_table(summary),
    lambda: report.markdown(summary),
  ):
    with pytest.raises(ValueError, match=message):
      use()
  assert not (tmp_path / 'out').exists()
