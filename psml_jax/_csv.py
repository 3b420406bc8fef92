"""Tables in CSV files: columns found, and every number checked where it stands."""

import csv
import dataclasses
import difflib
import io
import pathlib
import re
import warnings
from collections.abc import Iterable, Mapping

import numpy as np

from psml_jax import _files, _validate

_TOP = {'fraction': 1, 'percent': 100}
_MILLISECONDS = {'us': 1e-3, 'ms': 1.0, 's': 1e3}
_SEPARATORS = {';': 'semicolons', '\t': 'tabs', '|': 'bars'}
_OTHER_FILES = {
  b'PK\x03\x04': 'it is a spreadsheet or zip archive; export it as CSV',
  b'\x1f\x8b': 'it is packed by gzip; unpack it',
}


@dataclasses.dataclass(frozen=True)
class Table:
  """Columns of a CSV file.

  Attributes:
    path: of the file.
    lines: the last line in the file of each row.
    columns: name -> the cells of each row, stripped, none of them empty.
  """

  path: pathlib.Path
  lines: list[int]
  columns: Mapping[str, list[str]]


def read(path: str | pathlib.Path, columns: Mapping[str, str]) -> Table:
  """Reads columns of a CSV file with a header; blank lines are skipped.

  Args:
    path: the file, in UTF-8.
    columns: argument that names a column -> the column.

  Returns:
    The table, with at least one row.

  Raises:
    ValueError: a file that cannot be read or is no CSV file; a column that is missing,
      occurs twice or is asked for twice; no rows; a row that is longer or shorter than
      the header; an empty cell.
  """
  asked = list(columns.items())
  for i, (argument, column) in enumerate(asked):
    if not isinstance(column, str):
      raise ValueError(f'{argument} is {column!r}; it must be the name of a column')
    for other, same in asked[:i]:
      if same.strip() == column.strip():
        raise ValueError(
          f'{other} and {argument} are both {column!r}; they must differ'
        )
  path = _files.local('path', path)
  text = _text(path)
  _check_separator(path, text, columns.values())
  rows = _rows(path, text)
  if not rows:
    raise ValueError(f'{path} is empty; it must hold a header and rows')
  header = [cell.strip() for cell in rows[0][1]]
  places = {column: _place(path, header, column) for column in columns.values()}
  if len(rows) == 1:
    raise ValueError(f'{path} has no rows; it must hold at least one below its header')
  cells: dict[str, list[str]] = {column: [] for column in places}
  for line, row in rows[1:]:
    if len(row) != len(header):
      raise ValueError(
        f'line {line} of {path} has {len(row)} cells and the header {len(header)}; '
        'they must be as many (cells that hold commas need quotes)'
      )
    for column, place in places.items():
      cell = row[place].strip()
      if not cell:
        raise ValueError(f'{column} in line {line} of {path} is empty; give a value')
      cells[column].append(cell)
  return Table(path, [line for line, _ in rows[1:]], cells)


def names(table: Table, column: str) -> tuple[str, ...]:
  """The cells of one column; ValueError where two of them are the same."""
  seen: dict[str, int] = {}
  for line, name in zip(table.lines, table.columns[column], strict=True):
    if name in seen:
      raise ValueError(
        f'{column} in lines {seen[name]} and {line} of {table.path} is {name!r}; every '
        'model needs its own name'
      )
    seen[name] = line
  return tuple(seen)


def accuracies(table: Table, column: str, unit: str) -> np.ndarray:
  """The fractions of a column of accuracies.

  Args:
    table: holds the column.
    column: its name.
    unit: 'fraction' or 'percent', what the cells are in.

  Returns:
    f64[rows], in [0, 1].

  Raises:
    ValueError: a cell that is no number or out of range, or a column that is in the
      other unit by the looks of it.

  Warns:
    UserWarning: some cells look like fractions, and others like percent.
  """
  top = _TOP[_validate.one_of('accuracy_unit', unit, _TOP)]
  values = _numbers(table, column)
  allowed = 'percent in [0, 100]'
  if unit == 'fraction':
    percent = np.all((values >= 0) & (values <= 100))
    hint = ' (this looks like percent: give accuracy_unit percent)' if percent else ''
    allowed = f'a fraction in [0, 1]{hint}'
  _reject(table, column, ~((values >= 0) & (values <= top)), allowed)
  largest = values.argmax()
  if unit == 'percent' and 0 < values[largest] <= 1:
    raise ValueError(
      f'accuracy_unit is percent, but {column} in {table.path} is at most '
      f'{values[largest]}, in line {table.lines[largest]}; give accuracy_unit fraction '
      'for fractions'
    )
  fractions = _in_float32(table, column, values / top)
  small = np.flatnonzero((values > 0) & (values <= 1))
  if unit == 'percent' and small.size:
    warnings.warn(
      f'{column} in line {table.lines[small[0]]} of {table.path} is '
      f'{table.columns[column][small[0]]}, which looks like a fraction, and in line '
      f'{table.lines[largest]} {table.columns[column][largest]}; all are taken for '
      'percent',
      stacklevel=3,
    )
  return fractions


def latencies(
  table: Table, column: str, unit: str, *, infinite: bool = False
) -> np.ndarray:
  """The milliseconds of a column of latencies.

  Args:
    table: holds the column.
    column: its name.
    unit: 's', 'ms' or 'us', what the cells are in.
    infinite: whether they may be infinite.

  Returns:
    f64[rows], at least 0.

  Raises:
    ValueError: a cell that is no number, negative, NaN or, where it must not be,
      infinite; or one whose milliseconds float32 cannot hold.
  """
  factor = _MILLISECONDS[_validate.one_of('latency_unit', unit, _MILLISECONDS)]
  values = _numbers(table, column)
  if infinite:
    _reject(table, column, ~(values >= 0), '>= 0')
  else:
    _reject(table, column, ~(np.isfinite(values) & (values >= 0)), 'finite and >= 0')
  return _in_float32(table, column, factor * values)


