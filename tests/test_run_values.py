"""A whole run on a zoo whose every answer is known, against numbers worked out by hand.

Only the zoo's own stages are left out: their artifacts are made here. The rest runs as
from a launcher, so that every stage must hand on what it should.
"""

import json
import pathlib

import jax
import numpy as np
import pytest

from psml_jax import experiments, zoo
from psml_jax.core import ZooProfile
from psml_jax.experiments import extraction_stage, workdir
from psml_jax.experiments.experiment import Experiment
from tests import known_zoo

QUERIES, SEEDS = 300, 6
RESOLUTION = 2.0**-8
GOLDEN = pathlib.Path(__file__).parent / 'golden' / 'summary.json'


def config():
  return known_zoo.fields((100, QUERIES), RESOLUTION, SEEDS)


@pytest.fixture(scope='session')
def run(once):
  return experiment_in(once('known', make_run))


def experiment_in(folder):
  parsed = experiments.parse(config())
  return Experiment(parsed, folder / 'run', str(folder / 'images.npz'))


def make_run(folder):
  train, test = known_zoo.images(0, 600), known_zoo.images(1, 200)
  np.savez(
    folder / 'images.npz',
    x_train=train[0],
    y_train=train[1],
    x_test=test[0],
    y_test=test[1],
  )
  parsed = experiments.parse(config())
  experiment = Experiment(parsed, folder / 'run', str(folder / 'images.npz'))
  workdir.open_workdir(experiment.directory, parsed)
  workdir.check_inputs(experiment.directory, experiment.inputs())
  images = experiment.images()
  np.savez(
    experiment.directory / 'predictions.npz',
    pool=known_zoo.answers(images.pool_x),
    test=known_zoo.answers(images.test_x),
  )
  zoo.write_profile(
    experiment.directory / 'profile.csv',
    ZooProfile(known_zoo.ACCURACY, known_zoo.LATENCY, known_zoo.NAMES),
  )
  workdir.write_json(experiment.directory / 'profile.json', {'device': 'none'})
  workdir.write_json(experiment.directory / 'zoo.json', list(known_zoo.NAMES))
  with jax.numpy_dtype_promotion('strict'):
    experiments.run(parsed, folder / 'run', data_dir=str(folder / 'images.npz'))
  return experiment


@pytest.fixture(scope='session')
def cells(run):
  """Records by (attack, defense), of the medium victim at the largest budget."""
  found = {}
  for record in workdir.read_jsonl(run.directory / 'extraction.jsonl'):
    if (record['victim'], record['query_budget']) == ('medium', QUERIES):
      strength = 'calibrated' if record['value'] != 0.25 else '0.25'
      defense = record['defense']
      name = defense if defense in ('none', 'refusal') else f'{defense} {strength}'
      found.setdefault((record['attack'], name), []).append(record)
  return found


@pytest.fixture(scope='session')
def summary(run):
  return json.loads((run.directory / 'summary.json').read_text('utf-8'))


def column(records, name):
  return np.array([record[name] for record in records], float)


def assert_share(records, name, trials, probability):
  """A count over all seeds is within 4.5 standard deviations of a binomial's mean."""
  hits = column(records, name).sum()
  error = np.sqrt(probability * (1 - probability) * trials)
  assert abs(hits - probability * trials) <= 4.5 * error + 1e-6


def test_every_cell_is_there_once_a_seed(cells):
  assert set(cells) == {
    ('explicit', 'none'),
    ('naive', 'none'),
    ('fingerprint', 'none'),
    ('fingerprint', 'laplace calibrated'),
    ('naive', 'laplace calibrated'),
    ('informed', 'laplace calibrated'),
    ('informed', 'refusal'),
    ('fingerprint', 'laplace 0.25'),
    ('informed', 'laplace 0.25'),
  }
  for records in cells.values():
    assert sorted(column(records, 'seed')) == list(range(SEEDS))


