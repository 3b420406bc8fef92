"""Colours, markers and dashes by the names of attacks, defenses and clients."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple, TypeVar

from psml_jax.report import schema

BLUE, GREEN, ORANGE = '#0072B2', '#009E73', '#E69F00'
RED, PURPLE, GREY = '#D55E00', '#AA3377', '#999999'

Dashes = str | tuple[int, tuple[float, ...]]
T = TypeVar('T')


class Attack(NamedTuple):
  """How the line of an attack looks."""

  color: str
  marker: str


class Defense(NamedTuple):
  """How the line of a defense looks; `color` where no attack gives one."""

  color: str
  marker: str
  dashes: Dashes


_ATTACKS = {
  'explicit': Attack(GREY, 'o'),
  'fingerprint': Attack(BLUE, 's'),
  'corner': Attack(PURPLE, 'D'),
  'naive': Attack(RED, '^'),
}
_OTHER_ATTACKS = (
  Attack(GREEN, 'v'),
  Attack(ORANGE, 'P'),
  Attack('black', 'X'),
  Attack('#56B4E9', '<'),
  Attack('#CC79A7', '>'),
  Attack('#8C6D1F', 'p'),
  Attack('#661100', 'h'),
  Attack('#88AA00', '*'),
)
_DEFENSES = {
  'none': Defense('#444444', 'o', '-'),
  'laplace': Defense(GREEN, 'o', '--'),
  'gaussian': Defense('#332288', 's', '--'),
  'refusal': Defense('black', 'X', ':'),
}
_OTHER_DEFENSES = (
  Defense(ORANGE, 'v', '-.'),
  Defense(BLUE, 'P', (0, (1, 1))),
  Defense(PURPLE, 'D', (0, (7, 2))),
  Defense(RED, '^', (0, (5, 1, 1, 1, 1, 1))),
  Defense('#56B4E9', '<', (0, (3, 4))),
  Defense('#CC79A7', '>', (0, (7, 2, 2, 2))),
  Defense('#8C6D1F', 'p', (0, (1, 3))),
  Defense('#661100', 'h', (0, (10, 2, 1, 2))),
)
_CLIENTS: tuple[Dashes, ...] = ('--', ':', '-.', (0, (1, 1)), (0, (7, 2)))


def attacks(names: Iterable[str]) -> dict[str, Attack]:
  """The styles of attacks, in the order of a report; up to eight unknown ones differ.

  >>> attacks(['naive', 'mine', 'explicit'])['mine'].marker
  'v'
  """
  return _styles(sorted(set(names), key=schema.attack_order), _ATTACKS, _OTHER_ATTACKS)


def defenses(names: Iterable[str]) -> dict[str, Defense]:
  """The styles of defenses, in the order of a report; up to eight unknown ones differ.

  >>> list(defenses(['refusal', 'mine', 'none']))
  ['none', 'refusal', 'mine']
  """
  ordered = sorted(set(names), key=schema.defense_order)
  return _styles(ordered, _DEFENSES, _OTHER_DEFENSES)


def clients(names: Iterable[str]) -> dict[str, Dashes]:
  """The dashes of classes of clients."""
  return _styles(list(dict.fromkeys(names)), {}, _CLIENTS)


def _styles(
  names: list[str], own: Mapping[str, T], others: tuple[T, ...]
) -> dict[str, T]:
  """Each name's own style, or the next of the others."""
  unknown = [name for name in names if name not in own]
  spare = {name: others[i % len(others)] for i, name in enumerate(unknown)}
  return {name: own.get(name) or spare[name] for name in names}
