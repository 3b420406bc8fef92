"""The report: nothing clipped, nothing fetched, nothing taken for markup."""

import itertools
import os
import pathlib
import re

import numpy as np
import pytest
from matplotlib.image import imread
from matplotlib.text import Text

from psml_jax import report
from psml_jax.report import plots

NAMES = ('tiny', 'linear_8', 'linear', 'mlp_16', 'mlp_64', 'slow_mlp', 'cnn')
ACCURACY = (0.43, 0.71, 0.874, 0.912, 0.953, 0.9, 0.972)
LATENCY = (0.021, 0.034, 0.058, 0.11, 0.24, 0.31, 0.9)
VICTIMS = {'small': 'tiny', 'medium': 'linear', 'large': 'cnn'}
SCALES = (0.02, 0.05, 0.1, 0.14, 0.2, 0.3)


def estimate(mean, spread=0.008):
  return {'mean': mean, 'ci95': [mean - spread, mean + spread]}


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
      gain = 0.06 * np.log2(budget / 100) / 2
      for attack, defense, scale, loss, purity in (
        ('explicit', 'none', 0.0, 0.0, 1.0),
        ('naive', 'none', 0.0, 0.09, 0.2),
        ('fingerprint', 'none', 0.0, 0.004, 1.0),
        ('fingerprint', 'laplace(0.05)', 0.05, 0.03, 0.8),
        ('fingerprint', 'laplace(0.14)', 0.14, 0.055, 0.5),
        ('fingerprint', 'laplace(0.3)', 0.3, 0.08, None),
      ):
        fidelity = 0.92 + gain - loss + 0.004 * rng.normal()
        rows.append(
          {
            'victim': name,
            'attack': attack,
            'defense': defense,
            'scale': scale,
            'query_budget': budget,
            'queries_billed': budget - 0.4 * (attack == 'fingerprint'),
            'queries_served': budget * (0.8 if scale else 1.0),
            'victim_purity': purity,
            'accuracy': estimate(min(top, 0.97 * top + gain / 2 - loss)),
            'fidelity': estimate(fidelity, 0.012),
          }
        )
  return rows


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
      {
        'victim': 'linear',
        'attack': attack,
        'scale': scale,
        'goodput': estimate(goodput[scale]),
        'accuracy': estimate(0.86 - top * min(1, 4 * scale), 0.005),
        'fidelity': estimate(0.97 - 1.4 * top * min(1, 4 * scale), 0.006),
        'victim_purity': max(0.3, 1 - 3 * scale),
      }
      for attack, top in (('fingerprint', 0.09), ('corner', 0.07))
      for scale in (0.0, *SCALES)
    ],
    'goodput': [
      {
        'defense': f'laplace({scale:g})' if scale else 'none',
        'scale': scale,
        'goodput': estimate(goodput[scale], 0.004),
      }
      for scale in (0.0, *SCALES)
    ],
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
  figures = plots.figures(request.getfixturevalue(kind))
  assert set(figures) == (
    {'zoo', 'extraction', 'protection'} if kind == 'summary' else {'zoo', 'goodput'}
  )
  for figure in figures.values():
    assert_nothing_clipped(figure)
    assert_legend_beside_axes(figure)


def test_zoo_names_models_without_overlap(summary):
  figure = plots.zoo(summary)
  figure.draw_without_rendering()
  (axes,) = figure.axes
  boxes = [Text.get_window_extent(text) for text in axes.texts]
  assert {text.get_text().split(' ')[0] for text in axes.texts} == set(NAMES)
  assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))


def test_large_zoo_names_only_the_victims(crowd):
  (axes,) = plots.zoo(crowd).axes
  assert [text.get_text() for text in axes.texts] == [
    'tiny (small)',
    'linear (medium)',
    'cnn (large)',
  ]


def test_zoo_draws_every_probe_of_the_medium_victim(summary):
  (axes,) = plots.zoo(summary).axes
  lines = {line.get_label(): line for line in axes.lines}
  (served,) = (row['served'] for row in summary['probes'] if row['victim'] == 'linear')
  assert len(lines['probe for the medium victim, served'].get_xdata()) == sum(served)
  refused = lines['probe for the medium victim, refused']
  assert len(refused.get_xdata()) == len(served) - sum(served)
  assert max(lines['probe for the medium victim, served'].get_xdata()) < np.inf


def test_extraction_shows_the_strongest_defense_above_the_target(summary):
  def drawn():
    (legend,) = plots.figures(summary)['extraction'].legends
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
  names = ['zoo.png', 'extraction.png', 'protection.png', 'report.html']
  assert [path.name for path in written] == names
  assert sorted(os.listdir(tmp_path / 'new' / 'folder')) == sorted(names)
  for path in written[:-1]:
    height, width, _ = imread(path).shape
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
  assert os.listdir(tmp_path) == ['zoo.png']
  assert (tmp_path / 'zoo.png').read_bytes() == b'old'


def test_without_surrogates(published, tmp_path):
  written = report.write(published, tmp_path)
  assert [path.name for path in written] == ['zoo.png', 'goodput.png', 'report.html']
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
  assert_nothing_clipped(plots.zoo(hostile))


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
  assert '| laplace(0.1) | 0.1 | 87.5 (87.1–87.9) |' in rows
  assert sum('naive' in row and '(' in row for row in rows) == 9 + 1
  attacked = [row for row in rows if 'laplace(0.3)' in row and 'fingerprint' in row]
  assert len(attacked) == 9
  assert all(row.split(' | ')[6] == '–' for row in attacked)
  assert '| seconds, total | 107.2 |' in rows
  assert [line for line in text.splitlines() if line.startswith('## ')] == [
    '## Setting',
    '## Claims',
    '## Zoo',
    '## Fingerprint',
    '## Extraction',
    '## Protection',
    '## Goodput',
  ]


def test_markdown_lists_only_the_frontier_of_a_large_zoo(crowd):
  text = report.markdown(crowd)
  assert '307 models, 6 on the Pareto frontier. Only the frontier is listed.' in text
  assert 'slow_mlp' not in text


@pytest.mark.parametrize('interval', [None, [None, None], [np.nan, np.nan]])
def test_a_single_seed_has_no_interval(summary, interval):
  for row in summary['goodput']:
    row['goodput']['ci95'] = interval
  assert '| laplace(0.1) | 0.1 | 87.5 |' in report.markdown(summary)
  assert_nothing_clipped(plots.figures(summary)['protection'])


def test_unknown_means_are_left_blank(summary):
  summary['protection'][0]['accuracy'] = {'mean': None, 'ci95': None}
  assert '| linear | fingerprint | 0 | 100.0 (99.2–100.8) | 100.0 | – |' in (
    report.markdown(summary)
  )
  assert_nothing_clipped(plots.figures(summary)['protection'])


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
    (lambda s: s.pop('claims'), "summary has no 'claims'; it has .*'zoo'"),
    (first('goodput', scale=None), r"summary\['goodput'\]\[0\] lacks \['scale'\]"),
    (lambda s: s.update(zoo=[]), r"summary\['zoo'\] is empty"),
    (first('zoo', accuracy=43.0), r"\['zoo'\]\[0\]\['accuracy'\] is 43.0; .* percent"),
    (first('zoo', latency_ms=0.0), r"\['latency_ms'\] is 0.0; it must be .* > 0"),
    (
      lambda s: s.update(victims=VICTIMS | {'large': 'slow_mlp'}),
      r"summary\['victims'\]\['large'\] is 'slow_mlp'; it must be .*Pareto-optimal",
    ),
    (lambda s: s.update(victims={}), r"\['victims'\]\['small'\] is None"),
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
