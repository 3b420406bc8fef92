"""The runs of an experiment as flat records, and two experiments compared."""

import json
import os
import pathlib
import warnings
from collections.abc import Mapping
from typing import Any

from psml_jax import _files, metrics

_CELL = ('victim', 'attack', 'defense', 'value', 'query_budget')
_SCORES = ('accuracy', 'fidelity')
_FIELDS = (
  *_CELL,
  'seed',
  *_SCORES,
  'victim_purity',
  'queries_billed',
  'queries_served',
  'queries_logged',
  'loss',
  'diverged',
  'seconds',
)
_Cell = tuple[str, str, str, float, int]


def load(workdir: str | os.PathLike[str]) -> list[dict[str, Any]]:
  """Reads the extraction runs of an experiment.

  `pandas.DataFrame(load(workdir))` is a table of them; this function needs no pandas.

  Args:
    workdir: the directory of an experiment whose extraction is done; `~` expanded.

  Returns:
    A record a run, of texts, numbers and truths alone: `config` and `config_seed`, of
    the experiment; `victim`, `attack`, `defense` and the `value` of its knob,
    `query_budget`, `seed` (counted from 0 in each cell); `accuracy`, `fidelity` and
    `victim_purity`,
    fractions in [0, 1], None where there is none; `queries_billed`, `queries_served`
    and `queries_logged`; the last `loss` of the surrogate's training and whether it
    `diverged`; `seconds`.

  Raises:
    ValueError: no work directory, a published zoo (which has no surrogates), an
      extraction that is not done, or a file that is damaged or of another version.

  >>> load('no/such/run')
  Traceback (most recent call last):
  ...
  ValueError: workdir is 'no/such/run'; it holds no config.json, so it is no work \
directory of an experiment
  """
  return _load('workdir', workdir)


def compare(
  workdir_a: str | os.PathLike[str], workdir_b: str | os.PathLike[str]
) -> list[dict[str, Any]]:
  """Compares the cells that two experiments have in common, b minus a.

  A cell is all runs of one victim, attack, defense, value (to six digits after the
  point) and query budget. Its runs are paired by seed, so the comparison means most
  where both experiments drew the same queries: equal config seeds and data.

  Args:
    workdir_a: the directory of the first experiment, see `load`.
    workdir_b: of the second.

  Returns:
    A record a cell, in the order of the first experiment: the cell's fields;
    `accuracy`, `fidelity`, the mean difference as a fraction, and `accuracy_low`,
    `accuracy_high`, `fidelity_low`, `fidelity_high`, its 95 % interval
    (`metrics.interval`), all None where fewer than two pairs are left; `pairs`, how
    many seeds went into them; `diverged`, how many common seeds were left out because
    a surrogate diverged in either experiment.

  Warns:
    UserWarning: cells that only one of the two has; they are left out.

  Raises:
    ValueError: what `load` raises; no cell in common; a common cell with fewer than
      two seeds in common.
  """
  a = _cells(_load('workdir_a', workdir_a))
  b = _cells(_load('workdir_b', workdir_b))
  common = [cell for cell in a if cell in b]
  if not common:
    raise ValueError(
      f'workdir_a is {str(workdir_a)!r} and workdir_b {str(workdir_b)!r}; they have no '
      f'cell ({", ".join(_CELL)}) in common: the first has {_some(a)}, the second '
      f'{_some(b)}'
    )
  alone = (len(a) - len(common), len(b) - len(common))
  if any(alone):
    warnings.warn(
      f'{alone[0]} cells of workdir_a and {alone[1]} of workdir_b have no partner in '
      'the other and are left out (values that were calibrated apart differ)',
      stacklevel=2,
    )
  return [_difference(cell, a[cell], b[cell]) for cell in common]


def _load(name: str, workdir: str | os.PathLike[str]) -> list[dict[str, Any]]:
  directory = _files.local(name, workdir)
  path, subject = directory / 'config.json', f'{name} is {str(workdir)!r}; it'
  if not path.is_file():
    raise ValueError(
      f'{subject} holds no config.json, so it is no work directory of an experiment'
    )
  content = _parse(path, path.read_text('utf-8'))
  config = content.get('config') if isinstance(content, dict) else None
  if not isinstance(config, dict) or not {'name', 'seed'} <= config.keys():
    raise ValueError(f'{path} has no name and seed; it must be the config of a run')
  runs = directory / 'extraction.jsonl'
  if not runs.is_file():
    if config.get('published') is not None:
      raise ValueError(f'{subject} is of a published zoo, which has no surrogates')
    raise ValueError(
      f'{subject} holds no extraction.jsonl; run the experiment to its end'
    )
  origin = {'config': config['name'], 'config_seed': config['seed']}
  records = []
  for i, line in enumerate(runs.read_text('utf-8').splitlines(), 1):
    record = _parse(runs, line, i)
    found = record if isinstance(record, dict) else {}
    if missing := [field for field in _FIELDS if field not in found]:
      raise ValueError(
        f'line {i} of {runs} lacks {", ".join(missing)}; another version of the '
        'library wrote it, or none'
      )
    records.append(origin | {field: record[field] for field in _FIELDS})
  return records


def _parse(path: pathlib.Path, text: str, line: int = 1) -> Any:
  try:
    return json.loads(text)
  except ValueError as error:
    raise ValueError(f'{path} is no JSON in line {line}: {error}') from None


def _cells(
  records: list[dict[str, Any]],
) -> dict[_Cell, dict[int, Mapping[str, Any]]]:
  """The records by cell and seed."""
  cells: dict[_Cell, dict[int, Mapping[str, Any]]] = {}
  for record in records:
    victim, attack, defense, value, budget = (record[field] for field in _CELL)
    cell = (victim, attack, defense, round(value, 6), budget)
    cells.setdefault(cell, {})[record['seed']] = record
  return cells


def _difference(
  cell: _Cell, a: Mapping[int, Mapping[str, Any]], b: Mapping[int, Mapping[str, Any]]
) -> dict[str, Any]:
  seeds = sorted(a.keys() & b.keys())
  fields = dict(zip(_CELL, cell, strict=True))
  if len(seeds) < 2:
    raise ValueError(
      f'workdir_a and workdir_b have {len(seeds)} seed(s) in common in the cell '
      f'{fields}; a comparison needs two or more'
    )
  finite = [seed for seed in seeds if not (a[seed]['diverged'] or b[seed]['diverged'])]
  for score in _SCORES:
    fields |= {score: None, f'{score}_low': None, f'{score}_high': None}
    if len(finite) >= 2:
      found = metrics.interval([b[seed][score] - a[seed][score] for seed in finite])
      low, high = float(found.low), float(found.high)
      fields |= {score: found.mean, f'{score}_low': low, f'{score}_high': high}
  return fields | {'pairs': len(finite), 'diverged': len(seeds) - len(finite)}


def _some(cells: Mapping[_Cell, Any]) -> str:
  return f'{next(iter(cells))} and {len(cells) - 1} more' if cells else 'none'
