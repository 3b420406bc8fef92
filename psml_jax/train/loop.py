"""The one training loop, as pure, traceable functions."""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from psml_jax import struct
from psml_jax.core import Harvest
from psml_jax.train.model import abstract_variables
from psml_jax.train.objectives import CROSS_ENTROPY, Aux, Batch, Learner, Objective
from psml_jax.train.recipes import Epochs, Steps


@dataclasses.dataclass(frozen=True)
class Training:
  """What a training is, apart from its data and its key; hashable, so static under jit.

  Attributes:
    module: maps (f32[N, H, W, C], train=...) to f32[N, K] logits.
    recipe: how it is trained.
    objective: what is minimised.
  """

  module: nn.Module
  recipe: Steps | Epochs
  objective: Objective = CROSS_ENTROPY


@struct.dataclass
class TrainState:
  """A training under way.

  Attributes:
    step: i32[], minibatches done.
    variables: Flax variables.
    moments: the optimiser's state.
    average: the moving average of the variables; () where the recipe keeps none.
  """

  step: jax.Array
  variables: Any
  moments: optax.OptState
  average: Any

  @property
  def result(self) -> Any:
    """The variables that the training leaves: the average where one is kept."""
    return self.average or self.variables


@struct.dataclass
class Metrics:
  """What steps did, f32[S] each, or f32[] their mean.

  Attributes:
    loss: of the minibatch.
    accuracy: of its labelled images as they were trained on, a fraction.
  """

  loss: jax.Array
  accuracy: jax.Array


def start(
  key: jax.Array, training: Training, image_shape: tuple[int, ...], num_examples: int
) -> TrainState:
  """Initialises variables and optimiser.

  Args:
    key: consumed.
    training: what to train (static).
    image_shape: (H, W, C).
    num_examples: labelled images.

  Returns:
    The state before the first step. Traceable.

  Raises:
    ValueError: fewer examples than one, or than a minibatch of `Epochs`.
  """
  recipe = training.recipe
  if num_examples < 1 or not recipe.epoch_steps(num_examples):
    least = recipe.batch_size if isinstance(recipe, Epochs) else 1
    raise ValueError(
      f'num_examples is {num_examples}; it must be at least {least}, for '
      f'{type(recipe).__name__} of batch_size {recipe.batch_size}'
    )
  image = jnp.zeros((1, *image_shape), jnp.float32)
  variables = training.module.init(key, image)
  moments = recipe.optimiser(num_examples).init(variables['params'])
  average = jax.tree.map(jnp.copy, variables) if recipe.ema_decay else ()
  return TrainState(jnp.int32(0), variables, moments, average)


def loss_of(training: Training) -> Callable[..., tuple[jax.Array, Aux]]:
  """The objective of a training on its module.

  Args:
    training: what is trained (static).

  Returns:
    `(params, rest, labelled, unlabelled, key) -> (loss, Aux)`, as `Objective` has them.
    Traceable; a ValueError where the objective gives anything else.
  """
  module, objective = training.module, training.objective

  def apply(
    params: Any, rest: Any, images: jax.Array, key: jax.Array
  ) -> tuple[jax.Array, Any]:
    logits, rest = module.apply(
      {'params': params, **rest},
      images,
      train=True,
      mutable=list(rest),
      rngs={'dropout': key},
    )
    assert isinstance(logits, jax.Array)
    return logits, rest

  learner = Learner(apply, training.recipe.augment)

  def loss(params: Any, rest: Any, *batch: Any) -> tuple[jax.Array, Aux]:
    given: Any = objective(learner, params, rest, *batch)
    shapes = jax.tree.map(np.shape, given)
    wanted = jax.tree.map(np.shape, (0.0, Aux(rest, jnp.float32(0))))
    whole = repr(shapes) == repr(wanted)  # An Aux is equal to any other tuple.
    if not whole or jnp.result_type(given[0]).kind in 'biuc':
      raise ValueError(
        f'objective {objective!r} gives the shapes {shapes}; it must give a loss, '
        f'f32[], and {wanted[1]} with the accuracy, f32[]'
      )
    return given

  return loss


def check_loss(training: Training, image_shape: tuple[int, ...]) -> None:
  """Checks, without computing it, that an objective gives a loss of classes.

  Args:
    training: what is trained.
    image_shape: (H, W, C).

  Raises:
    ValueError: what `loss_of` raises.
  """
  size = training.recipe.batch_size // training.recipe.accumulate
  many = size * training.objective.unlabelled

  def loss(variables: Any) -> tuple[jax.Array, Aux]:
    rest = {**variables}
    labelled = Batch(jnp.zeros((size, *image_shape)), jnp.zeros(size, jnp.int32))
    unlabelled = jnp.zeros((many, *image_shape)) if many else None
    key = jax.random.key(0)
    return loss_of(training)(rest.pop('params'), rest, labelled, unlabelled, key)

  jax.eval_shape(loss, abstract_variables(training.module, image_shape))


