"""Tables of a report and how their values read."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from psml_jax.metrics import Interval


class Column(NamedTuple):
  """A column: its header, how a value reads, and whether the values are numbers."""

  header: str
  form: Callable[[Any], str] = str
  numbers: bool = False


class Table(NamedTuple):
  """A table: texts, numbers (NaN where unknown), truths and estimates by column."""

  title: str
  columns: Sequence[Column]
  rows: Sequence[Sequence[Any]]
  note: str = ''

  @property
  def header(self) -> list[str]:
    """The headers of the columns."""
    return [column.header for column in self.columns]

  def texts(self) -> list[list[str]]:
    """All rows as a reader sees them; a line break separates parts of a cell."""
    return [
      [column.form(value) for column, value in zip(self.columns, row, strict=True)]
      for row in self.rows
    ]


def parts(text: str) -> str:
  """The text with each of its parts on a line of its own."""
  return text.replace('; ', ';\n')


def yes(value: bool) -> str:
  """Yes or no."""
  return 'yes' if value else 'no'


def number(value: float, form: str) -> str:
  """A number, or a dash where it is unknown."""
  return '–' if math.isnan(value) else f'{value:{form}}'


def count(value: float) -> str:
  """A whole number."""
  return number(value, ',.0f')


def percent(value: float) -> str:
  """Percent, given in percent."""
  return number(value, '.2f')


def value(value: float) -> str:
  """The value of a defense's knob."""
  return number(value, '.3g')


def milliseconds(value: float) -> str:
  """A latency in milliseconds."""
  return number(value, ',.0f' if value >= 1000 else '.4g')


def estimate(value: Interval, form: str = '.1f') -> str:
  """A mean and its interval, where it has one."""
  low, high = f'{value.low:{form}}', f'{value.high:{form}}'
  spread = f' ({low}–{high})' if low != high else ''
  return number(value.mean, form) + spread
