"""A ladder from its config to its report, and what its numbers come to."""

import copy
import json

import numpy as np
import pytest

from psml_jax.experiments import config_file, ladder
from psml_jax.experiments.ladder import rungs
from psml_jax.experiments.ladder.zoo import opened
from psml_jax.report import ladder as report
from psml_jax.report import ladder_numbers
from psml_jax.report.ladder_records import Ladder, Rung
from tests import stored

LATENCIES = {'linear2': 1.0, 'cnn4': 2.0, 'cnn8': 4.0}


@pytest.fixture(scope='module')
def fields(tmp_path_factory):
  """The tiny ladder, with latencies that do not depend on the machine."""
  made = config_file.load('configs/ladder.py:tiny')
  path = stored.profile(tmp_path_factory.mktemp('stored'), LATENCIES, 0.05)
  made['experiment']['profiling']['stored'] = path
  return made


@pytest.fixture(scope='module')
def found(fields, tmp_path_factory):
  path = tmp_path_factory.mktemp('ladder') / 'run'
  return ladder.run(ladder.parse(fields), path)


def lines(path):
  return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_rung_is_there_once(found, fields):
  config = ladder.parse(fields)
  records = lines(found / 'ladder.jsonl')
  places = rungs.places(config)
  wanted = sum(len(rungs.methods(config, place.attack)) for place in places)
  assert rungs.methods(config, 'naive') == ['none', 'latency']
  assert rungs.methods(config, 'informed') == ['none', 'latency', 'known_latency']
  assert len(records) == wanted
  keys = {
    tuple(r[k] for k in ('size', 'attack', 'defense', 'target', 'queries', 'demix'))
    for r in records
  }
  assert len(keys) == wanted
  for record in records:
    assert len(record['fidelity']) == config.seeds
    assert all(0 <= value <= 1 for value in record['fidelity'])


def test_no_client_knows_the_very_latencies_that_the_server_draws(found, fields):
  zoo = opened(ladder.parse(fields), 0, found, None)
  for drawn, known in zip(zoo.tables.samples_ms, zoo.samples_ms, strict=True):
    assert len(drawn) == len(known) > 1
    assert not set(drawn.tolist()) & set(known.tolist())


def test_rates_are_what_the_law_allows(found):
  records = lines(found / 'ladder.jsonl')
  for record in records:
    if record['attack'] == 'explicit':
      assert record['rate'] == [1.0, 1.0]
      assert record['kept'] == [1.0, 1.0]
      continue
    # Five standard deviations of a binomial share of 120 queries.
    most = record['best_rate'] + 5 * np.sqrt(0.25 / record['queries'])
    assert max(record['rate']) <= most
  capped = [r for r in records if (r['defense'], r['attack']) == ('capped', 'informed')]
  assert capped
  assert {round(r['goodput'], 3) for r in capped} == {0.8}


def test_a_clock_keeps_the_victims_answers(found):
  by = {
    (r['attack'], r['defense'], r['demix']): r
    for r in lines(found / 'ladder.jsonl')
    if r['attack'] != 'explicit'
  }
  mixed = 0
  for (attack, defense, method), one in by.items():
    plain = by[attack, defense, 'none']
    if method == 'none' or np.mean(plain['kept']) > 0.95:
      continue
    mixed += 1
    assert np.mean(one['kept']) > np.mean(plain['kept'])
    assert np.mean(one['kept']) > 0.97  # a lone slower answer passes for a tail
    assert all(auc > 0.99 for auc in one['auc'] if auc is not None)
  assert mixed >= 2


def test_it_goes_on_where_it_stopped(found, fields, capsys):
  study = (found / 'study.json').read_text()
  (found / 'report.html').unlink()
  done = (found / 'rungs-0.jsonl').read_bytes().splitlines(keepends=True)
  (found / 'rungs-0.jsonl').write_bytes(b''.join(done[:-1]))
  ladder.run(ladder.parse(fields), found)
  printed = capsys.readouterr().out
  assert printed.count('rungs-0: ') == 1
  again = json.loads((found / 'study.json').read_text())
  before = json.loads(study)
  assert again['rungs'] == before['rungs']
  assert 'leaves the worst thief' in printed
  assert (found / 'ladder.png').stat().st_size > 10_000
  assert 'pays 1 / t' in (found / 'results.md').read_text()


