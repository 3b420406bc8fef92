"""The extraction stage: every run of the experiment as a row of one population."""

import functools
import pathlib
import time
import warnings
import zipfile
import zlib
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

REFUSAL = 'refusal'
"""The defense that every other one is compared with: refusing queries at random."""


class Cell(NamedTuple):
  """All runs that differ in their seed alone.

  `defense` is 'none', the config's mechanism at `scale`, or 'refusal', where `scale` is
  the share of all queries that is refused.
  """

  victim: str
  attack: str
  defense: str
  scale: float
  query_budget: int


DEFENSE_FIELDS = ('calibrated_scale', 'goodput')
RECORD_FIELDS = (*Cell._fields, 'seed', 'diverged', 'queries_billed', 'seconds')


def cells(experiment: Experiment) -> list[Cell]:
  """What the experiment extracts, cell by cell.

  Each victim by each attack at each budget without defense, and by the fingerprint on
  the calibrated defense. At the largest budget, what a thief can do about the defense:
  each victim by the naive attack and by one that is told the corner; the latter also
  where as many queries are refused at random as the defense costs honest clients; and
  the medium victim at every scale.
  """
  config = experiment.config.extraction
  assert config is not None
  profile = experiment.profile()
  defense = workdir.read_json(experiment.directory / 'defense.json', *DEFENSE_FIELDS)
  calibrated = defense['calibrated_scale']
  goodputs = {row['scale']: row['goodput']['mean'] for row in defense['goodput']}
  mechanism = experiment.config.defense.mechanism
  victims = {
    size: profile.names[model] for size, model in pareto.victims(profile).items()
  }
  largest = max(config.query_budgets)
  scales = {*experiment.config.defense.scales} - {0.0}
  listed = [
    Cell(victim, name, 'none', 0.0, budget)
    for victim in victims.values()
    for name in ('explicit', 'naive', 'fingerprint')
    for budget in config.query_budgets
  ]
  if calibrated:
    scales.add(calibrated)
    refused = 1 - goodputs[calibrated] / goodputs[0.0]
    for victim in victims.values():
      listed += [
        Cell(victim, 'fingerprint', mechanism, calibrated, budget)
        for budget in config.query_budgets
      ]
      listed += [
        Cell(victim, 'naive', mechanism, calibrated, largest),
        Cell(victim, 'corner', mechanism, calibrated, largest),
        Cell(victim, 'corner', REFUSAL, refused, largest),
      ]
  listed += [
    Cell(victims['medium'], name, mechanism, scale, largest)
    for name in ('fingerprint', 'corner')
    for scale in sorted(scales)
  ]
  return list(dict.fromkeys(listed))


def run(experiment: Experiment) -> None:
  """Writes extraction.jsonl, a record a run; continues a part that is there."""
  config = experiment.config.extraction
  assert config is not None
  part = experiment.directory / 'extraction.part.jsonl'
  profile = experiment.profile()
  described = [
    (cell, seed)
    for cell in cells(experiment)
    for seed in range(experiment.config.seeds)
  ]
  records = workdir.read_jsonl(part, *RECORD_FIELDS)
  done = {_identity(record): record for record in records}
  missing = [row for row in described if row not in done]
  rows = _rows(experiment, profile, missing) if missing else None
  setting, tables = _setting(experiment, profile)
  size = min(config.rows_per_chunk, len(described))

  @functools.partial(jax.jit, compiler_options=_compile.options('surrogates'))
  def outcomes(tables: Tables, chunk: Run) -> Outcome:
    row = functools.partial(attack, setting, tables)
    return surrogates.over_population(row, chunk, width=config.width)

  progress = tqdm(
    total=len(described),
    initial=len(described) - len(missing),
    desc='extraction',
    unit='run',
  )
  for start in range(0, len(missing), size):
    began = time.perf_counter()
    indices = np.minimum(np.arange(start, start + size), len(missing) - 1)
    chunk = jax.tree.map(lambda leaf, i=indices: leaf[i], rows)
    result = jax.tree.map(np.asarray, outcomes(tables, chunk))
    new = missing[start : start + size]
    seconds = (time.perf_counter() - began) / len(new)
    for i, (cell, seed) in enumerate(new):
      done[cell, seed] = _record(cell, seed, result, i, seconds)
    workdir.write_jsonl(part, [done[row] for row in described if row in done])
    progress.update(len(new))
  progress.close()
  diverged = sum(record['diverged'] for record in done.values())
  if diverged:
    warnings.warn(
      f'{diverged} of {len(done)} surrogates diverged: their losses are not finite, so '
      'they count in no mean and support no claim; lower '
      'config.extraction.hyper.learning_rate',
      stacklevel=2,
    )
  workdir.write_jsonl(part, [done[row] for row in described])
  part.replace(experiment.directory / 'extraction.jsonl')