def warn_of_equal_latencies(table: Table, column: str, values: np.ndarray) -> None:
  """Warns where latencies differ in the file, but not in float32."""
  order = np.argsort(values, kind='stable')
  ordered = values[order]
  rounded = ordered.astype(np.float32)
  for i in np.flatnonzero((np.diff(ordered) > 0) & (np.diff(rounded) == 0))[:1]:
    a, b = sorted((order[i], order[i + 1]))
    warnings.warn(
      f'{column} in lines {table.lines[a]} and {table.lines[b]} of {table.path} is '
      f'{table.columns[column][a]} and {table.columns[column][b]}, which are equal in '
      'float32; they count as equally fast',
      stacklevel=3,
    )


def _text(path: pathlib.Path) -> str:
  def reject(why: object) -> ValueError:
    return ValueError(f'path is {str(path)!r}; it must be a CSV file in UTF-8: {why}')

  try:
    raw = path.read_bytes()
  except OSError as error:
    raise reject(error) from error
  _files.check_content(path, raw[:256])
  for start, what in _OTHER_FILES.items():
    if raw.startswith(start):
      raise reject(what)
  if raw.startswith((b'\xff\xfe', b'\xfe\xff')):
    raise reject('it is in UTF-16 or UTF-32')
  if b'\0' in raw:
    line = 1 + raw[: raw.index(b'\0')].count(b'\n')
    raise reject(f'line {line} holds a zero byte, as UTF-16 and binary files do')
  try:
    return raw.decode('utf-8-sig')
  except UnicodeDecodeError as error:
    line = 1 + raw[: error.start].count(b'\n')
    byte = raw[error.start]
    raise reject(f'line {line} holds byte {byte:#04x} of another encoding') from error


def _check_separator(path: pathlib.Path, text: str, columns: Iterable[str]) -> None:
  """Checks that the header is not separated by something else than commas."""
  header = next((line for line in text.splitlines() if line.strip()), '')
  for separator, name in _SEPARATORS.items():
    cells = {cell.strip(' "') for cell in header.split(separator)}
    if len(cells) > 1 and cells & set(columns):
      raise ValueError(f'{path} is separated by {name}; it must be by commas')


def _rows(path: pathlib.Path, text: str) -> list[tuple[int, list[str]]]:
  """The rows that are not blank, and the line in which each ends."""
  reader = csv.reader(io.StringIO(text, newline=''), strict=True, skipinitialspace=True)
  rows, last = [], 0
  try:
    for row in reader:
      last = reader.line_num
      if len(row) > 1 or any(cell.strip() for cell in row):
        rows.append((last, row))
  except csv.Error as error:
    raise ValueError(
      f'the row that begins in line {last + 1} of {path} is no CSV ({error}); quotes '
      'must enclose whole cells'
    ) from error
  return rows


def _place(path: pathlib.Path, header: list[str], column: str) -> int:
  places = [i for i, name in enumerate(header) if name == column.strip()]
  if len(places) > 1:
    how_often = 'twice' if len(places) == 2 else f'{len(places)} times'
    raise ValueError(
      f'the column {column!r} occurs {how_often} in the header of {path}; it must '
      'occur once'
    )
  if not places:
    lower = {name.lower(): name for name in header if name}
    near = difflib.get_close_matches(column.strip().lower(), lower, n=1)
    hint = f' (did you mean {lower[near[0]]!r}?)' if near else ''
    more = f' and {len(header) - 20} more' if len(header) > 20 else ''
    raise ValueError(
      f'column {column!r} is missing in {path}{hint}; it has {header[:20]}{more}'
    )
  return places[0]


def _numbers(table: Table, column: str) -> np.ndarray:
  values = []
  for line, cell in zip(table.lines, table.columns[column], strict=True):
    try:
      if '_' in cell:
        raise ValueError
      values.append(float(cell))
    except ValueError:
      hint = ''
      if cell.endswith('%'):
        hint = ' (without a percent sign)'
      elif re.fullmatch(r"[-+]?\d[\d.,'’_\s]*", cell):
        hint = ' (with a point before decimals, and thousands not separated)'
      elif re.search(r'\d', cell):
        hint = ' (alone, without a unit)'
      raise ValueError(
        f'{column} in line {line} of {table.path} is {cell!r:.60}; it must be a number'
        f'{hint}'
      ) from None
  return np.array(values)


def _reject(table: Table, column: str, bad: np.ndarray, allowed: str) -> None:
  """Raises a ValueError that names the first bad cell, if there is one."""
  for i in np.flatnonzero(bad):
    raise ValueError(
      f'{column} in line {table.lines[i]} of {table.path} is '
      f'{table.columns[column][i]:.60}; it must be {allowed}'
    )


def _in_float32(table: Table, column: str, values: np.ndarray) -> np.ndarray:
  """The values, none of which float32 makes infinite or takes for 0."""
  for i in np.flatnonzero(~_validate.in_float32(values)):
    cell = table.columns[column][i]
    mantissa = cell.lower().partition('e')[0]
    if 'inf' not in mantissa and re.search('[1-9]', mantissa):
      raise ValueError(
        f'{column} in line {table.lines[i]} of {table.path} is {cell:.60}, which is '
        f'{"infinite" if values[i] > 1 else "0"} in float32; give a number it can hold'
      )
  return values
