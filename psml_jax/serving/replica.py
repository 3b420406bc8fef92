"""A replica of a model on Ray Serve."""

import gc
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from psml_jax.serving._extra import needs
from psml_jax.serving.compiled import Compiled
from psml_jax.serving.keeper import kept

with needs('serve'):
  from ray import serve


class Model:
  """A model that batches what waits for it.

  Args:
    keeper: that has it.
    name: of the model, as the keeper has it.
    image_shape: (H, W, C).
    sizes: what it is compiled for, ascending.
    wait_ms: how long a request waits for others.
  """

  def __init__(
    self,
    keeper: str,
    name: str,
    image_shape: tuple[int, ...],
    sizes: Sequence[int],
    wait_ms: float,
  ) -> None:
    dispatch_at_once()
    self._model = Compiled(kept(keeper, name), image_shape, sizes)
    batched: Any = self._batched
    batched.set_max_batch_size(sizes[-1])
    batched.set_batch_wait_timeout_s(wait_ms / 1e3)
    freeze()

  async def __call__(self, images: np.ndarray) -> np.ndarray:
    answers: np.ndarray = await self._batched(images)
    return answers

  async def ready(self) -> bool:
    """True, once it is there."""
    return True

  @serve.batch(batch_size_fn=lambda requests: sum(map(len, requests)))
  async def _batched(self, requests: list[np.ndarray]) -> list[np.ndarray]:
    answers = self._model(np.concatenate(requests) if requests[1:] else requests[0])
    return np.split(answers, np.cumsum([len(images) for images in requests])[:-1])


def dispatch_at_once() -> None:
  """Small programs run in the thread that calls them."""
  jax.config.update('jax_cpu_enable_async_dispatch', False)


def freeze() -> None:
  """What is there at the start stays, so the garbage collector need not look at it."""
  gc.collect()
  gc.freeze()
