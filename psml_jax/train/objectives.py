"""Objectives: what a training minimises, as values; a registry of them by name."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax

from psml_jax import _registry, _validate
from psml_jax.train import contract


class Learner(NamedTuple):
  """What an objective may do with the model that is trained.

  Attributes:
    apply: `(params, rest, images, key) -> (logits, rest)`, as in training: `rest` are
      the collections beside the parameters, such as BatchNorm's statistics, and the
      key is dropout's.
    augment: `(key, images) -> images`, by the recipe.
  """

  apply: Callable[[Any, Any, jax.Array, jax.Array], tuple[jax.Array, Any]]
  augment: Callable[[jax.Array, jax.Array], jax.Array]


class Batch(NamedTuple):
  """Labelled images of one step.

  Attributes:
    images: f32[B, H, W, C], augmented.
    targets: i32[B] classes, or f32[B, K] probabilities.
  """

  images: jax.Array
  targets: jax.Array


class Aux(NamedTuple):
  """What an objective gives beside the loss.

  Attributes:
    rest: the collections beside the parameters, after the step.
    accuracy: f32[], of the labelled images, a fraction.
  """

  rest: Any
  accuracy: jax.Array


class Objective(Protocol):
  """A loss; hashable, so static under jit.

  Attributes:
    unlabelled: images without an answer that go into a step for each with one.
  """

  @property
  def unlabelled(self) -> int: ...

  def __call__(
    self,
    learner: Learner,
    params: Any,
    rest: Any,
    labelled: Batch,
    unlabelled: jax.Array | None,
    key: jax.Array,
  ) -> tuple[jax.Array, Aux]:
    """The loss, f32[], to be differentiated by `params`.

    Args:
      learner: the model.
      params: its parameters.
      rest: its other collections.
      labelled: B images.
      unlabelled: f32[unlabelled * B, H, W, C], not augmented; None where none is asked
        for.
      key: consumed.
    """
    ...


OBJECTIVES: _registry.Registry[Callable[..., Objective]] = _registry.Registry(
  'objective'
)
"""`(**fields) -> Objective` by the names that configs give them."""


def make(name: str, **fields: Any) -> Objective:
  """An objective of the registry; lists and arrays among its fields become tuples.

  Raises:
    ValueError: an unknown name or field, a value that is not allowed, or a registered
      objective that cannot be trained on.

  >>> make('cross_entropy', label_smoothing=0.1)
  CrossEntropy(label_smoothing=0.1, temperature=1.0, hard=False)
  """
  entry = OBJECTIVES.find(name)
  _registry.check_fields(f'objective {name!r}', entry, 0, fields)
  values = {field: contract.hashable(value) for field, value in fields.items()}
  made = entry(**values)
  contract.check_objective(f'objective {name!r}', made)
  return made


def probabilities(targets: jax.Array, num_classes: int) -> jax.Array:
  """Targets of either kind as f32[B, K]."""
  if targets.ndim == 2:
    return targets
  return jax.nn.one_hot(targets, num_classes, dtype=jnp.float32)


def cross_entropy(logits: jax.Array, targets: jax.Array) -> jax.Array:
  """`-sum_k target_k log p_k` of each image, f32[B]."""
  return -jnp.sum(targets * jax.nn.log_softmax(logits), axis=-1)


def right(logits: jax.Array, targets: jax.Array) -> jax.Array:
  """The share of images whose likeliest class is the target's, f32[]."""
  return jnp.mean(logits.argmax(-1) == targets.argmax(-1), dtype=jnp.float32)


def sharpened(targets: jax.Array, temperature: float) -> jax.Array:
  """`target ** (1 / temperature)` of each class, scaled to the target's sum."""
  powers = targets ** (1 / temperature)
  sums = jnp.sum(powers, axis=-1, keepdims=True)
  return powers * jnp.sum(targets, axis=-1, keepdims=True) / jnp.maximum(sums, 1e-12)


def learned(
  targets: jax.Array, num_classes: int, *, temperature: float = 1.0, hard: bool = False
) -> jax.Array:
  """What is learned of answers: all of each, softened or sharpened, or its class.

  Args:
    targets: i32[B] classes, or f32[B, K] probabilities times the weight of each image.
    num_classes: K.
    temperature: targets are raised to the power of its inverse and normalised: below 1
      it sharpens answers, above 1 it softens them.
    hard: whether the likeliest class alone is learned, whatever the temperature.

  Returns:
    f32[B, K], of the same sums.

  >>> learned(jnp.array([[0.2, 0.8]]), 2, hard=True).tolist()
  [[0.0, 1.0]]
  """
  wanted = probabilities(targets, num_classes)
  if hard:
    weight = jnp.sum(wanted, axis=-1, keepdims=True)
    return weight * probabilities(wanted.argmax(-1), num_classes)
  return wanted if temperature == 1 else sharpened(wanted, temperature)


@dataclasses.dataclass(frozen=True)
class CrossEntropy:
  """The cross-entropy `-sum_k target_k log p_k`, averaged over the minibatch.

  Attributes:
    label_smoothing: share of a target spread over all classes, in [0, 1).
    temperature: as in `learned`.
    hard: likewise.

  Raises:
    ValueError: a number outside its range.
  """

  label_smoothing: float = 0.0
  temperature: float = 1.0
  hard: bool = False

  unlabelled = 0

  def __post_init__(self) -> None:
    _validate.share('label_smoothing', self.label_smoothing)
    _validate.positive('temperature', self.temperature)

  def __call__(
    self,
    learner: Learner,
    params: Any,
    rest: Any,
    labelled: Batch,
    unlabelled: jax.Array | None,
    key: jax.Array,
  ) -> tuple[jax.Array, Aux]:
    del unlabelled
    logits, rest = learner.apply(params, rest, labelled.images, key)
    wanted = learned(
      labelled.targets, logits.shape[-1], temperature=self.temperature, hard=self.hard
    )
    accuracy = right(logits, wanted)
    wanted = optax.smooth_labels(wanted, self.label_smoothing)
    return jnp.mean(cross_entropy(logits, wanted)), Aux(rest, accuracy)


OBJECTIVES.register('cross_entropy', CrossEntropy)
CROSS_ENTROPY = CrossEntropy()
