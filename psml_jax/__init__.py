"""Fingerprinting and securing inference-serving systems, as pure JAX functions.

After "Pareto-Secure Machine Learning (PSML)", arXiv:2307.01292. Data flows one way:
zoo -> profile -> router (+ defense) -> oracle -> attack -> metrics -> report.
"""

from psml_jax import (
  attacks,
  data,
  defenses,
  experiments,
  goodput,
  metrics,
  oracles,
  pareto,
  profiles,
  report,
  routers,
  surrogates,
  zoo,
)
from psml_jax.core import (
  Bill,
  Observation,
  Oracle,
  Route,
  Router,
  Server,
  Spec,
  Transcript,
  ZooProfile,
)
from psml_jax.defenses import SpecTransform

__all__ = [
  'Bill',
  'Observation',
  'Oracle',
  'Route',
  'Router',
  'Server',
  'Spec',
  'SpecTransform',
  'Transcript',
  'ZooProfile',
  'attacks',
  'data',
  'defenses',
  'experiments',
  'goodput',
  'metrics',
  'oracles',
  'pareto',
  'profiles',
  'report',
  'routers',
  'surrogates',
  'zoo',
]
