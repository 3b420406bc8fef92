"""The registry of model families; a user adds his own in one line."""

import difflib
from collections.abc import Callable
from typing import Any

import flax.linen as nn

from psml_jax import _validate
from psml_jax.zoo.models import CNN, MLP, Linear

_FAMILIES: dict[str, Callable[..., nn.Module]] = {
  'cnn': CNN,
  'linear': Linear,
  'mlp': MLP,
}


def register(family: str, make: Callable[..., nn.Module]) -> None:
  """Adds a family of models.

  Args:
    family: its name in configs.
    make: `(num_classes=..., **fields) -> flax.linen.Module` that maps
      f32[N, H, W, C] images with pixels in [0, 1] to f32[N, num_classes] logits.

  Raises:
    ValueError: the name is taken.
  """
  if family in _FAMILIES:
    raise ValueError(f'family {family!r} is registered already; choose another name')
  _FAMILIES[family] = make


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
    **fields: the family's own, such as `widths` and `size`.

  Returns:
    The module, without parameters.

  Raises:
    ValueError: an unknown family or field, or fewer than two classes.

  >>> create('mlp', num_classes=10, widths=[32]).widths
  (32,)
  """
  if family not in _FAMILIES:
    near = difflib.get_close_matches(family, _FAMILIES, n=1)
    hint = f' (did you mean {near[0]!r}?)' if near else ''
    raise ValueError(f'family is {family!r}{hint}; it must be one of {families()}')
  if _validate.positive_int('num_classes', num_classes) < 2:
    raise ValueError(f'num_classes is {num_classes}; it must be at least 2')
  hashable = {
    name: tuple(value) if isinstance(value, list) else value
    for name, value in fields.items()
  }
  try:
    return _FAMILIES[family](num_classes=num_classes, **hashable)
  except TypeError as error:
    raise ValueError(f'fields of family {family!r} are {fields}: {error}') from error
