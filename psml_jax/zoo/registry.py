"""The registry of model families; a user adds his own in one line."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import flax.linen as nn

from psml_jax import _registry, _validate
from psml_jax.train import contract
from psml_jax.zoo.mobilenetv2 import MobileNetV2
from psml_jax.zoo.models import CNN, MLP, Linear
from psml_jax.zoo.repvgg import RepVGG
from psml_jax.zoo.resnet import ResNet
from psml_jax.zoo.resnet9 import ResNet9
from psml_jax.zoo.shufflenetv2 import ShuffleNetV2
from psml_jax.zoo.vgg import VGG
from psml_jax.zoo.vit import ViT
from psml_jax.zoo.wide_resnet import WideResNet

_Make = Callable[..., nn.Module]

_FAMILIES: _registry.Registry[_Make] = _registry.Registry('family')
_FAMILIES.register('cnn', CNN)
_FAMILIES.register('linear', Linear)
_FAMILIES.register('mlp', MLP)
_FAMILIES.register('resnet', ResNet)
_FAMILIES.register('resnet9', ResNet9)
_FAMILIES.register('wide_resnet', WideResNet)


def _published(make: _Make, variants: dict[str, dict[str, Any]]) -> None:
  for name, fields in variants.items():
    _FAMILIES.register(name, functools.partial(make, **fields))


_published(ResNet, {f'resnet{depth}': {'depth': depth} for depth in (20, 32, 44, 56)})
_published(
  VGG,
  {
    'vgg11_bn': {'convolutions': (1, 1, 2, 2, 2)},
    'vgg13_bn': {'convolutions': (2, 2, 2, 2, 2)},
    'vgg16_bn': {'convolutions': (2, 2, 3, 3, 3)},
    'vgg19_bn': {'convolutions': (2, 2, 4, 4, 4)},
  },
)
_published(
  MobileNetV2,
  {
    'mobilenetv2_x0_5': {'width': 0.5},
    'mobilenetv2_x0_75': {'width': 0.75},
    'mobilenetv2_x1_0': {'width': 1.0},
    'mobilenetv2_x1_4': {'width': 1.4},
  },
)
_published(
  ShuffleNetV2,
  {
    'shufflenetv2_x0_5': {'widths': (48, 96, 192, 1024)},
    'shufflenetv2_x1_0': {'widths': (116, 232, 464, 1024)},
    'shufflenetv2_x1_5': {'widths': (176, 352, 704, 1024)},
    'shufflenetv2_x2_0': {'widths': (244, 488, 976, 2048)},
  },
)
_published(
  RepVGG,
  {
    'repvgg_a0': {'widths': (48, 96, 192, 1280)},
    'repvgg_a1': {'widths': (64, 128, 256, 1280)},
    'repvgg_a2': {'widths': (96, 192, 384, 1408)},
  },
)
_published(
  ViT,
  {
    'vit_small_patch16_384': {'width': 384, 'depth': 12, 'heads': 6},
    'vit_base_patch16_384': {'width': 768, 'depth': 12, 'heads': 12},
    'vit_large_patch16_384': {'width': 1024, 'depth': 24, 'heads': 16},
  },
)


def register(family: str, make: Callable[..., nn.Module]) -> None:
  """Adds a family of models.

  The module must be called as `__call__(images, train=False)` and map f32[N, H, W, C]
  images with pixels in [0, 1] to f32[N, num_classes] logits. With `train=True` it may
  use a minibatch's statistics and draw from the stream `dropout`; its convolutions
  should be `zoo.Conv`, for those of Flax train slowly on CPUs. Its fields must be
  hashable: `create` makes tuples of lists and arrays.

  Args:
    family: its name in configs: letters, digits, '_', '.' and '-'.
    make: `(num_classes=..., **fields) -> flax.linen.Module`, such as the module's
      class, for any number of classes from 2 on.

  Raises:
    ValueError: a name that is taken or not allowed, or a `make` that cannot be called
      with num_classes. A module without `train` is refused here where its class is
      known or `make` needs no other field, otherwise by `create`.
  """
  if not callable(make) or isinstance(make, nn.Module):
    raise ValueError(
      f'make of family {family!r} is {make!r}; it must make a module when it is called '
      'with num_classes'
    )
  try:
    signature = inspect.signature(make)
    signature.bind_partial(num_classes=2)
  except (TypeError, ValueError) as error:
    raise ValueError(
      f'make of family {family!r} must take num_classes by its name: {error}'
    ) from None
  made: Any = make.func if isinstance(make, functools.partial) else make
  if not isinstance(made, type):
    try:
      signature.bind(num_classes=2)
    except TypeError:
      made = None  # It has required fields, which only `create` is given.
    else:
      made = make(num_classes=2)
  if made is not None:
    contract.check_call(f'family {family!r}', made)
  _FAMILIES.register(family, make)


def families() -> tuple[str, ...]:
  """The names of all families.

  >>> {'cnn', 'linear', 'mlp'} <= set(families())
  True
  """
  return tuple(sorted(_FAMILIES))


def create(family: str, *, num_classes: int, **fields: Any) -> nn.Module:
  """Makes a model of a family.

  Args:
    family: one of `families()`.
    num_classes: at least 2.
    **fields: the family's own, such as `widths` and `size`; lists and arrays become
      tuples.

  Returns:
    The module, without parameters.

  Raises:
    ValueError: an unknown family or field, a value that the family refuses, fewer than
      two classes, or a registered family whose module has no `train`.

  >>> create('mlp', num_classes=10, widths=[32]).widths
  (32,)
  """
  make = _FAMILIES.find(family)
  num_classes = _validate.at_least_two('num_classes', num_classes)
  values = {name: contract.hashable(value) for name, value in fields.items()}
  try:
    module = make(num_classes=num_classes, **values)
  except TypeError as error:
    raise ValueError(f'fields of family {family!r} are {fields}: {error}') from error
  contract.check_call(f'family {family!r}', module)
  return module
