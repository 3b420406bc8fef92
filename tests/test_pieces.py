"""Surrogates trained in pieces: the scores of one call, and what lies on disk."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from psml_jax import experiments, train
from psml_jax._validate import InputError
from psml_jax.core import Harvest
from psml_jax.experiments import harness, ladder, pieces
from tests import known_zoo

ROWS = 3
RECIPES = {
  'epochs': train.Epochs(
    epochs=20,
    batch_size=16,
    learning_rate=0.05,
    ema_decay=0.9,
    crop_padding=0,
    flip=False,
  ),
  'steps': train.Steps(steps=40, epochs=4, batch_size=16, learning_rate=0.05),
}


@pytest.fixture(scope='module')
def given():
  """Everything of a population but its training; the last harvest is empty."""
  pool, _ = known_zoo.images(0, 60)
  test, labels = known_zoo.images(1, 40)
  tables = harness.Tables(
    pool=jnp.asarray(pool),
    pool_outputs=jnp.asarray(known_zoo.answers(pool)),
    test=jnp.asarray(test),
    test_labels=jnp.asarray(labels),
    test_outputs=jnp.asarray(known_zoo.answers(test)),
  )
  inputs = np.tile(np.arange(32, dtype=np.int32), (ROWS, 1))
  count = np.array([32, 20, 0], np.int32)
  answered = np.arange(32)[None] < count[:, None]
  targets = np.asarray(tables.pool_outputs[known_zoo.MEDIUM])[inputs]
  harvests = Harvest(inputs, targets * answered[..., None], count)
  keys = jax.random.split(jax.random.key(0), ROWS)
  victims = jnp.full(ROWS, known_zoo.MEDIUM, jnp.int32)
  return tables, keys, victims, harvests


def extraction(recipe, **changes):
  fields = known_zoo.fields((30,), 0.1)
  made = experiments.parse(fields).extraction
  return dataclasses.replace(
    made, **{'hyper': None, 'recipe': recipe, 'pieces': 4, 'width': 1, **changes}
  )


def in_pieces(path, config, given, names=('a', 'b', 'c')):
  training = config.training(known_zoo.CLASSES)
  found, _ = pieces.scores(path, names, config, training, *given, train.local_mesh())
  return found


def assert_identical(one, other):
  jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.mark.parametrize('kind', RECIPES)
def test_the_scores_are_those_of_one_call(kind, given, tmp_path):
  config = extraction(RECIPES[kind])
  found = in_pieces(tmp_path / 'state.npz', config, given)
  training = config.training(known_zoo.CLASSES)
  whole = harness.scores(
    training, *given, config.test_batch, config.width, train.local_mesh()
  )
  for name in ('accuracy', 'fidelity', 'loss'):
    np.testing.assert_allclose(
      getattr(found, name), getattr(whole, name), rtol=1e-4, atol=1e-6
    )
  assert found.fidelity[0] > found.fidelity[2]


def test_it_continues_after_the_last_piece(given, tmp_path, monkeypatch):
  path, config = tmp_path / 'state.npz', extraction(RECIPES['epochs'])
  whole = in_pieces(path, config, given)
  path.unlink()
  calls = []

  def interrupted(*arguments):
    if len(calls) == 3:
      raise KeyboardInterrupt
    calls.append(1)
    return advance(*arguments)

  advance = pieces.advance
  monkeypatch.setattr(pieces, 'advance', interrupted)
  with pytest.raises(KeyboardInterrupt):
    in_pieces(path, config, given)
  with np.load(path) as stored:
    assert int(stored['done']) == 3
  del calls[:2]
  assert_identical(in_pieces(path, config, given), whole)
  assert len(calls) == 2


def test_the_seconds_of_earlier_calls_are_kept(given, tmp_path):
  path, config = tmp_path / 'state.npz', extraction(RECIPES['epochs'])
  rest = config.training(known_zoo.CLASSES), *given, train.local_mesh()
  _, none = pieces.scores(path, ['a', 'b', 'c'], config, *rest)
  with np.load(path) as stored:
    seconds = float(stored['seconds'])
  _, earlier = pieces.scores(path, ['a', 'b', 'c'], config, *rest)
  assert none == 0 < seconds == earlier


def test_what_other_rows_left_is_replaced(given, tmp_path):
  path, config = tmp_path / 'state.npz', extraction(RECIPES['epochs'])
  whole = in_pieces(path, config, given)
  with np.load(path) as stored:
    others = dict(stored) | {'label': 'others', 'leaf2': np.float32(3)}
  np.savez(path, **others)
  assert_identical(in_pieces(path, config, given), whole)
  with np.load(path) as stored:
    assert str(stored['label']) == 'a\nb\nc'


@pytest.mark.parametrize('damage', ['bytes', 'absent', 'shape'])
def test_a_damaged_file_is_named(damage, given, tmp_path):
  path, config = tmp_path / 'state.npz', extraction(RECIPES['epochs'])
  in_pieces(path, config, given)
  if damage == 'bytes':
    path.write_bytes(path.read_bytes()[:200])
  else:
    with np.load(path) as stored:
      content = dict(stored)
    leaf = content.pop('leaf2')
    if damage == 'shape':
      content['leaf2'] = leaf[:1]
    np.savez(path, **content)
  with pytest.raises(InputError, match=r'state\.npz is damaged \(.+\); remove it'):
    in_pieces(path, config, given)


def test_a_surrogate_that_diverged_has_no_loss(given, tmp_path):
  steep = dataclasses.replace(RECIPES['epochs'], learning_rate=1e38)
  found = in_pieces(tmp_path / 'state.npz', extraction(steep), given)
  assert np.isnan(found.loss[0])


@pytest.mark.parametrize(
  ('count', 'message'),
  [
    (0, r'config\.extraction\.pieces is 0; it must be'),
    (3, r'pieces is 3; it must divide the 1 epochs of config\.extraction\.hyper'),
  ],
)
def test_pieces_that_are_none(count, message):
  fields = known_zoo.fields((30,), 0.1)
  fields['extraction']['pieces'] = count
  with pytest.raises(ValueError, match=message):
    experiments.parse(fields)


def test_a_ladder_has_no_pieces():
  own = known_zoo.fields((30,), 0.1)
  own['extraction']['hyper']['epochs'] = own['extraction']['pieces'] = 2
  fields = {
    'experiment': {
      name: own[name] for name in ('data', 'zoo', 'profiling', 'fingerprint')
    }
    | {'extraction': own['extraction']},
    'defenses': {'refusal': {}},
    'attacks': {'naive': {}},
    'surrogates': {'soft': {}},
  }
  with pytest.raises(ValueError, match=r'extraction\.pieces is 2; it must be 1'):
    ladder.parse(fields)
