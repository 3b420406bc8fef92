"""The extraction stage: every run of the experiment as a row of one population."""

import functools
import pathlib
import time
import warnings
import zipfile
import zlib
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from psml_jax import _compile, leakage, train
from psml_jax.core import Spec, ZooProfile
from psml_jax.experiments import deployment, pieces, plan, processes, workdir
from psml_jax.experiments.artifacts import DEFENSES, EXTRACTION, PROFILE, Record
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
  """Writes extraction.jsonl, a record a run; continues a part that is there.

  Trainings that are cut into pieces continue after the last one, see `pieces.scores`.
  Several processes train the surrogates together, and the first one writes.
  """
  config = experiment.config.extraction
  assert config is not None
  part = experiment.directory / 'extraction.part.jsonl'
  described = [
    (cell, seed)
    for cell in cells(experiment)
    for seed in range(experiment.config.seeds)
  ]
  records: list[Record] = workdir.read_jsonl(part, Record)
  processes.wait('extraction.part.jsonl was read')
  done = {(record.cell, record.seed): record for record in records}
  missing = [row for row in described if row not in done]

  def save() -> None:
    if processes.is_first():
      workdir.write_jsonl(part, [done[row] for row in described if row in done])

  progress = tqdm(
    total=len(described),
    initial=len(described) - len(missing),
    desc='extraction',
    unit='run',
    disable=not processes.is_first(),
  )
  with progress:
    size = min(config.rows_per_chunk, len(described))
    for found in _chunks(experiment, missing, size):
      done |= {(record.cell, record.seed): record for record in found}
      save()
      progress.update(len(found))
  diverged = sum(record.diverged for record in done.values())
  if diverged:
    warnings.warn(
      f'{diverged} of {len(done)} surrogates diverged: their losses are not finite, so '
      'they count in no mean and support no claim; lower the learning_rate of '
      'config.extraction',
      stacklevel=2,
    )
  save()
  if processes.is_first():
    part.replace(experiment.directory / EXTRACTION)
    (experiment.directory / pieces.STATE).unlink(missing_ok=True)
  processes.wait('extraction.jsonl was written')


def _chunks(
  experiment: Experiment, missing: list[tuple[Cell, int]], size: int
) -> Iterator[list[Record]]:
  """The records of all runs that are missing, so many at a time."""
  config, profile = experiment.config.extraction, experiment.profile()
  assert config is not None
  training = config.training(experiment.images().num_classes)
  tables = tables_of(experiment)
  pairing, _ = jax.random.split(experiment.key('extraction'))

  @_compile.jit('once', static_argnames=('attack', 'defense'))
  def every(attack: str, defense: str, tables: Tables, runs: Run) -> Spoils:
    one = functools.partial(
      collect, attack, defense, experiment.config, profile, tables
    )
    return jax.vmap(one)(runs)

  best = functools.cache(functools.partial(_told, experiment))

  @functools.lru_cache(maxsize=1)
  def collected(cell: Cell) -> Spoils:
    informed = plan.entry(experiment.config, cell.attack).role == 'informed'
    told = best(cell.victim, cell.defense, cell.value) if informed else None
    runs = runs_of(experiment, profile, cell, told)
    return jax.tree.map(np.asarray, every(cell.attack, cell.defense, tables, runs))

  for start in range(0, len(missing), size):
    began = time.perf_counter()
    new = missing[start : start + size]
    got = [
      jax.tree.map(lambda leaf, seed=seed: leaf[seed], collected(cell))
      for cell, seed in new
    ]
    # The last chunk is filled up, so that all are of one shape.
    whole = [*range(len(new)), *[-1] * (size - len(new))]
    seeds = np.array([new[i][1] for i in whole], np.uint32)
    victims = [profile.index(new[i][0].victim) for i in whole]
    rows = (
      training,
      tables,
      jax.vmap(jax.random.fold_in, (None, 0))(pairing, seeds),
      jnp.array(victims, jnp.int32),
      jax.tree.map(lambda *each: np.stack(each), *(got[i].harvest for i in whole)),
    )
    mesh = train.global_mesh()
    earlier = 0.0
    if config.pieces == 1:
      result = train.gather(scores(*rows, config.test_batch, config.width, mesh))
    else:
      names = [repr((tuple(cell), seed)) for cell, seed in new]
      under_way = experiment.directory / pieces.STATE
      result, earlier = pieces.scores(under_way, names, config, *rows, mesh)
    seconds = (earlier + time.perf_counter() - began) / len(new)
    yield [
      _record(*row, spoils, jax.tree.map(lambda leaf, i=i: leaf[i], result), seconds)
      for i, (row, spoils) in enumerate(zip(new, got, strict=True))
    ]


