"""The types that every part speaks: specs, zoos, routes, observations and bills."""

from __future__ import annotations

import csv
import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax.typing import ArrayLike

from psml_jax import _validate


@struct.dataclass
class Spec:
  """What a client asks of the server, batched over any leading axes.

  A model is feasible for a spec if its accuracy is at least `min_accuracy` and
  its latency at most `max_latency_ms`, both comparisons in float32.

  Attributes:
    min_accuracy: f32[...], a fraction; values outside [0, 1] are allowed (noise
      makes them) and mean what the comparison says.
    max_latency_ms: f32[...], milliseconds; may be infinite.
  """

  min_accuracy: jax.Array
  max_latency_ms: jax.Array

  @classmethod
  def of(cls, min_accuracy: ArrayLike, max_latency_ms: ArrayLike) -> Spec:
    """A spec of two float32 arrays of one shape, made from any array-likes.

    Args:
      min_accuracy: a fraction, any shape.
      max_latency_ms: milliseconds, any shape that broadcasts with the accuracy.

    Returns:
      The spec, both fields of the broadcast shape.

    Raises:
      ValueError: a concrete field holds NaN, or the shapes do not broadcast.

    >>> Spec.of([0.5, 0.9], 20.0).max_latency_ms.tolist()
    [20.0, 20.0]
    """
    _validate.no_nan('min_accuracy', min_accuracy)
    _validate.no_nan('max_latency_ms', max_latency_ms)
    accuracy = jnp.asarray(min_accuracy, jnp.float32)
    latency = jnp.asarray(max_latency_ms, jnp.float32)
    shape = jnp.broadcast_shapes(accuracy.shape, latency.shape)
    return cls(jnp.broadcast_to(accuracy, shape), jnp.broadcast_to(latency, shape))


@jax.tree_util.register_pytree_with_keys_class
@dataclasses.dataclass(frozen=True, eq=False)
class ZooProfile:
  """What the operator knows of each model of the zoo.

  Attributes:
    accuracy: f32[M], top-1 as a fraction in [0, 1].
    latency_ms: f32[M], milliseconds of one request, finite and >= 0.
    names: M distinct names (static).

  Raises:
    ValueError: an empty zoo, fields of different lengths, a name that occurs
      twice, or a number outside its range. Traced arrays are not checked.

  >>> zoo = ZooProfile([0.7, 0.9], [1.0, 5.0], ('small', 'large'))
  >>> zoo.names[1], len(zoo)
  ('large', 2)
  """

  accuracy: jax.Array
  latency_ms: jax.Array
  names: tuple[str, ...]

  def __post_init__(self) -> None:
    object.__setattr__(self, 'names', tuple(self.names))
    if _validate.is_concrete(self.accuracy, self.latency_ms):
      self._check()
    for field in ('accuracy', 'latency_ms'):
      object.__setattr__(self, field, jnp.asarray(getattr(self, field), jnp.float32))

  def _check(self) -> None:
    accuracy = _validate.fractions('accuracy', self.accuracy)
    latency = _validate.non_negative('latency_ms', self.latency_ms)
    if accuracy.ndim != 1 or not accuracy.size:
      raise ValueError(
        f'accuracy has shape {accuracy.shape}; it must list one or more models'
      )
    if latency.shape != accuracy.shape:
      raise ValueError(
        f'latency_ms has shape {latency.shape}; it must be {accuracy.shape}'
      )
    if len(self.names) != accuracy.size:
      raise ValueError(
        f'names has {len(self.names)} entries; it must have {accuracy.size}'
      )
    seen: set[str] = set()
    for name in self.names:
      if name in seen:
        raise ValueError(f'names holds {name!r} twice; every model needs its own name')
      seen.add(name)

  def __len__(self) -> int:
    return len(self.names)

  def tree_flatten_with_keys(self) -> tuple[Any, tuple[str, ...]]:
    key = jax.tree_util.GetAttrKey
    children = (
      (key('accuracy'), self.accuracy),
      (key('latency_ms'), self.latency_ms),
    )
    return children, self.names

  @classmethod
  def tree_unflatten(cls, names: tuple[str, ...], children: Any) -> ZooProfile:
    profile = object.__new__(cls)
    for field, value in zip(('accuracy', 'latency_ms'), children, strict=True):
      object.__setattr__(profile, field, value)
    object.__setattr__(profile, 'names', names)
    return profile

  def index(self, name: str) -> int:
    """The position of a model; ValueError for a name the zoo does not have."""
    if name not in self.names:
      shown = ', '.join(self.names[:20]) + (', ...' if len(self.names) > 20 else '')
      raise ValueError(f'name is {name!r}; it must be one of {shown}')
    return self.names.index(name)

  @classmethod
  def from_csv(
    cls,
    path: str | pathlib.Path,
    *,
    name_column: str,
    accuracy_column: str,
    latency_column: str,
    accuracy_unit: str,
  ) -> ZooProfile:
    """Reads a table with one model a row.

    Args:
      path: a CSV file with a header.
      name_column: the column of model names.
      accuracy_column: the column of top-1 accuracies.
      latency_column: the column of latencies, in milliseconds.
      accuracy_unit: 'fraction' or 'percent'.

    Returns:
      The profile, models in the order of the file.

    Raises:
      ValueError: no such file, a missing column, an empty cell, text where a
        number belongs, or what the constructor rejects.
    """
    _validate.one_of('accuracy_unit', accuracy_unit, ('fraction', 'percent'))
    columns = (name_column, accuracy_column, latency_column)
    table = read_columns(path, columns)
    accuracy = numbers(path, accuracy_column, table[accuracy_column])
    latency = numbers(path, latency_column, table[latency_column])
    if accuracy_unit == 'percent':
      bad = [value for value in accuracy if not 0 <= value <= 100]
      if bad:
        raise ValueError(
          f'{accuracy_column} in {path} holds {bad[0]}; it must be percent in [0, 100]'
        )
      if accuracy and 0 < max(accuracy) <= 1:
        raise ValueError(
          f'accuracy_unit is percent, but {accuracy_column} in {path} is at most '
          f'{max(accuracy)}; give accuracy_unit fraction for fractions'
        )
      accuracy = [value / 100 for value in accuracy]
    return cls(accuracy, latency, tuple(table[name_column]))  # type: ignore[arg-type]