def rung(**fields):
  made = {
    'zoo': 0, 'size': 'large', 'victim': 'm', 'defense': 'capped', 'target': 0.8,
    'value': 0.3, 'goodput': 0.8, 'attack': 'informed', 'demix': 'none',
    'surrogate': 'soft', 'queries': 400, 'best_rate': 0.25, 'accuracy': [0.5, 0.6],
    'fidelity': [0.6, 0.7], 'rate': [0.25, 0.25], 'kept': [0.5, 0.5],
    'auc': [0.9, 0.9], 'probes': [0, 0],
  }  # fmt: skip
  return Rung(**{**made, **fields})


def study(*rungs):
  roles = {'informed': 'informed', 'naive': 'baseline', 'fingerprint': 'attack'}
  return Ladder('hand', [0, 1], 2, 400, list(rungs), [], [], roles, 1.0, 'here')


class TestNumbers:
  def test_the_worst_thief_is_the_best_for_him(self):
    weak, strong = rung(), rung(demix='latency', fidelity=[0.8, 0.9])
    found = ladder_numbers.worst(study(weak, strong))
    ((thief, value),) = found.values()
    assert thief.demix == 'latency'
    assert value.mean == pytest.approx(0.85)

  def test_the_worst_thief_is_one_of_whom_something_is_known(self):
    diverged, strong = rung(fidelity=[None, None]), rung(demix='latency')
    for either in ((diverged, strong), (strong, diverged)):
      ((thief, _),) = ladder_numbers.worst(study(*either)).values()
      assert thief.demix == 'latency'

  def test_repeats_are_compared_with_who_asks_once(self):
    once, thrice = rung(), rung(attack='informed_repeats', fidelity=[0.7, 0.9])
    made = study(once, thrice)
    assert 'informed' not in report.tables(made)
    made.roles['informed_repeats'] = 'informed'
    rows = report.tables(made)['informed'].rows
    assert [row[3] for row in rows] == ['informed', 'informed_repeats']
    assert [row[-1].mean for row in rows] == pytest.approx([0.0, 0.15])

  def test_intervals_are_over_zoos(self):
    zoos = [rung(zoo=z, fidelity=[0.5 + 0.1 * z] * 2) for z in range(3)]
    found = ladder_numbers.over_zoos(zoos, ladder_numbers.fidelity)
    assert found.mean == pytest.approx(0.6)
    assert found.high - found.mean == pytest.approx(4.303 * 0.1 / np.sqrt(3), rel=1e-3)

  def test_the_explicit_curve_is_read_at_rate_times_queries(self):
    curve = [
      rung(attack='explicit', defense='none', target=None, queries=n, fidelity=[y] * 2)
      for n, y in ((50, 0.5), (200, 0.9))
    ]
    at = ladder_numbers.predicted(study(*curve), rung())
    assert at == pytest.approx(0.7)  # 100 answers: half-way in the logarithm
    assert np.isnan(ladder_numbers.predicted(study(*curve), rung(best_rate=0.1)))

  def test_diverged_surrogates_count_in_no_mean(self):
    assert ladder_numbers.fidelity(rung(fidelity=[None, 0.5])) == [0.5]

  def test_tables_can_be_made_of_one_rung(self):
    made = report.tables(study(rung()))
    assert made['worst'].rows


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'demixing': ('sound',)}, r"config.demixing is 'sound'"),
    ({'victims': ('tiny',)}, "config.victims is 'tiny'"),
    ({'targets': (1.5,)}, 'config.targets is 1.5'),
    ({'zoos': ()}, 'config.zoos is empty'),
    ({'seeds': 1}, 'config.seeds is 1'),
    ({'attacks': {'explicit': {}}}, "config.attacks has 'explicit'"),
    (
      {'surrogates': {'soft': {'objective': {'name': 'hinge'}}}},
      'config.surrogates.soft: ',
    ),
    ({'surrogates': {'soft': {'seeds': 3}}}, r"config.surrogates.soft has \['seeds'\]"),
    ({'workload': {'name': 'none'}}, "config.workload.name is 'none'"),
    ({'defenses': {'laplace': {'q': 1}}}, 'config.defense.mechanisms.laplace'),
  ],
)
def test_bad_fields_are_named(fields, change, message):
  changed = {**copy.deepcopy(fields), **change}
  with pytest.raises(ValueError, match=message):
    ladder.parse(changed)


def test_a_surrogate_that_does_not_fit_is_named_before_anything_is_written(
  fields, tmp_path
):
  deep = {'surrogate': {'family': 'cnn', 'widths': (8,) * 5}}
  changed = {**copy.deepcopy(fields), 'surrogates': {'soft': {}, 'deep': deep}}
  with pytest.raises(ValueError, match=r'^config.surrogates.deep.surrogate is '):
    ladder.run(ladder.parse(changed), tmp_path / 'run')
  assert not (tmp_path / 'run').exists()
