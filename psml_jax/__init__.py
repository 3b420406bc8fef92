"""Fingerprinting and securing inference-serving systems, as pure JAX functions.

After "Pareto-Secure Machine Learning (PSML)", arXiv:2307.01292. Data flows one way:
zoo -> profile -> router (+ defense) -> server -> attack -> metrics -> report.
"""

from typing import TYPE_CHECKING

from psml_jax import _lazy
from psml_jax._version import __version__

if TYPE_CHECKING:
  from psml_jax import (
    attacks,
    data,
    defenses,
    experiments,
    goodput,
    metrics,
    pareto,
    profiles,
    report,
    routers,
    servers,
    session,
    struct,
    train,
    zoo,
  )
  from psml_jax.core import (
    Bill,
    Harvest,
    Knowledge,
    Observation,
    Query,
    Route,
    Router,
    Spec,
    Transcript,
    ZooProfile,
  )
  from psml_jax.defenses import SpecTransform

__all__ = [
  'Bill',
  'Harvest',
  'Knowledge',
  'Observation',
  'Query',
  'Route',
  'Router',
  'Spec',
  'SpecTransform',
  'Transcript',
  'ZooProfile',
  '__version__',
  'attacks',
  'data',
  'defenses',
  'experiments',
  'goodput',
  'metrics',
  'pareto',
  'profiles',
  'report',
  'routers',
  'servers',
  'session',
  'struct',
  'train',
  'zoo',
]

if not TYPE_CHECKING:
  _CORE = (
    'Bill',
    'Harvest',
    'Knowledge',
    'Observation',
    'Query',
    'Route',
    'Router',
    'Spec',
    'Transcript',
    'ZooProfile',
  )
  __getattr__, __dir__ = _lazy.attach(
    __name__,
    __all__,
    {
      **dict.fromkeys(_CORE, 'psml_jax.core'),
      'SpecTransform': 'psml_jax.defenses',
    },
  )
