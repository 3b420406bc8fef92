"""Training runs: metrics, checkpoints, kill -9, full disks, populations."""

import dataclasses
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from psml_jax import train, zoo
from psml_jax.train import recipes, runner
from tests.models import Small

ROOT = pathlib.Path(__file__).parents[1]
JOB = str(ROOT / 'tests' / 'trainer_job.py')
RECIPE = train.Epochs(epochs=2, batch_size=8, learning_rate=0.05, crop_padding=1)
MODULE = Small(num_classes=3)


@pytest.fixture(scope='module')
def data():
  rng = np.random.default_rng(0)
  images = rng.random((40, 8, 8, 3)).astype(np.float32)
  return images, rng.integers(0, 3, 40).astype(np.int32)


def fit(data, seed=0, **changes):
  arguments = {'num_classes': 3, 'recipe': RECIPE, 'module': MODULE} | changes
  key = arguments.pop('key', None)
  key = jax.random.key(seed) if key is None else key
  return zoo.fit(key, arguments.pop('module'), *data, **arguments)


def assert_identical(one, other):
  assert jax.tree.structure(one) == jax.tree.structure(other)
  for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
    np.testing.assert_array_equal(a, b)


def longer(epochs):
  return dataclasses.replace(RECIPE, epochs=epochs)


class TestRecords:
  def test_every_epoch_leaves_a_record_and_events(self, data, tmp_path, capfd):
    trained = fit(data, directory=tmp_path / 'run', held_out=data, name='tiny')
    lines = (tmp_path / 'run' / 'metrics.jsonl').read_text().splitlines()
    assert [json.loads(line) for line in lines] == trained.records
    assert [record['epoch'] for record in trained.records] == [1, 2]
    for record in trained.records:
      assert record['images_per_second'] == pytest.approx(40 / record['seconds'])
      assert 0 <= record['accuracy'] <= 1
      assert record['loss'] > 0
    model = zoo.Model(MODULE, trained.variables)
    accuracy = np.mean(zoo.predict(model, data[0]).argmax(-1) == data[1])
    assert trained.records[-1]['held_out_accuracy'] == pytest.approx(accuracy)
    (events,) = (tmp_path / 'run' / 'events').iterdir()
    written = events.read_bytes()
    for name in (b'loss', b'held_out_accuracy', b'images_per_second'):
      assert name in written
    shown = capfd.readouterr().err
    assert 'tiny: 100%' in shown
    assert 'image/s' in shown

  def test_a_directory_changes_nothing(self, data, tmp_path):
    assert_identical(
      fit(data).variables, fit(data, directory=tmp_path / 'run').variables
    )

  def test_it_learns(self):
    """Classes that differ in brightness are told apart after a few epochs."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 200).astype(np.int32)
    images = 0.3 * labels.reshape(-1, 1, 1, 1) + 0.3 * rng.random((200, 8, 8, 3))
    data = images.astype(np.float32), labels
    trained = fit(data, recipe=longer(8), held_out=data)
    assert trained.records[-1]['held_out_accuracy'] > 0.9


class TestCheckpoints:
  def test_only_the_newest_are_kept(self, data, tmp_path):
    fit(data, recipe=longer(4), directory=tmp_path / 'run', keep=2)
    kept = sorted(path.name for path in (tmp_path / 'run' / 'checkpoints').iterdir())
    assert kept == ['3', '4']

  def test_a_finished_training_is_read_back(self, data, tmp_path):
    first = fit(data, directory=tmp_path / 'run')
    again = fit(data, directory=tmp_path / 'run')
    assert_identical(first.variables, again.variables)
    assert first.records == again.records

  def test_another_architecture_is_named(self, data, tmp_path):
    fit(data, directory=tmp_path / 'run')
    wider = Small(num_classes=3, width=4)
    with pytest.raises(ValueError, match='another training: its module is Small'):
      fit(data, module=wider, directory=tmp_path / 'run')
    (tmp_path / 'run' / 'settings.json').unlink()
    with pytest.raises(
      ValueError, match=r'another architecture: .*\(3, 3, 3, 2\), not'
    ):
      fit(data, module=wider, directory=tmp_path / 'run')
    again = fit(data, directory=tmp_path / 'run')
    assert len(again.records) == 2

  @pytest.mark.parametrize(
    ('changes', 'message'),
    [
      ({'seed': 1}, r'its key is \[0, 0\], not \[0, 1\]'),
      ({'recipe': longer(3)}, "its recipe is .*'epochs': 2.*, not .*'epochs': 3"),
    ],
  )
  def test_another_training_is_told(self, data, tmp_path, changes, message):
    fit(data, directory=tmp_path / 'run')
    with pytest.raises(ValueError, match=f'holds another training: {message}'):
      fit(data, directory=tmp_path / 'run', **changes)
    other = data[0], (data[1] + 1) % 3
    with pytest.raises(ValueError, match='holds another training: its content'):
      fit(other, directory=tmp_path / 'run')

  def test_a_training_that_diverges_is_told(self, data, tmp_path):
    steep = dataclasses.replace(RECIPE, learning_rate=1e30)
    with pytest.raises(
      ValueError, match=r'the loss of steep is nan in epoch \d; lower'
    ):
      fit(data, recipe=steep, name='steep', directory=tmp_path / 'run')

  def test_a_line_that_was_cut_off_is_left_out(self, data, tmp_path):
    first = fit(data, directory=tmp_path / 'run')
    with (tmp_path / 'run' / 'metrics.jsonl').open('a') as file:
      file.write('{"epoch": 3, "lo')
    assert fit(data, directory=tmp_path / 'run').records == first.records

  @pytest.mark.slow
  def test_a_full_disk_leaves_the_checkpoints_before_it(self, data, tmp_path):
    """The kernel refuses files above a limit, as it does on a full disk."""
    job = f"""
