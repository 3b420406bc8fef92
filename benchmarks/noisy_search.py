"""The joint posterior attacker on the digits profile, and probes against noise.

python benchmarks/noisy_search.py --out=runs/noisy_search

Prints, for noise of 0.1 and 0.02 of the range, the true rate of the spec that is chosen
after 60 probes as a share of the certified best one, over 32 seeds. With --plot also
how many probes a smaller one takes to reach 0.9 of it, for more scales, as probes.png.
"""

import json
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from psml_jax import (
  defenses,
  leakage,
  metrics,
  noisy_search,
  pareto,
  profiles,
  routers,
  servers,
  session,
)
from psml_jax.attacks import posterior
from psml_jax.core import Knowledge
from psml_jax.experiments.experiment import latency_budget
from psml_jax.report import canvas

_OUT = flags.DEFINE_string('out', 'runs/noisy_search', 'Directory of the results.')
_PLOT = flags.DEFINE_bool('plot', False, 'Whether to draw probes against noise.')
_SEEDS, _PROBES, _SCALES = 32, 60, (0.01, 0.02, 0.05, 0.1, 0.2)


def shares(scale: float) -> tuple[float, metrics.Interval]:
  """The best rate, and the share of it that the chosen spec has."""
  zoo = profiles.load('digits')
  victim = pareto.victims(zoo)['medium']
  noise = defenses.laplace(*defenses.relative_scale(zoo, scale))
  router = defenses.defend(routers.uniform(zoo), noise)
  server = servers.table(
    routers.uniform(zoo), zoo.latency_ms, jnp.ones((len(zoo), 1, 1)), defense=noise
  )
  knowledge = Knowledge(jnp.float32(latency_budget(zoo, victim)), defense=noise)
  attack = posterior.posterior(num_probes=_PROBES)

  def one(key: jax.Array, secret: jax.Array) -> object:
    state = server.init(secret)
    found = session.run(key, attack, server, state, knowledge, budget=_PROBES)
    return found.harvest.spec

  keys = jax.random.split(jax.random.key(9), (2, _SEEDS))
  spec = jax.jit(lambda keys: jax.lax.map(lambda each: one(*each), keys))(tuple(keys))
  best = leakage.worst(zoo, router, victims=[victim])
  rate = np.asarray(leakage.kernel(router, spec)[:, victim], float)
  return float(best.rate[0]), metrics.interval(rate / best.ceiling[0])


def main(argv: list[str]) -> None:
  """Prints the shares; draws the plot where it is asked for."""
  del argv
  out = pathlib.Path(_OUT.value)
  out.mkdir(parents=True, exist_ok=True)
  for scale in (0.1, 0.02):
    best, share = shares(scale)
    print(
      f'laplace {scale} of the range: best rate {best:.3f}, share of it after '
      f'{_PROBES} probes {share.mean:.3f} [{share.low:.3f}, {share.high:.3f}]',
      flush=True,
    )
  if _PLOT.value:
    zoo = profiles.load('digits')
    victim = pareto.victims(zoo)['medium']
    rows = noisy_search.probes_against_noise(
      jax.random.key(3),
      zoo,
      victim,
      latency_budget(zoo, victim),
      posterior.posterior(num_probes=240, num_particles=256, num_candidates=12),
      _SCALES,
      seeds=16,
      looks=12,
      every=20,
    )
    (out / 'probes.json').write_text(json.dumps(rows, indent=2) + '\n')
    draw(rows, out / 'probes.png')


def draw(rows: list[dict[str, Any]], path: pathlib.Path) -> None:
  """Probes until the chosen spec has 0.9 of the best rate, and the bound."""
  figure, grid = canvas.subplots(1, 1, (6.4, 4.4))
  axes = grid[0, 0]
  scales = [row['scale'] for row in rows]
  reached = [(s, r['probes']) for s, r in zip(scales, rows) if np.isfinite(r['probes'])]
  if reached:
    axes.plot(*zip(*reached), 'o-', label='joint posterior, mean of 16 seeds')
  axes.plot(scales, [row['bound'] for row in rows], 'k--', label='noisy-search bound')
  axes.set_xscale('log')
  axes.set_yscale('log')
  axes.set_xlabel("scale of the Laplace noise (share of the zoo's range)")
  axes.set_ylabel('probes to 0.9 of the best rate')
  canvas.legend(figure, canvas.labelled([axes]), 2)
  figure.savefig(path)


if __name__ == '__main__':
  app.run(main)
