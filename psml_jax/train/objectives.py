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
  CrossEntropy(label_smoothing=0.1)
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


@dataclasses.dataclass(frozen=True)
class CrossEntropy:
  """The cross-entropy `-sum_k target_k log p_k`, averaged over the minibatch.

  Attributes:
    label_smoothing: share of a target spread over all classes, in [0, 1).

  Raises:
    ValueError: a share outside its range.
  """

  label_smoothing: float = 0.0

  unlabelled = 0

  def __post_init__(self) -> None:
    _validate.share('label_smoothing', self.label_smoothing)

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
    wanted = probabilities(labelled.targets, logits.shape[-1])
    right = logits.argmax(-1) == wanted.argmax(-1)
    wanted = optax.smooth_labels(wanted, self.label_smoothing)
    loss = -jnp.mean(jnp.sum(wanted * jax.nn.log_softmax(logits), axis=-1))
    return loss, Aux(rest, jnp.mean(right, dtype=jnp.float32))


OBJECTIVES.register('cross_entropy', CrossEntropy)
CROSS_ENTROPY = CrossEntropy()
