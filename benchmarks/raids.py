"""Attacks by HTTP against the pure run, and a capped server under its worst query.

python benchmarks/raids.py --workdir=runs/demo --out=runs/live/raids.json

The work directory is that of a finished experiment. Each attack is run again on a live
server of the same zoo, on the same images and with the same surrogates, a seed a raid;
what the server draws is its own. Then a capped server gets the query that a thief who
knows the whole defense would send, and the victim's answers are counted in its journal.
"""

import json
import logging
import pathlib
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from scipy import stats

from psml_jax import _device, attacks, defenses, leakage, metrics, servers, train
from psml_jax.core import Knowledge, Spec
from psml_jax.experiments import extraction_stage, harness, plan, raid
from psml_jax.experiments import workdir as workdir_files
from psml_jax.experiments.artifacts import EXTRACTION, Record
from psml_jax.experiments.experiment import latency_budget
from psml_jax.serving import arrivals, deployments, models
from psml_jax.serving.config import parse
from psml_jax.serving.load import Offered
from psml_jax.serving.target import Target, listening

_WORKDIR = flags.DEFINE_string('workdir', 'runs/demo', 'Of a finished experiment.')
_OUT = flags.DEFINE_string('out', 'runs/live/raids.json', 'What is written.')
_SEEDS = flags.DEFINE_integer('seeds', 16, 'Raids of each attack.', lower_bound=2)
_CAP = flags.DEFINE_float('cap', 0.3, 'Of the capped server.')
_QUERIES = flags.DEFINE_integer('queries', 4000, 'Of the worst spec.', lower_bound=1)
_CONCURRENCY = 4
_ATTACKS = 'fingerprint', 'naive'
_SIZES = 'medium', 'large'


def main(argv: list[str]) -> None:
  """Runs the raids and writes what they came to."""
  del argv
  logging.getLogger('httpx').setLevel(logging.WARNING)
  out, workdir = pathlib.Path(_OUT.value), pathlib.Path(_WORKDIR.value)
  out.parent.mkdir(parents=True, exist_ok=True)
  served = models.read(workdir, parse({}), None)
  began = time.perf_counter()
  with deployments.connected():
    with listening(workdir, served, {}) as target:
      rows = [
        _raided(name, size, target, served) for name in _ATTACKS for size in _SIZES
      ]
    capped = _capped(workdir, served)
  found = {
    'device': _device.name(),
    'raids': rows,
    'capped': capped,
    'seconds': time.perf_counter() - began,
  }
  out.write_text(json.dumps(found, indent=1) + '\n')
  print(json.dumps(found, indent=1))


def _raided(
  name: str, size: str, target: Target, served: models.Served
) -> dict[str, Any]:
  """Raids of one attack on one victim, and the pure run's rows of the same seeds."""
  experiment, profile = served.experiment, served.profile
  config = experiment.config
  assert config.extraction is not None
  budget = max(config.extraction.query_budgets)
  victim = profile.index(plan.victims(profile)[size])
  tables = extraction_stage.tables_of(experiment)
  training = config.extraction.training(target.num_classes)
  pairing, _ = jax.random.split(experiment.key('extraction'))
  seeds = jnp.arange(_SEEDS.value, dtype=jnp.uint32)
  keys = jax.vmap(jax.random.fold_in, (None, 0))(pairing, seeds)
  registered, fields = attacks.configured(config.attacks, name)
  resources = attacks.Resources(
    num_queries=budget,
    accuracy_resolution=config.fingerprint.accuracy_resolution,
    latency_resolution=config.fingerprint.latency_resolution,
  )
  attack = attacks.make(registered, resources, **fields)
  knowledge = Knowledge(
    jnp.float32(latency_budget(profile, victim)),
    pool_size=len(tables.pool),
    num_classes=target.num_classes,
  )
  client = servers.http(target.plan.url, target.key, concurrency=_CONCURRENCY)
  harvests, probes, billed = [], set(), set()
  for key in keys:
    attacker_key, _ = jax.random.split(key)
    found, bills = raid.raid(
      attacker_key, attack, client, knowledge, tables.pool, budget=budget
    )
    harvests.append(found[-1])
    probes.add(sum(int(bill.queries) for bill in bills[:-1]))
    billed.add(sum(int(bill.queries) for bill in bills))
  client.close()
  live = harness.scores(
    training,
    tables,
    keys,
    jnp.full(len(keys), victim),
    jax.tree.map(lambda *each: jnp.stack(each), *harvests),
    config.extraction.test_batch,
    config.extraction.width,
    train.global_mesh(),
  )
  pure = [
    row
    for row in workdir_files.read_jsonl(experiment.directory / EXTRACTION, Record)
    if (row.victim, row.attack, row.defense) == (profile.names[victim], name, 'none')
    and row.query_budget == budget
    and row.seed < _SEEDS.value
  ]
  pure.sort(key=lambda row: row.seed)
  row: dict[str, Any] = {
    'attack': name,
    'victim': size,
    'queries': budget,
    'billed': sorted(billed),
    'probes': sorted(probes),
    'probes_of_the_pure_run': sorted({each.probes for each in pure}),
    'ledger': vars(client.ledger),
  }
  for metric in ('accuracy', 'fidelity'):
    wire = np.asarray(getattr(live, metric), np.float64)
    own = np.array([getattr(each, metric) for each in pure])
    row[metric] = {
      'wire': metrics.interval(wire)._asdict(),
      'pure': metrics.interval(own)._asdict(),
      'paired_difference': metrics.interval(wire - own)._asdict(),
    }
  print(json.dumps(row), flush=True)
  return row


def _capped(workdir: pathlib.Path, served: models.Served) -> list[dict[str, Any]]:
  """What the worst query of each victim gets of a capped server."""
  profile = served.profile
  fields = {'defense': {'name': 'capped', 'value': _CAP.value}}
  capped = defenses.deploy('capped', profile, _CAP.value)
  assert capped.router is not None
  answers = jnp.ones((len(profile), 1, 1))
  server = servers.table(capped.router, profile.latency_ms, answers)
  rows = []
  with listening(workdir, served, fields) as target:
    for size, name in plan.victims(profile).items():
      victim = profile.index(name)
      spec = leakage.best_spec(jax.random.key(victim), profile, server, victim)
      worst = Spec(np.float32(spec.min_accuracy), np.float32(spec.max_latency_ms))  # type: ignore[arg-type]
      due_s = arrivals.evenly(_QUERIES.value, 0.01)
      _, model = target.answered(Offered.of(target.images, worst, due_s))
      hits = int((model == victim).sum())
      test = stats.binomtest(hits, len(model), _CAP.value, alternative='greater')
      rows.append(
        {
          'victim': size,
          'min_accuracy': float(spec.min_accuracy),
          'max_latency_ms': float(spec.max_latency_ms),
          'queries': len(model),
          'victim_answers': hits,
          'rate': hits / len(model),
          'cap': _CAP.value,
          'p_value_above_the_cap': float(test.pvalue),
        }
      )
      print(json.dumps(rows[-1]), flush=True)
  return rows


if __name__ == '__main__':
  app.run(main)
