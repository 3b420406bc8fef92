"""The joint posterior attack: beliefs about the whole staircase of a zoo.

The attacker knows the law of the noise and its latency budget. Sequential Monte Carlo
over frontiers (`psml_jax.attacks.particles`) tells how probably each spec is answered
by the victim: the most accurate model within the budget.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from psml_jax import _validate, struct
from psml_jax.attacks import particles
from psml_jax.attacks.base import ATTACKS, Entry, Phases, Resources
from psml_jax.attacks.extraction import choose_inputs, replay
from psml_jax.core import Knowledge, Observation, Query, Spec

_TARGETS, _FINE, _FINEST = 64, 64, 256
_TEMPERATURE = 0.1  # of rates, when a probe is chosen


class Choice(NamedTuple):
  """A spec, and what is expected of it.

  Attributes:
    spec: of shape [].
    rate: f32[], the probability that a query with it is answered by the victim.
    purity: f32[], the probability that an answer is the victim's.
  """

  spec: Spec
  rate: jax.Array
  purity: jax.Array


_LAST_MOVES = 128
_OWN = 7  # No key here is split into as many, so that no draw is used twice.


@struct.dataclass(eq=False)
class _State:
  key: jax.Array
  image: jax.Array
  latency_budget_ms: jax.Array
  law: Any
  frontiers: particles.Frontiers
  log_weight: jax.Array
  answers: particles.Answers
  spec: Spec  # of the next probe
  scale_known: bool = struct.field(pytree_node=False)


@struct.dataclass(eq=False)
class _Guess:
  """Logistic noise, for an attacker who was told no law; particles carry its scale."""

  latency_scale_ms: jax.Array

  def accurate(self, min_accuracy: jax.Array, accuracy: jax.Array) -> jax.Array:
    return jax.nn.sigmoid((accuracy - min_accuracy) / 0.05)

  def fast(self, max_latency_ms: jax.Array, latency_ms: jax.Array) -> jax.Array:
    return jax.nn.sigmoid((max_latency_ms - latency_ms) / self.latency_scale_ms)


@struct.dataclass(eq=False)
class Posterior:
  """See `posterior`; all but `purity` are static."""

  purity: jax.Array
  num_probes: int = struct.field(pytree_node=False)
  num_particles: int = struct.field(pytree_node=False)
  num_steps: int = struct.field(pytree_node=False)
  num_moves: int = struct.field(pytree_node=False)
  num_candidates: int = struct.field(pytree_node=False)
  scale_known: bool = struct.field(pytree_node=False)

  def init(self, key: jax.Array, knowledge: Knowledge) -> _State:
    budget = jnp.asarray(knowledge.latency_budget_ms, jnp.float32)
    if _validate.is_concrete(budget):
      _validate.positive('latency_budget_ms', float(budget))
    own, prior_key = jax.random.split(jax.random.fold_in(key, _OWN))
    told = hasattr(knowledge.defense, 'accurate')
    scale_known = self.scale_known and told
    frontiers = particles.draw(
      prior_key, self.num_particles, self.num_steps, scale_known=scale_known
    )
    possible = particles.log_prior(frontiers) > -jnp.inf
    return _State(
      key=own,
      image=choose_inputs(key, knowledge.pool_size, 1),
      latency_budget_ms=budget,
      law=knowledge.defense if told else _Guess(0.3 * budget),
      frontiers=frontiers,
      log_weight=jnp.where(possible, 0.0, -jnp.inf),
      answers=particles.Answers.none(self.num_probes),
      spec=Spec.of(0.5, budget),
      scale_known=scale_known,
    )

  def ask(self, state: _State) -> Query:
    more = state.answers.count < self.num_probes
    return Query.of(state.image, state.spec, sent=more)

  @jax.jit  # A live session would compile its loops anew at every probe.
  def tell(self, state: _State, query: Query, observation: Observation) -> _State:
    key, resample_key, move_key, probe_key = jax.random.split(state.key, 4)
    served = observation.served[0]
    steps = particles.in_order(state.frontiers, state.latency_budget_ms)
    chance = particles.served(state.law, steps, query.spec)[:, 0]
    log_weight = state.log_weight + particles.log_answer(chance, served)
    log_weight = jax.nn.log_softmax(log_weight)
    answers = state.answers.with_one(state.spec, served)

    def renewed() -> tuple[particles.Frontiers, jax.Array]:
      drawn = particles.resampled(
        resample_key, state.frontiers, log_weight, self.num_particles
      )
      moved = particles.moved(
        move_key,
        state.law,
        drawn,
        answers,
        state.latency_budget_ms,
        num_moves=self.num_moves,
        scale_known=state.scale_known,
      )
      return moved, jnp.zeros_like(log_weight)

    effective = jnp.exp(-jax.nn.logsumexp(2 * log_weight))
    frontiers, log_weight = jax.lax.cond(
      effective < self.num_particles / 2,
      renewed,
      lambda: (state.frontiers, log_weight),
    )
    state = dataclasses.replace(
      state, key=key, frontiers=frontiers, log_weight=log_weight, answers=answers
    )
    return dataclasses.replace(
      state, spec=_next_probe(probe_key, state, self.num_candidates)
    )

  @jax.jit
  def harvest(self, state: _State) -> Choice:
    own = jax.random.split(jax.random.fold_in(state.key, _OWN), 3)
    grid_key, subset_key, move_key = own
    frontiers = particles.resampled(
      subset_key, state.frontiers, state.log_weight, self.num_particles
    )
    frontiers = particles.moved(
      move_key,
      state.law,
      frontiers,
      state.answers,
      state.latency_budget_ms,
      num_moves=_LAST_MOVES,
      scale_known=state.scale_known,
    )
    steps = particles.in_order(frontiers, state.latency_budget_ms)
    return _best(grid_key, state.law, steps, self.purity, _FINE)


def posterior(
  *,
  num_probes: int,
  purity: ArrayLike = 0.0,
  num_particles: int = 1024,
  num_steps: int = 10,
  num_moves: int = 8,
  num_candidates: int = 20,
  scale_known: bool = True,
) -> Posterior:
  """Infers the frontier from noisy refusals, and the spec that pays best for it.

  Each probe is the one, of candidates about the corners of the particles, after which
  the best of the expected rates is highest, see `_next_probe`. The victim is the
  most accurate model within the latency budget, which is taken to lie between models
  rather than at one. The router is taken to be uniform over the frontier: no refusal
  tells of the models behind it.

  Args:
    num_probes: how many queries it sends, one at a time.
    purity: f32[], the least share of answers that are to be the victim's, as the
      attacker expects it; 0 asks for the highest rate alone. Where no spec has as much,
      the purest is chosen. May be traced.
    num_particles: frontiers in the attacker's mind.
    num_steps: the most models that a frontier has there.
    num_moves: Metropolis steps of each particle whenever they are drawn anew; before
      the spec is chosen it is 128.
    num_candidates: values of each field that are tried for a probe; its square is how
      many particles are asked what it would tell, if there are as many.
    scale_known: False for an attacker who knows the law of the noise, but not its
      scale: that of `Knowledge.defense` is a guess then, and particles carry a factor
      of their own on it for each field.

  Returns:
    The attack; it reads `served` alone and harvests a `Choice` at any time. Told no
    law with distribution functions, it assumes logistic noise of unknown scale.

  Raises:
    ValueError: a number that is not a whole one >= 1, or a concrete purity outside
      [0, 1]; from `init`, a budget that is not finite and > 0.

  >>> from psml_jax import ZooProfile, defenses, routers, servers, session
  >>> zoo = ZooProfile([0.7, 0.9], [1.0, 5.0], ('small', 'large'))
  >>> noise = defenses.laplace(0.02, 0.2)
  >>> server = servers.table(
  ...   routers.uniform(zoo), zoo.latency_ms, jnp.ones((2, 1, 1)), defense=noise)
  >>> key, server_key = jax.random.split(jax.random.key(0))
  >>> found = session.run(
  ...   key, posterior(num_probes=20, num_particles=256), server,
  ...   server.init(server_key), Knowledge(3.0, defense=noise), budget=20)
  >>> zoo.meets(found.harvest.spec).tolist()
  [True, False]
  """
  _check_purity(purity)
  return Posterior(
    jnp.asarray(purity, jnp.float32),
    _validate.positive_int('num_probes', num_probes),
    _validate.positive_int('num_particles', num_particles),
    _validate.positive_int('num_steps', num_steps),
    _validate.positive_int('num_moves', num_moves),
    _validate.positive_int('num_candidates', num_candidates),
    scale_known,
  )


def best_query(
  key: jax.Array,
  law: Any,
  frontier: Spec,
  latency_budget_ms: ArrayLike,
  *,
  purity: ArrayLike = 0.0,
) -> Choice:
  """The spec that an attacker chooses who is told the whole frontier.

  Args:
    key: of 65,536 candidates about the victim's corner and its neighbours'; consumed.
    law: of the noise, as `Knowledge.defense`.
    frontier: the corners, of shape [K], both fields ascending.
    latency_budget_ms: f32[]; the victim is the most accurate model within it.
    purity: as in `posterior`.

  Returns:
    The choice; its rate and purity are exact for a uniform router over the frontier.

  Raises:
    ValueError: a concrete purity outside [0, 1], or a budget that no corner meets.

  >>> from psml_jax import defenses
  >>> law, frontier = defenses.laplace(0.1, 1.0), Spec.of([0.7, 0.9], [1.0, 5.0])
  >>> found = best_query(jax.random.key(0), law, frontier, 5.0, purity=0.8)
  >>> bool(found.purity >= 0.8), bool(found.rate > 0.18)
  (True, True)
  """
  _check_purity(purity)
  within = jnp.sum(frontier.max_latency_ms <= latency_budget_ms, dtype=jnp.int32)
  if _validate.is_concrete(within) and not int(within):
    raise ValueError(
      f'latency_budget_ms is {latency_budget_ms}; it must be at least '
      f"{float(frontier.max_latency_ms[0]):g}, the fastest model's latency"
    )
  steps = particles.Steps(
    frontier.min_accuracy[None],
    frontier.max_latency_ms[None],
    within[None] - 1,
    jnp.ones((1, 2)),
  )
  return _best(key, law, steps, jnp.asarray(purity, jnp.float32), _FINEST)


def _check_purity(purity: ArrayLike) -> None:
  if _validate.is_concrete(purity):
    _validate.fractions('purity', purity)


@functools.partial(jax.jit, static_argnames='num_candidates')
def _next_probe(key: jax.Array, state: _State, num_candidates: int) -> Spec:
  """The probe after which a good spec is most surely known.

  A softened knowledge gradient (Frazier, Powell and Dayanik 2009). With R(t) the rate
  of spec t, of those that are best for some frontier drawn from the posterior, and A(c)
  the answer to probe c, it maximises `E_A[T log sum_t exp(E[R(t) | A(c)] / T)]`. For T
  near 0 that is the expected rate of the best choice after the answer, which most
  single answers do not change.
  """
  subset_key, grid_key = jax.random.split(key)
  size = min(num_candidates**2, len(state.log_weight))
  frontiers = particles.resampled(subset_key, state.frontiers, state.log_weight, size)
  steps = particles.in_order(frontiers, state.latency_budget_ms)
  accuracy, latency = _grid(grid_key, steps, num_candidates)
  served, rate = particles.served_and_rate(state.law, steps, accuracy, latency)
  own_best = jnp.argmax(rate[:: max(1, size // _TARGETS)], axis=-1)
  targets = jnp.append(own_best, jnp.argmax(jnp.mean(rate, axis=0)))
  chance = jnp.mean(served, axis=0)
  of_served = rate[:, targets].T @ served / size
  of_refused = jnp.mean(rate[:, targets], axis=0)[:, None] - of_served

  def value(probability: jax.Array, of_rate: jax.Array) -> jax.Array:
    mean = of_rate / jnp.maximum(probability, 1e-6)[None]
    return probability * jax.nn.logsumexp(mean / _TEMPERATURE, axis=0)

  worth = value(chance, of_served) + value(1 - chance, of_refused)
  return _at(accuracy, latency, jnp.argmax(worth))


def _best(
  key: jax.Array, law: Any, steps: particles.Steps, purity: jax.Array, size: int
) -> Choice:
  """The spec of the highest expected rate among those pure enough, or the purest."""
  accuracy, latency = _grid(key, steps, size)
  served, rate = (
    jnp.mean(each, axis=0)
    for each in particles.served_and_rate(law, steps, accuracy, latency)
  )
  pure = rate / jnp.maximum(served, 1e-6)
  enough = pure >= purity
  score = jnp.where(jnp.any(enough), jnp.where(enough, rate, -1.0), pure)
  chosen = jnp.argmax(score)
  return Choice(_at(accuracy, latency, chosen), rate[chosen], pure[chosen])


def _grid(
  key: jax.Array, steps: particles.Steps, size: int
) -> tuple[jax.Array, jax.Array]:
  """Values of each field at steps about the victim, with margins of all sizes."""
  keys = jax.random.split(key, 4)
  shape = (2, size)
  particle = jax.random.randint(keys[0], shape, 0, len(steps.victim))
  near = steps.victim[particle] + jax.random.randint(keys[1], shape, -1, 2)
  real = jnp.sum(jnp.isfinite(steps.latency_ms), axis=-1)
  step = jnp.clip(near, 0, real[particle] - 1)
  margin = 10.0 ** jax.random.uniform(keys[2], shape, minval=-2.5, maxval=0.2)
  margin *= jax.random.rademacher(keys[3], shape, jnp.float32)
  accuracy = steps.accuracy[particle[0], step[0]] + margin[0]
  latency = steps.latency_ms[particle[1], step[1]] * jnp.exp(margin[1])
  return accuracy, latency


def _at(accuracy: jax.Array, latency: jax.Array, place: jax.Array) -> Spec:
  return Spec(accuracy[place // len(latency)], latency[place % len(latency)])


def _then_replay(
  resources: Resources,
  probes: int = 60,
  purity: float = 0.0,
  num_particles: int = 256,
  num_candidates: int = 12,
  scale_known: bool = True,
) -> Phases:
  probing = posterior(
    num_probes=probes,
    purity=purity,
    num_particles=num_particles,
    num_candidates=num_candidates,
    scale_known=scale_known,
  )
  return Phases((probing, replay('found', resources.num_queries)))


ATTACKS.register(
  'posterior',
  Entry(
    _then_replay,
    knows='its latency budget and the law of the noise',
    anytime=True,
  ),
)
