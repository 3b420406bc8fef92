"""Budgets: each model answers each client so often at full service, then seldom.

**Theorem.** Let k accounts send n billed queries, each chosen by all answers before it,
and let N be how many of them one victim answers. With a whole budget B and a cap t,

    N is stochastically at most  min(n, kB) + Bin((n - kB)^+, t),

so `E N <= kB + t (n - kB)` for `n >= kB`, and `E N <= n` below.

*Proof.* A query finds the victim within its account's budget or over it. Within, it is
answered or not; the answers of this kind are at most kB, for each uses up one of k
budgets of B. Over, it is answered with probability at most t, whatever happened before,
for the router sees a true count and draws afresh. Let D(n, S) be the bound with S for
kB. By induction over n: a query over the budget gives at most Bern(t) + D(n - 1, S) <=
D(n, S); one within, answered, 1 + D(n - 1, S - 1) = D(n, S); one within, not answered,
D(n - 1, S) <= D(n, S); and a choice among these, however it is drawn, is no more. A
budget that is not used up leaves S larger than what was got: the bound only loosens.

The attacker who asks for the victim's corner alone attains it: each query is answered
while the budget lasts and then with probability t, since no other model is feasible.

A budget that is no whole number is one in the mean: of each account and model it is
`ceil(B - u)` with a secret u, uniform on [0, 1), which has the expectation B. As the
bound is concave in S, `E N <= f(kB)` with `f(S) = min(n, S) + t (n - S)^+` holds still.

It follows that no t protects from an attacker of `n / B` accounts: identities must cost
something. Per account the victim answers B of the first queries and t of the rest.

| input | what it gives |
|---|---|
| infinite budget, or cap 1 | the uniform router |
| budget 0 | every model over from the start: capped routing, the rest refused |
| cap 0 | a model over its budget never answers that client again |
| budget or cap negative or NaN, traced | as 0 |
| cap above 1, traced | as 1 |
| infinite spec | first moved to the end of the zoo's range |
| NaN spec, traced, or no feasible model | refused; uses up nothing |
| client outside [0, clients) | ValueError; traced, refused, and uses up nothing |
"""

import math

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from psml_jax import _validate, struct
from psml_jax.core import Query, Spec, ZooProfile
from psml_jax.defenses.mechanisms import MECHANISMS, Deployment, Knob, Mechanism


@struct.dataclass(eq=False)
class Budget:
  """See `budget`.

  Attributes:
    accuracy: f32[M], of the zoo.
    latency_ms: f32[M], of the zoo.
    budget: f32[], answers of each model to each client at full service.
    cap: f32[], the probability of an answer beyond them.
    clients: how many clients are told apart (static).
  """

  accuracy: jax.Array
  latency_ms: jax.Array
  budget: jax.Array
  cap: jax.Array
  clients: int = struct.field(pytree_node=False)

  @property
  def loosest(self) -> Spec:
    """The zoo's lowest accuracy and highest latency, f32[] each."""
    return Spec(jnp.min(self.accuracy), jnp.max(self.latency_ms))

  def init(self, key: jax.Array) -> jax.Array:
    """f32[clients, M]: answers so far, and the secret share of one more in [0, 1)."""
    return jax.random.uniform(key, (self.clients, len(self.accuracy)), jnp.float32)

  def route(
    self, key: jax.Array, query: Query, state: jax.Array
  ) -> tuple[jax.Array, jax.Array]:
    """The model that answers one query, and the counts with its answer.

    Args:
      key: consumed.
      query: of shape [], of a client in [0, clients).
      state: as `init` or the last `route` left it.

    Returns:
      i32[], -1 for a refusal, and the state.
    """
    feasible = (self.accuracy >= query.spec.min_accuracy) & (
      self.latency_ms <= query.spec.max_latency_ms
    )
    over = feasible & ~(state[query.client] < self.budget)
    within = feasible & ~over
    num_feasible, num_over, num_within = (
      jnp.sum(each, dtype=jnp.int32) for each in (feasible, over, within)
    )
    cap = jnp.where(self.cap > 0, self.cap, 0)
    share = jnp.minimum(cap, 1 / jnp.maximum(num_feasible, 1))
    rest = 1 - share * num_over
    draw = jax.random.uniform(key, (), jnp.float32)
    capped = draw < share * num_over
    refused = jnp.where(num_within > 0, num_feasible == 0, draw >= cap * num_feasible)
    capped |= num_within == 0
    place = jnp.where(
      capped,
      draw / jnp.where(share > 0, share, 1),
      (draw - share * num_over) / jnp.where(rest > 0, rest, 1) * num_within,
    )
    model = _nth(jnp.where(capped, over, within), jnp.floor(place).astype(jnp.int32))
    model = jnp.where(refused, -1, model)
    column = jnp.where(refused, len(self.accuracy), model)
    return model, state.at[query.client, column].add(1, mode='drop')


