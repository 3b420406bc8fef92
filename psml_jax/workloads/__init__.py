"""Workloads: what honest clients ask for, by the names that configs give them.

A goodput is that of a workload, so it says as much as its clients are like yours.

- `uniform`: nothing is known of the clients, or exact areas are wanted. Slow specs
  weigh most where latencies differ by factors; the fastest model weighs nothing where
  it is also the least accurate.
- `log_latency`: latencies differ by factors, of which each weighs alike. The fastest
  model as in `uniform`.
- `frontier`: clients who know what can be had and ask for nearly that, whom defenses
  cost most. Every corner weighs alike; specs that many models meet weigh little.
- `classes`: an operator's kinds of service, half interactive, three tenths standard,
  two tenths batch. Nobody asks for what lies between them.
- `csv`: your own clients; what they asked for, and nothing else.

Every spec of all but `csv` can be met and lies within the zoo's range, and spec i
depends on the key and i alone, but for rounding.
"""

from psml_jax.workloads.base import WORKLOADS, Workload, check, make
from psml_jax.workloads.hugging import frontier
from psml_jax.workloads.services import JITTER, SERVICES, Service, classes
from psml_jax.workloads.staircase import log_latency, uniform
from psml_jax.workloads.table import csv

__all__ = [
  'JITTER',
  'SERVICES',
  'WORKLOADS',
  'Service',
  'Workload',
  'check',
  'classes',
  'csv',
  'frontier',
  'log_latency',
  'make',
  'uniform',
]
