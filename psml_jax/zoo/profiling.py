"""Profiling: accuracy on held-out images, and latency on the present device."""

import datetime
import functools
import importlib.metadata
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from psml_jax import _compile, _device, _validate
from psml_jax.core import ZooProfile
from psml_jax.train.model import Model, predict
from psml_jax.zoo import serving

_SLICE_SECONDS = 0.004
_CHECKED = 16
_SAMPLES = 256


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
    profile: accuracy of every model, and latency of the request that a client sends,
      which holds one image (`single.fastest`).
    serving: latencies of requests of `batch_size` images.
    single: latencies of requests of one image.
    parameters: i64[M], trained numbers.
    flops: f64[M], floating-point operations for one image, as XLA counts the program
      before it is optimised (without those on padding).
    description: device, versions, date and settings, as JSON-like values; `samples_ms`
      are each model's latencies in requests of one image as a client measures them, 256
      quantiles at even steps.
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

  Every model is compiled and warmed for requests of one image and of `batch_size`
  images, then all take turns for many rounds, so that whatever slows the machine slows
  them alike. In a round each runs for about four milliseconds, three requests at least.
  The profile's latency is that of one image, the median over the rounds of a round's
  fastest request, for others' work only ever adds time; percentiles of all requests
  tell what a client sees. Models of half precision are checked as by `check_served`, in
  every program that is measured.

  Args:
    models: the zoo, by name.
    images: f32[N, H, W, C], held out from training and from every later stage,
      N >= `batch_size`.
    labels: i32[N], true classes.
    batch_size: images in a request of the `serving` latencies.
    rounds: turns of each model.

  Returns:
    The profile; latencies in milliseconds a request.

  Raises:
    ValueError: an empty zoo, fewer images than one request takes, not one label for
      each image, settings that are not whole numbers >= 1, or a model whose compiled
      answers are not those of float32.
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
  device = jax.local_devices()[0]
  calls, flops, accuracy = [], [], []
  for name, model in models.items():
    answers = predict(model, images)
    accuracy.append(float(np.mean(answers.argmax(-1) == labels)))
    half = serving.halves(model.module)
    reference = serving.Reference(name, model, images[:_CHECKED]) if half else None
    if reference is not None:
      reference.check(answers[:_CHECKED])
    variables = jax.device_put(model.variables, device)
    for size in (1, batch_size):
      request = jax.device_put(jnp.asarray(images[:size]), device)
      lowered = jax.jit(_answer, static_argnums=0).lower(
        model.module, variables, request
      )
      program = lowered.compile(_compile.options('serving'))
      calls.append(functools.partial(program, variables, request))
      if reference is not None:
        whole = max(1, min(_CHECKED, len(images)) // size) * size
        parts = np.split(images[:whole], whole // size)
        answers = np.concatenate([program(variables, part) for part in parts])
        reference.check(answers[:_CHECKED])
      if size == 1:
        flops.append(_flops(lowered))
  one, many = np.arange(0, len(calls), 2), np.arange(1, len(calls), 2)
  seconds = _in_turns(calls, rounds)
  single = _latencies(seconds, one)
  return Measured(
    profile=ZooProfile(
      accuracy,  # type: ignore[arg-type]
      single.fastest,  # type: ignore[arg-type]
      tuple(models),
    ),
    serving=_latencies(seconds, many),
    single=single,
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
      'request_images': 1,
      'batch_size': batch_size,
      'rounds': rounds,
      'images': len(images),
      'samples_ms': {
        name: _samples(1e3 * seconds[i]) for name, i in zip(models, one, strict=True)
      },
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


def _samples(requests_ms: np.ndarray) -> list[float]:
  quantiles = np.quantile(requests_ms, (np.arange(_SAMPLES) + 0.5) / _SAMPLES)
  return [float(f'{value:.5g}') for value in quantiles]


def _latencies(seconds: list[np.ndarray], which: np.ndarray) -> Latency:
  chosen = [1e3 * seconds[i] for i in which]
  low, middle, high = zip(
    *(np.percentile(spent.min(1), [10, 50, 90]) for spent in chosen), strict=True
  )
  median, p95, p99 = zip(
    *(np.percentile(spent, [50, 95, 99]) for spent in chosen), strict=True
  )
  return Latency(*map(np.array, (middle, low, high, median, p95, p99)))
