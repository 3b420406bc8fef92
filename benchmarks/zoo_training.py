"""A training step of ResNet-20 against PyTorch, and what RepVGG's fusing saves."""

import functools
import os
import pathlib
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from jax.sharding import Mesh, PartitionSpec
from records import Row, rates, seconds

from psml_jax import _compile, train, zoo
from psml_jax.core import Harvest

sys.path.append(str(pathlib.Path(__file__).parents[1]))
from tests import torch_models

BATCH = 128
STEPS = 8
REQUESTS = (1, 64)
_LIBRARY = 'xla_cpu_experimental_ynn_fusion_type'


def measure() -> list[Row]:
  """The rows on training and serving convolutional models."""
  rng = np.random.default_rng(0)
  images = rng.random((STEPS * BATCH, 32, 32, 3)).astype(np.float32)
  labels = rng.integers(0, 10, len(images)).astype(np.int32)
  torch.set_num_threads(os.cpu_count() or 1)
  peer, peer_name = _torch(images[:BATCH], labels[:BATCH])
  variants: dict[str, Callable[[], Any]] = {
    'as it is trained': _ours(images, labels),
    'in bfloat16': _ours(images, labels, dtype='bfloat16'),
    'one device a core': _data_parallel(images, labels),
  }
  if jax.default_backend() == 'cpu':
    products = {_LIBRARY: 'LIBRARY_FUSION_TYPE_DOT'}
    variants |= {
      'YNNPACK for products alone': _ours(images, labels, options=products),
      'without YNNPACK': _ours(images, labels, options={}),
    }
  rows = [
    rates(
      f'resnet20 step, {name}',
      (work, STEPS * BATCH),
      (peer, BATCH),
      rounds=3,
      unit='images/s',
      peer_name=peer_name,
      bar='>= 1x' if name == 'as it is trained' else '',
    )
    for name, work in variants.items()
  ]
  fused = [_fused(images[:size]) for size in REQUESTS]
  return [*rows, _layout(images[:BATCH]), *fused]


def _ours(
  images: np.ndarray, labels: np.ndarray, options: Any = None, **fields: Any
) -> Callable[[], Any]:
  """Some steps of the zoo's own training, as one compiled program."""
  module = zoo.create('resnet20', num_classes=10, **fields)
  training = train.Training(module, train.Epochs(epochs=2, batch_size=BATCH))
  size = len(images)
  examples = Harvest(jnp.arange(size), jnp.asarray(labels), jnp.int32(size))
  key = jax.random.key(0)
  state = train.start(key, training, images.shape[1:], size)
  program = jax.jit(
    lambda state, images, examples: train.epoch(key, state, training, images, examples),
    compiler_options=_compile.options('training') if options is None else options,
  )
  return functools.partial(program, state, jnp.asarray(images), examples)


def _data_parallel(images: np.ndarray, labels: np.ndarray) -> Callable[[], Any]:
  """The same steps without augmentation, the minibatch divided over all devices."""
  module = zoo.create('resnet20', num_classes=10)
  variables = module.init(jax.random.key(0), images[:1])
  batches = images.reshape(STEPS, BATCH, *images.shape[1:]), labels.reshape(STEPS, -1)

  def loss(params: Any, stats: Any, images: jax.Array, labels: jax.Array) -> Any:
    logits, stats = module.apply(
      {'params': params, **stats}, images, train=True, mutable=['batch_stats']
    )
    chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], 1)
    return -chosen.mean(), stats

  def step(variables: Any, batch: Any) -> tuple[Any, None]:
    params, stats = variables['params'], {'batch_stats': variables['batch_stats']}
    slope, stats = jax.grad(loss, has_aux=True)(params, stats, *batch)
    slope = jax.lax.pmean(slope, 'batch')
    params = jax.tree.map(lambda p, g: p - 0.1 * g, params, slope)
    return {'params': params, **jax.lax.pmean(stats, 'batch')}, None

  divided = jax.shard_map(
    lambda variables, batches: jax.lax.scan(step, variables, batches)[0],
    mesh=Mesh(jax.devices(), ('batch',)),
    in_specs=(PartitionSpec(), PartitionSpec(None, 'batch')),
    out_specs=PartitionSpec(),
    check_vma=False,
  )
  program = jax.jit(divided, compiler_options=_compile.options('training'))
  return functools.partial(program, variables, batches)


