"""The extraction stage: every run of the experiment as a row of one population."""

import pathlib
import time
import warnings
import zipfile
import zlib

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from psml_jax import leakage, train
from psml_jax.attacks import ATTACKS
from psml_jax.core import Spec, ZooProfile
from psml_jax.experiments import deployment, plan, workdir
from psml_jax.experiments.artifacts import DEFENSES, EXTRACTION, Record
from psml_jax.experiments.experiment import Experiment, latency_budget
from psml_jax.experiments.harness import (
  Run,
  Score,
  Spoils,
  Tables,
  collect,
  scores,
)
from psml_jax.experiments.plan import Cell


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
  records: list[Record] = workdir.read_jsonl(part, Record)
  done = {(record.cell, record.seed): record for record in records}
  missing = [row for row in described if row not in done]
  rows = _rows(experiment, profile, missing) if missing else None
  training, tables = _setting(experiment)
  size = min(config.rows_per_chunk, len(described))

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
    new = missing[start : start + size]
    got = [
      collect(
        cell.attack,
        cell.defense,
        experiment.config,
        profile,
        tables,
        jax.tree.map(lambda leaf, i=i: leaf[i], chunk),
      )
      for i, (cell, _) in enumerate(new)
    ]
    got += [got[-1]] * (size - len(new))
    harvests = jax.tree.map(lambda *each: jnp.stack(each), *(g.harvest for g in got))
    result = train.gather(
      scores(
        training,
        tables,
        chunk,
        harvests,
        config.test_batch,
        config.width,
        train.global_mesh(),
      )
    )
    seconds = (time.perf_counter() - began) / len(new)
    for i, (cell, seed) in enumerate(new):
      one = jax.tree.map(lambda leaf, i=i: leaf[i], result)
      done[cell, seed] = _record(cell, seed, got[i], one, seconds)
    workdir.write_jsonl(part, [done[row] for row in described if row in done])
    progress.update(len(new))
  progress.close()
  diverged = sum(record.diverged for record in done.values())
  if diverged:
    warnings.warn(
      f'{diverged} of {len(done)} surrogates diverged: their losses are not finite, so '
      'they count in no mean and support no claim; lower '
      'config.extraction.hyper.learning_rate',
      stacklevel=2,
    )
  workdir.write_jsonl(part, [done[row] for row in described])
  part.replace(experiment.directory / EXTRACTION)


def _rows(
  experiment: Experiment, profile: ZooProfile, described: list[tuple[Cell, int]]
) -> Run:
  """The runs as one pytree; a run's keys follow from its cell and seed alone."""
  pairing_root, serving_root = jax.random.split(experiment.key('extraction'))
  fold_in = jax.vmap(jax.random.fold_in)
  models = [profile.index(cell.victim) for cell, _ in described]
  budgets = {model: latency_budget(profile, model) for model in set(models)}
  victim = jnp.asarray(models, jnp.int32)
  cell_number = np.array(
    [zlib.crc32(repr(tuple(cell)).encode()) for cell, _ in described], np.uint32
  )
  seed = jnp.asarray([seed for _, seed in described], jnp.uint32)
  pairing_roots = jnp.broadcast_to(pairing_root, seed.shape)
  serving_roots = jnp.broadcast_to(serving_root, seed.shape)

  told = _told(experiment, profile, {cell for cell, _ in described})
  return Run(
    victim=victim,
    value=jnp.asarray([cell.value for cell, _ in described], jnp.float32),
    query_budget=jnp.asarray([cell.query_budget for cell, _ in described], jnp.int32),
    latency_budget_ms=jnp.asarray([budgets[model] for model in models], jnp.float32),
    told=jax.tree.map(
      lambda *specs: jnp.stack(specs), *(told[cell] for cell, _ in described)
    ),
    pairing_key=fold_in(pairing_roots, seed),
    serving_key=fold_in(fold_in(serving_roots, jnp.asarray(cell_number)), seed),
  )


def _told(
  experiment: Experiment, profile: ZooProfile, cells: set[Cell]
) -> dict[Cell, Spec]:
  """What informed attackers are told: the best spec under the cell's defense."""
  key = experiment.key('leakage')
  nothing = Spec.of(jnp.inf, -jnp.inf)
  best: dict[tuple[str, str, float], Spec] = {}
  for cell in sorted(cells):
    if ATTACKS[cell.attack].role == 'informed':
      server = deployment.serve(experiment.config, profile, cell.defense, cell.value)
      place = (cell.victim, cell.defense, cell.value)
      own = jax.random.fold_in(key, np.uint32(zlib.crc32(repr(place).encode())))
      victim = profile.index(cell.victim)
      best[place] = leakage.best_spec(own, profile, server, victim)
  return {
    cell: best[cell.victim, cell.defense, cell.value]
    if ATTACKS[cell.attack].role == 'informed'
    else nothing
    for cell in cells
  }


def cells(experiment: Experiment) -> list[Cell]:
  """What the experiment extracts, by its plan and the values that keep the target."""
  victims = plan.victims(experiment.profile())
  calibrated = DEFENSES.read(experiment.directory).calibrated
  return plan.cells(experiment.config, victims, calibrated)


def _setting(experiment: Experiment) -> tuple[train.Training, Tables]:
  config, images = experiment.config.extraction, experiment.images()
  assert config is not None
  pool_outputs, test_outputs = _predictions(experiment.directory / 'predictions.npz')
  tables = Tables(
    pool=jnp.asarray(images.pool_x),
    pool_outputs=jnp.asarray(pool_outputs),
    test=jnp.asarray(images.test_x),
    test_labels=jnp.asarray(images.test_y),
    test_outputs=jnp.asarray(test_outputs),
  )
  return config.training(images.num_classes), tables


def _predictions(path: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
  """Answers to the pool, f32[M, P, K], and to the test images, f32[M, N, K]."""
  try:
    with path.open('rb') as file, np.load(file) as outputs:
      return outputs['pool'], outputs['test']
  except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
    raise workdir.damaged(path, error) from error


def _record(
  cell: Cell, seed: int, spoils: Spoils, score: Score, seconds: float
) -> Record:
  """One run; a surrogate that diverged has no scores."""

  def finite(value: jax.Array) -> float | None:
    return float(value) if np.isfinite(value) else None

  diverged = not np.isfinite(score.loss)
  return Record(
    **cell._asdict(),
    seed=seed,
    accuracy=None if diverged else float(score.accuracy),
    fidelity=None if diverged else float(score.fidelity),
    victim_purity=finite(spoils.purity),
    loss=finite(score.loss),
    diverged=diverged,
    probes=int(spoils.probes),
    queries_billed=int(spoils.bill.queries),
    queries_served=int(spoils.bill.served),
    queries_logged=int(spoils.log.queries),
    seconds=seconds,
  )