def test_every_query_is_billed_and_logged(cells):
  for records in cells.values():
    assert (column(records, 'queries_billed') == QUERIES).all()
    assert (column(records, 'queries_logged') == QUERIES).all()


def test_a_named_victim_is_learned_and_it_is_always_wrong(cells):
  records = cells['explicit', 'none']
  assert (column(records, 'queries_served') == QUERIES).all()
  assert (column(records, 'victim_purity') == 1).all()
  assert (column(records, 'fidelity') == 1).all()
  assert (column(records, 'accuracy') == 0).all()


def test_the_fingerprint_pays_for_its_probes(cells):
  _, probes, served = known_zoo.bisection(
    known_zoo.is_served,
    known_zoo.BUDGET_MS,
    RESOLUTION,
    RESOLUTION * known_zoo.BUDGET_MS,
  )
  records = cells['fingerprint', 'none']
  assert (column(records, 'probes') == probes).all()
  assert (column(records, 'queries_served') == QUERIES - probes + served).all()
  assert (column(records, 'victim_purity') == 1).all()
  assert (column(records, 'fidelity') == 1).all()


def test_naive_gets_half_of_its_answers_from_the_victim(cells):
  records = cells['naive', 'none']
  assert (column(records, 'queries_served') == QUERIES).all()
  hits = column(records, 'victim_purity') * QUERIES
  error = np.sqrt(0.25 * QUERIES * SEEDS)
  assert abs(hits.sum() - 0.5 * QUERIES * SEEDS) <= 4.5 * error
  # The other half is model 0's, which is always right.
  assert 0.15 < column(records, 'fidelity').mean() < 0.85
  assert 0.15 < column(records, 'accuracy').mean() < 0.85


def told(run, value):
  """The spec that the informed are told of the medium victim behind noise."""
  spec = extraction_stage._told(run, 'medium', 'laplace', value)
  return float(spec.min_accuracy), float(spec.max_latency_ms)


@pytest.mark.parametrize('attack', ['informed', 'naive'])
@pytest.mark.parametrize('strength', ['calibrated', '0.25'])
def test_noise_answers_as_it_should(run, cells, attack, strength):
  if (attack, strength) == ('naive', '0.25'):
    assert ('naive', 'laplace 0.25') not in cells
    return
  records = cells[attack, f'laplace {strength}']
  scale = records[0]['value']
  spec = told(run, scale) if attack == 'informed' else (0.0, known_zoo.BUDGET_MS)
  answers = known_zoo.kernel(*spec, scale * 0.4, scale * 3.0)
  trials = QUERIES * SEEDS
  assert_share(records, 'queries_served', trials, answers.sum())
  served = column(records, 'queries_served')
  for record, count in zip(records, served):
    record['from_victim'] = record['victim_purity'] * count
  share = answers[known_zoo.MEDIUM] / answers.sum()
  assert_share(records, 'from_victim', served.sum(), share)


@pytest.mark.parametrize('value', [0.05, 0.25])
def test_the_informed_are_told_the_best_spec(run, value):
  """No spec of a fine grid is answered by the victim more often."""
  scales = value * 0.4, value * 3.0
  victim = known_zoo.MEDIUM
  best = max(
    known_zoo.kernel(accuracy, latency, *scales)[victim]
    for accuracy in np.linspace(0.5, 0.9, 41)
    for latency in np.linspace(1.0, 4.0, 31)
  )
  found = known_zoo.kernel(*told(run, value), *scales)[victim]
  corner = known_zoo.kernel(0.7, 2.0, *scales)[victim]
  assert corner < 0.9 * best
  assert found > 0.97 * best


def test_noise_breaks_the_fingerprint(cells):
  for name in ('laplace calibrated', 'laplace 0.25'):
    records = cells['fingerprint', name]
    assert column(records, 'queries_served').mean() < 0.95 * QUERIES


