"""The published way to train the zoo: SGD over epochs of augmented images."""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax import struct

from psml_jax import _validate, training


@dataclasses.dataclass(frozen=True)
class Recipe:
  """Settings of a training; hashable, so static under jit.

  SGD with Nesterov momentum on the cross-entropy, the learning rate rising linearly
  over the first epochs and falling to zero along a cosine.

  Attributes:
    epochs: passes over the images, each in a new order; the last incomplete
      minibatch of a pass is left out.
    batch_size: images in a minibatch.
    learning_rate: its peak.
    momentum: of Nesterov's method, in [0, 1).
    weight_decay: added to the gradient of every kernel, not of biases and norms.
    warmup_epochs: in which the rate rises.
    label_smoothing: share of a target spread over all classes, in [0, 1).
    ema_decay: of the exponential moving average that is kept as the result, in
      [0, 1); 0 keeps the last variables.
    accumulate: parts that a minibatch is divided into, one after the other, to save
      memory; BatchNorm sees a part at a time.
    crop_padding: black pixels around an image before a random crop of its size.
    flip: whether half of the images are mirrored.

  Raises:
    ValueError: a number outside its range.
  """

  epochs: int
  batch_size: int = 128
  learning_rate: float = 0.1
  momentum: float = 0.9
  weight_decay: float = 5e-4
  warmup_epochs: float = 1.0
  label_smoothing: float = 0.0
  ema_decay: float = 0.0
  accumulate: int = 1
  crop_padding: int = 4
  flip: bool = True

  def __post_init__(self) -> None:
    for name in ('epochs', 'batch_size', 'accumulate'):
      _validate.positive_int(name, getattr(self, name))
    _validate.positive('learning_rate', self.learning_rate)
    for name in ('weight_decay', 'warmup_epochs'):
      _validate.scale(name, getattr(self, name))
    for name in ('momentum', 'label_smoothing', 'ema_decay'):
      if not 0 <= getattr(self, name) < 1:
        raise ValueError(f'{name} is {getattr(self, name)}; it must be in [0, 1)')
    if self.crop_padding:
      _validate.positive_int('crop_padding', self.crop_padding)
    if self.batch_size % self.accumulate:
      raise ValueError(
        f'accumulate is {self.accumulate}; it must divide batch_size {self.batch_size}'
      )


@struct.dataclass
class TrainState:
  """A training between two epochs.

  Attributes:
    step: i32[], minibatches done.
    variables: Flax variables.
    moments: the optimiser's state.
    average: the moving average of the variables; the last ones where there is none.
  """

  step: jax.Array
  variables: Any
  moments: optax.OptState
  average: Any


@struct.dataclass
class Metrics:
  """What an epoch, or a part of one, did.

  Attributes:
    loss: f32[], mean over its minibatches.
    accuracy: f32[], of the augmented images when they were trained on, a fraction.
  """

  loss: jax.Array
  accuracy: jax.Array


def start(
  key: jax.Array,
  module: nn.Module,
  image_shape: tuple[int, ...],
  recipe: Recipe,
  steps_per_epoch: int,
) -> TrainState:
  """Initialises variables and optimiser.

  Args:
    key: consumed.
    module: maps (f32[N, H, W, C], train=...) to f32[N, K] logits.
    image_shape: (H, W, C).
    recipe: the settings.
    steps_per_epoch: minibatches in an epoch.

  Returns:
    The state before the first epoch. Traceable.
  """
  variables = module.init(key, jnp.zeros((1, *image_shape), jnp.float32))
  moments = _optimiser(recipe, steps_per_epoch).init(variables['params'])
  average = jax.tree.map(jnp.copy, variables) if recipe.ema_decay else ()
  return TrainState(jnp.int32(0), variables, moments, average)


