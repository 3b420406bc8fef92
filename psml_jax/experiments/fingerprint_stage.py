"""The fingerprint stage: every corner of the undefended zoo, found by probes."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from psml_jax import attacks, pareto, servers, session
from psml_jax.attacks import fingerprint
from psml_jax.core import Knowledge, Spec, ZooProfile
from psml_jax.experiments import deployment
from psml_jax.experiments.artifacts import FINGERPRINTS, Fingerprint, Fingerprints
from psml_jax.experiments.experiment import Experiment, latency_budget
from psml_jax.experiments.plan import NONE
from psml_jax.report.schema import Frontier, Trail


def run(experiment: Experiment) -> None:
  """Writes fingerprint.json: one entry a victim, and the sweep of the frontier."""
  profile = experiment.profile()
  resolution = dataclasses.asdict(experiment.config.fingerprint)
  victims = pareto.corners(profile)
  budgets = np.array([latency_budget(profile, int(v)) for v in victims])
  steps = fingerprint.max_probes(**resolution)
  attack = attacks.Recorded(fingerprint.bisection(**resolution), steps)
  server = deployment.serve(experiment.config, profile, NONE, 0.0)

  def one(key: jax.Array, budget: jax.Array) -> Any:
    attacker_key, server_key = jax.random.split(key)
    found = session.run(
      attacker_key,
      attack,
      server,
      server.init(server_key),
      Knowledge(budget),
      budget=steps,
    )
    return found.harvest

  probe_key, sweep_key = jax.random.split(experiment.key('fingerprint'))
  corners, trails = jax.jit(jax.vmap(one))(
    jax.random.split(probe_key, len(victims)), jnp.asarray(budgets, jnp.float32)
  )
  identified = _identified(profile, corners.spec)
  bound = fingerprint.lower_bound(**resolution)
  found = [
    Fingerprint(
      victim=profile.names[victim],
      probes=(count := int(corners.probes[i])),
      bound=bound,
      min_accuracy=float(corners.spec.min_accuracy[i]),
      max_latency_ms=float(corners.spec.max_latency_ms[i]),
      identified=identified[i] == int(victim),
      trail=Trail(
        min_accuracy=trails.min_accuracy[i, :count].tolist(),
        max_latency_ms=trails.max_latency_ms[i, :count].tolist(),
        served=trails.served[i, :count].tolist(),
      ),
    )
    for i, victim in enumerate(victims)
  ]
  sweep = _sweep(sweep_key, profile, server, resolution)
  FINGERPRINTS.write(experiment.directory, Fingerprints(found, sweep))


def _sweep(
  key: jax.Array,
  profile: ZooProfile,
  server: servers.Server,
  resolution: dict[str, float],
) -> Frontier:
  """Finds the whole frontier from the largest latency alone."""
  corners = pareto.corners(profile).tolist()
  attacker_key, server_key = jax.random.split(key)
  swept = session.run(
    attacker_key,
    fingerprint.sweep(max_corners=2 * len(corners), **resolution),
    server,
    server.init(server_key),
    Knowledge(jnp.max(profile.latency_ms)),
    budget=(len(corners) + 1) * (2 + fingerprint.max_probes(**resolution)),
  )
  count = int(swept.harvest.count)
  found = set(_identified(profile, swept.harvest.spec)[:count])
  return Frontier(
    corners_found=len(found & set(corners)),
    corners=len(corners),
    probes=int(swept.bill.queries),
  )


def _identified(profile: ZooProfile, spec: Spec) -> list[int]:
  """The only model that meets each spec, of twins the first; -1 where others do too."""
  groups = {model: group for group in pareto.twins(profile) for model in group}
  found = []
  for met in np.asarray(profile.meets(spec)):
    models = np.flatnonzero(met).tolist()
    alike = bool(models) and models == sorted(groups.get(models[0], models[:1]))
    found.append(models[0] if alike else -1)
  return found
