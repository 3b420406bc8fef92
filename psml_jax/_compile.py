"""Options that every long-running program is compiled with."""

import functools
from typing import Literal

import jax
import jax.numpy as jnp

_LIBRARY = 'xla_cpu_experimental_ynn_fusion_type'
# The richest first; an older jaxlib knows fewer kinds, or none.
_KINDS = {
  'training': (('DOT', 'REDUCE', 'ELTWISE'), ('DOT',)),
  'surrogates': (('DOT',),),
  'serving': (('DOT',),),
}


def options(of: Literal['training', 'surrogates', 'serving']) -> dict[str, str | bool]:
  """Compiler options for the default backend, as it is in this call.

  On CPUs XLA gives operations to YNNPACK where its build has it. In a training, which
  is a loop, products, reductions and chains of elementwise operations: a step of a
  ResNet then takes half the time. In a population of small surrogates products alone,
  for the chains are too short: with the others a step takes 1.6 times as long. In a
  program that serves, products alone too; with the others XLA no longer gives it every
  convolution. Versions of jaxlib that refuse the option get none.

  Args:
    of: what the program mostly does.

  Returns:
    Options for `jax.jit`.
  """
  return {**_accepted(of, jax.default_backend())}


@functools.cache
def _accepted(of: str, backend: str) -> dict[str, str | bool]:
  if backend != 'cpu':
    return {}
  for kinds in _KINDS[of]:
    chosen = {_LIBRARY: ','.join(f'LIBRARY_FUSION_TYPE_{kind}' for kind in kinds)}
    try:
      jax.jit(jnp.negative, compiler_options=chosen).lower(1.0).compile()
    except (jax.errors.JaxRuntimeError, ValueError):
      continue
    return {**chosen}
  return {}