def test_random_refusal_costs_what_the_defense_costs(run, cells):
  defense = json.loads((run.directory / 'defense.json').read_text('utf-8'))
  assert defense['without']['goodput']['mean'] == 1.0
  kept = {
    name: next(
      row['goodput']['mean']
      for row in found['rows']
      if row['value'] == found['calibrated']
    )
    for name, found in defense['mechanisms'].items()
  }
  records = cells['informed', 'refusal']
  share = records[0]['value']
  assert share == defense['mechanisms']['refusal']['calibrated']
  assert kept['refusal'] == pytest.approx(1 - share, abs=0.01)
  assert kept['laplace'] == pytest.approx(kept['refusal'], abs=0.02)
  assert_share(records, 'queries_served', QUERIES * SEEDS, 1 - share)
  assert (column(records, 'victim_purity') == 1).all()


def test_attacks_of_a_seed_share_images_and_initialisation(run):
  profile, cells = run.profile(), extraction_stage.cells(run)
  pairing, serving = [], set()
  for cell in cells:
    runs = extraction_stage.runs_of(run, profile, cell)
    pairing.append(jax.random.key_data(runs.pairing_key).tolist())
    serving |= {tuple(key) for key in jax.random.key_data(runs.serving_key).tolist()}
  assert all(keys == pairing[0] for keys in pairing)
  assert len(set(map(tuple, pairing[0]))) == SEEDS
  assert len(serving) == SEEDS * len(cells)


def test_the_attackers_images_are_of_the_pool(run):
  tables = extraction_stage.tables_of(run)
  images = run.images()
  np.testing.assert_array_equal(tables.pool, images.pool_x)
  np.testing.assert_array_equal(tables.test, images.test_x)
  contents = {
    name: {image.tobytes() for image in getattr(images, name)}
    for name in ('zoo_x', 'profile_x', 'pool_x', 'test_x')
  }
  assert sum(map(len, contents.values())) == len(set.union(*contents.values()))


def test_the_report_counts_every_seed_and_no_diverged_one(summary):
  for row in summary['extraction']:
    assert row['seeds'] == SEEDS
    assert row['diverged'] == 0
  claims = {row['claim'].split('.')[0]: row for row in summary['claims']}
  assert claims['1']['holds']
  assert claims['4']['holds']
  holds = [row['holds'] for row in summary['claims'] if row['claim'].startswith('2')]
  # The victims are always wrong, so the naive attack's surrogates are more accurate.
  assert holds == [True, True, False, False]


def numbers(value, path=''):
  """Every number of a JSON value by its path."""
  if isinstance(value, dict):
    for name, item in value.items():
      yield from numbers(item, f'{path}.{name}')
  elif isinstance(value, list):
    for i, item in enumerate(value):
      yield from numbers(item, f'{path}[{i}]')
  elif isinstance(value, (int, float)) and not isinstance(value, bool):
    yield path, float(value)


def golden_part(summary):
  kept = ('zoo', 'victims', 'fingerprint', 'frontier', 'extraction', 'goodput')
  return {name: summary[name] for name in kept}


def test_the_summary_is_what_it_was(summary):
  """Scores within rounding of other processors; the rest to the digit."""
  golden = json.loads(GOLDEN.read_text('utf-8'))
  assert golden['config'] == json.loads(json.dumps(config()))
  wanted, got = dict(numbers(golden['summary'])), dict(numbers(golden_part(summary)))
  assert wanted.keys() == got.keys()
  for path, value in wanted.items():
    loose = any(name in path for name in ('accuracy', 'fidelity', 'value', 'ci95'))
    assert got[path] == pytest.approx(value, abs=0.02 if loose else 1e-3, rel=1e-2), (
      path
    )


if __name__ == '__main__':
  import tempfile

  with tempfile.TemporaryDirectory() as folder:
    made = make_run(pathlib.Path(folder))
    found = json.loads((made.directory / 'summary.json').read_text('utf-8'))
  kept = {'config': config(), 'summary': golden_part(found)}
  GOLDEN.write_text(json.dumps(kept, indent=1) + '\n', 'utf-8')
