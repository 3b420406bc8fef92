"""De-mixing: which answers of a mixed harvest are the victim's.

A thief behind a defense gets answers of several models. `by_latency`,
`by_known_latency`, `by_confidence` and `by_surrogates` say of each how probably it is
the victim's, `responders` how probably any model's; `keep` and `weigh` make the
surrogate's training data of that. `METHODS` has them by the names of configs.
"""

from psml_jax.demix.latency import by_known_latency, by_latency, responders
from psml_jax.demix.methods import METHODS, Method, View
from psml_jax.demix.outputs import by_confidence, by_surrogates
from psml_jax.demix.use import keep, weigh

__all__ = [
  'METHODS',
  'Method',
  'View',
  'by_confidence',
  'by_known_latency',
  'by_latency',
  'by_surrogates',
  'keep',
  'responders',
  'weigh',
]
