"""The report as plain text and as Markdown."""

import itertools
import re
import textwrap
from collections.abc import Iterable, Mapping
from typing import Any

from psml_jax.report import schema, tables
from psml_jax.report.columns import Table
from psml_jax.report.schema import Summary

_WIDTH = 100
_INDENT = '  '


def claims_table(summary: Summary | Mapping[str, Any]) -> str:
  """The paper's claims against the measured ones, as plain text.

  Args:
    summary: the experiment, a `Summary` or what JSON has of one.

  Returns:
    Lines of at most 100 characters: claim, paper, measured, holds.

  Raises:
    ValueError: what is no summary.
  """
  table = tables.build(schema.checked(summary))['claims']
  lines = [table.header, *table.texts()]
  widths = _widths(lines)
  rule = '-+-'.join('-' * width for width in widths)
  text = []
  for line in lines:
    cells = [_wrap(cell, width) for cell, width in zip(line, widths, strict=True)]
    for parts in itertools.zip_longest(*cells, fillvalue=''):
      padded = (part.ljust(width) for part, width in zip(parts, widths, strict=True))
      text.append(' | '.join(padded).rstrip())
    text.append(rule)
  return '\n'.join(text[:-1]) + '\n'


def _widths(lines: list[list[str]]) -> list[int]:
  """Widths of columns: as texts need, or those narrower that have the least text."""
  columns = list(zip(*lines, strict=True))
  texts = [sum(map(len, column)) for column in columns]
  widths = [
    max(len(part) for cell in column for part in cell.split('\n')) for column in columns
  ]
  words = [max(map(len, ' '.join(column).split()), default=0) for column in columns]
  floors = [min(word + len(_INDENT), _WIDTH // (2 * len(columns))) for word in words]
  while sum(widths) + 3 * (len(widths) - 1) > _WIDTH:
    loose = [i for i, width in enumerate(widths) if width > floors[i]]
    widths[min(loose, key=lambda i: texts[i] / widths[i])] -= 1
  return widths


def _wrap(cell: str, width: int) -> list[str]:
  """The lines of a cell; a part that goes on is indented."""
  lines = []
  for part in cell.split('\n'):
    lines += textwrap.wrap(part, width, subsequent_indent=_INDENT) or ['']
  return lines


def markdown(summary: Summary | Mapping[str, Any]) -> str:
  """The whole report as Markdown tables.

  Args:
    summary: the experiment, a `Summary` or what JSON has of one.

  Returns:
    Markdown: setting, claims, zoo, fingerprint, extraction at every budget,
    protection and goodput, each mean with its 95 % interval, and provenance.

  Raises:
    ValueError: what is no summary.
  """
  summary = schema.checked(summary)
  return as_markdown(
    f'Results: {tables.title(summary)}', tables.build(summary).values()
  )


def as_markdown(title: str, contents: Iterable[Table]) -> str:
  """Tables as Markdown, each below its title and its note."""
  parts = [f'# {_escape(title)}']
  for table in contents:
    parts.append(f'## {table.title}')
    if table.note:
      parts.append(_escape(table.note))
    if table.rows:
      rule = ['---:' if column.numbers else '---' for column in table.columns]
      lines = [
        [_escape(cell) for cell in row] for row in (table.header, *table.texts())
      ]
      lines.insert(1, rule)
      parts.append('\n'.join(f'| {" | ".join(line)} |' for line in lines))
  return '\n\n'.join(parts) + '\n'


def _escape(text: str) -> str:
  """The text as it is, whatever Markdown or HTML it looks like; lines by <br>."""
  lines = [' '.join(line.split()) for line in text.split('\n')]
  return '<br>'.join(
    re.sub(r'([\\`*~|<>\[\]&]|\b_|_\b)', r'\\\1', line) for line in lines
  )
