"""The extraction stage: every run of the experiment as a row of one population."""

import functools
import json
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from psml_jax import _compile, pareto, routers, surrogates, zoo
from psml_jax.core import Spec, ZooProfile
from psml_jax.experiments import workdir
from psml_jax.experiments.experiment import Experiment, latency_budget
from psml_jax.experiments.harness import ATTACKS, Outcome, Run, Setting, Tables, attack


class Cell(NamedTuple):
  """All runs that differ in their seed alone."""

  victim: str
  attack: str
  scale: float
  query_budget: int


def cells(experiment: Experiment) -> list[Cell]:
  """What the experiment extracts, cell by cell.

  Each victim by each attack at each budget without defense; the fingerprint on the
  calibrated defense likewise; for the medium victim at the largest budget, the
  fingerprint and the ablation with the known corner at every scale.
  """
  config = experiment.config.extraction
  assert config is not None
  profile = experiment.profile()
  with (experiment.directory / 'defense.json').open(encoding='utf-8') as file:
    calibrated = json.load(file)['calibrated_scale']
  victims = {
    size: profile.names[model] for size, model in pareto.victims(profile).items()
  }
  largest = max(config.query_budgets)
  listed = [
    Cell(victim, name, 0.0, budget)
    for victim in victims.values()
    for name in ('explicit', 'naive', 'fingerprint')
    for budget in config.query_budgets
  ]
  listed += [
    Cell(victim, 'fingerprint', calibrated, budget)
    for victim in victims.values()
    for budget in config.query_budgets
  ]
  listed += [
    Cell(victims['medium'], name, scale, largest)
    for name in ('fingerprint', 'corner')
    for scale in sorted({*experiment.config.defense.scales, calibrated})
  ]
  return list(dict.fromkeys(listed))


def run(experiment: Experiment) -> None:
  """Writes extraction.jsonl, a record a run; continues a part that lies there."""
  config = experiment.config.extraction
  assert config is not None
  part = experiment.directory / 'extraction.part.jsonl'
  records = workdir.read_jsonl(part)
  profile = experiment.profile()
  described = [
    (cell, seed)
    for cell in cells(experiment)
    for seed in range(experiment.config.seeds)
  ]
  rows = _rows(experiment, profile, described)
  setting, tables = _setting(experiment, profile)
  size = config.rows_per_chunk

  @functools.partial(jax.jit, compiler_options=_compile.options('training'))
  def outcomes(tables: Tables, chunk: Run) -> Outcome:
    row = functools.partial(attack, setting, tables)
    return surrogates.over_population(row, chunk, width=config.width)

  progress = tqdm(
    total=len(described), initial=len(records), desc='extraction', unit='run'
  )
  for start in range(len(records), len(described), size):
    began = time.perf_counter()
    indices = np.minimum(np.arange(start, start + size), len(described) - 1)
    chunk = jax.tree.map(lambda leaf, i=indices: leaf[i], rows)
    result = jax.tree.map(np.asarray, outcomes(tables, chunk))
    end = min(start + size, len(described))
    seconds = (time.perf_counter() - began) / (end - start)
    for i in range(start, end):
      cell, seed = described[i]
      records.append(_record(cell, seed, result, i - start, seconds))
    workdir.write_jsonl(part, records)
    progress.update(end - start)
  progress.close()
  part.replace(experiment.directory / 'extraction.jsonl')


def _rows(
  experiment: Experiment, profile: ZooProfile, described: list[tuple[Cell, int]]
) -> Run:
  pairing_root, serving_root = jax.random.split(experiment.key('extraction'))
  fold_in = jax.vmap(jax.random.fold_in, in_axes=(None, 0))
  victims = [profile.index(cell.victim) for cell, _ in described]
  budgets = {victim: latency_budget(profile, victim) for victim in set(victims)}
  victim = jnp.asarray(victims, jnp.int32)
  return Run(
    victim=victim,
    attack=jnp.asarray([ATTACKS.index(c.attack) for c, _ in described], jnp.int32),
    scale=jnp.asarray([cell.scale for cell, _ in described], jnp.float32),
    query_budget=jnp.asarray([cell.query_budget for cell, _ in described], jnp.int32),
    latency_budget_ms=jnp.asarray([budgets[v] for v in victims], jnp.float32),
    corner=Spec(profile.accuracy[victim], profile.latency_ms[victim]),
    pairing_key=fold_in(pairing_root, jnp.asarray([seed for _, seed in described])),
    serving_key=fold_in(serving_root, jnp.arange(len(described))),
  )


def _setting(experiment: Experiment, profile: ZooProfile) -> tuple[Setting, Tables]:
  config, images = experiment.config.extraction, experiment.images()
  assert config is not None
  with np.load(experiment.directory / 'predictions.npz') as outputs:
    pool_outputs, test_outputs = outputs['pool'], outputs['test']
  setting = Setting(
    profile=profile,
    router=routers.uniform(profile),
    defense=experiment.transform,
    surrogate=zoo.create(num_classes=images.num_classes, **config.surrogate),
    hyper=config.hyper,
    max_queries=max(config.query_budgets),
    accuracy_resolution=experiment.config.fingerprint.accuracy_resolution,
    latency_resolution=experiment.config.fingerprint.latency_resolution,
  )
  tables = Tables(
    pool=jnp.asarray(images.pool_x),
    pool_outputs=jnp.asarray(pool_outputs),
    test=jnp.asarray(images.test_x),
    test_labels=jnp.asarray(images.test_y),
    test_outputs=jnp.asarray(test_outputs),
  )
  return setting, tables


def _record(
  cell: Cell, seed: int, result: Outcome, i: int, seconds: float
) -> dict[str, Any]:
  purity = float(result.purity[i])
  return {
    **cell._asdict(),
    'seed': seed,
    'accuracy': float(result.accuracy[i]),
    'fidelity': float(result.fidelity[i]),
    'victim_purity': None if np.isnan(purity) else purity,
    'queries_billed': int(result.bill.queries[i]),
    'queries_served': int(result.bill.served[i]),
    'queries_logged': int(result.log.queries[i]),
    'seconds': seconds,
  }
