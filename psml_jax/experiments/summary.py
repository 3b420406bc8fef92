"""The summary of an experiment: cells with intervals, and the paper's claims."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from psml_jax import _device, metrics, pareto
from psml_jax.experiments import workdir
from psml_jax.experiments.defense_stage import estimate
from psml_jax.experiments.experiment import Experiment
from psml_jax.experiments.extraction_stage import Cell

METRICS = ('accuracy', 'fidelity')


def summarise(experiment: Experiment) -> dict[str, Any]:
  """Gathers the artifacts of all stages before the report.

  Args:
    experiment: one whose other stages are done.

  Returns:
    The content of summary.json; shares are fractions in [0, 1].
  """
  profile = experiment.profile()
  optimal = np.asarray(pareto.pareto_mask(profile))
  fingerprints = _read(experiment, 'fingerprint.json')
  defense = _read(experiment, 'defense.json')
  mechanism = experiment.config.defense.mechanism
  runs = _runs(experiment)
  goodputs = {row['scale']: row['goodput'] for row in defense['goodput']}
  victims = {
    size: profile.names[model] for size, model in pareto.victims(profile).items()
  }
  return {
    'dataset': experiment.config.name,
    'seeds': experiment.config.seeds,
    'device': _measured_on(experiment),
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
        'victim': cell.victim,
        'attack': cell.attack,
        'defense': f'{mechanism}({cell.scale:.3g})' if cell.scale else 'none',
        'scale': cell.scale,
        'query_budget': cell.query_budget,
        **_scores(rows),
      }
      for cell, rows in runs.items()
    ],
    'protection': _protection(runs, goodputs, victims['medium']),
    'goodput': [
      {'defense': mechanism if scale else 'none', 'scale': scale, 'goodput': value}
      for scale, value in goodputs.items()
    ],
    'claims': _claims(experiment, runs, fingerprints, defense, victims),
  }


def _read(experiment: Experiment, name: str) -> Any:
  return json.loads((experiment.directory / name).read_text('utf-8'))


def _measured_on(experiment: Experiment) -> str:
  """Where the zoo's latency was measured; for a published zoo, where this runs."""
  if experiment.config.published is not None:
    return _device.name()
  return str(_read(experiment, 'profile.json')['device'])


def _seconds(
  experiment: Experiment, runs: dict[Cell, list[dict[str, Any]]]
) -> dict[str, float]:
  """Seconds by stage; extraction's from its records, which outlive a kill."""
  seconds = _read(experiment, 'seconds.json')
  if runs:
    seconds['extraction'] = sum(
      row['seconds'] for rows in runs.values() for row in rows
    )
  return dict(seconds)


def _runs(experiment: Experiment) -> dict[Cell, list[dict[str, Any]]]:
  """The records of every cell, in order of their seeds."""
  runs: dict[Cell, list[dict[str, Any]]] = {}
  for record in workdir.read_jsonl(experiment.directory / 'extraction.jsonl'):
    cell = Cell(*(record[field] for field in Cell._fields))
    runs.setdefault(cell, []).append(record)
  return runs


