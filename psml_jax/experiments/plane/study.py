"""Runs a leakage study: defense by defense, then the attackers, then the report."""

import dataclasses
import math
import os
import pathlib
import time
import zlib

import jax
import numpy as np

from psml_jax import (
  _device,
  _files,
  _keys,
  defenses,
  goodput,
  leakage,
  pareto,
  profiles,
)
from psml_jax._validate import InputError
from psml_jax.core import ZooProfile
from psml_jax.experiments import workdir
from psml_jax.experiments.plane import attackers, curves
from psml_jax.experiments.plane import config as configs
from psml_jax.experiments.plane.config import Config
from psml_jax.report import plane
from psml_jax.report.plane_records import (
  Accounts,
  Attacked,
  Defense,
  Point,
  Row,
  Step,
  Study,
  Victim,
)

RESULT = 'leakage.json'


def run(
  config: Config,
  directory: str | os.PathLike[str],
  *,
  until: str = 'report',
  data_dir: str | None = None,
) -> pathlib.Path:
  """Runs a study, continuing where an earlier run stopped.

  Args:
    config: from `parse`.
    directory: the work directory: new, empty, or of the same config.
    until: 'report'; a study has no other stage to end at.
    data_dir: none is needed.

  Returns:
    The work directory: leakage.json (the rows), study.json (everything), results.md,
    plane.png and report.html.

  Raises:
    ValueError: a zoo or workload that cannot be had (nothing has been written then), or
      a work directory of another config or in use.
  """
  del until, data_dir

  try:
    profile = configs.profile(config)
    key = _keys.purpose(config.seed, 'leakage')
    honest = curves.clients(jax.random.fold_in(key, 0), profile, config.workloads)
    for name, its in config.defenses.items():
      off = defenses.MECHANISMS[name].knob.off
      defenses.defended(profile, name, off, **its)
    read = {}
    if config.published.csv:
      name = 'config.published.csv'
      read[name] = _files.local(name, config.published.csv)
    path = workdir.open_workdir(_files.local('workdir', directory), config, moved=read)
    workdir.check_inputs(path, read)
  except ValueError as error:
    raise InputError(str(error)) from error
  if not (path / 'report.html').exists():
    with workdir.held(path):
      _work(config, profile, key, honest, path)
  print(plane.advice(workdir.read_json(path / 'study.json', Study)))
  return path


def _work(
  config: Config,
  profile: ZooProfile,
  key: jax.Array,
  honest: curves.Clients,
  path: pathlib.Path,
) -> None:
  began = time.perf_counter()
  spent = workdir.read_jsonl(path / 'seconds.jsonl', float)

  measured = workdir.job_by_job(
    path / 'defenses.jsonl',
    Defense,
    {
      name: lambda name=name: [_defense(config, profile, key, honest, name)]  # type: ignore[misc]
      for name in config.defenses
    },
  )
  attacked = workdir.job_by_job(
    path / 'attackers.jsonl',
    Attacked,
    attackers.jobs(config, profile, key, measured),
  )
  accounts = workdir.job_by_job(
    path / 'accounts.jsonl', Accounts, attackers.counted(config, profile, key)
  )
  workdir.write_jsonl(
    path / 'seconds.jsonl', [*spent, float(time.perf_counter() - began)]
  )
  study = Study(
    name=config.name,
    models=len(profile),
    frontier=[profile.names[i] for i in pareto.corners(profile)],
    cost=_cost(config),
    workload=config.workload,
    bounds={name: _bound(profile, each) for name, each in honest.measures.items()},
    defenses=measured,
    attacked=attacked,
    accounts=accounts,
    seconds=sum(spent) + time.perf_counter() - began,
    device=_device.name(),
  )
  workdir.write_json(path / 'study.json', study)
  rows = [dataclasses.asdict(row) for defense in measured for row in defense.rows]
  workdir.write_json(path / RESULT, rows)
  plane.write(study, path)


