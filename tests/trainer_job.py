"""A training that the tests start in processes of their own, to kill them."""

import hashlib

import jax
import numpy as np

from psml_jax import train as trainings
from psml_jax import zoo
from tests.models import Small


def train(directory, epochs):
  """Trains a small model on random images, a tenth of a second an epoch."""
  rng = np.random.default_rng(0)
  images = rng.random((800, 16, 16, 3)).astype(np.float32)
  labels = rng.integers(0, 3, 800).astype(np.int32)
  trained = zoo.fit(
    jax.random.key(0),
    Small(num_classes=3, width=8),
    images,
    labels,
    num_classes=3,
    recipe=trainings.Epochs(
      epochs=epochs, batch_size=8, learning_rate=0.05, crop_padding=1, ema_decay=0.9
    ),
    directory=directory,
  )
  return trained.variables


def digest(variables):
  """A hash of all bits."""
  content = b''.join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(variables))
  return hashlib.sha256(content).hexdigest()
