"""The runs of an experiment as flat records, and two experiments compared."""

import dataclasses
import os
import warnings
from collections.abc import Mapping
from typing import Any

from psml_jax import _files, metrics
from psml_jax.experiments import workdir
from psml_jax.experiments.artifacts import EXTRACTION, Record
from psml_jax.experiments.plan import Cell
from psml_jax.report.schema import METRICS

_REMEDY = 'another version of the library wrote it, or none'


def load(workdir: str | os.PathLike[str]) -> list[dict[str, Any]]:
  """Reads the extraction runs of an experiment.

  `pandas.DataFrame(load(workdir))` is a table of them; this function needs no pandas.

  Args:
    workdir: the directory of an experiment whose extraction is done; `~` expanded.

  Returns:
    A record a run, of texts, numbers and truths alone: `config` and `config_seed`, of
    the experiment; `victim`, `attack`, `defense` and the `value` of its knob,
    `query_budget`, `seed` (counted from 0 in each cell); `accuracy`, `fidelity` and
    `victim_purity`, fractions in [0, 1], None where there is none; `probes`,
    `queries_billed`, `queries_served` and `queries_logged`; the last `loss` of the
    surrogate's training and whether it `diverged`; `seconds`.

  Raises:
    ValueError: no work directory, a published zoo (which has no surrogates), an
      extraction that is not done, or a file that is damaged or of another version.

  >>> load('no/such/run')
  Traceback (most recent call last):
  ...
  ValueError: workdir is 'no/such/run'; it holds no config.json, so it is no work \
directory of an experiment
  """
  origin, records = _load('workdir', workdir)
  return [origin | dataclasses.asdict(record) for record in records]


def compare(
  workdir_a: str | os.PathLike[str], workdir_b: str | os.PathLike[str]
) -> list[dict[str, Any]]:
  """Compares the cells that two experiments have in common, b minus a.

  A cell is all runs of one victim, attack, defense, value (to six significant digits)
  and query budget. Its runs are paired by seed, so the comparison means most
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
    ValueError: what `load` raises; a cell with two runs of a seed; no cell in common; a
      common cell with fewer than two seeds in common.
  """
  a, b = _cells('workdir_a', workdir_a), _cells('workdir_b', workdir_b)
  common = [cell for cell in a if cell in b]
  if not common:
    raise ValueError(
      f'workdir_a is {str(workdir_a)!r} and workdir_b {str(workdir_b)!r}; they have no '
      f'cell ({", ".join(Cell._fields)}) in common: the first has {_some(a)}, the '
      f'second {_some(b)}'
    )
  alone = (len(a) - len(common), len(b) - len(common))
  if any(alone):
    warnings.warn(
      f'{alone[0]} cells of workdir_a and {alone[1]} of workdir_b have no partner in '
      'the other and are left out (values that were calibrated apart differ)',
      stacklevel=2,
    )
  return [_difference(cell, a[cell], b[cell]) for cell in common]


def _load(
  name: str, path: str | os.PathLike[str]
) -> tuple[dict[str, Any], list[Record]]:
  """What each run of an experiment has in common, and the runs."""
  directory = _files.local(name, path)
  subject = f'{name} is {str(path)!r}; it'
  if not (directory / 'config.json').is_file():
    raise ValueError(
      f'{subject} holds no config.json, so it is no work directory of an experiment'
    )
  config = workdir.read_config(directory).config
  if not {'name', 'seed'} <= config.keys():
    raise workdir.damaged(directory / 'config.json', 'it has no name and seed', _REMEDY)
  if not (directory / EXTRACTION).is_file():
    if config.get('published') is not None:
      raise ValueError(f'{subject} is of a published zoo, which has no surrogates')
    raise ValueError(f'{subject} holds no {EXTRACTION}; run the experiment to its end')
  origin = {'config': config['name'], 'config_seed': config['seed']}
  records = workdir.read_jsonl(directory / EXTRACTION, Record, _REMEDY)
  if not records:
    raise workdir.damaged(directory / EXTRACTION, 'it holds no runs', _REMEDY)
  return origin, records


def _cells(name: str, path: str | os.PathLike[str]) -> dict[Cell, dict[int, Record]]:
  """The records by cell and seed."""
  cells: dict[Cell, dict[int, Record]] = {}
  for record in _load(name, path)[1]:
    cell = record.cell._replace(value=float(f'{record.value:.6g}'))
    runs = cells.setdefault(cell, {})
    if record.seed in runs:
      raise ValueError(
        f'{name} is {str(path)!r}; it has two runs of seed {record.seed} in the cell '
        f'{cell._asdict()}, and must have one'
      )
    runs[record.seed] = record
  return cells


def _difference(
  cell: Cell, a: Mapping[int, Record], b: Mapping[int, Record]
) -> dict[str, Any]:
  seeds = sorted(a.keys() & b.keys())
  fields = cell._asdict()
  if len(seeds) < 2:
    raise ValueError(
      f'workdir_a and workdir_b have {len(seeds)} seed(s) in common in the cell '
      f'{fields}; a comparison needs two or more'
    )
  finite = [seed for seed in seeds if not (a[seed].diverged or b[seed].diverged)]
  for name in METRICS:
    found: tuple[float | None, ...] = (None, None, None)
    if len(finite) >= 2:
      pairs = ((vars(a[seed]), vars(b[seed])) for seed in finite)
      found = metrics.interval([two[name] - one[name] for one, two in pairs])
    ends = (name, f'{name}_low', f'{name}_high')
    fields |= zip(ends, found, strict=True)
  return fields | {'pairs': len(finite), 'diverged': len(seeds) - len(finite)}


def _some(cells: Mapping[Cell, Any]) -> str:
  return f'{tuple(next(iter(cells)))} and {len(cells) - 1} more'