def _identity(record: dict[str, Any]) -> tuple[Cell, int]:
  return Cell(*(record[field] for field in Cell._fields)), record['seed']


def _rows(
  experiment: Experiment, profile: ZooProfile, described: list[tuple[Cell, int]]
) -> Run:
  """The runs as one pytree; a run's keys follow from its cell and seed alone."""
  pairing_root, serving_root = jax.random.split(experiment.key('extraction'))
  fold_in = jax.vmap(jax.random.fold_in)
  victims = [profile.index(cell.victim) for cell, _ in described]
  budgets = {victim: latency_budget(profile, victim) for victim in set(victims)}
  victim = jnp.asarray(victims, jnp.int32)
  cell_number = np.array(
    [zlib.crc32(repr(tuple(cell)).encode()) for cell, _ in described], np.uint32
  )
  seed = jnp.asarray([seed for _, seed in described], jnp.uint32)
  pairing_roots = jnp.broadcast_to(pairing_root, seed.shape)
  serving_roots = jnp.broadcast_to(serving_root, seed.shape)

  def strength(defense: str) -> jax.Array:
    return jnp.asarray(
      [cell.scale if cell.defense == defense else 0.0 for cell, _ in described],
      jnp.float32,
    )

  return Run(
    victim=victim,
    attack=jnp.asarray([ATTACKS.index(c.attack) for c, _ in described], jnp.int32),
    scale=strength(experiment.config.defense.mechanism),
    query_budget=jnp.asarray([cell.query_budget for cell, _ in described], jnp.int32),
    latency_budget_ms=jnp.asarray([budgets[v] for v in victims], jnp.float32),
    corner=Spec(profile.accuracy[victim], profile.latency_ms[victim]),
    pairing_key=fold_in(pairing_roots, seed),
    serving_key=fold_in(fold_in(serving_roots, jnp.asarray(cell_number)), seed),
    refusal=strength(REFUSAL),
  )


def _setting(experiment: Experiment, profile: ZooProfile) -> tuple[Setting, Tables]:
  config, images = experiment.config.extraction, experiment.images()
  assert config is not None
  pool_outputs, test_outputs = _predictions(experiment.directory / 'predictions.npz')
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


def _predictions(path: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
  """Answers to the pool, f32[M, P, K], and to the test images, f32[M, N, K]."""
  try:
    with path.open('rb') as file, np.load(file) as outputs:
      return outputs['pool'], outputs['test']
  except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
    raise workdir.damaged(path, error) from error


def _record(
  cell: Cell, seed: int, result: Outcome, i: int, seconds: float
) -> dict[str, Any]:
  """One run as JSON; scores of a surrogate that diverged are null."""

  def finite(value: jax.Array) -> float | None:
    return float(value) if np.isfinite(value) else None

  diverged = not np.isfinite(result.loss[i])
  return {
    **cell._asdict(),
    'seed': seed,
    'accuracy': None if diverged else float(result.accuracy[i]),
    'fidelity': None if diverged else float(result.fidelity[i]),
    'victim_purity': finite(result.purity[i]),
    'loss': finite(result.loss[i]),
    'diverged': diverged,
    'probes': int(result.probes[i]),
    'queries_billed': int(result.bill.queries[i]),
    'queries_served': int(result.bill.served[i]),
    'queries_logged': int(result.log.queries[i]),
    'seconds': seconds,
  }