def budget(
  profile: ZooProfile, budget: ArrayLike, *, cap: ArrayLike = 0.1, clients: int = 1024
) -> Budget:
  """A uniform router whose models answer each client so often, and then seldom.

  Of the feasible models F of a query, those that have answered this client `budget`
  times or more are over. Each of them answers with probability `min(cap, 1 / |F|)`; the
  others share the rest evenly, so nothing is refused while one of them is left. If all
  are over, the rest is refused: nothing of it where `cap |F| >= 1`.

  Args:
    profile: the zoo, M models.
    budget: answers of each model to each client at full service, f32[], >= 0, infinite
      for the uniform router; may be traced. 2.3 stands for 2 or 3, see the module.
    cap: f32[], the probability of an answer beyond the budget, a fraction; may be
      traced.
    clients: how many clients are told apart; the memory has `4 M clients` bytes, 90 kB
      for 22 models and the default.

  Returns:
    The router, with memory, for servers: a client outside [0, clients) gets a
    ValueError, or traced, a refusal.

  Raises:
    ValueError: a concrete budget that is negative or NaN, a concrete cap outside
      [0, 1], or `clients` that is no whole number >= 1.

  >>> zoo = ZooProfile([0.7, 0.9], [1.0, 5.0], ('small', 'large'))
  >>> router = budget(zoo, 1, cap=0.0, clients=2)
  >>> query = Query.of([0], Spec.of(0.8, 9.0), client=1)
  >>> query = jax.tree.map(lambda field: field[0], query)
  >>> memory = router.init(jax.random.key(0))
  >>> model, memory = router.route(jax.random.key(1), query, memory)
  >>> int(model), int(router.route(jax.random.key(2), query, memory)[0])
  (1, -1)
  """
  if _validate.is_concrete(budget):
    values = _validate.floats('budget', budget)
    _validate.reject('budget', values, ~(values >= 0), '>= 0, answers of a model')
  if _validate.is_concrete(cap):
    _validate.fractions('cap', cap)
  return Budget(
    profile.accuracy,
    profile.latency_ms,
    jnp.asarray(budget, jnp.float32),
    jnp.asarray(cap, jnp.float32),
    _validate.positive_int('clients', clients),
  )


def most_answers(
  num_queries: int,
  accounts: int,
  budget: float,
  cap: float,
  *,
  failure: float | None = None,
) -> float:
  """The theorem's bound on a victim's answers.

  Args:
    num_queries: n, billed.
    accounts: k.
    budget: B, finite.
    cap: t.
    failure: a probability in (0, 1), or None.

  Returns:
    The bound on the expectation; given `failure`, a number that the answers exceed with
    at most that probability. By Bernstein's inequality: for n >= k ceil(B), the bound
    of the theorem is a sum of independent numbers in [0, 1] of variance V, and passes
    its mean by `L / 3 + sqrt(L^2 / 9 + 2 V L)`, L = log(1 / failure), with at most that
    probability.

  Raises:
    ValueError: an argument outside its range.

  >>> most_answers(1000, 10, budget=20, cap=0.1)
  280.0
  """
  _validate.non_negative_int('num_queries', num_queries)
  _validate.positive_int('accounts', accounts)
  _validate.non_negative_number('budget', budget)
  _validate.fractions('cap', cap)
  whole, part = math.floor(budget), budget - math.floor(budget)
  n = num_queries if failure is None else max(num_queries, accounts * math.ceil(budget))
  free = min(n, accounts * budget)
  most = free + cap * (n - free)
  if failure is not None:
    _validate.number('failure', failure, lambda x: 0 < x < 1, 'in (0, 1)')
    either = part + (1 - part) * cap
    surely_over = n - accounts * whole - (accounts if part else 0)
    variance = surely_over * cap * (1 - cap)
    variance += accounts * either * (1 - either) if part else 0.0
    log = math.log(1 / failure)
    most += log / 3 + math.sqrt(log**2 / 9 + 2 * variance * log)
  return float(min(most, num_queries))


def _nth(mask: jax.Array, n: jax.Array) -> jax.Array:
  """i32[], the index of the n-th True; of the last one beyond."""
  counts = jnp.cumsum(mask, dtype=jnp.int32)
  return jnp.argmax(counts > jnp.minimum(n, counts[-1] - 1)).astype(jnp.int32)


def _deployed(
  profile: ZooProfile, value: ArrayLike, *, cap: float = 0.1, clients: int = 1024
) -> Deployment:
  return Deployment(router=budget(profile, value, cap=cap, clients=clients))


MECHANISMS.register(
  'budget',
  Mechanism(
    Knob('budget', 'answers of a model to a client', math.inf, 2.0**20, 2.0**-20),
    _deployed,
  ),
)
