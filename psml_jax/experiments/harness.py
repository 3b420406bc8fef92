"""One run of an attack against a server, from the first query to the surrogate's score.

The harness alone holds both sides: what the attack harvested, and what the server knows
of its answers.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct

from psml_jax import attacks, metrics, routers, servers, session, training
from psml_jax.core import Bill, Harvest, Knowledge, Spec, ZooProfile
from psml_jax.experiments import deployment
from psml_jax.experiments.config import Config


@struct.dataclass
class Run:
  """One row of the experiment's population; every field of shape [] or, batched, [R].

  Attributes:
    victim: i32, index into the zoo.
    value: f32, of the defense's knob.
    query_budget: i32, queries to be billed, probes included.
    latency_budget_ms: f32, what the attacker knows of its victim.
    told: the best spec under the defense; only informed attackers read it.
    pairing_key: key of the images and the surrogate, equal for all runs of a seed,
      so that attacks are compared on the same draws.
    serving_key: the server's secret, each run's own.
  """

  victim: jax.Array
  value: jax.Array
  query_budget: jax.Array
  latency_budget_ms: jax.Array
  told: Spec
  pairing_key: jax.Array
  serving_key: jax.Array


@struct.dataclass
class Spoils:
  """What an attack brought home; every field but the harvest of shape [].

  Attributes:
    harvest: the surrogate's training data.
    purity: f32, share of the served answers, probes aside, that are the victim's.
    probes: i32, queries of all phases before the last.
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
    config: of the experiment; it has `extraction`.
    profile: the zoo.
    surrogate: the surrogate's architecture.
  """

  config: Config
  profile: ZooProfile
  surrogate: nn.Module


def collect(
  attack: str, defense: str, setting: Setting, tables: Tables, run: Run
) -> Spoils:
  """Runs one attack against its server.

  Args:
    attack: one of the config's; the server of a reference lets it name the victim.
    defense: 'none' or one of the config's mechanisms.
    setting: the experiment.
    tables: its images and the zoo's answers.
    run: one row, without leading axis. No more than its budget is billed: a fingerprint
      that needs more probes ends there, and no query is left.

  Returns:
    What it got.
  """
  config, profile = setting.config, setting.profile
  assert config.extraction is not None
  role = attacks.ATTACKS[attack].role
  server = deployment.serve(config, profile, defense, run.value, tables.pool_outputs)
  if role == 'reference':
    named = routers.explicit(run.victim)
    server = servers.table(named, profile.latency_ms, tables.pool_outputs)
  resources = attacks.Resources(
    num_queries=max(config.extraction.query_budgets),
    accuracy_resolution=config.fingerprint.accuracy_resolution,
    latency_resolution=config.fingerprint.latency_resolution,
  )
  attacker_key, _ = jax.random.split(run.pairing_key)
  _, pool_size, num_classes = tables.pool_outputs.shape
  found = session.run(
    attacker_key,
    attacks.make(attack, resources, **config.attacks[attack]),
    server,
    server.init(run.serving_key),
    Knowledge(
      run.latency_budget_ms,
      pool_size=pool_size,
      num_classes=num_classes,
      spec=run.told if role == 'informed' else None,
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
  assert setting.config.extraction is not None
  _, surrogate_key = jax.random.split(run.pairing_key)
  variables, losses = training.fit(
    surrogate_key,
    setting.surrogate,
    tables.pool[harvest.inputs],
    harvest.targets,
    harvest.count,
    setting.config.extraction.hyper,
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
