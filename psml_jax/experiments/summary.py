"""The summary of an experiment: cells with intervals, and the paper's claims."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from psml_jax import _device, metrics, pareto
from psml_jax.attacks import ATTACKS
from psml_jax.defenses import MECHANISMS
from psml_jax.experiments import claims, extraction_stage, provenance, workdir
from psml_jax.experiments.claims import METRICS
from psml_jax.experiments.defense_stage import estimate
from psml_jax.experiments.experiment import Experiment
from psml_jax.experiments.plan import NONE, Cell


def summarise(experiment: Experiment) -> dict[str, Any]:
  """Gathers the artifacts of all stages before the report.

  Args:
    experiment: one whose other stages are done.

  Returns:
    The content of summary.json; shares are fractions in [0, 1].
  """
  config, profile = experiment.config, experiment.profile()
  optimal = np.asarray(pareto.pareto_mask(profile))
  fingerprints = workdir.read_json(
    experiment.directory / 'fingerprint.json', 'victims', 'frontier'
  )
  defense = workdir.read_json(
    experiment.directory / 'defense.json', *extraction_stage.DEFENSE_FIELDS
  )
  runs = _runs(experiment)
  goodputs = _goodputs(defense)
  target = config.defense.target_goodput
  calibrated = extraction_stage.calibrated(defense['mechanisms'])
  victims = extraction_stage.victims(profile)
  return {
    'dataset': config.name,
    'seeds': config.seeds,
    'target_goodput': target,
    'device': _measured_on(experiment),
    'provenance': provenance.collect(config, experiment.directory),
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
        'label': cell.label,
        'knows': ATTACKS[cell.attack].knows,
        **_scores(rows),
      }
      for cell, rows in runs.items()
    ],
    'protection': _protection(runs, goodputs, victims['medium']),
    'goodput': goodputs,
    'knobs': {
      name: {
        'name': entry.knob.name,
        'unit': entry.knob.unit,
        'weakest': entry.knob.weakest,
        'strongest': entry.knob.strongest,
        'control': entry.control,
      }
      for name, entry in MECHANISMS.items()
      if name in config.defense.mechanisms
    },
    'roles': {name: ATTACKS[name].role for name in config.attacks},
    'claims': [
      claims.fingerprinting(fingerprints),
      *(claims.extraction(runs, config, victims, calibrated) if runs else ()),
      *(
        claims.goodput(defense, name, target)
        for name in defense['mechanisms']
        if not MECHANISMS[name].control
      ),
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
    'unserved': served.count(0),
    'queries_billed': float(np.mean([row['queries_billed'] for row in rows])),
    'queries_served': _interval(served),
    'victim_purity': estimate(purities),
    **{name: estimate([row[name] for row in finite]) for name in METRICS},
  }


def _interval(values: Sequence[float]) -> dict[str, Any]:
  mean, low, high = metrics.interval(values)
  return {'mean': mean, 'ci95': [max(0.0, low), high]}


def _goodputs(defense: Mapping[str, Any]) -> list[dict[str, Any]]:
  """The goodput of every defense and value, the one without a defense first."""
  rows = [(NONE, defense['without'])]
  for name, found in defense['mechanisms'].items():
    rows += [(name, row) for row in found['rows']]
  return [
    {'defense': name, 'label': Cell('', '', name, row['value'], 0).label, **row}
    for name, row in rows
  ]


def _protection(
  runs: dict[Cell, list[dict[str, Any]]],
  goodputs: Sequence[Mapping[str, Any]],
  medium: str,
) -> list[dict[str, Any]]:
  """All attackers of the medium victim's defenses at the largest budget."""
  if not runs:
    return []
  largest = max(cell.query_budget for cell in runs)
  kept = {(row['defense'], row['value']): row['goodput'] for row in goodputs}
  chosen = [
    cell
    for cell in runs
    if cell.victim == medium
    and cell.query_budget == largest
    and ATTACKS[cell.attack].role != 'reference'
  ]
  return [
    {
      'victim': cell.victim,
      'attack': cell.attack,
      'defense': cell.defense,
      'value': cell.value,
      'label': cell.label,
      'goodput': kept[cell.defense, cell.value],
      **_scores(runs[cell]),
    }
    for cell in sorted(chosen, key=lambda cell: (cell.attack, cell.defense, cell.value))
  ]
