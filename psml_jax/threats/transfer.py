"""Adversarial examples that are made on the surrogate and sent to the server."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from psml_jax import _validate


def pgd(
  key: jax.Array,
  logits_of: Callable[[jax.Array], jax.Array],
  images: jax.Array,
  labels: jax.Array,
  *,
  epsilon: float,
  steps: int = 20,
  step_size: float | None = None,
) -> jax.Array:
  """Projected gradient ascent on the loss within a cube (Madry et al. 2018).

  Args:
    key: of the random start; consumed.
    logits_of: `images -> f32[N, K]`, the surrogate.
    images: f32[N, H, W, C], pixels in [0, 1].
    labels: i32[N], the classes to be missed.
    epsilon: how far a pixel may move.
    steps: of the ascent (static).
    step_size: of a pixel; 2.5 epsilon / steps unless given.

  Returns:
    f32[N, H, W, C], pixels in [0, 1], at most epsilon from the images. Traceable.

  Raises:
    ValueError: an epsilon or step size that is not finite and > 0, or no whole number
      of steps >= 1.

  >>> images, labels = jnp.full((1, 1, 1, 2), 0.5), jnp.array([0])
  >>> found = pgd(
  ...   jax.random.key(0), lambda x: x[:, 0, 0], images, labels, epsilon=0.25)
  >>> found.ravel().tolist()
  [0.25, 0.75]
  """
  _validate.positive('epsilon', epsilon)
  _validate.positive_int('steps', steps)
  size = 2.5 * epsilon / steps if step_size is None else step_size
  _validate.positive('step_size', size)

  def loss(shown: jax.Array) -> jax.Array:
    each = optax.softmax_cross_entropy_with_integer_labels(logits_of(shown), labels)
    return jnp.sum(each)

  def project(shown: jax.Array) -> jax.Array:
    return jnp.clip(jnp.clip(shown, images - epsilon, images + epsilon), 0, 1)

  def step(_: int, shown: jax.Array) -> jax.Array:
    return project(shown + size * jnp.sign(jax.grad(loss)(shown)))

  start = jax.random.uniform(key, images.shape, minval=-epsilon, maxval=epsilon)
  return jax.lax.fori_loop(0, steps, step, project(images + start))


def transfer_rate(before: ArrayLike, after: ArrayLike, labels: ArrayLike) -> jax.Array:
  """The share of images rightly classified before that are not any more.

  Args:
    before: i32[..., N], classes that came back for the images; -1 for no answer.
    after: i32[..., N], for what was made of them.
    labels: i32[N], true classes.

  Returns:
    f32[...], of the images answered both times and right at first; NaN of none.

  >>> float(transfer_rate([1, 1, 0, -1], [1, 2, 2, 2], [1, 1, 1, 1]))
  0.5
  """
  before, after, labels = map(jnp.asarray, (before, after, labels))
  labels = jnp.broadcast_to(labels, before.shape)
  counted = (before == labels) & (after >= 0)
  fooled = counted & (after != labels)
  total = jnp.sum(counted, axis=-1, dtype=jnp.float32)
  return jnp.sum(fooled, axis=-1, dtype=jnp.float32) / total