def _torch(images: np.ndarray, labels: np.ndarray) -> tuple[Callable[[], Any], str]:
  """One step of the same network in PyTorch, in its faster memory layout."""
  inputs, targets = torch.from_numpy(images).permute(0, 3, 1, 2), torch.tensor(labels)
  spent = {}
  for layout in (torch.contiguous_format, torch.channels_last):
    model = torch_models.create('resnet20', 10).to(memory_format=layout).train()
    step = functools.partial(
      _torch_step,
      model,
      torch.optim.SGD(
        model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True
      ),
      inputs.contiguous(memory_format=layout),
      targets.long(),
    )
    step()
    spent[layout] = (min(seconds(step) for _ in range(3)), step)
    print(f'PyTorch resnet20 step, {layout}: {1e3 * spent[layout][0]:.0f} ms')
  fastest = min(spent, key=lambda layout: spent[layout][0])
  threads = torch.get_num_threads()
  return spent[fastest][1], f'PyTorch, {fastest}, {threads} threads'.replace(
    'torch.', ''
  )


def _torch_step(
  model: torch.nn.Module,
  optimiser: torch.optim.Optimizer,
  images: torch.Tensor,
  labels: torch.Tensor,
) -> None:
  optimiser.zero_grad()
  torch.nn.functional.cross_entropy(model(images), labels).backward()
  optimiser.step()


def _layout(images: np.ndarray) -> Row:
  """A convolution of 16 channels in a loop: channels last against channels first."""
  last = jnp.tile(jnp.asarray(images), 6)[..., :16]
  kernel = jnp.ones((3, 3, 16, 16)) / 144

  def loop(layout: tuple[str, str, str], x: jax.Array, kernel: jax.Array) -> Any:
    def step(x: jax.Array, _: None) -> tuple[jax.Array, None]:
      convolved = jax.lax.conv_general_dilated(
        x, kernel, (1, 1), 'SAME', dimension_numbers=layout
      )
      return convolved, None

    program = jax.jit(
      lambda x: jax.lax.scan(step, x, length=STEPS)[0],
      compiler_options=_compile.options('training'),
    )
    return functools.partial(program, x)

  ours = loop(('NHWC', 'HWIO', 'NHWC'), last, kernel)
  first = last.transpose(0, 3, 1, 2), kernel.transpose(3, 2, 0, 1)
  return rates(
    'convolution in a loop, channels last',
    (ours, STEPS * BATCH),
    (loop(('NCHW', 'OIHW', 'NCHW'), *first), STEPS * BATCH),
    rounds=3,
    unit='images/s',
    peer_name='the same, channels first',
  )


def _fused(images: np.ndarray) -> Row:
  """Serving a RepVGG in its deploy form, against its form of three branches."""
  module = zoo.create('repvgg_a0', num_classes=10)
  branches = zoo.Model(module, jax.jit(module.init)(jax.random.key(0), images[:1]))
  request = jnp.asarray(images)

  def serve(model: zoo.Model) -> Callable[[], Any]:
    program = jax.jit(
      lambda variables: zoo.Model(model.module, variables).probabilities(request),
      compiler_options=_compile.options('serving'),
    )
    return functools.partial(program, model.variables)

  return rates(
    f'repvgg_a0, requests of {len(images)}, fused',
    (serve(zoo.fuse(branches)), len(images)),
    (serve(branches), len(images)),
    rounds=5,
    unit='images/s',
    peer_name='its form of three branches',
    bar='> 1x',
  )
