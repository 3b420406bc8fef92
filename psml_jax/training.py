"""Training of one classifier on soft labels, as one pure, traceable function."""

import dataclasses
from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax import struct

from psml_jax import _validate


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
    module: maps f32[N, H, W, C] to f32[N, K] logits; no mutable collections.
    image_shape: (H, W, C).
    hyper: the settings.

  Returns:
    The state before the first step.
  """
  variables = module.init(key, jnp.zeros((1, *image_shape), jnp.float32))
  return TrainState(jnp.int32(0), variables, _optimiser(hyper).init(variables))


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
    module: the model.
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

  def loss(variables: Any, images: jax.Array, wanted: jax.Array) -> jax.Array:
    logits = module.apply(variables, images)
    assert isinstance(logits, jax.Array)
    log_probabilities = jax.nn.log_softmax(logits)
    return -jnp.mean(jnp.sum(wanted * log_probabilities, axis=-1))

  def step(state: TrainState, _: None) -> tuple[TrainState, jax.Array]:
    step_key = jax.random.fold_in(key, state.step)
    drawn = jax.random.randint(step_key, (hyper.batch_size,), 0, jnp.maximum(count, 1))
    value, gradient = jax.value_and_grad(loss)(
      state.variables, inputs[drawn], targets[drawn]
    )
    updates, moments = optimiser.update(gradient, state.moments, state.variables)
    updates = jax.tree.map(lambda u: jnp.where(count > 0, u, 0.0), updates)
    variables = optax.apply_updates(state.variables, updates)
    return TrainState(state.step + 1, variables, moments), value

  return jax.lax.scan(step, state, length=num_steps)


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
    module: maps f32[N, H, W, C] to f32[N, K] logits.
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


def _optimiser(hyper: Hyper) -> optax.GradientTransformation:
  warm_up = max(1, hyper.steps // 20)
  schedule = optax.warmup_cosine_decay_schedule(
    0.0, hyper.learning_rate, warm_up, max(hyper.steps, warm_up + 1)
  )
  return optax.adamw(schedule, weight_decay=hyper.weight_decay)
