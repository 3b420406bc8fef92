"""Trained weights from PyTorch state dicts, without unpickling anything."""

import os
import pathlib
import re
import zipfile
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
import safetensors
from flax import traverse_util

from psml_jax import _files
from psml_jax._validate import InputError
from psml_jax.train.model import Model, abstract_variables
from psml_jax.zoo.registry import create
from psml_jax.zoo.serving import check_served, halves

_LEAVES = {
  'kernel': 'weight',
  'scale': 'weight',
  'mean': 'running_mean',
  'var': 'running_var',
}
_IGNORED = 'num_batches_tracked'
# What NumPy can hold, by the names of the format.
_DTYPES = {'BOOL', 'BF16', 'F16', 'F32', 'F64'} | {
  f'{sign}{bits}' for sign in 'IU' for bits in (8, 16, 32, 64)
}
_HEAD_BYTES = 512
_NOISE = 4


def import_state_dict(
  name: str,
  path: str | os.PathLike[str],
  *,
  image_shape: tuple[int, int, int] | None = None,
  **fields: Any,
) -> Model:
  """Reads a PyTorch state dict into a model of the zoo.

  The file's entries are named as the checkpoints of chenyaofo/pytorch-cifar-models
  name them (for ViTs as timm does); every name and shape is checked. The number of
  classes is that of the file's last layer. Set `mean` and `std` to those that the
  weights were trained with, for a model of the zoo sees pixels in [0, 1].

  Args:
    name: a published architecture of `families()`, or a registered one whose modules
      carry PyTorch's names (`layer1_0` for `layer1.0`).
    path: a `.safetensors` or `.npz` file.
    image_shape: (H, W, C) of the images; by default the architecture's own.
    **fields: of the architecture, as in `create`.

  Returns:
    The model. Its outputs equal PyTorch's in evaluation mode; one of half precision is
    compared with float32 on noise, as `check_served` does.

  Raises:
    ValueError: an unknown name or field, a file that is absent, pickled, damaged or
      something else (a Git LFS pointer, an HTML page), entries that are missing, too
      many or of another shape or an unsupported type, each by its name, or a model of
      half precision whose outputs `check_served` refuses.
  """
  if 'num_classes' in fields:
    raise ValueError('num_classes is no field of an import; the file tells the classes')
  module = create(name, num_classes=2, **fields)
  path = _files.local('path', path)
  entries = _read(path)
  own: tuple[int, int, int] = getattr(module, 'input_shape', (32, 32, 3))
  shape = image_shape or own
  abstract = _abstract(module, shape)
  other = _abstract(create(name, num_classes=3, **fields), shape)
  head = _torch_name(next(k for k in abstract if abstract[k].shape != other[k].shape))
  if head in entries and entries[head].ndim and len(entries[head]) >= 2:
    module = create(name, num_classes=len(entries[head]), **fields)
    abstract = _abstract(module, shape)
  layout = {_torch_name(k): _torch_shape(k, abstract[k].shape) for k in abstract}
  _compare(name, path, layout, entries)
  flat = {
    leaf: jnp.asarray(_arrange(leaf, entries[_torch_name(leaf)]), struct.dtype)
    for leaf, struct in abstract.items()
  }
  model = Model(module, traverse_util.unflatten_dict(flat))
  if halves(module):
    noise = np.random.default_rng(0).random((_NOISE, *shape), np.float32)
    check_served(model, noise, name=f'{path} as {name}')
  return model


def _abstract(module: Any, image_shape: tuple[int, int, int]) -> dict[Any, Any]:
  return traverse_util.flatten_dict(abstract_variables(module, image_shape))


def _torch_name(leaf: tuple[str, ...]) -> str:
  _, *modules, entry = leaf
  path = '.'.join([*modules, _LEAVES.get(entry, entry)])
  return re.sub(r'_(\d+)(?=[._]|$)', r'.\1', path)


def _torch_shape(leaf: tuple[str, ...], shape: tuple[int, ...]) -> tuple[int, ...]:
  if leaf[-1] != 'kernel':
    return shape
  return (shape[-1], shape[-2], *shape[:-2])


def _arrange(leaf: tuple[str, ...], entry: np.ndarray) -> np.ndarray:
  """A kernel with PyTorch's axes (out, in, ...) as Flax has it; others as they are."""
  if leaf[-1] != 'kernel':
    return entry
  return entry.transpose(*range(2, entry.ndim), 1, 0)


def _compare(
  name: str,
  path: str | os.PathLike[str],
  layout: Mapping[str, tuple[int, ...]],
  entries: Mapping[str, np.ndarray],
) -> None:
  missing = [entry for entry in layout if entry not in entries]
  extra = [
    entry for entry in entries if entry not in layout and not entry.endswith(_IGNORED)
  ]
  other = [
    f'{entry} is {entries[entry].shape}, not {shape}'
    for entry, shape in layout.items()
    if entry in entries and entries[entry].shape != shape
  ]
  present = [entry for entry in layout if entry in entries]
  floats = [entry for entry in present if _is_float(entries[entry].dtype)]
  not_finite = [
    entry
    for entry in floats
    if not np.all(np.isfinite(np.asarray(entries[entry], np.float32)))
  ]
  found = [
    f'{what}: {", ".join(names)}'
    for what, names in (
      ('missing', missing),
      ('not part of it', extra),
      ('of another shape', other),
      ('no floats', [entry for entry in present if entry not in floats]),
      ('not finite', not_finite),
    )
    if names
  ]
  if found:
    raise ValueError(f'{path} is no state dict of {name}; {"; ".join(found)}')


def _is_float(dtype: np.dtype) -> bool:
  return dtype.kind == 'f' or dtype == jnp.bfloat16


def _read(path: pathlib.Path) -> dict[str, np.ndarray]:
  if path.suffix in ('.pt', '.pth', '.bin', '.ckpt', '.pkl'):
    raise ValueError(
      f'{path} is a pickle, which may run code when it is read, so it is not. Convert '
      'it where you trust it: python -c "import torch, safetensors.torch as s; '
      f"s.save_file(torch.load('{path.name}', map_location='cpu', weights_only=True), "
      f"'{path.stem}.safetensors')\""
    )
  if path.suffix not in ('.safetensors', '.npz'):
    raise ValueError(f'path is {str(path)!r}; it must end in .safetensors or .npz')
  if not path.is_file():
    raise ValueError(f'path is {str(path)!r}; there is no such file')
  with path.open('rb') as raw:
    _files.check_content(path, raw.read(_HEAD_BYTES))
  try:
    if path.suffix == '.safetensors':
      return _safetensors(path)
    if not zipfile.is_zipfile(path):
      raise ValueError('it is no zip archive')
    with path.open('rb') as raw, np.load(raw, allow_pickle=False) as file:
      return {entry: file[entry] for entry in file.files}
  except InputError:
    raise
  except Exception as error:
    raise ValueError(f'{path} cannot be read, so it is damaged: {error}') from error


def _safetensors(path: pathlib.Path) -> dict[str, np.ndarray]:
  with safetensors.safe_open(path, 'np') as file:
    for entry in file.keys():  # noqa: SIM118 (a file is no mapping)
      dtype = file.get_slice(entry).get_dtype()
      if dtype not in _DTYPES:
        raise InputError(
          f'{path}: {entry} is of type {dtype}, which is not supported; it must be '
          'float32, float16, bfloat16 or float64'
        )
    return {entry: file.get_tensor(entry) for entry in file.keys()}  # noqa: SIM118
