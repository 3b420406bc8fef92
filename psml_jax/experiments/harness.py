"""One run of an attack against a server, from the first probe to the surrogate's score.

The harness is the wire between the attacks, which decide what to send, and the
server. It alone holds both sides: the attacker's bill, counted from what was sent
and seen, and the server's log, counted from its transcripts.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from psml_jax import _validate, defenses, metrics, oracles, routers, training
from psml_jax.attacks import extraction, fingerprint
from psml_jax.core import Bill, Route, Router, Server, Spec, ZooProfile

ATTACKS = ('explicit', 'naive', 'fingerprint', 'corner')


@struct.dataclass
class Run:
  """One row of the experiment's population; every field of shape [] or, batched, [R].

  Attributes:
    victim: i32, index into the zoo.
    attack: i32, index into `ATTACKS`. 'explicit' names the victim, 'naive' knows a
      latency budget alone, 'fingerprint' finds the corner by probes on the same
      server, and 'corner' is an ablation that is told the undefended corner.
    scale: f32, scale of the defense's noise as a share of the zoo's range.
    query_budget: i32, queries to be billed, probes included.
    latency_budget_ms: f32, what the attacker knows of its victim.
    corner: the victim's undefended corner; only the ablation reads it.
    pairing_key: key of the images and the surrogate, equal for all runs of a seed,
      so that attacks are compared on the same draws.
    serving_key: key of the server's draws, each run's own.
    refusal: f32, share of all queries that the server refuses at random.
  """

  victim: jax.Array
  attack: jax.Array
  scale: jax.Array
  query_budget: jax.Array
  latency_budget_ms: jax.Array
  corner: Spec
  pairing_key: jax.Array
  serving_key: jax.Array
  refusal: jax.Array | float = 0.0


@struct.dataclass
class Outcome:
  """What one run achieved; every field of shape [].

  Attributes:
    accuracy: f32, of the surrogate against the true test labels.
    fidelity: f32, its agreement with the victim on the test images.
    purity: f32, share of the served answers, probes aside, that are the victim's.
    probes: i32, queries spent on the fingerprint.
    loss: f32, of the surrogate's last minibatch; NaN where the training diverged,
      whose accuracy and fidelity then mean nothing.
    bill: the attacker's count.
    log: the server's count.
  """

  accuracy: jax.Array
  fidelity: jax.Array
  purity: jax.Array
  probes: jax.Array
  loss: jax.Array
  bill: Bill
  log: Bill


class Tables(NamedTuple):
  """The arrays that all runs of an experiment share.

  Attributes:
    pool: f32[P, H, W, C], the attacker's images.
    pool_outputs: f32[M, P, K], every model's probabilities for them.
    test: f32[N, H, W, C].
    test_labels: i32[N].
    test_outputs: f32[M, N, K].
  """

  pool: jax.Array
  pool_outputs: jax.Array
  test: jax.Array
  test_labels: jax.Array
  test_outputs: jax.Array


class Setting(NamedTuple):
  """What all runs of an experiment share.

  Attributes:
    profile: the zoo, M models.
    router: the undefended router.
    defense: `(accuracy_scale, latency_scale_ms) -> SpecTransform`.
    surrogate: the surrogate's architecture.
    hyper: its training.
    max_queries: the largest query budget.
    accuracy_resolution: where the fingerprint ends, a fraction.
    latency_resolution: likewise, a share of the latency budget.
  """

  profile: ZooProfile
  router: Router
  defense: Callable[[Any, Any], defenses.SpecTransform]
  surrogate: nn.Module
  hyper: training.Hyper
  max_queries: int
  accuracy_resolution: float
  latency_resolution: float


def interrogate(
  key: jax.Array,
  machine: fingerprint.Fingerprinter,
  server: Server,
  inputs: Any,
  enabled: jax.Array,
  max_probes: jax.Array | int = 4096,
) -> tuple[Any, Bill, Bill]:
  """Carries a fingerprint's probes to a server until it is done or may ask no more.

  Args:
    key: consumed; probe i is served with `fold_in(key, i)`.
    machine: the fingerprint.
    server: the server, its draws pure.
    inputs: what every probe sends along.
    enabled: bool[], False for an attack that does not probe.
    max_probes: i32[], where it ends although the machine is not done.

  Returns:
    The machine's last state, the attacker's bill and the server's log.
  """

  def carry_on(carry: tuple[Any, Bill, Bill]) -> jax.Array:
    state, bill, _ = carry
    return enabled & ~machine.result(state).done & (bill.queries < max_probes)

  def probe(carry: tuple[Any, Bill, Bill]) -> tuple[Any, Bill, Bill]:
    state, bill, log = carry
    sent = jnp.bool_(True)
    observation, transcript = server(
      jax.random.fold_in(key, log.queries), inputs, machine.ask(state), sent
    )
    return (
      machine.tell(state, observation),
      bill.charge(sent, observation.served),
      log.charge(transcript.sent, transcript.model >= 0),
    )

  start = (machine.init(), Bill.zero(), Bill.zero())
  return jax.lax.while_loop(carry_on, probe, start)


def attack(setting: Setting, tables: Tables, run: Run) -> Outcome:
  """Runs one attack to its end: probes, queries, surrogate, score.

  Args:
    setting: the experiment.
    tables: its images and the zoo's answers.
    run: one row, without leading axis. No more than its budget is billed: a fingerprint
      that needs more probes ends there, and no query is left.

  Returns:
    The outcome.

  Raises:
    ValueError: a concrete budget above the setting's `max_queries`.
  """
  if _validate.is_concrete(run.query_budget):
    _validate.reject(
      'query_budget',
      np.asarray(run.query_budget),
      np.asarray(run.query_budget) > setting.max_queries,
      f'at most max_queries {setting.max_queries}',
    )
  image_key, surrogate_key = jax.random.split(run.pairing_key)
  probe_key, query_key = jax.random.split(run.serving_key)
  server = oracles.table(
    _router(setting, run), setting.profile.latency_ms, tables.pool_outputs
  )
  inputs = extraction.choose_inputs(image_key, len(tables.pool), setting.max_queries)
  machine = fingerprint.bisection(
    run.latency_budget_ms,
    accuracy_resolution=setting.accuracy_resolution,
    latency_resolution_ms=setting.latency_resolution * run.latency_budget_ms,
  )
  probing = run.attack == ATTACKS.index('fingerprint')
  state, bill, log = interrogate(
    probe_key, machine, server, inputs[0], probing, run.query_budget
  )
  probes = bill.queries
  anything = extraction.anything_within(run.latency_budget_ms)
  specs = (anything, anything, machine.result(state).spec, run.corner)
  spec = jax.tree.map(
    lambda *choices: jnp.full(inputs.shape, jnp.stack(choices)[run.attack]), *specs
  )
  sent = jnp.arange(setting.max_queries) < run.query_budget - probes
  observation, transcript = server(query_key, inputs, spec, sent)
  harvest = extraction.harvest(inputs, observation)
  variables, losses = training.fit(
    surrogate_key,
    setting.surrogate,
    tables.pool[harvest.inputs],
    harvest.targets,
    harvest.count,
    setting.hyper,
  )
  logits = setting.surrogate.apply(variables, tables.test)
  assert isinstance(logits, jax.Array)
  return Outcome(
    accuracy=metrics.accuracy(logits, tables.test_labels),
    fidelity=metrics.fidelity(logits, tables.test_outputs[run.victim]),
    purity=metrics.purity(transcript, run.victim),
    probes=probes,
    loss=jnp.where(
      jnp.isfinite(losses).all() & jnp.isfinite(logits).all(), losses[-1], jnp.nan
    ),
    bill=bill.charge(sent, observation.served),
    log=log.charge(transcript.sent, transcript.model >= 0),
  )


def _router(setting: Setting, run: Run) -> Router:
  """The defended router, or, for the explicit attack, one that serves the victim."""
  noise = setting.defense(*defenses.relative_scale(setting.profile, run.scale))
  defended = defenses.defend(
    setting.router, defenses.chain(noise, defenses.refusal(run.refusal))
  )
  named = routers.explicit(run.victim)

  def route(key: jax.Array, spec: Spec) -> Route:
    is_explicit = run.attack == ATTACKS.index('explicit')
    return jax.tree.map(
      lambda one, other: jnp.where(is_explicit, one, other),
      named(key, spec),
      defended(key, spec),
    )

  return route