import resource, signal
import orbax.checkpoint as ocp
exec(open({JOB!r}).read())
save = ocp.CheckpointManager.save
def on_a_disk_that_fills_up(manager, step, *arguments, **settings):
  if step == 3:
    manager.wait_until_finished()
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, resource.RLIM_INFINITY))
  return save(manager, step, *arguments, **settings)
ocp.CheckpointManager.save = on_a_disk_that_fills_up
try:
  train({str(tmp_path)!r}, 4)
except OSError as error:
  print('TOLD:', error)
"""
    done = run_python(job)
    assert 'TOLD: a checkpoint could not be written to' in done.stdout, done.stderr
    assert 'the last whole one is of epoch 2' in done.stdout
    resumed, whole = run_python(finish(tmp_path, 4)), run_python(finish(None, 4))
    assert resumed.stdout == whole.stdout != ''


def run_python(code, **environment):
  return subprocess.run(
    [sys.executable, '-c', code],
    env=os.environ | {'PYTHONPATH': str(ROOT)} | environment,
    capture_output=True,
    text=True,
    timeout=300,
    check=False,
  )


def finish(directory, epochs):
  place = None if directory is None else str(directory)
  return f"""
exec(open({JOB!r}).read())
print(digest(train({place!r}, {epochs})))
"""


@pytest.mark.slow
def test_killed_at_three_moments_it_ends_with_the_same_bits(tmp_path):
  """kill -9 within an epoch, three times; each run continues the one before.

  The whole run compiles anew, so that its bits owe nothing to stored programs.
  """
  epochs, moments = 16, random.Random(0)
  metrics = tmp_path / 'metrics.jsonl'
  for killed in range(1, 4):
    process = subprocess.Popen(
      [sys.executable, '-c', finish(tmp_path, epochs)],
      env=os.environ | {'PYTHONPATH': str(ROOT)},
      stdout=subprocess.DEVNULL,
      stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 240
    while len(lines(metrics)) < 4 * killed - 2:
      assert process.poll() is None
      assert time.monotonic() < deadline
      time.sleep(0.01)
    seconds = json.loads(lines(metrics)[-1])['seconds']
    time.sleep(moments.uniform(0.1, 1.5) * seconds)
    assert process.poll() is None, 'it ended before it was killed'
    process.send_signal(signal.SIGKILL)
    process.wait()
  resumed = run_python(finish(tmp_path, epochs))
  whole = run_python(finish(None, epochs), JAX_ENABLE_COMPILATION_CACHE='false')
  assert resumed.stdout == whole.stdout != '', resumed.stderr
  assert [json.loads(line)['epoch'] for line in lines(metrics)] == [*range(1, 17)]


def lines(path):
  if not path.exists():
    return []
  return [line for line in path.read_text().splitlines() if line.endswith('}')]


class TestStreaming:
  """Images that do not fit on the device give what resident ones give."""

  @pytest.mark.parametrize('minibatches', [1, 2, 3])
  def test_pieces_are_the_whole(self, data, minibatches):
    piece = minibatches * 8 * data[0][0].nbytes
    recipe = dataclasses.replace(RECIPE, accumulate=2)
    streamed = fit(data, recipe=recipe, resident_bytes=2 * piece)
    resident = fit(data, recipe=recipe)
    for a, b in zip(
      jax.tree.leaves(streamed.variables),
      jax.tree.leaves(resident.variables),
      strict=True,
    ):
      np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)
    for one, other in zip(streamed.records, resident.records, strict=True):
      assert one['loss'] == pytest.approx(other['loss'], rel=1e-5)
      assert one['accuracy'] == pytest.approx(other['accuracy'])

  def test_an_interrupted_one_ends_with_the_same_bits(self, data, tmp_path):
    """Saved after the second of four epochs, as if it was killed in the third."""
    whole = fit(data, recipe=longer(4), resident_bytes=1)
    settings = {'recipe': longer(4), 'resident_bytes': 1, 'keep': 4}
    first = fit(data, directory=tmp_path / 'run', **settings)
    for epoch in ('3', '4'):
      shutil.rmtree(tmp_path / 'run' / 'checkpoints' / epoch)
    again = fit(data, directory=tmp_path / 'run', **settings)
    assert_identical(first.variables, whole.variables)
    assert_identical(again.variables, whole.variables)

  def test_a_population_needs_its_images_on_the_device(self, data, tmp_path):
    keys = jax.random.split(jax.random.key(3), 3)
    with pytest.raises(ValueError, match='too many to stay on the device'):
      fit(data, key=keys, resident_bytes=1, directory=tmp_path / 'run')
    assert not (tmp_path / 'run').exists()


class TestPopulation:
  def test_members_are_what_they_are_alone(self, data, tmp_path):
    keys = jax.random.split(jax.random.key(3), 3)
    together = fit(data, key=keys, directory=tmp_path / 'run', held_out=data)
    assert len(together.records[-1]['loss']) == 3
    for i, key in enumerate(keys):
      alone = fit(data, key=key, held_out=data)
      for a, b in zip(
        jax.tree.leaves(together.variables),
        jax.tree.leaves(alone.variables),
        strict=True,
      ):
        np.testing.assert_allclose(a[i], b, rtol=0, atol=1e-5)
      for name in ('loss', 'held_out_accuracy'):
        assert together.records[-1][name][i] == pytest.approx(
          alone.records[-1][name], abs=1e-4
        )

  def test_a_member_is_measured_on_one_device(self, data, monkeypatch):
    seen = []

    def predict(model, images):
      seen.extend(jax.tree.leaves(model.variables))
      return train.predict(model, images)

    monkeypatch.setattr(runner, 'predict', predict)
    keys = jax.random.split(jax.random.key(3), 2)
    fit(data, key=keys, recipe=longer(1), held_out=data)
    assert seen
    assert all(isinstance(leaf, (np.ndarray, np.generic)) for leaf in seen)

  def test_an_interrupted_one_continues_on_all_devices(self, data, tmp_path):
    keys = jax.random.split(jax.random.key(3), 3)
    assert len(jax.devices()) == 2
    first = fit(data, key=keys, directory=tmp_path / 'run')
    shutil.rmtree(tmp_path / 'run' / 'checkpoints' / '2')
    again = fit(data, key=keys, directory=tmp_path / 'run')
    assert_identical(first.variables, again.variables)


def test_numbers_of_numpy_are_settings_too(data, tmp_path):
  recipe = dataclasses.replace(RECIPE, epochs=np.int64(1))
  classes = data[1].max() + 1
  first = fit(data, recipe=recipe, num_classes=classes, directory=tmp_path / 'run')
  again = fit(data, recipe=longer(1), directory=tmp_path / 'run')
  assert_identical(first.variables, again.variables)


class Plain:
  """A user's objective, whose repr is its address."""

  unlabelled = 0

  def __call__(self, *arguments):
    return train.CROSS_ENTROPY(*arguments)