def _scores(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
  purities = [row['victim_purity'] for row in rows if row['victim_purity'] is not None]
  return {
    'queries_billed': float(np.mean([row['queries_billed'] for row in rows])),
    'queries_served': float(np.mean([row['queries_served'] for row in rows])),
    'victim_purity': float(np.mean(purities)) if purities else None,
    **{name: estimate([row[name] for row in rows]) for name in METRICS},
  }


def _protection(
  runs: dict[Cell, list[dict[str, Any]]], goodputs: dict[float, Any], medium: str
) -> list[dict[str, Any]]:
  """Both attackers of the medium victim at the largest budget, at every scale."""
  if not runs:
    return []
  largest = max(cell.query_budget for cell in runs)
  chosen = [
    cell
    for cell in runs
    if cell.victim == medium
    and cell.query_budget == largest
    and cell.attack in ('fingerprint', 'corner')
  ]
  return [
    {
      'victim': cell.victim,
      'attack': cell.attack,
      'scale': cell.scale,
      'goodput': goodputs[cell.scale],
      **_scores(runs[cell]),
    }
    for cell in sorted(chosen, key=lambda cell: (cell.attack, cell.scale))
  ]


def _difference(
  runs: dict[Cell, list[dict[str, Any]]], one: Cell, other: Cell
) -> dict[str, metrics.Interval]:
  """How much better the first cell does, paired by seed."""
  return {
    name: metrics.interval(
      [a[name] - b[name] for a, b in zip(runs[one], runs[other], strict=True)]
    )
    for name in METRICS
  }


def _points(difference: dict[str, metrics.Interval]) -> str:
  return ', '.join(
    f'{name} {100 * v.mean:+.1f} [{100 * v.low:+.1f}, {100 * v.high:+.1f}]'
    for name, v in difference.items()
  )


def _claims(
  experiment: Experiment,
  runs: dict[Cell, list[dict[str, Any]]],
  fingerprints: dict[str, Any],
  defense: dict[str, Any],
  victims: dict[str, str],
) -> list[dict[str, Any]]:
  found = [entry['identified'] for entry in fingerprints['victims']]
  probes = [entry['probes'] for entry in fingerprints['victims']]
  bound = max(entry['bound'] for entry in fingerprints['victims'])
  sweep = fingerprints['frontier']
  claims = [
    {
      'claim': '1. Fingerprinting finds the corner of every Pareto-optimal model',
      'paper': 'every victim',
      'measured': f'{sum(found)} of {len(found)}, at most {max(probes)} probes each '
      f'(lower bound {bound:.1f}); the whole frontier, {sweep["corners_found"]} of '
      f'{sweep["corners"]}, in {sweep["probes"]}',
      'holds': all(found),
    }
  ]
  if runs:
    claims += _extraction_claims(runs, defense['calibrated_scale'], victims)
  target = experiment.config.defense.target_goodput
  (kept,) = (
    row['goodput']
    for row in defense['goodput']
    if row['scale'] == defense['calibrated_scale']
  )
  low, high = kept['ci95']
  claims.append(
    {
      'claim': '4. The defense can be set to keep goodput',
      'paper': f'above {100 * target:.0f} %',
      'measured': f'{100 * kept["mean"]:.1f} % [{100 * low:.1f}, {100 * high:.1f}] at '
      f'{experiment.config.defense.mechanism} noise of '
      f'{defense["calibrated_scale"]:.3g} of the range',
      'holds': kept['mean'] >= target and defense['calibrated_scale'] > 0,
    }
  )
  return claims


def _extraction_claims(
  runs: dict[Cell, list[dict[str, Any]]], scale: float, victims: dict[str, str]
) -> list[dict[str, Any]]:
  budget = max(cell.query_budget for cell in runs)

  def cell(size: str, attack: str, scale: float = 0.0) -> Cell:
    return Cell(victims[size], attack, scale, budget)

  to_explicit = {
    size: _difference(runs, cell(size, 'fingerprint'), cell(size, 'explicit'))
    for size in victims
  }
  worst = min(
    to_explicit, key=lambda size: min(v.mean for v in to_explicit[size].values())
  )
  to_naive = _difference(runs, cell('medium', 'fingerprint'), cell('medium', 'naive'))
  by_defense = _difference(
    runs, cell('medium', 'fingerprint', scale), cell('medium', 'fingerprint')
  )
  told = _difference(
    runs, cell('medium', 'corner', scale), cell('medium', 'fingerprint')
  )
  return [
    {
      'claim': f'2a. Fingerprinted extraction is as good as from a named model '
      f'({budget} queries, points)',
      'paper': 'within 1',
      'measured': f'worst victim, {worst}: {_points(to_explicit[worst])}',
      'holds': all(
        interval.mean >= -0.01
        for size in to_explicit.values()
        for interval in size.values()
      ),
    },
    {
      'claim': '2b. ... and better than the naive attack (points)',
      'paper': 'accuracy up to +14.6, fidelity up to +7.7',
      'measured': f'medium victim: {_points(to_naive)}',
      'holds': all(interval.low > 0 for interval in to_naive.values()),
    },
    {
      'claim': '3. Noise on the spec costs the attack (points)',
      'paper': 'accuracy up to -9.8, fidelity up to -4.8',
      'measured': f'medium victim: {_points(by_defense)}; told its corner: '
      f'{_points(told)}',
      'holds': all(interval.high < 0 for interval in by_defense.values()),
    },
  ]
