"""What memory is worth: victim answers by number of accounts, goodput by client."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from psml_jax import _validate, goodput, metrics, session
from psml_jax.attacks.base import Attack
from psml_jax.core import Knowledge, Query, Route, Spec, ZooProfile
from psml_jax.servers.base import Server


def victim_answers(
  key: jax.Array,
  attacks: Sequence[Attack],
  server: Server,
  victim: int,
  knowledge: Knowledge,
  *,
  num_queries: int,
  seeds: int,
) -> np.ndarray:
  """How many of an attack's queries its victim answers.

  Args:
    key: consumed; all attacks meet the same servers, and each seed one of its own.
    attacks: such as `attacks.sybils.spread` with one number of accounts after another.
    server: whose `serve` is pure, a pytree.
    victim: index into its zoo.
    knowledge: what the attackers know.
    num_queries: billed, at most.
    seeds: how many runs of each attack.

  Returns:
    i64[attacks, seeds].

  Raises:
    ValueError: `num_queries` or `seeds` is no whole number >= 1, or no typed key.
  """
  _validate.key('key', key)
  _validate.positive_int('num_queries', num_queries)
  keys = jax.random.split(key, (_validate.positive_int('seeds', seeds), 2))

  def one(attack: Attack, keys: jax.Array) -> jax.Array:
    state = server.init(keys[0])
    found = session.run(keys[1], attack, server, state, knowledge, budget=num_queries)
    return jnp.sum(jnp.stack(found.answers), axis=0)[victim]

  every = jax.jit(jax.vmap(one, in_axes=(None, 0)))
  return np.stack([np.asarray(every(attack, keys), np.int64) for attack in attacks])


class Spread(NamedTuple):
  """A number that differs between clients.

  Attributes:
    mean: over all clients.
    low: the 5 % quantile.
    high: the 95 % quantile.
  """

  mean: float
  low: float
  high: float


def client_goodput(
  key: jax.Array, profile: ZooProfile, server: Server, spec: Spec
) -> np.ndarray:
  """The goodput of each of many honest clients who use a server for a while.

  Args:
    key: consumed: the server's secret.
    profile: the zoo.
    server: of the zoo, with room for C clients; image 0 is asked for.
    spec: f32[C, Q], the Q queries of each client; clients take turns.

  Returns:
    f32[C], fractions.

  Raises:
    ValueError: a spec of another rank, or no typed key.
  """
  _validate.key('key', key)
  shape = np.shape(spec.min_accuracy)
  if len(shape) != 2:
    raise ValueError(f'spec has shape {shape}; it must be [clients, queries]')
  asked = jax.tree.map(lambda field: field.T.ravel(), spec)
  clients = jnp.tile(jnp.arange(shape[0], dtype=jnp.int32), shape[1])
  query = Query.of(jnp.zeros_like(clients), asked, client=clients)
  _, _, transcript = server.serve(server.init(key), query)
  good = goodput.met(profile, asked, Route(transcript.model, transcript.model))
  return np.asarray(good).reshape(shape[1], shape[0]).mean(0)


def spread(values: np.ndarray) -> Spread:
  """Mean, 5 % and 95 % quantile over clients.

  >>> [round(x, 2) for x in spread(np.linspace(0, 1, 101))]
  [0.5, 0.05, 0.95]
  """
  low, high = np.quantile(values, [0.05, 0.95])
  return Spread(float(np.mean(values)), float(low), float(high))


class Row(NamedTuple):
  """A row of a table of accounts.

  Attributes:
    accounts: how many the attacker has.
    answers: of the victim, mean and 95 % interval over seeds.
    bound: on the mean.
  """

  accounts: int
  answers: metrics.Interval
  bound: float


def table(
  accounts: Sequence[int], answers: np.ndarray, bounds: Sequence[float]
) -> list[Row]:
  """Accounts against victim answers and their bound.

  Args:
    accounts: A numbers of accounts.
    answers: i64[A, seeds], from `victim_answers`.
    bounds: A bounds, such as `defenses.most_answers` gives.

  Returns:
    One row for each number of accounts.
  """
  return [
    Row(int(k), metrics.interval(got), float(bound))
    for k, got, bound in zip(accounts, answers, bounds, strict=True)
  ]