def read_columns(
  path: str | pathlib.Path, columns: tuple[str, ...]
) -> dict[str, list[str]]:
  """The named columns of a CSV file with a header, as text without empty cells.

  Args:
    path: the file.
    columns: the columns to read.

  Returns:
    Each column's cells, stripped.

  Raises:
    ValueError: the file cannot be read, a column is missing or a cell is empty.
  """
  try:
    with open(path, newline='', encoding='utf-8-sig') as file:
      reader = csv.DictReader(file)
      rows, header = list(reader), list(reader.fieldnames or ())
  except (OSError, UnicodeDecodeError, csv.Error) as error:
    raise ValueError(
      f'path is {str(path)!r}; it must be a CSV file: {error}'
    ) from error
  for column in columns:
    if column not in header:
      raise ValueError(f'column {column!r} is missing in {path}; it has {header}')
  table: dict[str, list[str]] = {column: [] for column in columns}
  for line, row in enumerate(rows, start=2):
    for column in columns:
      cell = (row[column] or '').strip()
      if not cell:
        raise ValueError(f'{column} in line {line} of {path} is empty; give a value')
      table[column].append(cell)
  return table


def numbers(path: str | pathlib.Path, column: str, cells: list[str]) -> list[float]:
  """The cells of one column as numbers; ValueError names the first that is none."""
  values = []
  for line, cell in enumerate(cells, start=2):
    try:
      values.append(float(cell))
    except ValueError:
      raise ValueError(
        f'{column} in line {line} of {path} is {cell!r}; it must be a number'
      ) from None
  return values


@struct.dataclass
class Route:
  """The router's choice, batched as the spec was.

  Attributes:
    model: i32[...], index into the zoo; -1 where the query is refused.
    num_feasible: i32[...], size of the spec's feasible set.
  """

  model: jax.Array
  num_feasible: jax.Array


@struct.dataclass
class Observation:
  """What a real client gets back, and all that an attacker may read.

  Attributes:
    served: bool[...], False where the server refused.
    outputs: f32[..., K], class probabilities; zeros where refused.
    latency_ms: f32[...], the latency of the answer in milliseconds; 0 where refused.
  """

  served: jax.Array
  outputs: jax.Array
  latency_ms: jax.Array


@struct.dataclass
class Transcript:
  """The server's record of a batch of queries: ground truth, for evaluation only.

  Attributes:
    model: i32[...], the model that answered; -1 where refused or not sent.
    sent: bool[...], whether the query reached the server at all.
  """

  model: jax.Array
  sent: jax.Array


@struct.dataclass
class Bill:
  """What a client has been charged for: every query, served or refused.

  Attributes:
    queries: i32[], queries sent.
    served: i32[], those that were answered.
  """

  queries: jax.Array
  served: jax.Array

  @classmethod
  def zero(cls) -> Bill:
    return cls(jnp.int32(0), jnp.int32(0))

  def charge(self, sent: jax.Array, served: jax.Array) -> Bill:
    """The bill after more queries.

    Args:
      sent: bool[...], which queries were sent.
      served: bool[...], which were answered; read only where sent.

    Returns:
      The new bill.

    >>> bill = Bill.zero().charge(jnp.array([True, True]), jnp.array([True, False]))
    >>> int(bill.queries), int(bill.served)
    (2, 1)
    """
    return Bill(
      self.queries + jnp.sum(sent, dtype=jnp.int32),
      self.served + jnp.sum(sent & served, dtype=jnp.int32),
    )


Router = Callable[[jax.Array, Spec], Route]
"""`(key, spec) -> Route`: pure, vectorised over the spec's leading axes."""

Oracle = Callable[[jax.Array, Any, Spec], Observation]
"""`(key, inputs, spec) -> Observation`: the black box as a client sees it."""

Server = Callable[[jax.Array, Any, Spec, jax.Array], tuple[Observation, Transcript]]
"""`(key, inputs, spec, sent) -> (Observation, Transcript)`: the operator's side."""
