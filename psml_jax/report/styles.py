"""Colours, markers and dashes by the names of attacks, defenses and clients."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple, TypeVar

from psml_jax.report import schema
from psml_jax.report.schema import Knob

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


_REFERENCE = GREY
_ATTACKS = (
  Attack(BLUE, 's'),
  Attack(PURPLE, 'D'),
  Attack(RED, '^'),
  Attack(GREEN, 'v'),
  Attack(ORANGE, 'P'),
  Attack('black', 'X'),
  Attack('#56B4E9', '<'),
  Attack('#8C6D1F', 'p'),
)
_NONE = Defense('#444444', 'o', '-')
_DEFENSES = (
  Defense(GREEN, 'o', '--'),
  Defense('black', 'X', ':'),
  Defense('#332288', 's', '-.'),
  Defense(ORANGE, 'v', (0, (1, 1))),
  Defense(BLUE, 'P', (0, (7, 2))),
  Defense(PURPLE, 'D', (0, (5, 1, 1, 1, 1, 1))),
  Defense(RED, '^', (0, (3, 4))),
  Defense('#56B4E9', '<', (0, (7, 2, 2, 2))),
)
_CLIENTS: tuple[Dashes, ...] = ('--', ':', '-.', (0, (1, 1)), (0, (7, 2)))


def attacks(roles: Mapping[str, str], names: Iterable[str]) -> dict[str, Attack]:
  """The styles of attacks, in the order of a report; up to eight differ.

  References are grey.

  >>> roles = {'mine': 'attack', 'named': 'reference'}
  >>> list(attacks(roles, ['mine', 'named']).values())
  [Attack(color='#999999', marker='o'), Attack(color='#0072B2', marker='s')]
  """
  ordered = sorted(set(names), key=lambda name: schema.attack_order(roles, name))
  own = {
    name: Attack(_REFERENCE, 'o') for name in ordered if roles.get(name) == 'reference'
  }
  return _styles(ordered, own, _ATTACKS)


def defenses(knobs: Mapping[str, Knob], names: Iterable[str]) -> dict[str, Defense]:
  """The styles of defenses, in the order of a report; up to eight differ.

  >>> knobs = {'refusal': Knob('share', 'of queries', 0.1, 1.0, control=True)}
  >>> knobs['mine'] = Knob('scale', 'of the range', 0.1, 1.0, control=False)
  >>> list(defenses(knobs, ['refusal', 'mine', 'none']))
  ['none', 'mine', 'refusal']
  """
  ordered = sorted(set(names), key=lambda name: schema.defense_order(knobs, name))
  return _styles(ordered, {'none': _NONE}, _DEFENSES)


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