def check_pool(training: Training, num_images: int) -> None:
  """Raises a ValueError where a step takes more unlabelled images than there are."""
  unlabelled, batch = training.objective.unlabelled, training.recipe.batch_size
  if unlabelled * batch > num_images:
    raise ValueError(
      f'unlabelled is {unlabelled}; a step of batch_size {batch} takes '
      f'{unlabelled * batch} images without answers, and there are {num_images}'
    )


def advance(
  state: TrainState,
  training: Training,
  images: jax.Array,
  examples: Harvest,
  rows: jax.Array,
  keys: jax.Array,
  num_examples: int,
) -> tuple[TrainState, Metrics]:
  """Takes steps of a training, in one loop.

  Args:
    state: from `start` or an earlier call.
    training: what is trained (static).
    images: f32[P, H, W, C], pixels in [0, 1].
    examples: which of the images have which targets (also classes, i32[N]).
    rows: i32[S, batch_size], which examples make each of the S minibatches.
    keys: [S], one for each; the recipe draws rows and keys.
    num_examples: labelled images of the whole training (static).

  Returns:
    The state after them, and f32[S] metrics.

  Raises:
    ValueError: fewer images than the objective takes unlabelled ones a step.
  """
  recipe, objective = training.recipe, training.objective
  check_pool(training, len(images))
  optimiser = recipe.optimiser(num_examples)
  loss_and_gradient = jax.value_and_grad(loss_of(training), has_aux=True)

  def part(
    carry: tuple[Any, Any, jax.Array], rows: jax.Array, params: Any
  ) -> tuple[tuple[Any, Any, jax.Array], Metrics]:
    total, rest, key = carry
    key, augment_key, objective_key, unlabelled_key = jax.random.split(key, 4)
    shown = recipe.augment(augment_key, images[examples.inputs[rows]])
    labelled = Batch(shown, examples.targets[rows])
    unlabelled = None
    if objective.unlabelled:
      others = (objective.unlabelled * len(rows),)
      unlabelled = images[jax.random.randint(unlabelled_key, others, 0, len(images))]
    (loss, aux), gradient = loss_and_gradient(
      params, rest, labelled, unlabelled, objective_key
    )
    total = jax.tree.map(jnp.add, total, gradient)
    return (total, aux.rest, key), Metrics(loss, aux.accuracy)

  def step(
    state: TrainState, drawn: tuple[jax.Array, jax.Array]
  ) -> tuple[TrainState, Metrics]:
    rows, key = drawn
    rest = {**state.variables}
    params = rest.pop('params')
    (total, rest, _), metrics = jax.lax.scan(
      lambda carry, rows: part(carry, rows, params),
      (jax.tree.map(jnp.zeros_like, params), rest, key),
      rows.reshape(recipe.accumulate, -1),
    )
    gradient = jax.tree.map(lambda leaf: leaf / recipe.accumulate, total)
    with jax.numpy_dtype_promotion('standard'):  # Adam raises floats to integers.
      updates, moments = optimiser.update(gradient, state.moments, params)
    variables = {'params': optax.apply_updates(params, updates), **rest}
    average = state.average
    if recipe.ema_decay:
      done = state.step.astype(jnp.float32)
      decay = jnp.minimum(recipe.ema_decay, (1 + done) / (10 + done))
      average = optax.incremental_update(variables, average, 1 - decay)
    state = TrainState(state.step + 1, variables, moments, average)
    return state, jax.tree.map(jnp.mean, metrics)

  return jax.lax.scan(step, state, (rows, keys))


def epoch(
  key: jax.Array,
  state: TrainState,
  training: Training,
  images: jax.Array,
  examples: Harvest,
  epochs: int = 1,
) -> tuple[TrainState, Metrics]:
  """Trains for some epochs, as the recipe counts them.

  Args:
    key: the training's, the same in every call.
    state: from `start` or an earlier epoch.
    training: what is trained (static).
    images: f32[P, H, W, C], pixels in [0, 1].
    examples: which of the images have which targets; also classes, i32[N].
    epochs: how many (static).

  Returns:
    The state after them, and f32[steps] metrics. Traceable.
  """
  size = len(examples.inputs)
  steps = epochs * training.recipe.epoch_steps(size)
  rows, keys = training.recipe.draw(key, state.step, steps, size, examples.count)
  return advance(state, training, images, examples, rows, keys, size)


def pure_fit(
  key: jax.Array, training: Training, images: jax.Array, examples: Harvest
) -> tuple[Any, Metrics]:
  """A whole training, from the initialisation to the last step.

  Args:
    key: consumed.
    training: what to train (static).
    images: f32[P, H, W, C], pixels in [0, 1].
    examples: which of the images have which targets, such as an attacker's harvest;
      where none was answered, the variables stay as they were initialised.

  Returns:
    Flax variables, and f32[steps] metrics. Traceable.

  Raises:
    ValueError: what `start` raises, or an objective that gives no loss.
  """
  start_key, steps_key = jax.random.split(key)
  begun = start(start_key, training, images.shape[1:], len(examples.inputs))
  state, metrics = epoch(
    steps_key, begun, training, images, examples, training.recipe.epochs
  )
  answered = examples.count > 0
  variables = jax.tree.map(
    lambda new, old: jnp.where(answered, new, old), state.result, begun.variables
  )
  return variables, metrics