def test_neither_an_address_nor_the_width_of_labels_is_a_setting(data, tmp_path):
  images, labels = data
  first = fit(data, recipe=longer(1), objective=Plain(), directory=tmp_path)
  wide = images, labels.astype(np.int64)
  again = fit(wide, recipe=longer(1), objective=Plain(), directory=tmp_path)
  assert_identical(first.variables, again.variables)
  assert again.records == first.records


def held_out(images, labels):
  return {'held_out': (images, np.asarray(labels))}


class Unhashable:
  unlabelled = 0
  __hash__ = None

  def __call__(self, *arguments):
    return train.CROSS_ENTROPY(*arguments)


@dataclasses.dataclass(frozen=True)
class Gives:
  """The cross-entropy, changed."""

  change: object
  unlabelled = 0

  def __call__(self, *arguments):
    return self.change(*train.CROSS_ENTROPY(*arguments))


IMAGES = np.zeros((2, 8, 8, 3), np.float32)


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'num_classes': 4}, r'num_classes is 4; .* one image are \(1, 3\)'),
    (held_out(IMAGES[:, :4], [0, 1]), r'held_out has images of \(4, 8, 3\)'),
    (held_out(IMAGES, [[0], [1]]), r'held_out: .* labels \(2, 1\); they must be'),
    (held_out(IMAGES[:0], np.zeros(0, int)), 'held_out: .* not empty'),
    (held_out(IMAGES, [0, 3]), r'held_out: labels span \[0, 3\]'),
    (held_out(IMAGES, [0.0, 1.0]), 'held_out: .* labels of type float64'),
    (held_out(IMAGES.astype(np.uint8), [0, 1]), 'held_out: images are of type uint8'),
    (held_out(IMAGES * np.nan, [0, 1]), 'held_out: images hold NaN'),
    ({'num_classes': 2}, r'labels span \[0, 2\]; they must be in \[0, 1\]'),
    (
      {'recipe': dataclasses.replace(RECIPE, batch_size=41)},
      'num_examples is 40; it must be at least 41, for Epochs',
    ),
    (
      {'objective': train.FixMatch(unlabelled=6)},
      'unlabelled is 6; a step of batch_size 8 takes 48 .* there are 40',
    ),
    ({'recipe': None}, 'recipe is None; it must be Steps or Epochs'),
    ({'recipe': recipes.Recipe(batch_size=4, learning_rate=0.1)}, 'recipe is Recipe'),
    ({'objective': None}, 'objective is None; it must be a value that can be called'),
    ({'objective': 'cross_entropy'}, "objective is 'cross_entropy'; it must be"),
    ({'objective': Unhashable()}, 'objective has fields that are not hashable'),
    ({'objective': Gives(lambda loss, aux: 3.0)}, r'gives the shapes \(\); it must'),
    (
      {'objective': Gives(lambda loss, aux: (loss[None], aux))},
      r'shapes \(\(1,\), Aux',
    ),
    ({'objective': Gives(lambda loss, aux: (loss, tuple(aux)))}, 'and Aux'),
    ({'objective': Gives(lambda loss, aux: (loss > 0, aux))}, 'a loss, f32'),
    ({'objective': Gives(lambda loss, aux: (loss, aux._replace(rest={})))}, 'Aux'),
    ({'held_out': (IMAGES,)}, 'held_out is a tuple; it must be a pair of images and'),
    ({'held_out': 3}, 'held_out is a int; it must be a pair'),
    (held_out(IMAGES.tolist(), [0, 1]), 'held_out: images is of type list; it must be'),
    ({'mesh': 3}, r'mesh is 3; it must be a jax\.sharding\.Mesh'),
    ({'keep': 0}, 'keep is 0'),
    ({'resident_bytes': 0}, 'resident_bytes is 0'),
  ],
)
def test_bad_input_is_told_before_anything_is_made(data, tmp_path, changes, message):
  with pytest.raises(ValueError, match=message):
    fit(data, directory=tmp_path / 'run', **changes)
  assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize('part', [0, 1])
def test_lists_are_no_arrays(data, part):
  given = list(data)
  given[part] = given[part].tolist()
  with pytest.raises(ValueError, match='is of type list; it must be an array'):
    fit(given)


@pytest.mark.parametrize('cut', [(slice(None), slice(30)), (0, slice(None))])
def test_images_and_labels_that_do_not_fit(data, cut):
  images, labels = data
  with pytest.raises(ValueError, match=r'must be \[N, H, W, C\] and \[N\]'):
    fit((images[cut[0]], labels[cut[1]]))
