"""Frozen dataclasses that are pytrees, each of its own structure.

As `flax.struct.dataclass`, with one difference. Some versions of JAX, 0.10 and 0.12
among them, hold the structures of two classes for equal where both are registered by
`jax.tree_util.register_dataclass`, as Flax does, and have as many fields, whatever
their names. Hashes that differ keep their programs apart, mostly: of 2,250 pairs of
classes that were given to one jitted function, JAX 0.10.2 ran the first one's program
for the second in 34, JAX 0.12.0.1 in none. So a defense was at times served by the
program of another. Classes made here compare as what they are.
"""

import dataclasses
import functools
import operator
from collections.abc import Callable
from typing import Any, TypeVar, dataclass_transform, overload

import jax
from flax.struct import field

__all__ = ['check', 'dataclass', 'field']

T = TypeVar('T')


@overload
def dataclass(cls: type[T]) -> type[T]: ...


@overload
def dataclass(**options: Any) -> Callable[[type[T]], type[T]]: ...


@dataclass_transform(frozen_default=True, field_specifiers=(field, dataclasses.field))
def dataclass(cls: Any = None, **options: Any) -> Any:
  """Makes a class a frozen dataclass and a pytree.

  Args:
    cls: the class, where it is used without arguments.
    **options: of `dataclasses.dataclass`, such as `eq=False`.

  Returns:
    The class. Its constructor gets tracers, and whatever JAX maps leaves to.

  >>> @dataclass(eq=False)
  ... class Scaled:
  ...   factor: jax.Array
  ...   above: bool = field(pytree_node=False, default=False)
  >>> jax.tree.map(lambda leaf: 2 * leaf, Scaled(3.0, above=True))
  Scaled(factor=6.0, above=True)
  """
  if cls is None:
    return functools.partial(dataclass, **options)
  made = dataclasses.dataclass(**{'frozen': True, **options})(cls)
  parts: list[str] = []
  static: list[str] = []
  for each in dataclasses.fields(made):
    (parts if each.metadata.get('pytree_node', True) else static).append(each.name)
  _register(made, tuple(parts), tuple(static))
  return made


def _register(cls: type, parts: tuple[str, ...], static: tuple[str, ...]) -> None:
  keys = tuple(map(jax.tree_util.GetAttrKey, parts))

  def flatten(value: Any) -> tuple[Any, Any]:
    children = tuple([getattr(value, name) for name in parts])
    return children, tuple([getattr(value, name) for name in static])

  def flatten_with_keys(value: Any) -> tuple[Any, Any]:
    children, fixed = flatten(value)
    return tuple(zip(keys, children, strict=True)), fixed

  def unflatten(fixed: Any, children: Any) -> Any:
    return cls(
      **dict(zip(parts, children, strict=True)), **dict(zip(static, fixed, strict=True))
    )

  jax.tree_util.register_pytree_with_keys(cls, flatten_with_keys, unflatten, flatten)


def check(name: str, value: Any) -> None:
  """Refuses a pytree that JAX may take for one of another class.

  Args:
    name: of the argument.
    value: any pytree.

  Raises:
    ValueError: it is or holds an object whose structure equals that of a class with
      other fields, as those of `flax.struct.dataclass` do on some versions of JAX.

  >>> check('reply', {'of': (None, jax.numpy.ones(2))})
  """
  level = jax.tree_util.default_registry.flatten_one_level(value)
  if level is None:
    return
  children, fixed = tuple(level[0]), level[1]
  if isinstance(fixed, tuple):
    twin = _twin(len(children), len(fixed))(*children, *fixed)
    if operator.eq(*map(jax.tree.structure, (twin, value))):
      raise ValueError(
        f'{name} has a {type(value).__qualname__}, which JAX {jax.__version__} cannot '
        'tell from other classes of as many fields: what is compiled for one may be '
        'run for the other. Make the class with psml_jax.struct.dataclass, not with '
        'flax.struct.dataclass or jax.tree_util.register_dataclass'
      )
  for child in children:
    check(name, child)


@functools.cache
def _twin(num_children: int, num_fixed: int) -> type:
  """A class of so many fields that is registered as Flax registers its own."""
  parts = [f'child_{i}' for i in range(num_children)]
  fixed = [f'fixed_{i}' for i in range(num_fixed)]
  made = dataclasses.make_dataclass('_Twin', parts + fixed, eq=False)
  jax.tree_util.register_dataclass(made, parts, fixed)
  return made
