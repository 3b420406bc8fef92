"""FixMatch: sure labels of weakly augmented images teach strongly augmented ones."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from psml_jax import _validate
from psml_jax.train.augmentation import strong
from psml_jax.train.objectives import (
  OBJECTIVES,
  Aux,
  Batch,
  Learner,
  cross_entropy,
  learned,
  probabilities,
  right,
)


@dataclasses.dataclass(frozen=True)
class FixMatch:
  """Supervised cross-entropy plus that of pseudo-labels (Sohn et al. 2020).

  `H(target, p(x)) + weight * mean_u 1[max q_u >= threshold] H(q_u, p(strong(v)))`, with
  q_u the model's own answer to u as the recipe augments it, through which no gradient
  flows; its class alone counts, or with `soft` all of it. v is u augmented so again.

  Attributes:
    unlabelled: images without an answer for each with one.
    threshold: of a label's probability, in [0, 1).
    weight: of the images without answers.
    soft: whether pseudo-labels stay probabilities.
    temperature: of the answers that are learned, as in `objectives.learned`.
    hard: likewise.

  Raises:
    ValueError: a number outside its range.
  """

  unlabelled: int = 7
  threshold: float = 0.95
  weight: float = 1.0
  soft: bool = False
  temperature: float = 1.0
  hard: bool = False

  def __post_init__(self) -> None:
    _validate.positive_int('unlabelled', self.unlabelled)
    _validate.share('threshold', self.threshold)
    _validate.positive('weight', self.weight)
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
    assert unlabelled is not None
    weak_key, strong_key, guess_key, apply_key, again_key = jax.random.split(key, 5)
    guess, _ = learner.apply(
      jax.lax.stop_gradient(params),
      rest,
      learner.augment(weak_key, unlabelled),
      guess_key,
    )
    guess = jax.nn.softmax(jax.lax.stop_gradient(guess))
    confident = guess.max(-1) >= self.threshold
    if not self.soft:
      guess = probabilities(guess.argmax(-1), guess.shape[-1])
    again = strong(strong_key, learner.augment(again_key, unlabelled))
    shown = jnp.concatenate([labelled.images, again])
    logits, rest = learner.apply(params, rest, shown, apply_key)
    answered, others = logits[: len(labelled.images)], logits[len(labelled.images) :]
    wanted = learned(
      labelled.targets, logits.shape[-1], temperature=self.temperature, hard=self.hard
    )
    consistency = jnp.mean(jnp.where(confident, cross_entropy(others, guess), 0.0))
    loss = jnp.mean(cross_entropy(answered, wanted)) + self.weight * consistency
    return loss, Aux(rest, right(answered, wanted))


OBJECTIVES.register('fixmatch', FixMatch)
