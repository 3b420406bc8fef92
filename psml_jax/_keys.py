"""The keys of an experiment: one number for each purpose, frozen for good.

A purpose's key is `fold_in(key(seed), number)`. Under JAX's partitionable threefry
`split(k)[i]` equals `fold_in(k, i)`, so no key may be used by both: the seed's key is
folded in here alone, and a purpose's key is either split once or folded in with
counters. A new purpose takes the next free number and changes no other's draws.
"""

import jax

PURPOSES = {
  'zoo': 0,
  'profile': 1,
  'predictions': 2,
  'fingerprint': 3,
  'defense': 4,
  'extraction': 5,
  'report': 6,
  'data': 7,
  'leakage': 8,
  'membership': 9,
  'transfer': 10,
  'attack': 11,
}


def purpose(seed: int, name: str) -> jax.Array:
  """The key of one purpose.

  Args:
    seed: of the experiment, in [0, 2 ** 32).
    name: one of `PURPOSES`.

  Returns:
    The key.

  >>> purpose(0, 'zoo').shape
  ()
  """
  return jax.random.fold_in(jax.random.key(seed), PURPOSES[name])
