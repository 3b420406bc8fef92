"""The tables of a report for other programs: CSV and LaTeX."""

import csv
import io
import itertools
import math
import re
from typing import Any

from psml_jax.metrics import Interval
from psml_jax.report.columns import Table

_LONG = 40
_LATEX = {
  '\\': r'\textbackslash{}',
  '~': r'\textasciitilde{}',
  '^': r'\textasciicircum{}',
  '<': r'\textless{}',
  '>': r'\textgreater{}',
  '|': r'\textbar{}',
  '[': '{[}',
  '*': '{*}',
  '–': '--',
  '−': '$-$',
  '≤': r'$\leq$',
  '≥': r'$\geq$',
  '\n': r'\newline ',
  **{mark: f'\\{mark}' for mark in '&%$#_{}'},
}


def to_csv(table: Table) -> str:
  """The table as CSV: numbers to twelve digits, an estimate as three columns.

  Args:
    table: one with rows.

  Returns:
    A header and a line a row; the columns after one of estimates end in `low` and
    `high`. What is unknown is empty.

  >>> from psml_jax.report.columns import Column
  >>> columns = (Column('model'), Column('accuracy (%)'))
  >>> table = Table('Zoo', columns, [('a,b', Interval(90.5, 90.0, 91.0))])
  >>> print(to_csv(table), end='')
  model,accuracy (%),accuracy (%) low,accuracy (%) high
  "a,b",90.5,90,91
  """
  file = io.StringIO()
  writer = csv.writer(file, lineterminator='\n')
  writer.writerow(
    f'{name}{end}'
    for name, value in zip(table.header, table.rows[0], strict=True)
    for end in (('', ' low', ' high') if isinstance(value, Interval) else ('',))
  )
  for row in table.rows:
    parts = (value if isinstance(value, Interval) else (value,) for value in row)
    writer.writerow(map(_plain, itertools.chain.from_iterable(parts)))
  return file.getvalue()


def _plain(value: Any) -> Any:
  if isinstance(value, bool):
    return 'yes' if value else 'no'
  if isinstance(value, float):
    return '' if math.isnan(value) else f'{value:.12g}'
  return value


def to_latex(table: Table) -> str:
  r"""The table as a LaTeX tabular; needs the packages booktabs and array.

  Args:
    table: one with rows.

  Returns:
    From `\begin{tabular}` to `\end{tabular}`, all texts escaped; long ones wrap.

  >>> from psml_jax.report.columns import Column
  >>> table = Table('Zoo', (Column('model'), Column('%', str, True)), [('a_b', 90)])
  >>> print(to_latex(table), end='')
  \begin{tabular}{lr}
  \toprule
  model & \% \\
  \midrule
  a\_b & 90 \\
  \bottomrule
  \end{tabular}
  """
  texts = table.texts()
  kinds = ['r' if column.numbers else 'l' for column in table.columns]
  long = {i: length for i in range(len(kinds)) if (length := _length(texts, i)) > _LONG}
  for i, length in long.items():
    share = 0.75 * length / sum(long.values())
    kinds[i] = rf'>{{\raggedright\arraybackslash}}p{{{share:.2f}\linewidth}}'
  header, *rows = [
    ' & '.join(_latex(cell) for cell in row) + r' \\' for row in (table.header, *texts)
  ]
  lines = [rf'\begin{{tabular}}{{{"".join(kinds)}}}', r'\toprule', header, r'\midrule']
  return '\n'.join([*lines, *rows, r'\bottomrule', r'\end{tabular}']) + '\n'


def _length(texts: list[list[str]], column: int) -> int:
  """The longest text of a column, within limits; above `_LONG` where it has lines."""
  longest = max(len(row[column]) for row in texts)
  if any('\n' in row[column] for row in texts):
    longest = max(longest, _LONG + 1)
  return min(longest, 3 * _LONG)


def _latex(text: str) -> str:
  return re.sub('|'.join(map(re.escape, _LATEX)), lambda m: _LATEX[m[0]], text)
