"""Profiles as tables: written, joined, and used again."""

import csv
import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from psml_jax import _files
from psml_jax._validate import InputError
from psml_jax.core import ZooProfile
from psml_jax.zoo.profiling import Measured

_SAME = ('device', 'platform', 'request_images')


def write_profile(
  path: str | os.PathLike[str], profile: ZooProfile, measured: Measured | None = None
) -> None:
  """Writes a profile as CSV: name, accuracy (fraction), latency_ms.

  Args:
    path: the file.
    profile: the zoo; every number is written so that it reads back exactly.
    measured: where given, adds the spread and percentiles of a request of one image,
      the same of `batch_size` images in columns that begin with `batch_`, parameters
      and flops.

  Raises:
    ValueError: the path is a URL.
  """
  path = _files.local('path', path)
  columns: dict[str, list[Any]] = {
    'name': list(profile.names),
    'accuracy': np.asarray(profile.accuracy, np.float64).tolist(),
    'latency_ms': np.asarray(profile.latency_ms, np.float64).tolist(),
  }
  if measured is not None:
    for size, latency in (('', measured.single), ('batch_', measured.serving)):
      for field, values in latency._asdict().items():
        columns[f'{size}{field}_ms'] = values.tolist()
    del columns['fastest_ms']
    columns['parameters'] = measured.parameters.tolist()
    columns['flops'] = measured.flops.tolist()
  with open(path, 'w', newline='', encoding='utf-8') as file:
    writer = csv.writer(file)
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))


def read_profiles(*directories: str | os.PathLike[str]) -> ZooProfile:
  """Joins profiles that were measured apart, if they may be compared.

  Args:
    *directories: each holds the `profile.csv` and `profile.json` of a work directory.

  Returns:
    One profile of all their models.

  Raises:
    ValueError: no directory, a file that is absent or damaged, a name that occurs
      twice, or profiles measured on different devices or with requests of different
      sizes.
  """
  if not directories:
    raise ValueError('directories is empty; give at least one')
  profiles, descriptions = [], []
  for directory in (_files.local('directories', entry) for entry in directories):
    for name in ('profile.csv', 'profile.json'):
      if not (directory / name).is_file():
        raise ValueError(f'{directory} has no {name}; it must hold a measured profile')
    descriptions.append(_description(directory / 'profile.json'))
    profiles.append(_table(directory / 'profile.csv'))
  for place, description in zip(directories, descriptions, strict=True):
    for field in _SAME:
      if description[field] != descriptions[0][field]:
        raise ValueError(
          f'{place} was measured with {field} {description[field]!r} and '
          f'{directories[0]} with {descriptions[0][field]!r}; latencies of '
          'different ones cannot be compared'
        )
  return ZooProfile(
    np.concatenate([profile.accuracy for profile in profiles]),  # type: ignore[arg-type]
    np.concatenate([profile.latency_ms for profile in profiles]),  # type: ignore[arg-type]
    tuple(name for profile in profiles for name in profile.names),
  )


def stored_profile(path: str | os.PathLike[str], names: Sequence[str]) -> ZooProfile:
  """Reads a profile that was measured before, to use its latencies again.

  Args:
    path: a table with the columns name, accuracy (fraction) and latency_ms, such as
      `write_profile` makes.
    names: of the models that it must hold, these and no others.

  Returns:
    The profile, in the order of `names`.

  Raises:
    ValueError: no such table, or one of other models; the message names those that are
      missing and those that are too many.
  """
  path = _files.local('path', path)
  stored = _table(path)
  missing = [name for name in names if name not in stored.names]
  extra = [name for name in stored.names if name not in names]
  if missing or extra:
    raise ValueError(
      f'{path} holds another zoo; missing: {", ".join(missing) or "none"}; not part of '
      f'it: {", ".join(extra) or "none"}'
    )
  order = np.array([stored.index(name) for name in names])
  return ZooProfile(stored.accuracy[order], stored.latency_ms[order], tuple(names))


def _table(path: pathlib.Path) -> ZooProfile:
  return ZooProfile.from_csv(
    path,
    name_column='name',
    accuracy_column='accuracy',
    latency_column='latency_ms',
    accuracy_unit='fraction',
  )


def _description(path: pathlib.Path) -> dict[str, Any]:
  """What must agree; profiles of before `request_images` were of the batch size."""
  try:
    found = dict(json.loads(path.read_text('utf-8')))
  except (TypeError, ValueError) as error:
    raise InputError(
      f'{path} is damaged ({error}); measure the profile anew'
    ) from error
  batch = found.get('batch_size')
  return {'request_images': batch, **dict.fromkeys(_SAME[:2]), **found}