def runs_of(
  experiment: Experiment,
  profile: ZooProfile,
  cell: Cell,
  told: Spec | None = None,
) -> Run:
  """All runs of a cell; their keys follow from the cell and the seed alone.

  Args:
    experiment: its config's `seeds` are how many.
    profile: of the zoo.
    cell: one of `cells`.
    told: the best spec under the cell's defense, for an informed attacker.

  Returns:
    The runs, fields of shape [seeds].
  """
  pairing, serving = jax.random.split(experiment.key('extraction'))
  seeds = jnp.arange(experiment.config.seeds, dtype=jnp.uint32)
  number = np.uint32(zlib.crc32(repr(tuple(cell)).encode()))
  victim = profile.index(cell.victim)
  fold_in = jax.vmap(jax.random.fold_in, (None, 0))
  told = Spec.of(jnp.inf, -jnp.inf) if told is None else told
  every = functools.partial(jnp.broadcast_to, shape=seeds.shape)
  return Run(
    victim=every(jnp.int32(victim)),
    value=every(jnp.float32(cell.value)),
    query_budget=every(jnp.int32(cell.query_budget)),
    latency_budget_ms=every(jnp.float32(latency_budget(profile, victim))),
    told=jax.tree.map(every, told),
    pairing_key=fold_in(pairing, seeds),
    serving_key=fold_in(jax.random.fold_in(serving, number), seeds),
  )


def _told(experiment: Experiment, victim: str, defense: str, value: float) -> Spec:
  """What informed attackers are told: the best spec under a defense."""
  profile = experiment.profile()
  server = deployment.serve(experiment.config, profile, defense, value)
  place = np.uint32(zlib.crc32(repr((victim, defense, value)).encode()))
  key = jax.random.fold_in(experiment.key('leakage'), place)
  return leakage.best_spec(key, profile, server, profile.index(victim))


def cells(experiment: Experiment) -> list[Cell]:
  """What the experiment extracts, by its plan and the values that keep the target."""
  victims = plan.victims(experiment.profile())
  calibrated = DEFENSES.read(experiment.directory).calibrated
  return plan.cells(experiment.config, victims, calibrated)


def tables_of(experiment: Experiment) -> Tables:
  """The arrays that all runs share, as the stages before left them."""
  images = experiment.images()
  pool_outputs, test_outputs = _predictions(experiment.directory / 'predictions.npz')
  return Tables(
    pool=jnp.asarray(images.pool_x),
    pool_outputs=jnp.asarray(pool_outputs),
    test=jnp.asarray(images.test_x),
    test_labels=jnp.asarray(images.test_y),
    test_outputs=jnp.asarray(test_outputs),
    samples_ms=_samples(experiment),
  )


def _samples(experiment: Experiment) -> jax.Array | None:
  """Each model's latencies as clients measure them, where they were measured."""
  found = PROFILE.found(experiment.directory)
  names = experiment.profile().names
  if found is None or not set(names) <= found.samples_ms.keys():
    return None
  return jnp.array([found.samples_ms[name] for name in names], jnp.float32)


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
