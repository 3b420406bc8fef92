"""Profiling: accuracy on held-out images, and latency on the present device."""

import csv
import datetime
import pathlib
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from psml_jax import _validate
from psml_jax.core import ZooProfile
from psml_jax.zoo.model import Model, predict

_SLICE_SECONDS = 0.004


class Measured(NamedTuple):
  """A profile with what was measured around it.

  Attributes:
    profile: accuracy and median latency of every model.
    latency_p10_ms: f64[M], tenth percentile over the rounds.
    latency_p90_ms: f64[M], ninetieth.
    parameters: i64[M].
    description: device, versions, date and settings, as JSON-like values.
  """

  profile: ZooProfile
  latency_p10_ms: np.ndarray
  latency_p90_ms: np.ndarray
  parameters: np.ndarray
  description: dict[str, Any]


def measure(
  models: Mapping[str, Model],
  images: np.ndarray,
  labels: np.ndarray,
  *,
  batch_size: int,
  rounds: int,
) -> Measured:
  """Profiles a zoo.

  Every model is compiled and warmed, then all take turns for many rounds, so that
  whatever slows the machine slows them alike. In a round each runs for about four
  milliseconds and its fastest request counts: others' work only ever adds time. A
  model's latency is the median over the rounds.

  Args:
    models: the zoo, by name.
    images: f32[N, H, W, C], held out from training, N >= `batch_size`.
    labels: i32[N], true classes.
    batch_size: images in one request.
    rounds: turns of each model.

  Returns:
    The profile; latencies in milliseconds a request.

  Raises:
    ValueError: an empty zoo, fewer images than one request takes, or settings that
      are not whole numbers >= 1.
  """
  _validate.positive_int('batch_size', batch_size)
  _validate.positive_int('rounds', rounds)
  if not models:
    raise ValueError('models is empty; a zoo needs at least one model')
  if len(images) < batch_size:
    raise ValueError(
      f'images holds {len(images)}; it must hold at least the {batch_size} of a request'
    )
  device = jax.devices()[0]
  request = jax.device_put(jnp.asarray(images[:batch_size]), device)
  calls = [
    jax.jit(model.probabilities).lower(request).compile() for model in models.values()
  ]
  repeats = [max(3, int(_SLICE_SECONDS / _fastest(call, request, 5))) for call in calls]
  seconds = np.empty((rounds, len(calls)))
  for turn in tqdm(range(rounds), desc='profile', unit='round'):
    for m, (call, times) in enumerate(zip(calls, repeats, strict=True)):
      seconds[turn, m] = _fastest(call, request, times)
  low, median, high = 1e3 * np.percentile(seconds, [10, 50, 90], axis=0)
  accuracy = [
    float(np.mean(predict(model, images).argmax(-1) == labels))
    for model in models.values()
  ]
  return Measured(
    profile=ZooProfile(accuracy, median, tuple(models)),  # type: ignore[arg-type]
    latency_p10_ms=low,
    latency_p90_ms=high,
    parameters=np.array(
      [
        sum(leaf.size for leaf in jax.tree.leaves(model.variables))
        for model in models.values()
      ]
    ),
    description={
      'device': device.device_kind,
      'platform': device.platform,
      'jax': jax.__version__,
      'date': datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds'),
      'batch_size': batch_size,
      'rounds': rounds,
      'images': len(images),
    },
  )


def _fastest(call: Any, request: jax.Array, times: int) -> float:
  best = float('inf')
  for _ in range(times):
    began = time.perf_counter()
    call(request).block_until_ready()
    best = min(best, time.perf_counter() - began)
  return best


def write_profile(
  path: str | pathlib.Path, profile: ZooProfile, measured: Measured | None = None
) -> None:
  """Writes a profile as CSV: name, accuracy (fraction), latency_ms.

  Args:
    path: the file.
    profile: the zoo; every number is written so that it reads back exactly.
    measured: where given, adds the columns latency_p10_ms, latency_p90_ms and
      parameters.
  """
  columns: dict[str, list[Any]] = {
    'name': list(profile.names),
    'accuracy': np.asarray(profile.accuracy, np.float64).tolist(),
    'latency_ms': np.asarray(profile.latency_ms, np.float64).tolist(),
  }
  if measured is not None:
    columns['latency_p10_ms'] = measured.latency_p10_ms.tolist()
    columns['latency_p90_ms'] = measured.latency_p90_ms.tolist()
    columns['parameters'] = measured.parameters.tolist()
  with open(path, 'w', newline='', encoding='utf-8') as file:
    writer = csv.writer(file)
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