def _defense(
  config: Config,
  profile: ZooProfile,
  key: jax.Array,
  honest: curves.Clients,
  name: str,
) -> Defense:
  """A defense's curve and rows."""
  own = jax.random.fold_in(key, np.uint32(zlib.crc32(name.encode())))
  curve = curves.Curve(profile, honest, name, config.defenses[name], own, config.gap)
  knob, notes = defenses.MECHANISMS[name].knob, []
  rows, last = [], 0.0
  for workload, measure in honest.measures.items():
    for target in config.targets:
      try:
        strength = curve.at_goodput(workload, target)
      except curves.MissedError as error:
        notes.append(str(error))
        continue
      rows.append(_row(curve, measure, workload, target, strength))
      if workload == config.workload:
        last = strength
  for strength in curve.strengths(config.points, config.workload):
    curve.worst(float(strength))
  points = [_point(curve, strength) for strength in curve.known]
  router = curve.router(curve.value(last))
  every = leakage.worst(profile, router, gap=config.gap)
  measure = honest.measures[config.workload]
  kept = honest.part(curve.kept(last), config.workload)
  steps = goodput.of_steps(profile, measure.spec, kept, measure.weight)
  corners = pareto.corners(profile)
  return Defense(
    name,
    knob.name,
    knob.unit,
    points,
    rows,
    [
      Victim(
        profile.names[model],
        float(rate),
        float(purity),
        *map(_finite, map(float, spec)),
      )
      for model, rate, purity, *spec in zip(
        every.victims,
        every.rate,
        every.purity,
        np.asarray(every.spec.min_accuracy),
        np.asarray(every.spec.max_latency_ms),
        strict=True,
      )
    ],
    [
      Step(profile.names[model], float(share), float(kept) if share > 0 else None)
      for model, share, kept in zip(corners, steps.share, steps.goodput, strict=True)
    ],
    '; '.join(notes),
  )


def _point(curve: curves.Curve, strength: float) -> Point:
  found = curve.worst(strength)
  return Point(
    _finite(curve.value(strength)),
    curve.goodput(strength),
    float(found.rate[0]),
    float(found.ceiling[0]),
    curve.profile.names[found.victims[0]],
    float(found.purity[0]),
  )


def _row(
  curve: curves.Curve,
  measure: leakage.Measure,
  workload: str,
  target: float,
  strength: float,
) -> Row:
  found = curve.worst(strength)
  reached = curve.goodput(strength)[workload]
  return Row(
    defense=curve.name,
    knob=defenses.MECHANISMS[curve.name].knob.name,
    value=_finite(curve.value(strength)),
    workload=workload,
    target_goodput=target,
    goodput=reached,
    worst_rate=float(found.rate[0]),
    worst_victim=curve.profile.names[found.victims[0]],
    purity=float(found.purity[0]),
    bound_rate=float(leakage.least_rate(curve.profile, measure, min(reached, 1.0))),
    exact=found.certified,
    ceiling=float(found.ceiling[0]),
    min_accuracy=_finite(float(found.spec.min_accuracy[0])),
    max_latency_ms=_finite(float(found.spec.max_latency_ms[0])),
    goodput_exact=curve.exact,
  )


def _finite(value: float) -> float | None:
  return value if math.isfinite(value) else None


def _bound(profile: ZooProfile, measure: leakage.Measure) -> list[tuple[float, float]]:
  rates = np.unique(np.concatenate([np.linspace(0, 1, 101), np.geomspace(1e-3, 1, 60)]))
  return [
    (float(t), float(g)) for t, g in zip(rates, leakage.bound(profile, measure, rates))
  ]


def _cost(config: Config) -> str:
  if config.published.name:
    about = profiles.about(config.published.name)
    return f'{about.cost} ({about.cost_unit})'
  return f'latency ({config.published.latency_unit}, shown in ms)'
