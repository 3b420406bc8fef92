"""The benchmark's peers train the same surrogates."""

import importlib
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from psml_jax import train, zoo
from psml_jax.core import Harvest

WIDTHS = (5, 8, 3)
NUM_ROWS, NUM_INPUTS = 3, 20
RECIPE = train.Steps(steps=40, batch_size=6, learning_rate=1e-2, weight_decay=0.1)


@pytest.fixture
def torch():
  torch = pytest.importorskip('torch', reason='PyTorch is absent: make parity')
  threads = torch.get_num_threads()
  torch.set_num_threads(1)
  yield torch
  torch.set_num_threads(threads)


@pytest.fixture
def peers(torch, monkeypatch):
  monkeypatch.syspath_prepend(pathlib.Path(__file__).parents[1] / 'benchmarks')
  return importlib.import_module('torch_surrogates')


@pytest.fixture
def population(torch, peers):
  """Models, inputs, targets and draws, a row each."""
  torch.manual_seed(0)
  return (
    [peers.create(WIDTHS) for _ in range(NUM_ROWS)],
    torch.rand(NUM_ROWS, NUM_INPUTS, WIDTHS[0]),
    torch.softmax(torch.randn(NUM_ROWS, NUM_INPUTS, WIDTHS[-1]), -1),
    torch.randint(NUM_INPUTS, (RECIPE.steps, NUM_ROWS, RECIPE.batch_size)),
  )


def trained(peers, population):
  models, inputs, targets, draws = population
  stacked = peers.stack(models)
  initial = [values.clone() for values in stacked]
  peers.fit_stacked(stacked, inputs, targets, draws, RECIPE)
  for row, model in enumerate(models):
    peers.fit(model, inputs[row], targets[row], draws[:, row], RECIPE)
  return initial, stacked, peers.stack(models)


def test_stacked_training_is_that_of_each_model_alone(torch, peers, population):
  initial, stacked, alone = trained(peers, population)
  for before, ours, theirs in zip(initial, stacked, alone, strict=True):
    torch.testing.assert_close(ours.detach(), theirs, rtol=1e-4, atol=1e-5)
    assert (theirs - before).abs().max() > 0.05


def test_rows_have_draws_of_their_own(torch, peers, population):
  models, inputs, targets, draws = population
  others = draws.clone()
  others[:, 1] = (others[:, 1] + 1) % NUM_INPUTS
  ends = []
  for drawn in (draws, others):
    ends.append(peers.stack(models))
    peers.fit_stacked(ends[-1], inputs, targets, drawn, RECIPE)
  same = [torch.equal(a[row], b[row]) for a, b in zip(*ends) for row in range(NUM_ROWS)]
  assert same == [True, False, True] * 4


def test_the_peer_trains_as_the_library_does(torch, peers, population):
  models, inputs, targets, _ = population
  module = zoo.create('mlp', num_classes=WIDTHS[-1], widths=WIDTHS[1:-1])
  images = jnp.asarray(inputs[0].numpy())[:, None, :, None]
  key = jax.random.key(0)
  training = train.Training(module, RECIPE)
  state = train.start(key, training, images.shape[1:], NUM_INPUTS)
  leaves = jax.tree.leaves(state.variables)
  with torch.no_grad():
    for values, ours in zip(models[0].parameters(), by_torch(leaves), strict=True):
      values.copy_(torch.from_numpy(ours))
  count = jnp.int32(NUM_INPUTS)
  draws, _ = RECIPE.draw(key, state.step, RECIPE.steps, NUM_INPUTS, count)
  drawn = torch.from_numpy(np.array(draws, np.int64))
  peers.fit(models[0], 4 * inputs[0] - 2, targets[0], drawn, RECIPE)
  examples = Harvest(jnp.arange(NUM_INPUTS), jnp.asarray(targets[0].numpy()), count)
  state, _ = train.epoch(key, state, training, images, examples)
  trained = by_torch(jax.tree.leaves(state.variables))
  for values, ours in zip(models[0].parameters(), trained, strict=True):
    np.testing.assert_allclose(values.detach().numpy(), ours, rtol=1e-3, atol=1e-4)


def by_torch(leaves):
  """(bias, kernel) a layer as PyTorch's (weight, bias)."""
  ordered = []
  for bias, kernel in zip(leaves[::2], leaves[1::2], strict=True):
    ordered += [np.array(kernel.T), np.array(bias)]
  return ordered


def test_initial_parameters_are_distributed_alike(torch, peers):
  torch.manual_seed(0)
  alone = peers.stack([peers.create(WIDTHS) for _ in range(200)])
  stacked = peers.create_stacked(WIDTHS, 200)
  for ours, theirs in zip(stacked, alone, strict=True):
    assert ours.shape == theirs.shape
    assert abs(ours.std() / theirs.std() - 1) < 0.1
    assert abs(ours.max() / theirs.max() - 1) < 0.1
