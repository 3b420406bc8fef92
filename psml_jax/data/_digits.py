"""Handwritten digits of 8 x 8 pixels, shipped inside scikit-learn."""

import pathlib

import numpy as np

from psml_jax.data._splits import DATASETS, Entry, Images


def read(data_dir: pathlib.Path | None) -> Images:
  """The 1,797 digits; no two are the same."""
  import sklearn.datasets

  raw = sklearn.datasets.load_digits()
  return Images((raw.images / 16).astype(np.float32), raw.target, num_classes=10)


DATASETS.register('digits', Entry(read))
