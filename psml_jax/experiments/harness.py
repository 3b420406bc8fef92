"""One run of an attack against a server, from the first query to the surrogate's score.

The harness alone holds both sides: what the attack harvested, and what the server knows
of its answers.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from psml_jax import (
  _validate,
  attacks,
  defenses,
  metrics,
  routers,
  servers,
  session,
  training,
)
from psml_jax.core import Bill, Harvest, Knowledge, Router, Spec, ZooProfile

ATTACKS = ('explicit', 'naive', 'fingerprint', 'corner')


@struct.dataclass
class Run:
  """One row of the experiment's population; every field of shape [] or, batched, [R].

  Attributes:
    victim: i32, index into the zoo.
    scale: f32, scale of the defense's noise as a share of the zoo's range.
    refusal: f32, share of all queries that the server refuses at random.
    query_budget: i32, queries to be billed, probes included.
    latency_budget_ms: f32, what the attacker knows of its victim.
    corner: the victim's undefended corner; only the attack of that name is told it.
    pairing_key: key of the images and the surrogate, equal for all runs of a seed,
      so that attacks are compared on the same draws.
    serving_key: the server's secret, each run's own.
  """

  victim: jax.Array
  scale: jax.Array
  refusal: jax.Array
  query_budget: jax.Array
  latency_budget_ms: jax.Array
  corner: Spec
  pairing_key: jax.Array
  serving_key: jax.Array


@struct.dataclass
class Spoils:
  """What an attack brought home; every field but the harvest of shape [].

  Attributes:
    harvest: the surrogate's training data.
    purity: f32, share of the served answers, probes aside, that are the victim's.
    probes: i32, queries spent on the fingerprint.
    bill: the attacker's count.
    log: the server's count.
  """

  harvest: Harvest
  purity: jax.Array
  probes: jax.Array
  bill: Bill
  log: Bill


@struct.dataclass
class Score:
  """How good a surrogate is; every field of shape [].

  Attributes:
    accuracy: f32, against the true test labels.
    fidelity: f32, its agreement with the victim on the test images.
    loss: f32, of its last minibatch; NaN where the training diverged, whose accuracy
      and fidelity then mean nothing.
  """

  accuracy: jax.Array
  fidelity: jax.Array
  loss: jax.Array


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


def attack_of(name: str, setting: Setting) -> attacks.Attack | attacks.Phases:
  """The attack of a name.

  'explicit' and 'naive' ask for anything within the latency budget, the former of a
  server that lets its clients name the model; 'fingerprint' finds the corner by probes
  and replays it; 'corner', an ablation, is told the undefended one.
  """
  size = setting.max_queries
  if name == 'fingerprint':
    probing = attacks.fingerprint.bisection(
      accuracy_resolution=setting.accuracy_resolution,
      latency_resolution=setting.latency_resolution,
    )
    return attacks.Phases((probing, attacks.extraction.replay('found', size)))
  spec = 'told' if name == 'corner' else 'anything'
  return attacks.extraction.replay(spec, size)


def collect(name: str, setting: Setting, tables: Tables, run: Run) -> Spoils:
  """Runs one attack against its server.

  Args:
    name: one of `ATTACKS`.
    setting: the experiment.
    tables: its images and the zoo's answers.
    run: one row, without leading axis. No more than its budget is billed: a fingerprint
      that needs more probes ends there, and no query is left.

  Returns:
    What it got.

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
  attacker_key, _ = jax.random.split(run.pairing_key)
  named = name == 'explicit'
  noise = setting.defense(*defenses.relative_scale(setting.profile, run.scale))
  server = servers.table(
    routers.explicit(run.victim) if named else setting.router,
    setting.profile.latency_ms,
    tables.pool_outputs,
    defense=defenses.chain(noise, defenses.refusal(0.0 if named else run.refusal)),
  )
  _, pool_size, num_classes = tables.pool_outputs.shape
  found = session.run(
    attacker_key,
    attack_of(name, setting),
    server,
    server.init(run.serving_key),
    Knowledge(
      run.latency_budget_ms,
      pool_size=pool_size,
      num_classes=num_classes,
      spec=run.corner if name == 'corner' else None,
    ),
    budget=run.query_budget,
  )
  assert found.log is not None
  *probing, _ = found.bills
  answers = found.answers[-1]
  return Spoils(
    harvest=found.harvest,
    purity=answers[run.victim] / jnp.sum(answers, dtype=jnp.int32),
    probes=sum((bill.queries for bill in probing), start=jnp.int32(0)),
    bill=found.bill,
    log=found.log,
  )


def score(setting: Setting, tables: Tables, run: Run, harvest: Harvest) -> Score:
  """Trains a surrogate on a harvest and examines it.

  Args:
    setting: the experiment.
    tables: its images and the zoo's answers.
    run: the row that the harvest is of, without leading axis.
    harvest: the surrogate's training data.

  Returns:
    The score.
  """
  _, surrogate_key = jax.random.split(run.pairing_key)
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
  return Score(
    accuracy=metrics.accuracy(logits, tables.test_labels),
    fidelity=metrics.fidelity(logits, tables.test_outputs[run.victim]),
    loss=jnp.where(
      jnp.isfinite(losses).all() & jnp.isfinite(logits).all(), losses[-1], jnp.nan
    ),
  )
