"""The types that every part speaks: specs, zoos, queries, observations and bills."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from psml_jax import _csv, _validate, struct


@struct.dataclass(eq=False)
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
      max_latency_ms: milliseconds, any shape that broadcasts with the accuracy;
        infinite where float32 cannot hold it.

    Returns:
      The spec, both fields of the broadcast shape.

    Raises:
      ValueError: a concrete field holds NaN, or the shapes do not broadcast.

    >>> Spec.of([0.5, 0.9], 20.0).max_latency_ms.tolist()
    [20.0, 20.0]
    """
    _validate.no_nan('min_accuracy', min_accuracy)
    _validate.no_nan('max_latency_ms', max_latency_ms)
    with np.errstate(over='ignore'):
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
    latency_ms: f32[M], milliseconds of one request, finite in float32 and >= 0.
    names: M distinct names, no single string (static).

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
    if isinstance(self.names, str):
      raise ValueError(f'names is {self.names!r}; it must be a tuple of names')
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
    for name, values in (('accuracy', accuracy), ('latency_ms', latency)):
      lost = (values != 0) & ~_validate.in_float32(values)
      _validate.reject(name, values, lost, '0 or within float32 (1.2e-38 to 3.4e38)')
    seen: set[str] = set()
    for name in self.names:
      if not isinstance(name, str):
        raise ValueError(f'names holds {name!r}; it must hold strings')
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

  def meets(self, spec: Spec) -> jax.Array:
    """Which models a spec's feasible set has.

    Args:
      spec: any leading axes, each field f32[...].

    Returns:
      bool[..., M].

    >>> zoo = ZooProfile([0.7, 0.9], [1.0, 5.0], ('small', 'large'))
    >>> zoo.meets(Spec.of(0.8, 9.0)).tolist()
    [False, True]
    """
    models = (1,) * jnp.ndim(spec.min_accuracy) + (-1,)
    accurate = self.accuracy.reshape(models) >= spec.min_accuracy[..., None]
    return accurate & (
      self.latency_ms.reshape(models) <= spec.max_latency_ms[..., None]
    )

  @classmethod
  def from_csv(
    cls,
    path: str | pathlib.Path,
    *,
    name_column: str,
    accuracy_column: str,
    latency_column: str,
    accuracy_unit: str,
    latency_unit: str = 'ms',
  ) -> ZooProfile:
    """Reads a table with one model a row.

    Args:
      path: a CSV file with a header, in UTF-8.
      name_column: the column of model names.
      accuracy_column: the column of top-1 accuracies.
      latency_column: the column of latencies.
      accuracy_unit: 'fraction' or 'percent'.
      latency_unit: 's', 'ms' or 'us'.

    Returns:
      The profile, models in the order of the file.

    Raises:
      ValueError: no such file or no CSV file; a column that is missing or occurs
        twice; no rows; a row of another length than the header; an empty cell, text
        where a number belongs, or a number out of range; accuracies that look to be
        of the other unit; a name that occurs twice; latencies that are all 0.

    Warns:
      UserWarning: accuracies of which some look like fractions and others like
        percent, or latencies that differ, but not in float32.
    """
    table = _csv.read(
      path,
      {
        'name_column': name_column,
        'accuracy_column': accuracy_column,
        'latency_column': latency_column,
      },
    )
    names = _csv.names(table, name_column)
    accuracy = _csv.accuracies(table, accuracy_column, accuracy_unit)
    latency = _csv.latencies(table, latency_column, latency_unit)
    if not latency.any():
      raise ValueError(
        f'{latency_column} in {table.path} is 0 in every row; it must be above 0 in one'
      )
    _csv.warn_of_equal_latencies(table, latency_column, latency)
    return cls(accuracy, latency, names)  # type: ignore[arg-type]


@struct.dataclass(eq=False)
class Route:
  """The router's choice, batched as the spec was.

  Attributes:
    model: i32[...], index into the zoo; -1 where the query is refused.
    num_feasible: i32[...], size of the spec's feasible set.
  """

  model: jax.Array
  num_feasible: jax.Array


ANONYMOUS = -1