def epoch(
  key: jax.Array,
  state: TrainState,
  module: nn.Module,
  images: jax.Array,
  labels: jax.Array,
  recipe: Recipe,
) -> tuple[TrainState, Metrics]:
  """Trains for one pass over the images, in one loop.

  Args:
    key: the training's, the same in every epoch; the order of epoch e and the
      augmentation of step s come from `fold_in` of its halves with e and s.
    state: from `start` or an earlier epoch.
    module: the model.
    images: f32[N, H, W, C], pixels in [0, 1], N >= `recipe.batch_size`.
    labels: i32[N].
    recipe: the settings (static).

  Returns:
    The state after the epoch, and its metrics. Traceable.
  """
  steps = len(images) // recipe.batch_size
  rows = order(key, state.step // steps, len(images), recipe)
  return advance(key, state, module, images, labels, rows, recipe, steps)


def order(
  key: jax.Array, epoch: jax.Array, num_images: int, recipe: Recipe
) -> jax.Array:
  """The images of every minibatch of an epoch.

  Args:
    key: the training's, as in `epoch`.
    epoch: i32[], from 0.
    num_images: N (static).
    recipe: the settings (static).

  Returns:
    i32[N // batch_size, batch_size], indices of images, all different. Traceable.
  """
  order_key, _ = jax.random.split(key)
  steps = num_images // recipe.batch_size
  shuffled = jax.random.permutation(jax.random.fold_in(order_key, epoch), num_images)
  return shuffled[: steps * recipe.batch_size].reshape(steps, recipe.batch_size)


def advance(
  key: jax.Array,
  state: TrainState,
  module: nn.Module,
  images: jax.Array,
  labels: jax.Array,
  rows: jax.Array,
  recipe: Recipe,
  steps_per_epoch: int,
) -> tuple[TrainState, Metrics]:
  """Trains for some minibatches of an epoch, in one loop.

  Args:
    key: the training's, as in `epoch`.
    state: before them.
    module: the model.
    images: f32[N, H, W, C], pixels in [0, 1].
    labels: i32[N].
    rows: i32[S, batch_size], which images make each of the S minibatches.
    recipe: the settings (static).
    steps_per_epoch: minibatches in a whole epoch (static).

  Returns:
    The state after them, and their metrics. Traceable.
  """
  optimiser = _optimiser(recipe, steps_per_epoch)
  _, step_key = jax.random.split(key)

  def loss(
    params: Any, stats: Any, images: jax.Array, labels: jax.Array, key: jax.Array
  ) -> tuple[jax.Array, tuple[Any, jax.Array]]:
    logits, stats = training.apply(module, params, stats, images, key)
    target = jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype)
    target = optax.smooth_labels(target, recipe.label_smoothing)
    value = optax.softmax_cross_entropy(logits, target).mean()
    right = logits.argmax(-1) == labels
    return value, (stats, jnp.mean(right, dtype=jnp.float32))

  def part(
    carry: tuple[Any, Any, jax.Array], rows: jax.Array, params: Any
  ) -> tuple[tuple[Any, Any, jax.Array], tuple[jax.Array, jax.Array]]:
    total, stats, key = carry
    key, crop_key, dropout_key = jax.random.split(key, 3)
    batch = augment(
      crop_key, images[rows], padding=recipe.crop_padding, flip=recipe.flip
    )
    (value, (stats, accuracy)), gradient = jax.value_and_grad(loss, has_aux=True)(
      params, stats, batch, labels[rows], dropout_key
    )
    return (jax.tree.map(jnp.add, total, gradient), stats, key), (value, accuracy)

  def step(
    state: TrainState, rows: jax.Array
  ) -> tuple[TrainState, tuple[jax.Array, jax.Array]]:
    params, stats = training.split(state.variables)
    carry = (
      jax.tree.map(jnp.zeros_like, params),
      stats,
      jax.random.fold_in(step_key, state.step),
    )
    (total, stats, _), (losses, accuracies) = jax.lax.scan(
      lambda carry, rows: part(carry, rows, params),
      carry,
      rows.reshape(recipe.accumulate, -1),
    )
    gradient = jax.tree.map(lambda g: g / recipe.accumulate, total)
    updates, moments = optimiser.update(gradient, state.moments, params)
    variables = {'params': optax.apply_updates(params, updates), **stats}
    average = state.average
    if recipe.ema_decay:
      done = state.step.astype(jnp.float32)
      decay = jnp.minimum(recipe.ema_decay, (1 + done) / (10 + done))
      average = optax.incremental_update(variables, average, 1 - decay)
    state = TrainState(state.step + 1, variables, moments, average)
    return state, (losses.mean(), accuracies.mean())

  state, (losses, accuracies) = jax.lax.scan(step, state, rows)
  return state, Metrics(losses.mean(), accuracies.mean())


def over_members(key: jax.Array, function: Callable[..., Any], *states: Any) -> Any:
  """Applies a function of one training to it, or to every member of a population.

  Args:
    key: the training's, or the members', shape [P].
    function: of a member's key and states.
    *states: pytrees; with a leading axis P for a population.

  Returns:
    The function's result, with a leading axis P for a population. Traceable.
  """
  if not key.ndim:
    return function(key, *states)
  width = 1 if jax.default_backend() == 'cpu' else key.size
  rows = (key, *states)
  return training.over_population(lambda row: function(*row), rows, width=width)


def result(state: TrainState, recipe: Recipe) -> Any:
  """The variables that a training leaves: the average where one is kept."""
  return state.average if recipe.ema_decay else state.variables


def augment(
  key: jax.Array, images: jax.Array, *, padding: int, flip: bool
) -> jax.Array:
  """Crops images at random out of a black frame and mirrors half of them.

  Args:
    key: consumed.
    images: f32[N, H, W, C].
    padding: width of the frame, in pixels.
    flip: whether to mirror.

  Returns:
    f32[N, H, W, C].
  """
  crop_key, flip_key = jax.random.split(key)
  if padding:
    frame = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    corners = jax.random.randint(crop_key, (len(images), 2), 0, 2 * padding + 1)
    crop = jax.vmap(
      lambda image, corner: jax.lax.dynamic_slice(
        image, (corner[0], corner[1], 0), images.shape[1:]
      )
    )
    images = crop(jnp.pad(images, frame), corners)
  if flip:
    mirrored = jax.random.bernoulli(flip_key, shape=(len(images), 1, 1, 1))
    images = jnp.where(mirrored, images[:, :, ::-1], images)
  return images


def _optimiser(recipe: Recipe, steps_per_epoch: int) -> optax.GradientTransformation:
  total = recipe.epochs * steps_per_epoch
  warm_up = min(round(recipe.warmup_epochs * steps_per_epoch), total - 1)
  schedule = optax.warmup_cosine_decay_schedule(
    0.0 if warm_up else recipe.learning_rate, recipe.learning_rate, warm_up, total
  )
  return optax.chain(
    optax.add_decayed_weights(
      recipe.weight_decay,
      mask=lambda params: jax.tree_util.tree_map_with_path(
        lambda path, _: path[-1].key == 'kernel', params
      ),
    ),
    optax.sgd(
      lambda step: schedule(step.astype(jnp.float32)),
      momentum=recipe.momentum,
      nesterov=True,
    ),
  )
