"""Options that every long-running program is compiled with."""

import functools

import jax
import jax.numpy as jnp

_LIBRARY = 'xla_cpu_experimental_ynn_fusion_type'
# The richest first; an older jaxlib knows fewer kinds, or none.
_KINDS = (('DOT', 'REDUCE', 'ELTWISE'), ('DOT',))


@functools.cache
def options() -> dict[str, str | bool]:
  """Compiler options for the default backend.

  On CPUs XLA gives convolutions, reductions and chains of elementwise operations to
  YNNPACK where its build has it: a training step of a ResNet then takes half the time.
  Versions of jaxlib that refuse the option get none.
  """
  if jax.default_backend() != 'cpu':
    return {}
  for kinds in _KINDS:
    chosen = {_LIBRARY: ','.join(f'LIBRARY_FUSION_TYPE_{kind}' for kind in kinds)}
    try:
      jax.jit(jnp.negative, compiler_options=chosen).lower(1.0).compile()
    except (jax.errors.JaxRuntimeError, ValueError):
      continue
    return {**chosen}
  return {}
