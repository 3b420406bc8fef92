"""Profiling: accuracy on held-out images, and latency on the present device."""

import csv
import datetime
import functools
import importlib.metadata
import json
import pathlib
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from psml_jax import _compile, _device, _validate
from psml_jax.core import ZooProfile
from psml_jax.zoo.model import Model, predict

_SLICE_SECONDS = 0.004
_SAME = ('device', 'platform', 'batch_size')


class Latency(NamedTuple):
  """Latencies of every model in requests of one size, milliseconds, f64[M] each.

  Attributes:
    fastest: median over the rounds of a round's fastest request.
    fastest_p10: tenth percentile of these.
    fastest_p90: ninetieth; the two are the spread of `fastest`.
    median: of all requests.
    p95: 95th percentile of all requests.
    p99: 99th.
  """

  fastest: np.ndarray
  fastest_p10: np.ndarray
  fastest_p90: np.ndarray
  median: np.ndarray
  p95: np.ndarray
  p99: np.ndarray


class Measured(NamedTuple):
  """A profile with what was measured around it.

  Attributes:
    profile: accuracy and latency (`serving.fastest`) of every model.
    serving: latencies of requests of the serving batch size.
    single: latencies of requests of one image.
    parameters: i64[M], trained numbers.
    flops: f64[M], floating-point operations for one image, as XLA counts the program
      before it is optimised (without those on padding).
    description: device, versions, date and settings, as JSON-like values.
  """

  profile: ZooProfile
  serving: Latency
  single: Latency
  parameters: np.ndarray
  flops: np.ndarray
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

  Every model is compiled and warmed for requests of one image and of the serving batch
  size, then all take turns for many rounds, so that whatever slows the machine slows
  them alike. In a round each runs for about four milliseconds, three requests at least.
  The profile's latency is the median over the rounds of a round's fastest request,
  for others' work only ever adds time; percentiles of all requests tell what a client
  sees.

  Args:
    models: the zoo, by name.
    images: f32[N, H, W, C], held out from training, N >= `batch_size`.
    labels: i32[N], true classes.
    batch_size: images in a serving request.
    rounds: turns of each model.

  Returns:
    The profile; latencies in milliseconds a request.

  Raises:
    ValueError: an empty zoo, fewer images than one request takes, not one label for
      each image, or settings that are not whole numbers >= 1.
  """
  _validate.positive_int('batch_size', batch_size)
  _validate.positive_int('rounds', rounds)
  if not models:
    raise ValueError('models is empty; a zoo needs at least one model')
  if len(images) < batch_size:
    raise ValueError(
      f'images holds {len(images)}; it must hold at least the {batch_size} of a request'
    )
  if labels.shape != images.shape[:1]:
    raise ValueError(
      f'labels are {labels.shape}; they must be {images.shape[:1]}, one for each image'
    )
  device = jax.devices()[0]
  calls, flops = [], []
  for model in models.values():
    variables = jax.device_put(model.variables, device)
    for size in (1, batch_size):
      request = jax.device_put(jnp.asarray(images[:size]), device)
      lowered = jax.jit(_answer, static_argnums=0).lower(
        model.module, variables, request
      )
      program = lowered.compile(_compile.options('serving'))
      calls.append(functools.partial(program, variables, request))
      if size == 1:
        flops.append(_flops(lowered))
  single, serving = np.arange(0, len(calls), 2), np.arange(1, len(calls), 2)
  seconds = _in_turns(calls, rounds)
  accuracy = [
    float(np.mean(predict(model, images).argmax(-1) == labels))
    for model in models.values()
  ]
  latencies = _latencies(seconds, serving)
  return Measured(
    profile=ZooProfile(
      accuracy,  # type: ignore[arg-type]
      latencies.fastest,  # type: ignore[arg-type]
      tuple(models),
    ),
    serving=latencies,
    single=_latencies(seconds, single),
    parameters=np.array(
      [
        sum(leaf.size for leaf in jax.tree.leaves(model.variables['params']))
        for model in models.values()
      ]
    ),
    flops=np.array(flops),
    description={
      'device': _device.name(),
      'platform': device.platform,
      'versions': {
        name: importlib.metadata.version(name) for name in ('jax', 'jaxlib', 'flax')
      },
      'date': datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds'),
      'batch_size': batch_size,
      'rounds': rounds,
      'images': len(images),
    },
  )


def _answer(module: Any, variables: Any, images: jax.Array) -> jax.Array:
  return Model(module, variables).probabilities(images)


def _flops(lowered: jax.stages.Lowered) -> float:
  analysis = lowered.cost_analysis()
  return float('nan') if analysis is None else float(analysis.get('flops', 'nan'))


def _in_turns(calls: list[Any], rounds: int) -> list[np.ndarray]:
  """Seconds of every call, f64[rounds, repeats of the call], taken in turns."""
  repeats = [max(3, int(_SLICE_SECONDS / min(_requests(call, 5)))) for call in calls]
  seconds = [np.empty((rounds, times)) for times in repeats]
  for turn in tqdm(range(rounds), desc='profile', unit='round'):
    for call, spent in zip(calls, seconds, strict=True):
      spent[turn] = _requests(call, spent.shape[1])
  return seconds


def _requests(call: Any, times: int) -> list[float]:
  spent = []
  for _ in range(times):
    began = time.perf_counter()
    call().block_until_ready()
    spent.append(time.perf_counter() - began)
  return spent


def _latencies(seconds: list[np.ndarray], which: np.ndarray) -> Latency:
  chosen = [1e3 * seconds[i] for i in which]
  low, middle, high = zip(
    *(np.percentile(spent.min(1), [10, 50, 90]) for spent in chosen), strict=True
  )
  median, p95, p99 = zip(
    *(np.percentile(spent, [50, 95, 99]) for spent in chosen), strict=True
  )
  return Latency(*map(np.array, (middle, low, high, median, p95, p99)))


def write_profile(
  path: str | pathlib.Path, profile: ZooProfile, measured: Measured | None = None
) -> None:
  """Writes a profile as CSV: name, accuracy (fraction), latency_ms.

  Args:
    path: the file.
    profile: the zoo; every number is written so that it reads back exactly.
    measured: where given, adds the spread and percentiles of both request sizes,
      parameters and flops.
  """
  columns: dict[str, list[Any]] = {
    'name': list(profile.names),
    'accuracy': np.asarray(profile.accuracy, np.float64).tolist(),
    'latency_ms': np.asarray(profile.latency_ms, np.float64).tolist(),
  }
  if measured is not None:
    for size, latency in (('', measured.serving), ('single_', measured.single)):
      for field, values in latency._asdict().items():
        columns[f'{size}{field}_ms'] = values.tolist()
    del columns['fastest_ms']
    columns['parameters'] = measured.parameters.tolist()
    columns['flops'] = measured.flops.tolist()
  with open(path, 'w', newline='', encoding='utf-8') as file:
    writer = csv.writer(file)
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))


def read_profiles(*directories: str | pathlib.Path) -> ZooProfile:
  """Joins profiles that were measured apart, if they may be compared.

  Args:
    *directories: each holds the `profile.csv` and `profile.json` of a work directory.

  Returns:
    One profile of all their models.

  Raises:
    ValueError: no directory, a file that is absent, a name that occurs twice, or
      profiles measured on different devices or with requests of different sizes.
  """
  if not directories:
    raise ValueError('directories is empty; give at least one')
  profiles, descriptions = [], []
  for directory in map(pathlib.Path, directories):
    for name in ('profile.csv', 'profile.json'):
      if not (directory / name).is_file():
        raise ValueError(f'{directory} has no {name}; it must hold a measured profile')
    descriptions.append(json.loads((directory / 'profile.json').read_text('utf-8')))
    profiles.append(
      ZooProfile.from_csv(
        directory / 'profile.csv',
        name_column='name',
        accuracy_column='accuracy',
        latency_column='latency_ms',
        accuracy_unit='fraction',
      )
    )
  for place, description in zip(directories, descriptions, strict=True):
    for field in _SAME:
      if description.get(field) != descriptions[0].get(field):
        raise ValueError(
          f'{place} was measured with {field} {description.get(field)!r} and '
          f'{directories[0]} with {descriptions[0].get(field)!r}; latencies of '
          'different ones cannot be compared'
        )
  return ZooProfile(
    np.concatenate([profile.accuracy for profile in profiles]),  # type: ignore[arg-type]
    np.concatenate([profile.latency_ms for profile in profiles]),  # type: ignore[arg-type]
    tuple(name for profile in profiles for name in profile.names),
  )
