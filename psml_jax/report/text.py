"""The report as plain text and as Markdown."""

import re
import textwrap

from psml_jax.report import tables
from psml_jax.report.summary import Summary

_WIDTH = 100


def claims_table(summary: Summary) -> str:
  """The paper's claims against the measured ones, as plain text.

  Args:
    summary: the experiment, see `psml_jax.report.Summary`.

  Returns:
    Lines of at most 100 characters: claim, paper, measured, holds.

  Raises:
    ValueError: the summary lacks a key or names an impossible victim.
  """
  table = tables.build(summary)['claims']
  lines = [table.header, *table.rows]
  widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
  while sum(widths) + 3 * (len(widths) - 1) > _WIDTH:
    widths[widths.index(max(widths))] -= 1
  rule = '-+-'.join('-' * width for width in widths)
  text = []
  for line in lines:
    cells = [
      textwrap.wrap(cell, width) or ['']
      for cell, width in zip(line, widths, strict=True)
    ]
    for i in range(max(map(len, cells))):
      parts = [
        (cell[i] if i < len(cell) else '').ljust(width)
        for cell, width in zip(cells, widths, strict=True)
      ]
      text.append(' | '.join(parts).rstrip())
    text.append(rule)
  return '\n'.join(text[:-1]) + '\n'


def markdown(summary: Summary) -> str:
  """The whole report as Markdown tables.

  Args:
    summary: the experiment, see `psml_jax.report.Summary`.

  Returns:
    Markdown: setting, claims, zoo, fingerprint, extraction at every budget,
    protection and goodput, each mean with its 95 % interval.

  Raises:
    ValueError: the summary lacks a key or names an impossible victim.
  """
  parts = [f'# Results: {_escape(tables.title(summary))}']
  for table in tables.build(summary).values():
    parts.append(f'## {table.title}')
    if table.note:
      parts.append(_escape(table.note))
    if table.rows:
      rule = ['---:' if i in table.numbers else '---' for i in range(len(table.header))]
      rows = [[_escape(cell) for cell in row] for row in table.rows]
      lines = [list(table.header), rule, *rows]
      parts.append('\n'.join(f'| {" | ".join(line)} |' for line in lines))
  return '\n\n'.join(parts) + '\n'


def _escape(text: str) -> str:
  """The text as it is, whatever Markdown or HTML it looks like."""
  return re.sub(r'([\\`*~|<>\[\]&]|\b_|_\b)', r'\\\1', ' '.join(text.split()))
