"""The fingerprint stage: every corner of the undefended zoo, found by probes."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from psml_jax import pareto, routers
from psml_jax.attacks import fingerprint
from psml_jax.core import Observation, Route, Router, Spec, ZooProfile
from psml_jax.experiments import workdir
from psml_jax.experiments.experiment import Experiment, latency_budget


def run(experiment: Experiment) -> None:
  """Writes fingerprint.json: one entry a victim, and the sweep of the frontier."""
  profile, config = experiment.profile(), experiment.config.fingerprint
  router = routers.uniform(profile)
  victims = pareto.corners(profile)
  budgets = np.array([latency_budget(profile, int(v)) for v in victims])
  steps = fingerprint.max_probes(
    1.0,
    accuracy_resolution=config.accuracy_resolution,
    latency_resolution_ms=config.latency_resolution,
  )

  def one(key: jax.Array, budget: jax.Array) -> tuple[Any, Spec, jax.Array]:
    machine = fingerprint.bisection(
      budget,
      accuracy_resolution=config.accuracy_resolution,
      latency_resolution_ms=config.latency_resolution * budget,
    )
    state, probes, served = trail(key, machine, router, steps)
    return machine.result(state), probes, served

  probe_key, check_key, sweep_key = jax.random.split(experiment.key('fingerprint'), 3)
  corners, probes, served = jax.jit(jax.vmap(one))(
    jax.random.split(probe_key, len(victims)), jnp.asarray(budgets, jnp.float32)
  )
  route = router(check_key, corners.spec)
  identified = _identified(profile, route)
  entries = []
  for i, victim in enumerate(victims):
    count = int(corners.probes[i])
    bound = fingerprint.lower_bound(
      float(budgets[i]),
      accuracy_resolution=config.accuracy_resolution,
      latency_resolution_ms=config.latency_resolution * float(budgets[i]),
    )
    entries.append(
      {
        'victim': profile.names[victim],
        'probes': count,
        'bound': bound,
        'min_accuracy': float(corners.spec.min_accuracy[i]),
        'max_latency_ms': float(corners.spec.max_latency_ms[i]),
        'identified': identified[i] == int(victim),
        'trail': {
          'min_accuracy': probes.min_accuracy[i, :count].tolist(),
          'max_latency_ms': probes.max_latency_ms[i, :count].tolist(),
          'served': served[i, :count].tolist(),
        },
      }
    )
  sweep = _sweep(experiment, sweep_key, router, len(victims))
  workdir.write_json(
    experiment.directory / 'fingerprint.json', {'victims': entries, 'frontier': sweep}
  )


def trail(
  key: jax.Array, machine: fingerprint.Fingerprinter, router: Router, max_probes: int
) -> tuple[Any, Spec, jax.Array]:
  """Runs a fingerprint against a router and keeps every probe.

  Args:
    key: consumed; probe i is routed with `fold_in(key, i)`.
    machine: the fingerprint.
    router: the router.
    max_probes: steps to take; a machine that is done asks no more.

  Returns:
    The machine's last state, the probes as a Spec of shape [max_probes], and
    bool[max_probes], which were served. Entries from the machine's own count of
    probes on are padding.
  """

  def step(state: Any, i: jax.Array) -> tuple[Any, tuple[Spec, jax.Array]]:
    spec = machine.ask(state)
    served = router(jax.random.fold_in(key, i), spec).model >= 0
    told = machine.tell(state, Observation(served, jnp.zeros(0), jnp.float32(0)))
    done = machine.result(state).done
    kept = jax.tree.map(lambda old, new: jnp.where(done, old, new), state, told)
    return kept, (spec, served)

  state, (specs, served) = jax.lax.scan(step, machine.init(), jnp.arange(max_probes))
  return state, specs, served


def _sweep(
  experiment: Experiment, key: jax.Array, router: Router, num_corners: int
) -> dict[str, Any]:
  """Finds the whole frontier from the largest latency alone."""
  profile, config = experiment.profile(), experiment.config.fingerprint
  budget = float(jnp.max(profile.latency_ms))
  resolution = {
    'accuracy_resolution': config.accuracy_resolution,
    'latency_resolution_ms': config.latency_resolution * budget,
  }
  machine = fingerprint.sweep(budget, max_corners=2 * num_corners, **resolution)
  steps = (num_corners + 1) * (2 + fingerprint.max_probes(budget, **resolution))

  @jax.jit
  def walk(key: jax.Array) -> Any:
    return machine.result(trail(key, machine, router, steps)[0])

  probe_key, check_key = jax.random.split(key)
  corners = walk(probe_key)
  route = router(check_key, corners.spec)
  count = int(corners.count)
  found = set(_identified(profile, route)[:count])
  return {
    'corners_found': len(found & set(pareto.corners(profile).tolist())),
    'corners': num_corners,
    'probes': int(corners.total_probes),
  }


def _identified(profile: ZooProfile, route: Route) -> list[int]:
  """The only model that meets each spec, of twins the first; -1 where others do too."""
  groups = {model: group for group in pareto.twins(profile) for model in group}
  found = []
  for model, feasible in zip(route.model.tolist(), route.num_feasible.tolist()):
    group = groups.get(model, [model])
    found.append(group[0] if feasible == len(group) else -1)
  return found