@struct.dataclass(eq=False)
class Query:
  """A batch of B queries, as a client sends it.

  Attributes:
    inputs: what is to be classified: i32[B], image indices, or f32[B, H, W, C].
    spec: what is asked for, f32[B] each.
    client: i32[B], who says to be asking; below 0, the client names no identity.
    sent: bool[B], which queries of the batch exist; the others reach no server.
  """

  inputs: jax.Array
  spec: Spec
  client: jax.Array
  sent: jax.Array

  @classmethod
  def of(
    cls,
    inputs: ArrayLike,
    spec: Spec,
    *,
    client: ArrayLike = ANONYMOUS,
    sent: ArrayLike = True,
  ) -> Query:
    """A batch of queries; what is given once holds for all of them.

    Args:
      inputs: [B] image indices or [B, H, W, C] images.
      spec: of shape [] or [B].
      client: i32[] or i32[B], who asks; nobody says who unless given.
      sent: bool[] or bool[B], which queries exist.

    Returns:
      The batch.

    Raises:
      ValueError: no batch axis, or fields that do not fit it.

    >>> Query.of([4, 7], Spec.of(0.5, 20.0)).spec.max_latency_ms.tolist()
    [20.0, 20.0]
    """
    inputs = jnp.asarray(inputs)
    if not inputs.ndim:
      raise ValueError('inputs is a scalar; it must list one input a query')
    shape = inputs.shape[:1]
    fields = {
      'spec.min_accuracy': jnp.asarray(spec.min_accuracy, jnp.float32),
      'spec.max_latency_ms': jnp.asarray(spec.max_latency_ms, jnp.float32),
      'client': jnp.asarray(client, jnp.int32),
      'sent': jnp.asarray(sent, bool),
    }
    for name, field in fields.items():
      if field.shape not in ((), shape):
        raise ValueError(f'{name} has shape {field.shape}; it must be () or {shape}')
    accuracy, latency, client, sent = (
      jnp.broadcast_to(field, shape) for field in fields.values()
    )
    return cls(inputs, Spec(accuracy, latency), client, sent)


@struct.dataclass(eq=False)
class Observation:
  """What a client gets back for a batch of B queries, and all that it may read.

  Attributes:
    served: bool[B], False where the server refused and where nothing was sent.
    outputs: f32[B, K], class probabilities; zeros where not served.
    latency_ms: f32[B], the latency of the answer in milliseconds; 0 where not served.
  """

  served: jax.Array
  outputs: jax.Array
  latency_ms: jax.Array


@struct.dataclass(eq=False)
class Transcript:
  """The server's record of a batch of queries: ground truth, for evaluation only.

  Attributes:
    model: i32[B], the model that answered; -1 where refused or not sent.
    sent: bool[B], whether the query reached the server at all.
  """

  model: jax.Array
  sent: jax.Array


@struct.dataclass(eq=False)
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


@struct.dataclass(eq=False)
class Knowledge:
  """What an attacker knows before its first query.

  Attributes:
    latency_budget_ms: f32[], the latency that it can afford, in milliseconds.
    pool_size: how many unlabelled images it has (static).
    num_classes: how many classes the server tells apart (static).
    spec: a spec that it was told, of shape []; None where it was told none.
    defense: the server's defense, where the attacker knows mechanism and strength: its
      `accurate` and `fast` are the distribution functions of the noise, see
      `psml_jax.defenses.Fieldwise`. None where it knows neither.
    found: what the phases of its attack before this one have harvested, if any.
  """

  latency_budget_ms: jax.Array
  pool_size: int = struct.field(pytree_node=False, default=1)
  num_classes: int = struct.field(pytree_node=False, default=1)
  spec: Spec | None = None
  defense: Any = None
  found: Any = None


@struct.dataclass(eq=False)
class Harvest:
  """A surrogate's training data: the answered queries first, then padding.

  Attributes:
    inputs: i32[B], indices into the attacker's pool.
    targets: f32[B, K], class probabilities that came back; zeros in the padding.
    count: i32[], how many rows were answered.
    latency_ms: f32[B], how long each answer took; None where nobody looked.
  """

  inputs: jax.Array
  targets: jax.Array
  count: jax.Array
  latency_ms: jax.Array | None = None


Router = Callable[[jax.Array, Spec], Route]
"""`(key, spec) -> Route`: pure, vectorised over the spec's leading axes."""
