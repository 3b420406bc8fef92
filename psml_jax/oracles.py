"""The black box: how queries reach the zoo and what comes back.

A `Server` is the operator's side and returns a `Transcript` of ground truth beside
each `Observation`; an `Oracle` is the same server as a client sees it.
"""

import time
from collections.abc import Callable, Sequence

import chex
import jax
import jax.numpy as jnp
import numpy as np

from psml_jax import _validate
from psml_jax.core import Observation, Oracle, Router, Server, Spec, Transcript


def table(router: Router, latency_ms: jax.Array, outputs: jax.Array) -> Server:
  """A server over a table of every model's answer to every image.

  Pure, so that whole populations of attacks run under jit and vmap.

  Args:
    router: the router, with its defense if it has one.
    latency_ms: f32[M], what a client measures when model m answers.
    outputs: f32[M, N, K], class probabilities of model m for image n.

  Returns:
    `(key, inputs, spec, sent) -> (Observation, Transcript)`: inputs i32[...] are
    image indices, sent bool[...] tells which queries of the batch exist; all four
    have the spec's shape. The key is consumed; query i's route depends on the key
    and i alone. Traced, a query with an index past the images, or routed to a model
    past the table, is refused.

  Raises:
    ValueError: arrays that do not fit each other; from the server, a concrete index
      past the images, or a route to a model past the table.
  """
  latency_ms, outputs = jnp.asarray(latency_ms), jnp.asarray(outputs)
  if outputs.ndim != 3 or latency_ms.shape != outputs.shape[:1]:
    raise ValueError(
      f'latency_ms has shape {latency_ms.shape} and outputs {outputs.shape}; they must '
      'be [M] and [M, N, K]'
    )
  num_models, num_images, _ = outputs.shape

  def serve(
    key: jax.Array, inputs: jax.Array, spec: Spec, sent: jax.Array
  ) -> tuple[Observation, Transcript]:
    chex.assert_equal_shape([inputs, spec.min_accuracy, spec.max_latency_ms, sent])
    known = (inputs >= 0) & (inputs < num_images)
    if _validate.is_concrete(known, sent):
      _validate.reject(
        'inputs',
        np.asarray(inputs),
        np.asarray(sent & ~known),
        f'image indices in [0, {num_images - 1}]',
      )
    model = jnp.where(sent & known, router(key, spec).model, -1)
    _check_models(model, num_models)
    model = jnp.where(model < num_models, model, -1)
    served = model >= 0
    answering = jnp.maximum(model, 0)
    observation = Observation(
      served=served,
      outputs=jnp.where(served[..., None], outputs[answering, inputs], 0),
      latency_ms=jnp.where(served, latency_ms[answering], 0),
    )
    return observation, Transcript(model, sent)

  return serve


def live(
  router: Router, models: Sequence[Callable[[jax.Array], jax.Array]], num_classes: int
) -> Server:
  """A server that runs the chosen model and measures its latency.

  Args:
    router: the router, with its defense if it has one.
    models: one callable a model of the zoo, `f32[1, H, W, C] -> f32[1, K]` images
      to class probabilities; compile them and call them once before.
    num_classes: K.

  Returns:
    `(key, inputs, spec, sent) -> (Observation, Transcript)` for one query at a
    time: inputs f32[H, W, C], spec and sent of shape []. It measures wall-clock
    time, so it is not pure and cannot be traced.

  Raises:
    ValueError: no models; from the server, a route to a model that is not there.
  """
  if not models:
    raise ValueError('models is empty; a server needs at least one model')

  def serve(
    key: jax.Array, inputs: jax.Array, spec: Spec, sent: jax.Array
  ) -> tuple[Observation, Transcript]:
    model = int(router(key, spec).model) if bool(sent) else -1
    _check_models(np.asarray(model), len(models))
    outputs, latency_ms = np.zeros(num_classes, np.float32), 0.0
    if model >= 0:
      start = time.perf_counter()
      outputs = np.asarray(models[model](inputs[None]))[0]
      latency_ms = (time.perf_counter() - start) * 1e3
    observation = Observation(
      jnp.asarray(model >= 0), jnp.asarray(outputs), jnp.float32(latency_ms)
    )
    return observation, Transcript(jnp.int32(model), jnp.asarray(sent))

  return serve


def client(server: Server) -> Oracle:
  """The server as a client sees it: every query is sent, no ground truth returns.

  Args:
    server: the operator's side.

  Returns:
    `(key, inputs, spec) -> Observation`; the key is consumed.
  """

  def ask(key: jax.Array, inputs: jax.Array, spec: Spec) -> Observation:
    observation, _ = server(key, inputs, spec, jnp.ones(spec.min_accuracy.shape, bool))
    return observation

  return ask


def _check_models(model: jax.Array | np.ndarray, num_models: int) -> None:
  if _validate.is_concrete(model):
    _validate.reject(
      'the route',
      np.asarray(model),
      np.asarray(model) >= num_models,
      f"a model below the server's {num_models}; router and server are of other zoos",
    )
