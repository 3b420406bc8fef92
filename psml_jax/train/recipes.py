"""Recipes: how a model is trained, as values.

A recipe draws the minibatches, augments them and brings the optimiser; what is
minimised is the objective's. `Steps` draws with replacement, `Epochs` passes over all.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax

from psml_jax import _validate
from psml_jax.train.augmentation import augment


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
  """What all recipes have; hashable, so static under jit.

  Attributes:
    batch_size: images in a minibatch.
    learning_rate: its peak.
    weight_decay: of the optimiser.
    ema_decay: of the exponential moving average that is kept as the result, in
      [0, 1); 0 keeps the last variables.
    accumulate: parts that a minibatch is divided into, one after the other, to save
      memory; BatchNorm sees a part at a time.
    crop_padding: black pixels around an image before a random crop of its size.
    flip: whether half of the images are mirrored.
    rotation_degrees: images are turned by angles up to this, either way.

  Raises:
    ValueError: a number outside its range.
  """

  batch_size: int
  learning_rate: float
  weight_decay: float = 0.0
  ema_decay: float = 0.0
  accumulate: int = 1
  crop_padding: int = 0
  flip: bool = False
  rotation_degrees: float = 0.0

  def __post_init__(self) -> None:
    for name in ('batch_size', 'accumulate'):
      _validate.positive_int(name, getattr(self, name))
    _validate.positive('learning_rate', self.learning_rate)
    _validate.non_negative_number('weight_decay', self.weight_decay)
    _validate.share('ema_decay', self.ema_decay)
    _validate.non_negative_int('crop_padding', self.crop_padding)
    _validate.non_negative_number('rotation_degrees', self.rotation_degrees)
    if not isinstance(self.flip, (bool, np.bool_)):
      raise ValueError(f'flip is {self.flip!r}; it must be True or False')
    if self.batch_size % self.accumulate:
      raise ValueError(
        f'accumulate is {self.accumulate}; it must divide batch_size {self.batch_size}'
      )

  def augment(self, key: jax.Array, images: jax.Array) -> jax.Array:
    """The images as they are trained on, f32[N, H, W, C]; consumes the key."""
    return augment(
      key,
      images,
      padding=self.crop_padding,
      flip=self.flip,
      rotation_degrees=self.rotation_degrees,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Steps(Recipe):
  """AdamW on minibatches that are drawn with replacement.

  A linear warm-up over the first twentieth of the steps, then a cosine to zero. Weight
  decay is decoupled, of every parameter.

  Attributes:
    steps: minibatches.
    epochs: equal parts of the training, after each of which it is measured and may be
      saved; a divisor of `steps`.
  """

  steps: int
  epochs: int = 1

  def __post_init__(self) -> None:
    super().__post_init__()
    _validate.positive_int('steps', self.steps)
    _validate.positive_int('epochs', self.epochs)
    if self.steps % self.epochs:
      raise ValueError(f'epochs is {self.epochs}; it must divide steps {self.steps}')

  def epoch_steps(self, num_examples: int) -> int:
    """Minibatches in an epoch, of any number of examples."""
    del num_examples
    return self.steps // self.epochs

  def draw(
    self, key: jax.Array, first: jax.Array, steps: int, size: int, count: jax.Array
  ) -> tuple[jax.Array, jax.Array]:
    """The examples of some minibatches, and a key for each.

    Args:
      key: the training's, the same in every call.
      first: i32[], the first step, from 0.
      steps: S (static), how many.
      size: N (static), examples, padding among them.
      count: i32[], how many leading examples to draw from; 0 acts as 1.

    Returns:
      i32[S, batch_size], and keys [S]. Traceable.
    """
    del size

    def one(step: jax.Array) -> tuple[jax.Array, jax.Array]:
      draw_key, step_key = jax.random.split(jax.random.fold_in(key, step))
      most = jnp.maximum(count, 1)
      return jax.random.randint(draw_key, (self.batch_size,), 0, most), step_key

    return jax.vmap(one)(first + jnp.arange(steps, dtype=jnp.int32))

  def optimiser(self, num_examples: int) -> optax.GradientTransformation:
    """The optimiser of the whole training."""
    del num_examples
    warm_up = max(1, self.steps // 20)
    schedule = optax.warmup_cosine_decay_schedule(
      0.0, self.learning_rate, warm_up, max(self.steps, warm_up + 1)
    )
    return optax.adamw(schedule, weight_decay=self.weight_decay)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Epochs(Recipe):
  """SGD with Nesterov momentum over epochs of augmented images, as published for CIFAR.

  The learning rate rises linearly over the first epochs and falls to zero along a
  cosine. Weight decay is added to the gradient of every kernel, not of biases or norms.

  Attributes:
    epochs: passes over the images, each in a new order; the last incomplete minibatch
      of a pass is left out.
    momentum: of Nesterov's method, in [0, 1).
    warmup_epochs: in which the rate rises.
  """

  epochs: int
  batch_size: int = 128
  learning_rate: float = 0.1
  weight_decay: float = 5e-4
  crop_padding: int = 4
  flip: bool = True
  momentum: float = 0.9
  warmup_epochs: float = 1.0

  def __post_init__(self) -> None:
    super().__post_init__()
    _validate.positive_int('epochs', self.epochs)
    _validate.non_negative_number('warmup_epochs', self.warmup_epochs)
    _validate.share('momentum', self.momentum)

  def epoch_steps(self, num_examples: int) -> int:
    """Minibatches in an epoch of so many examples."""
    return num_examples // self.batch_size

  def draw(
    self, key: jax.Array, first: jax.Array, steps: int, size: int, count: jax.Array
  ) -> tuple[jax.Array, jax.Array]:
    """As `Steps.draw`, of whole epochs; examples fewer than `size` are repeated."""
    order_key, step_key = jax.random.split(key)
    per_epoch = self.epoch_steps(size)

    def order(epoch: jax.Array) -> jax.Array:
      shuffled = jax.random.permutation(jax.random.fold_in(order_key, epoch), size)
      valid = shuffled[jnp.argsort(shuffled >= count, stable=True)]
      place = jnp.arange(per_epoch * self.batch_size) % jnp.maximum(count, 1)
      return valid[place].reshape(per_epoch, self.batch_size)

    epochs = first // per_epoch + jnp.arange(steps // per_epoch, dtype=jnp.int32)
    rows = jax.vmap(order)(epochs).reshape(steps, self.batch_size)
    fold_in = jax.vmap(jax.random.fold_in, (None, 0))
    return rows, fold_in(step_key, first + jnp.arange(steps, dtype=jnp.int32))

  def optimiser(self, num_examples: int) -> optax.GradientTransformation:
    """The optimiser of the whole training."""
    per_epoch = self.epoch_steps(num_examples)
    total = self.epochs * per_epoch
    warm_up = min(round(self.warmup_epochs * per_epoch), total - 1)
    schedule = optax.warmup_cosine_decay_schedule(
      0.0 if warm_up else self.learning_rate, self.learning_rate, warm_up, total
    )
    return optax.chain(
      optax.add_decayed_weights(
        self.weight_decay,
        mask=lambda params: jax.tree_util.tree_map_with_path(
          lambda path, _: path[-1].key == 'kernel', params
        ),
      ),
      optax.sgd(
        lambda step: schedule(step.astype(jnp.float32)),
        momentum=self.momentum,
        nesterov=True,
      ),
    )
