"""The summary of an experiment: cells with intervals, and the paper's claims."""

import math
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from psml_jax import _device, pareto
from psml_jax.defenses import MECHANISMS
from psml_jax.experiments import claims, plan, provenance, workdir
from psml_jax.experiments.artifacts import (
  DEFENSES,
  EXTRACTION,
  FINGERPRINTS,
  PROFILE,
  SECONDS,
  Defenses,
  Record,
)
from psml_jax.experiments.config import Config
from psml_jax.experiments.experiment import Experiment
from psml_jax.experiments.plan import NONE, Cell
from psml_jax.report import schema
from psml_jax.report.schema import Estimate

_Runs = Mapping[Cell, Sequence[Record]]


def summarise(experiment: Experiment) -> schema.Summary:
  """Gathers the artifacts of all stages before the report.

  Args:
    experiment: one whose other stages are done.

  Returns:
    The content of summary.json.
  """
  config, profile = experiment.config, experiment.profile()
  directory = experiment.directory
  optimal = np.asarray(pareto.pareto_mask(profile))
  fingerprints = FINGERPRINTS.read(directory)
  defenses = DEFENSES.read(directory)
  victims = plan.victims(profile)
  runs = _runs(experiment, victims, defenses)
  attacks = [_attack(config, cell, records) for cell, records in runs.items()]
  goodputs = _goodputs(defenses)
  published = config.published is not None
  knobs = {name: MECHANISMS[name].knob for name in config.defense.mechanisms}
  return schema.Summary(
    dataset=config.name,
    seeds=config.seeds,
    target_goodput=config.defense.target_goodput,
    device=_device.name() if published else PROFILE.read(directory).device,
    provenance=provenance.collect(config, directory),
    wall_seconds=_seconds(experiment, runs),
    zoo=[
      schema.Model(
        name=name,
        accuracy=float(profile.accuracy[i]),
        latency_ms=float(profile.latency_ms[i]),
        pareto=bool(optimal[i]),
      )
      for i, name in enumerate(profile.names)
    ],
    victims=victims,
    twins=[
      [profile.names[model] for model in group] for group in pareto.twins(profile)
    ],
    fingerprint=msgspec.convert(
      fingerprints.victims, list[schema.Corner], from_attributes=True
    ),
    frontier=fingerprints.frontier,
    probes=[
      schema.Probes(**vars(found.trail), victim=found.victim)
      for found in fingerprints.victims
    ],
    extraction=attacks,
    protection=_protection(config, attacks, goodputs, victims['medium']),
    goodput=goodputs,
    knobs={
      name: schema.Knob(
        knob.name, knob.unit, knob.weakest, knob.strongest, MECHANISMS[name].control
      )
      for name, knob in knobs.items()
    },
    roles={name: plan.entry(config, name).role for name in config.attacks},
    claims=[
      claims.fingerprinting(fingerprints),
      *(claims.extraction(runs, config, victims, defenses.calibrated) if runs else ()),
      *(
        claims.goodput(defenses, name, config.defense.target_goodput)
        for name in defenses.mechanisms
        if not MECHANISMS[name].control
      ),
    ],
  )


def _seconds(experiment: Experiment, runs: _Runs) -> dict[str, float]:
  """Seconds by stage; extraction's from its records, which outlive a kill."""
  seconds = SECONDS.found(experiment.directory) or {}
  if runs:
    seconds['extraction'] = sum(run.seconds for rows in runs.values() for run in rows)
  return seconds


def _runs(
  experiment: Experiment, victims: Mapping[str, str], defenses: Defenses
) -> dict[Cell, list[Record]]:
  """The records of every cell, in order of their seeds; all must be there."""
  if experiment.config.extraction is None:
    return {}
  path = experiment.directory / EXTRACTION
  records: list[Record] = workdir.read_jsonl(path, Record)
  runs: dict[Cell, list[Record]] = {}
  for record in records:
    runs.setdefault(record.cell, []).append(record)
  wanted = plan.cells(experiment.config, victims, defenses.calibrated)
  seeds = experiment.config.seeds
  for cell in {**dict.fromkeys(wanted), **runs}:
    found = [record.seed for record in runs.get(cell, ())]
    if cell not in wanted or sorted(found) != list(range(seeds)):
      raise workdir.damaged(
        path,
        f'it holds {len(records)} runs, and {len(wanted) * seeds} belong there; of '
        f'{tuple(cell)} it has the seeds {found}',
      )
  return runs


def _attack(config: Config, cell: Cell, runs: Sequence[Record]) -> schema.Attack:
  return schema.Attack(
    **cell._asdict(),
    label=cell.label,
    knows=plan.entry(config, cell.attack).knows,
    seeds=len(runs),
    diverged=sum(run.diverged for run in runs),
    unserved=sum(run.victim_purity is None for run in runs),
    queries_billed=float(np.mean([run.queries_billed for run in runs])),
    queries_served=Estimate.of((run.queries_served for run in runs), math.inf),
    victim_purity=Estimate.of(run.victim_purity for run in runs),
    accuracy=Estimate.of(run.accuracy for run in runs),
    fidelity=Estimate.of(run.fidelity for run in runs),
  )


def _goodputs(defenses: Defenses) -> list[schema.Goodput]:
  """The goodput of every defense and value, the one without a defense first."""
  rows = [(NONE, defenses.without)]
  for name, found in defenses.mechanisms.items():
    rows += [(name, row) for row in found.rows]
  return [
    schema.Goodput(
      **vars(row), defense=name, label=Cell('', '', name, row.value, 0).label
    )
    for name, row in rows
  ]


def _protection(
  config: Config,
  attacks: Sequence[schema.Attack],
  goodputs: Sequence[schema.Goodput],
  medium: str,
) -> list[schema.Protection]:
  """All attackers of the medium victim's defenses at the largest budget."""
  largest = max((row.query_budget for row in attacks), default=0)
  kept = {(row.defense, row.value): row.goodput for row in goodputs}
  chosen = [
    schema.Protection(**vars(row), goodput=kept[row.defense, row.value])
    for row in attacks
    if row.victim == medium
    and row.query_budget == largest
    and plan.entry(config, row.attack).role != 'reference'
  ]
  return sorted(chosen, key=lambda row: (row.attack, row.defense, row.value))
