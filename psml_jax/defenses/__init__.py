"""Defenses: keyed transforms of the spec between the client and the router.

They compose as optax composes gradient transforms::

  defended = defend(routers.uniform(zoo), laplace(*relative_scale(zoo, 0.1)))

The mechanism and its scale are public; only the key is secret.

| input | `identity` | `laplace`, `gaussian` |
|---|---|---|
| scale 0 | | the spec, bit for bit |
| negative, NaN or infinite scale, concrete | | ValueError |
| negative scale, traced | | as its absolute value (the noise is symmetric) |
| NaN scale, traced | | NaN specs, which leave no model feasible |
| infinite spec | unchanged | unchanged: noise is finite |
| NaN spec, traced | unchanged | NaN, which leaves no model feasible |
| empty feasible set | refused | noise can make it feasible, and the reverse |
"""

from psml_jax.defenses.noise import gaussian, laplace, relative_scale
from psml_jax.defenses.transform import SpecTransform, chain, defend, identity

__all__ = [
  'SpecTransform',
  'chain',
  'defend',
  'gaussian',
  'identity',
  'laplace',
  'relative_scale',
]
