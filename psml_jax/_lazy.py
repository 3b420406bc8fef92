"""Packages whose modules are imported when they are first used (PEP 562)."""

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def attach(
  package: str, public: Sequence[str], homes: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
  """The `__getattr__` and `__dir__` of a package.

  Args:
    package: its `__name__`.
    public: its `__all__`; names without a home are modules of the package.
    homes: name -> module that defines it.

  Returns:
    The two functions.

  >>> get, names = attach('psml_jax', ['pareto', 'Spec'], {'Spec': 'psml_jax.core'})
  >>> get('pareto').__name__, get('Spec').__module__
  ('psml_jax.pareto', 'psml_jax.core')
  """

  def get(name: str) -> Any:
    if name not in public:
      raise AttributeError(f'module {package!r} has no attribute {name!r}')
    if name not in homes:
      return importlib.import_module(f'{package}.{name}')
    value = getattr(importlib.import_module(homes[name]), name)
    setattr(sys.modules[package], name, value)
    return value

  def names() -> list[str]:
    return sorted({*vars(sys.modules[package]), *public})

  return get, names
