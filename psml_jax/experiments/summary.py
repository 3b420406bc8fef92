"""The summary of an experiment: cells with intervals, and the paper's claims."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from psml_jax import _device, metrics, pareto
from psml_jax.experiments import claims, extraction_stage, provenance, workdir
from psml_jax.experiments.claims import METRICS
from psml_jax.experiments.defense_stage import estimate
from psml_jax.experiments.experiment import Experiment
from psml_jax.experiments.extraction_stage import REFUSAL, Cell


def summarise(experiment: Experiment) -> dict[str, Any]:
  """Gathers the artifacts of all stages before the report.

  Args:
    experiment: one whose other stages are done.

  Returns:
    The content of summary.json; shares are fractions in [0, 1].
  """
  profile = experiment.profile()
  optimal = np.asarray(pareto.pareto_mask(profile))
  fingerprints = workdir.read_json(
    experiment.directory / 'fingerprint.json', 'victims', 'frontier'
  )
  defense = workdir.read_json(
    experiment.directory / 'defense.json', *extraction_stage.DEFENSE_FIELDS
  )
  mechanism = experiment.config.defense.mechanism
  runs = _runs(experiment)
  goodputs = {row['scale']: row['goodput'] for row in defense['goodput']}
  target = experiment.config.defense.target_goodput
  calibrated = defense['calibrated_scale']
  victims = {
    size: profile.names[model] for size, model in pareto.victims(profile).items()
  }
  return {
    'dataset': experiment.config.name,
    'seeds': experiment.config.seeds,
    'target_goodput': target,
    'device': _measured_on(experiment),
    'provenance': provenance.collect(experiment.config, experiment.directory),
    'wall_seconds': _seconds(experiment, runs),
    'zoo': [
      {
        'name': name,
        'accuracy': float(profile.accuracy[i]),
        'latency_ms': float(profile.latency_ms[i]),
        'pareto': bool(optimal[i]),
      }
      for i, name in enumerate(profile.names)
    ],
    'victims': victims,
    'twins': [
      [profile.names[model] for model in group] for group in pareto.twins(profile)
    ],
    'fingerprint': [
      {name: value for name, value in entry.items() if name != 'trail'}
      for entry in fingerprints['victims']
    ],
    'frontier': fingerprints['frontier'],
    'probes': [
      {'victim': entry['victim'], **entry['trail']} for entry in fingerprints['victims']
    ],
    'extraction': [
      {
        **cell._asdict(),
        'label': f'{cell.defense}({cell.scale:.3g})' if cell.scale else 'none',
        **_scores(rows),
      }
      for cell, rows in runs.items()
    ],
    'protection': _protection(runs, goodputs, victims['medium']),
    'goodput': [
      {'defense': mechanism if row['scale'] else 'none', **row}
      for row in defense['goodput']
    ],
    'claims': [
      claims.fingerprinting(fingerprints),
      *(claims.extraction(runs, victims, mechanism, calibrated) if runs else ()),
      claims.goodput(defense, mechanism, target),
    ],
  }


def _measured_on(experiment: Experiment) -> str:
  """Where the zoo's latency was measured; for a published zoo, where this runs."""
  if experiment.config.published is not None:
    return _device.name()
  path = experiment.directory / 'profile.json'
  return str(workdir.read_json(path, 'device', remedy=workdir.PROFILE_ANEW)['device'])


def _seconds(
  experiment: Experiment, runs: dict[Cell, list[dict[str, Any]]]
) -> dict[str, float]:
  """Seconds by stage; extraction's from its records, which outlive a kill."""
  path = experiment.directory / 'seconds.json'
  seconds = workdir.read_json(path) if path.exists() else {}
  if runs:
    seconds['extraction'] = sum(
      row['seconds'] for rows in runs.values() for row in rows
    )
  return dict(seconds)


def _runs(experiment: Experiment) -> dict[Cell, list[dict[str, Any]]]:
  """The records of every cell, in order of their seeds; all must be there."""
  if experiment.config.extraction is None:
    return {}
  path = experiment.directory / 'extraction.jsonl'
  records = workdir.read_jsonl(path, *extraction_stage.RECORD_FIELDS)
  runs: dict[Cell, list[dict[str, Any]]] = {}
  for record in records:
    cell = Cell(*(record[field] for field in Cell._fields))
    runs.setdefault(cell, []).append(record)
  wanted, seeds = extraction_stage.cells(experiment), experiment.config.seeds
  for cell in {**dict.fromkeys(wanted), **runs}:
    found = [record['seed'] for record in runs.get(cell, ())]
    if cell not in wanted or sorted(found) != list(range(seeds)):
      raise workdir.damaged(
        path,
        f'it holds {len(records)} runs, and {len(wanted) * seeds} belong there; of '
        f'{tuple(cell)} it has the seeds {found}',
      )
  return runs


def _scores(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
  finite = [row for row in rows if not row['diverged']]
  served = [row['queries_served'] for row in rows]
  purities = [row['victim_purity'] for row in rows if row['victim_purity'] is not None]
  return {
    'seeds': len(rows),
    'diverged': len(rows) - len(finite),
    'queries_billed': float(np.mean([row['queries_billed'] for row in rows])),
    'queries_served': _interval(served),
    'victim_purity': estimate(purities),
    **{name: estimate([row[name] for row in finite]) for name in METRICS},
  }


def _interval(values: Sequence[float]) -> dict[str, Any]:
  mean, low, high = metrics.interval(values)
  return {'mean': mean, 'ci95': [max(0.0, low), high]}


def _protection(
  runs: dict[Cell, list[dict[str, Any]]], goodputs: dict[float, Any], medium: str
) -> list[dict[str, Any]]:
  """All attackers of the medium victim's defenses at the largest budget."""
  if not runs:
    return []
  largest = max(cell.query_budget for cell in runs)
  without = goodputs[0.0]

  def kept(cell: Cell) -> dict[str, Any]:
    if cell.defense != REFUSAL:
      return goodputs[cell.scale]
    return {
      'mean': (1 - cell.scale) * without['mean'],
      'ci95': [(1 - cell.scale) * end for end in without['ci95']],
    }

  chosen = [
    cell
    for cell in runs
    if cell.victim == medium
    and cell.query_budget == largest
    and cell.attack != 'explicit'
  ]
  return [
    {
      'victim': cell.victim,
      'attack': cell.attack,
      'defense': cell.defense,
      'scale': cell.scale,
      'goodput': kept(cell),
      **_scores(runs[cell]),
    }
    for cell in sorted(chosen, key=lambda cell: (cell.attack, cell.defense, cell.scale))
  ]
