"""MixMatch: sharpened guesses, and everything mixed with everything."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from psml_jax import _validate
from psml_jax.train.objectives import (
  OBJECTIVES,
  Aux,
  Batch,
  Learner,
  cross_entropy,
  learned,
  right,
  sharpened,
)


@dataclasses.dataclass(frozen=True)
class MixMatch:
  """Berthelot et al. 2019, as Jagielski et al. 2020 extract with it.

  An image without an answer is guessed as the mean of the model's answers to its
  augmented copies, sharpened: `q ** (1 / temperature)`, normalised. Each image and its
  target is mixed with one drawn at random from all, `l x + (1 - l) x'`, where l is the
  larger of a Beta(mixing, mixing) draw and the rest of it. The loss is the
  cross-entropy of the answered and `weight` times the squared error of the others, its
  mean over classes.

  Attributes:
    unlabelled: images without an answer for each with one.
    copies: of each, for its guess.
    temperature: of the guess.
    mixing: the Beta distribution's parameter.
    weight: of the images without answers, from the first step; Berthelot et al. raise
      theirs over 16,000 steps.
    hard: whether of an answer its likeliest class alone is learned.

  Raises:
    ValueError: a number that is not positive.
  """

  unlabelled: int = 1
  copies: int = 2
  temperature: float = 0.5
  mixing: float = 0.75
  weight: float = 25.0
  hard: bool = False

  def __post_init__(self) -> None:
    for name in ('unlabelled', 'copies'):
      _validate.positive_int(name, getattr(self, name))
    for name in ('temperature', 'mixing', 'weight'):
      _validate.positive(name, getattr(self, name))

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
    keys = jax.random.split(key, 5)
    copies = jnp.concatenate([unlabelled] * self.copies)
    copies = learner.augment(keys[0], copies)
    guess, _ = learner.apply(jax.lax.stop_gradient(params), rest, copies, keys[1])
    guess = jax.nn.softmax(jax.lax.stop_gradient(guess))
    guess = jnp.mean(guess.reshape(self.copies, len(unlabelled), -1), axis=0)
    guess = sharpened(guess, self.temperature)
    images = jnp.concatenate([labelled.images, copies])
    wanted = learned(labelled.targets, guess.shape[-1], hard=self.hard)
    certain = jnp.sum(wanted, axis=-1)  # 1, but for answers that are weighed.
    wanted = jnp.where(certain[:, None] > 0, wanted, 1.0)
    wanted /= jnp.sum(wanted, axis=-1, keepdims=True)
    targets = jnp.concatenate([wanted, *[guess] * self.copies])
    share = jax.random.beta(keys[2], self.mixing, self.mixing, (len(images), 1))
    share = jnp.maximum(share, 1 - share)
    other = jax.random.permutation(keys[3], len(images))

    def mixed(x: jax.Array) -> jax.Array:
      by = share.reshape((-1,) + (1,) * (x.ndim - 1))
      return by * x + (1 - by) * x[other]

    logits, rest = learner.apply(params, rest, mixed(images), keys[4])
    targets, size = mixed(targets), len(labelled.images)
    error = jax.nn.softmax(logits[size:]) - targets[size:]
    loss = jnp.mean(certain * cross_entropy(logits[:size], targets[:size]))
    loss += self.weight * jnp.mean(error**2)
    return loss, Aux(rest, right(logits[:size], targets[:size]))


OBJECTIVES.register('mixmatch', MixMatch)
