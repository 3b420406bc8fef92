"""What a defended server gives away: kernels, rates, and the law that bounds them.

A victim's **rate** at a spec is the share of billed queries with it that the victim
answers; its **purity** the share of what is answered. The worst rate is what the
best-informed attacker gets.
"""

from psml_jax.leakage.bounds import bound, least_rate
from psml_jax.leakage.cells import Kept
from psml_jax.leakage.kernels import Kernel, interval, kernel, purity
from psml_jax.leakage.measures import (
  Measure,
  drawn,
  exact_goodput,
  kept,
  of,
  uniform,
)
from psml_jax.leakage.sampled import best_spec, rates
from psml_jax.leakage.worst import Frontier, Worst, frontier, worst, worst_of_all

__all__ = [
  'Frontier',
  'Kept',
  'Kernel',
  'Measure',
  'Worst',
  'best_spec',
  'bound',
  'drawn',
  'exact_goodput',
  'frontier',
  'interval',
  'kept',
  'kernel',
  'least_rate',
  'of',
  'purity',
  'rates',
  'uniform',
  'worst',
  'worst_of_all',
]
