"""Programs of the config that is meant for an accelerator fit into its memory."""

import dataclasses
import importlib
import pathlib

import pytest

from psml_jax import experiments
from psml_jax.experiments import config_file

SOURCE = 'configs/cifar10_paper.py'
CONFIG = experiments.parse(config_file.load(SOURCE))
TINY = experiments.parse(config_file.load(f'{SOURCE}:tiny'))
SHAPE = (32, 32, 3)


@pytest.fixture
def memory(monkeypatch):
  monkeypatch.syspath_prepend(pathlib.Path(__file__).parents[1] / 'benchmarks')
  return importlib.import_module('memory')


def large(memory, name):
  if name == 'surrogates':
    return memory.surrogates(CONFIG, CONFIG.extraction, CONFIG.data)[0]
  return memory._training(CONFIG, name, SHAPE, 10)


@pytest.mark.slow
@pytest.mark.parametrize(
  'name', ['surrogates', 'mobilenetv2_x1_4', 'shufflenetv2_x2_0']
)
def test_the_largest_programs_fit_and_end_in_time(name, memory):
  """The surrogates, the largest model, and the one that is divided to be smaller.

  Found by compiling all; docs/bench.md has the table.
  """
  its = memory.cost(large(memory, name))
  assert memory.faults(name, its, 40, 5, 1000) == []
  assert memory.GIB < its.total < 18 * memory.GIB


def test_all_that_the_experiment_runs_is_listed(memory, monkeypatch):
  monkeypatch.setattr(memory, '_training', lambda config, name, *_: name)
  monkeypatch.setattr(memory, '_serving', lambda config, name, *_: f'{name} served')
  listed = list(memory.programs(TINY))
  assert listed[:2] == ['resnet20', 'resnet20 served']
  piece, scores = listed[2:]
  assert (piece.name, piece.units) == ('surrogates: a piece', 2)
  # One epoch of two minibatches, three rows, one at a time.
  assert piece.times == 2 * 3
  assert scores.times == 3


def test_the_work_of_a_loop_is_that_of_one_step_times_the_steps(memory):
  """XLA counts the body of a loop once, whatever its length."""

  def counted(size):
    data = dataclasses.replace(TINY.data, zoo_size=size)
    config = dataclasses.replace(TINY, data=data)
    program = memory._training(config, 'resnet20', SHAPE, 10)
    return program.times, program.lowered.cost_analysis()['flops']

  (few, once), (many, again) = counted(64), counted(640)
  assert (few, many) == (4, 40)
  assert again == pytest.approx(once, rel=0.02)
  # 40.8 million multiplications and additions an image, forwards; twice that backwards.
  assert once / 16 == pytest.approx(6 * 40.8e6, rel=0.1)


def test_faults_name_what_is_too_large_or_too_long(memory):
  fits = memory.Cost(8 * memory.GIB, 12 * memory.GIB, flops=2.6e15, traffic=1e14)
  assert memory.faults('this', fits, 40, 5, 1000) == []
  assert memory.faults('this', fits, 39, 5, 1000) == ['this holds 20.0 GiB']
  assert memory.faults('this', fits, 40, 4, 1000) == ['this takes 10.8 minutes a unit']
  assert memory.faults('this', fits, 40, 5, 100) == ['this takes 16.7 minutes a unit']


def test_images_that_need_a_file(memory):
  assert memory.images_of(TINY.data) == ((16, 16, 3), 10)
  data = dataclasses.replace(TINY.data, name='npz')
  with pytest.raises(ValueError, match=r"config\.data\.name is 'npz'; it must be"):
    memory.images_of(data)


def test_a_population_of_models_is_refused(memory):
  copies = {'resnet20': {**TINY.zoo.models['resnet20'], 'copies': 2}}
  zoo = dataclasses.replace(TINY.zoo, models=copies)
  with pytest.raises(ValueError, match=r'zoo\.models\.resnet20\.copies is given'):
    list(memory.programs(dataclasses.replace(TINY, zoo=zoo)))
