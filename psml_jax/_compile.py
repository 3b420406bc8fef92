"""Options that every long-running program is compiled with."""

import functools
from collections.abc import Callable
from typing import Any, Literal, ParamSpec, Protocol, TypeVar, cast

import jax
import jax.numpy as jnp

Kind = Literal['training', 'surrogates', 'serving', 'once']
P = ParamSpec('P')
T = TypeVar('T')
T_co = TypeVar('T_co', covariant=True)


class Jitted(Protocol[P, T_co]):
  """What `jit` makes of a function."""

  def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T_co: ...

  def lower(self, *args: P.args, **kwargs: P.kwargs) -> Any:
    """As `lower` of `jax.jit`."""


def _given_to_ynnpack(*kinds: str) -> dict[str, str]:
  listed = ','.join(f'LIBRARY_FUSION_TYPE_{kind}' for kind in kinds)
  return {'xla_cpu_experimental_ynn_fusion_type': listed}


# The best first; an older jaxlib knows fewer kinds, or none.
_CHOICES = {
  'training': (
    _given_to_ynnpack('DOT', 'REDUCE', 'ELTWISE'),
    _given_to_ynnpack('DOT'),
  ),
  'surrogates': (_given_to_ynnpack('DOT'),),
  'serving': (_given_to_ynnpack('DOT'),),
  'once': ({'xla_backend_optimization_level': '0'},),
}


def options(of: Kind) -> dict[str, str | bool]:
  """Compiler options for the default backend, as it is in this call.

  On CPUs XLA gives operations to YNNPACK where its build has it. In a training, which
  is a loop, products, reductions and chains of elementwise operations: a step of a
  ResNet then takes half the time, and one of a ResNet-9 that is trained in pieces
  three quarters. In a population of small surrogates products alone, for the chains are
  too short: with the others a step takes 1.6 times as long. In a program that serves,
  products alone too; with the others XLA no longer gives it every convolution. Versions
  of jaxlib that refuse the option get none. A program that runs once or a few times on
  little data, such as an initialisation, is not optimised, which takes a fifth of the
  time to compile.

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
  for chosen in _CHOICES[of]:
    try:
      jax.jit(jnp.negative, compiler_options=chosen).lower(1.0).compile()
    except (jax.errors.JaxRuntimeError, ValueError):
      continue
    return {**chosen}
  return {}


def jit(of: Kind, **arguments: Any) -> Callable[[Callable[P, T]], Jitted[P, T]]:
  """`jax.jit` with the `options` of the backend that is there when it is called.

  Args:
    of: what the program mostly does.
    **arguments: of `jax.jit`.

  Returns:
    A decorator. The function keeps its compiled programs for the whole process, by the
    values of its static arguments; `lower` is that of `jax.jit`.
  """

  def decorate(function: Callable[P, T]) -> Jitted[P, T]:
    @functools.cache
    def program(backend: str) -> Callable[P, T]:
      del backend
      return jax.jit(function, compiler_options=options(of), **arguments)

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
      return program(jax.default_backend())(*args, **kwargs)

    made: Any = call
    made.lower = lambda *args, **kwargs: cast(
      'Any', program(jax.default_backend())
    ).lower(*args, **kwargs)
    return cast('Jitted[P, T]', made)

  return decorate
