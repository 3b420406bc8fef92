"""Training of one classifier on soft labels, as one pure, traceable function."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, TypeVar

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax.sharding import Mesh, PartitionSpec

from psml_jax import _validate

Rows = TypeVar('Rows')
Results = TypeVar('Results')


@dataclasses.dataclass(frozen=True)
class Hyper:
  """Settings of a training; hashable, so static under jit.

  AdamW with a linear warm-up over the first twentieth of the steps and a cosine
  decay to zero.

  Attributes:
    steps: minibatches.
    batch_size: images in each, drawn with replacement.
    learning_rate: its peak.
    weight_decay: decoupled, of every parameter.

  Raises:
    ValueError: a number outside its range.
  """

  steps: int
  batch_size: int
  learning_rate: float
  weight_decay: float = 0.0

  def __post_init__(self) -> None:
    _validate.positive_int('steps', self.steps)
    _validate.positive_int('batch_size', self.batch_size)
    _validate.positive('learning_rate', self.learning_rate)
    _validate.scale('weight_decay', self.weight_decay)


@struct.dataclass
class TrainState:
  """A training under way.

  Attributes:
    step: i32[], minibatches done.
    variables: Flax variables.
    moments: the optimiser's state.
  """

  step: jax.Array
  variables: Any
  moments: optax.OptState


def start(
  key: jax.Array, module: nn.Module, image_shape: tuple[int, ...], hyper: Hyper
) -> TrainState:
  """Initialises parameters and optimiser.

  Args:
    key: consumed.
    module: maps (f32[N, H, W, C], train=...) to f32[N, K] logits.
    image_shape: (H, W, C).
    hyper: the settings.

  Returns:
    The state before the first step.
  """
  variables = module.init(key, jnp.zeros((1, *image_shape), jnp.float32))
  moments = _optimiser(hyper).init(variables['params'])
  return TrainState(jnp.int32(0), variables, moments)


def advance(
  key: jax.Array,
  state: TrainState,
  module: nn.Module,
  inputs: jax.Array,
  targets: jax.Array,
  count: jax.Array,
  hyper: Hyper,
  num_steps: int,
) -> tuple[TrainState, jax.Array]:
  """Takes some steps of a training, in one loop.

  Minimises the cross-entropy `-sum_k target_k log p_k`, averaged over minibatches.

  Args:
    key: the training's, the same in every call; step i draws with
      `fold_in(key, i)`, so that any division into calls gives the same result.
    state: from `start` or an earlier call.
    module: the model; `train=True` is passed while it trains.
    inputs: f32[N, H, W, C], pixels in [0, 1].
    targets: f32[N, K], class probabilities.
    count: i32[], how many leading rows to draw from; at 0 the parameters stay.
    hyper: the settings.
    num_steps: steps to take (static).

  Returns:
    The state after them, and f32[num_steps] losses.
  """
  chex.assert_rank([inputs, targets, count], [4, 2, 0])
  chex.assert_equal_shape_prefix([inputs, targets], 1)
  optimiser = _optimiser(hyper)

  def loss(
    params: Any, stats: Any, images: jax.Array, wanted: jax.Array, key: jax.Array
  ) -> tuple[jax.Array, Any]:
    logits, stats = apply(module, params, stats, images, key)
    log_probabilities = jax.nn.log_softmax(logits)
    return -jnp.mean(jnp.sum(wanted * log_probabilities, axis=-1)), stats

  def draw(step: jax.Array) -> tuple[jax.Array, jax.Array]:
    draw_key, dropout_key = jax.random.split(jax.random.fold_in(key, step))
    most = jnp.maximum(count, 1)
    return jax.random.randint(draw_key, (hyper.batch_size,), 0, most), dropout_key

  def step(
    state: TrainState, draws: tuple[jax.Array, jax.Array]
  ) -> tuple[TrainState, jax.Array]:
    drawn, dropout_key = draws
    params, stats = split(state.variables)
    (value, new_stats), gradient = jax.value_and_grad(loss, has_aux=True)(
      params, stats, inputs[drawn], targets[drawn], dropout_key
    )
    with jax.numpy_dtype_promotion('standard'):  # Adam raises floats to integers.
      updates, moments = optimiser.update(gradient, state.moments, params)
    variables = {'params': optax.apply_updates(params, updates), **new_stats}
    variables = jax.tree.map(
      lambda new, old: jnp.where(count > 0, new, old), variables, state.variables
    )
    return TrainState(state.step + 1, variables, moments), value

  # All draws at once take a tenth less time than one a step.
  return jax.lax.scan(step, state, jax.vmap(draw)(state.step + jnp.arange(num_steps)))


def split(variables: Any) -> tuple[Any, Any]:
  """Divides Flax variables into the trained `params` and all other collections."""
  rest = {name: entry for name, entry in variables.items() if name != 'params'}
  return variables['params'], rest


def apply(
  module: nn.Module, params: Any, stats: Any, images: jax.Array, key: jax.Array
) -> tuple[jax.Array, Any]:
  """Runs a model as in training.

  Args:
    module: the model.
    params: what is trained.
    stats: the other collections, such as BatchNorm's statistics.
    images: f32[N, H, W, C], pixels in [0, 1].
    key: of dropout.

  Returns:
    f32[N, K] logits, and the collections after the call.
  """
  logits, stats = module.apply(
    {'params': params, **stats},
    images,
    train=True,
    mutable=list(stats),
    rngs={'dropout': key},
  )
  assert isinstance(logits, jax.Array)
  return logits, stats


def fit(
  key: jax.Array,
  module: nn.Module,
  inputs: jax.Array,
  targets: jax.Array,
  count: jax.Array,
  hyper: Hyper,
) -> tuple[Any, jax.Array]:
  """Trains a classifier from its initialisation to the last step.

  Args:
    key: consumed.
    module: maps (f32[N, H, W, C], train=...) to f32[N, K] logits.
    inputs: f32[N, H, W, C], pixels in [0, 1].
    targets: f32[N, K], class probabilities.
    count: i32[], how many leading rows are data; the rest is padding.
    hyper: the settings.

  Returns:
    Flax variables, and f32[steps] losses.
  """
  start_key, steps_key = jax.random.split(key)
  state = start(start_key, module, inputs.shape[1:], hyper)
  state, losses = advance(
    steps_key, state, module, inputs, targets, count, hyper, hyper.steps
  )
  return state.variables, losses


def over_population(
  row: Callable[[Rows], Results], rows: Rows, *, width: int = 1
) -> Results:
  """Maps a function over the rows of a population, sharded over all devices.

  Each row depends on its own entry alone, so its draws are the same however the
  population is batched or sharded; numbers then agree up to the order of
  floating-point sums.

  Args:
    row: pure, of one row without leading axis.
    rows: pytree whose leaves have leading axis R >= 1.
    width: rows to run under one vmap on a device. 1 is the fast way on CPUs (under
      vmap, convolutions with a kernel a row are slow there), many on GPUs.

  Returns:
    The results, leaves with leading axis R. Traceable: call it inside jit.

  Raises:
    ValueError: `width` is not a whole number >= 1.

  >>> over_population(lambda x: 2 * x, jnp.arange(3)).tolist()
  [0, 2, 4]
  """
  _validate.positive_int('width', width)
  devices = jax.devices()
  num_rows = jax.tree.leaves(rows)[0].shape[0]
  padding = -num_rows % len(devices)
  padded = jax.tree.map(
    lambda leaf: jnp.concatenate([leaf, jnp.repeat(leaf[:1], padding, axis=0)]), rows
  )
  mapped = functools.partial(jax.lax.map, row, batch_size=width)
  if len(devices) > 1:
    mapped = jax.shard_map(
      mapped,
      mesh=Mesh(devices, ('rows',)),
      in_specs=PartitionSpec('rows'),
      out_specs=PartitionSpec('rows'),
      check_vma=False,
    )
  return jax.tree.map(lambda leaf: leaf[:num_rows], mapped(padded))


def _optimiser(hyper: Hyper) -> optax.GradientTransformation:
  warm_up = max(1, hyper.steps // 20)
  schedule = optax.warmup_cosine_decay_schedule(
    0.0, hyper.learning_rate, warm_up, max(hyper.steps, warm_up + 1)
  )
  return optax.adamw(schedule, weight_decay=hyper.weight_decay)
