"""One run of an attack against a server, from the first query to the surrogate's score.

The harness alone holds both sides: what the attack harvested, and what the server knows
of its answers.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from psml_jax import (
  _compile,
  attacks,
  defenses,
  metrics,
  routers,
  servers,
  session,
  struct,
  train,
)
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
    own: i32, the victim's answers, probes aside.
    purity: f32, their share of the served answers, probes aside.
    probes: i32, queries of all phases before the last.
    bill: the attacker's count.
    log: the server's count.
  """

  harvest: Harvest
  own: jax.Array
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
    samples_ms: f32[M, S], latencies as clients measure them; None for the profile's.
  """

  pool: jax.Array
  pool_outputs: jax.Array
  test: jax.Array
  test_labels: jax.Array
  test_outputs: jax.Array
  samples_ms: jax.Array | None = None


def collect(
  attack: str,
  defense: str,
  config: Config,
  profile: ZooProfile,
  tables: Tables,
  run: Run,
) -> Spoils:
  """Runs one attack against its server.

  Args:
    attack: one of the config's; the server of a reference lets it name the victim.
    defense: 'none' or one of the config's mechanisms.
    config: of the experiment; it has `extraction`.
    profile: the zoo; concrete values.
    tables: the experiment's images and the zoo's answers.
    run: one row, without leading axis. No more than its budget is billed: a fingerprint
      that needs more probes ends there, and no query is left.

  Returns:
    What it got.
  """
  assert config.extraction is not None
  registered, fields = attacks.configured(config.attacks, attack)
  resources = attacks.Resources(
    num_queries=max(config.extraction.query_budgets),
    accuracy_resolution=config.fingerprint.accuracy_resolution,
    latency_resolution=config.fingerprint.latency_resolution,
    pool=tables.pool,
    training=config.extraction.training(tables.pool_outputs.shape[-1]),
  )
  found = confront(
    attacks.make(registered, resources, **fields),
    attacks.ATTACKS[registered].role,
    defense,
    config,
    profile,
    tables.pool_outputs,
    tables.samples_ms,
    run,
  )
  assert found.log is not None
  *probing, _ = found.bills
  answers = found.answers[-1]
  return Spoils(
    harvest=found.harvest,
    own=answers[run.victim],
    purity=answers[run.victim] / jnp.sum(answers, dtype=jnp.int32),
    probes=sum((bill.queries for bill in probing), start=jnp.int32(0)),
    bill=found.bill,
    log=found.log,
  )


def confront(
  attack: attacks.Attack | attacks.Phases,
  role: str,
  defense: str,
  config: Config,
  profile: ZooProfile,
  outputs: jax.Array,
  samples_ms: jax.Array | None,
  run: Run,
) -> session.Session:
  """A session of any attack against the server of a defense.

  Args:
    attack: the attack.
    role: of `attacks.ROLES`: the server of a reference lets it name the victim, and
      the informed are told the run's spec.
    defense: as in `collect`.
    config: likewise.
    profile: likewise.
    outputs: f32[M, N, K], every model's probabilities for the images that are sent.
    samples_ms: f32[M, S], as in `Tables`.
    run: one row, without leading axis.

  Returns:
    The session.
  """
  server = deployment.serve(config, profile, defense, run.value, outputs, samples_ms)
  if role == 'reference':
    named = routers.explicit(run.victim)
    server = servers.table(named, server.latency_ms, outputs)
  law = server.front.defense
  attacker_key, _ = jax.random.split(run.pairing_key)
  _, pool_size, num_classes = outputs.shape
  return session.run(
    attacker_key,
    attack,
    server,
    server.init(run.serving_key),
    Knowledge(
      run.latency_budget_ms,
      pool_size=pool_size,
      num_classes=num_classes,
      spec=run.told if role == 'informed' else None,
      defense=law if isinstance(law, defenses.Fieldwise) else None,
    ),
    budget=run.query_budget,
  )


def steal(
  training: train.Training,
  tables: Tables,
  key: jax.Array,
  victim: jax.Array,
  harvest: Harvest,
  test_batch: int,
) -> tuple[Any, Score]:
  """Trains a surrogate on a harvest and examines it.

  Args:
    training: of the surrogate.
    tables: the experiment's images and the zoo's answers.
    key: a run's pairing key.
    victim: i32[], index into the zoo.
    harvest: the surrogate's training data.
    test_batch: test images at a time.

  Returns:
    Its Flax variables, and its score.
  """
  _, surrogate_key = jax.random.split(key)
  variables, fitted = train.pure_fit(surrogate_key, training, tables.pool, harvest)
  finite = jnp.isfinite(fitted.loss).all()
  loss = jnp.where(finite, fitted.loss[-1], jnp.nan)
  return variables, examine(training, tables, variables, loss, victim, test_batch)


def examine(
  training: train.Training,
  tables: Tables,
  variables: Any,
  loss: jax.Array,
  victim: jax.Array,
  test_batch: int,
) -> Score:
  """Examines a surrogate.

  Args:
    training: of the surrogate.
    tables: the experiment's images and the zoo's answers.
    variables: the surrogate's.
    loss: f32[], of its last minibatch; NaN where the training diverged.
    victim: i32[], index into the zoo.
    test_batch: test images at a time.

  Returns:
    The score.
  """

  def answer(images: jax.Array) -> jax.Array:
    logits = training.module.apply(variables, images)
    assert isinstance(logits, jax.Array)
    return logits

  logits = train.in_batches(answer, tables.test, test_batch)
  return Score(
    accuracy=metrics.accuracy(logits, tables.test_labels),
    fidelity=metrics.fidelity(logits, tables.test_outputs[victim]),
    loss=jnp.where(jnp.isfinite(logits).all(), loss, jnp.nan),
  )


@_compile.jit('surrogates', static_argnames=('training', 'test_batch', 'width', 'mesh'))
def scores(
  training: train.Training,
  tables: Tables,
  keys: jax.Array,
  victims: jax.Array,
  harvests: Harvest,
  test_batch: int,
  width: int,
  mesh: Mesh,
) -> Score:
  """The scores of a population, each field of shape [R]; one program for all calls."""

  def row(each: tuple[jax.Array, jax.Array, Harvest]) -> Score:
    return steal(training, tables, *each, test_batch)[1]

  return train.over_population(row, (keys, victims, harvests), width=width, mesh=mesh)
