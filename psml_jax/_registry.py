"""Registries: what configs may name, one entry a file."""

import difflib
import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Generic, TypeVar

T = TypeVar('T')


class Registry(Mapping[str, T], Generic[T]):
  """Entries of one kind by name.

  Args:
    kind: what an entry is, in errors.
    of: the type of an entry, where all must have one.

  >>> fruit = Registry('fruit')
  >>> fruit.register('apple', 1)
  >>> fruit.find('aple')
  Traceback (most recent call last):
  ...
  ValueError: fruit is 'aple' (did you mean 'apple'?); it must be one of apple
  """

  def __init__(self, kind: str, of: type = object) -> None:
    self._kind, self._of = kind, of
    self._entries: dict[str, T] = {}

  def register(self, name: str, entry: T) -> None:
    """Adds an entry.

    Raises:
      ValueError: a name that is taken, or not of letters, digits, '_', '.' and '-'; an
        entry of another type.
    """
    if not isinstance(name, str) or not re.fullmatch(r'[A-Za-z0-9][\w.-]*', name):
      raise ValueError(
        f'{self._kind} is {name!r}; it must be letters, digits, "_", "." and "-"'
      )
    if name in self._entries:
      raise ValueError(
        f'{self._kind} {name!r} is registered already; choose another name'
      )
    if not isinstance(entry, self._of):
      raise ValueError(
        f'{self._kind} {name!r} is {entry!r}; it must be of type {self._of.__name__}'
      )
    self._entries[name] = entry

  def find(self, name: Any, path: str = '') -> T:
    """The entry of a name.

    Args:
      name: of the entry.
      path: where the name stands, for the error; the registry's kind unless given.

    Raises:
      ValueError: there is none; the message offers the nearest name.
    """
    if not isinstance(name, str) or name not in self._entries:
      raise ValueError(unknown(path or self._kind, name, self._entries))
    return self._entries[name]

  def __getitem__(self, name: str) -> T:
    return self._entries[name]

  def __iter__(self) -> Iterator[str]:
    return iter(self._entries)

  def __len__(self) -> int:
    return len(self._entries)


def check_fields(what: str, make: Callable[..., Any], given: int, fields: Any) -> None:
  """Checks that an entry takes the fields that a config gives it.

  Args:
    what: the entry, in the error.
    make: it is called with `given` arguments and the fields.
    given: how many.
    fields: by name.

  Raises:
    ValueError: one that it does not take, or one that it lacks.
  """
  try:
    inspect.signature(make).bind(*range(given), **fields)
  except TypeError as error:
    raise ValueError(f'fields of {what} are {fields}: {error}') from None


def near(name: Any, known: Iterable[str]) -> str:
  """A hint at the nearest of known names, where one is near."""
  found = difflib.get_close_matches(str(name), list(known), n=1)
  return f' (did you mean {found[0]!r}?)' if found else ''


def unknown(path: str, name: Any, known: Iterable[str]) -> str:
  """What an error says of a name that is not known."""
  names = sorted(known)
  hint = near(name, names) if isinstance(name, str) else ''
  return f'{path} is {name!r}{hint}; it must be one of {", ".join(names)}'
