"""Checks of concrete arguments at the boundary of the public functions.

Values traced by jax.jit, jax.vmap or jax.grad cannot raise and pass unchecked;
each public function says what it gives for them.
"""

import difflib
import math
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike


class InputError(ValueError):
  """A mistake in the input that shows after work has begun.

  Launchers report it in one line, as they do all that is found before; any other
  exception keeps its traceback.
  """


def is_concrete(*values: object) -> bool:
  """Whether none of the values is traced."""
  return not any(isinstance(value, jax.core.Tracer) for value in values)


def floats(name: str, value: ArrayLike) -> np.ndarray:
  """The value as a float64 array; ValueError where it holds no numbers."""
  try:
    return np.asarray(value, np.float64)
  except (TypeError, ValueError) as error:
    raise ValueError(f'{name} must hold numbers, got {value!r}') from error


def reject(name: str, values: np.ndarray, bad: np.ndarray, allowed: str) -> None:
  """Raises a ValueError that names the first bad entry, if there is one."""
  if np.any(bad):
    where = tuple(int(i) for i in np.argwhere(bad)[0])
    at = f'{name}[{", ".join(map(str, where))}]' if where else name
    raise ValueError(f'{at} is {values[where]!s}; {name} must be {allowed}')


def fractions(name: str, value: ArrayLike) -> np.ndarray:
  """The value as an array of fractions in [0, 1]."""
  values = floats(name, value)
  hint = ''
  if np.any(values > 1.0) and np.all((values >= 0) & (values <= 100)):
    hint = ' (this looks like percent: divide by 100)'
  allowed = f'a fraction in [0, 1]{hint}'
  reject(name, values, ~((values >= 0) & (values <= 1)), allowed)
  return values


def non_negative(name: str, value: ArrayLike) -> np.ndarray:
  """The value as an array of finite numbers that are at least zero."""
  values = floats(name, value)
  reject(name, values, ~(np.isfinite(values) & (values >= 0)), 'finite and >= 0')
  return values


def in_float32(value: ArrayLike) -> np.ndarray:
  """Whether values are neither 0 nor infinite in float32.

  XLA takes numbers below float32's least normal one for 0.

  >>> in_float32([1e-39, 1e-37, 1e38, 1e39]).tolist()
  [False, True, True, False]
  """
  size = np.abs(np.asarray(value, np.float64))
  limits = np.finfo(np.float32)
  return (size >= limits.tiny) & (size <= limits.max)


def scale(name: str, value: ArrayLike) -> None:
  """Checks a concrete noise scale: finite, not negative."""
  if is_concrete(value):
    non_negative(name, value)


def no_nan(name: str, value: ArrayLike) -> None:
  """Checks that a concrete value holds no NaN (infinities are allowed)."""
  if is_concrete(value):
    values = floats(name, value)
    reject(name, values, np.isnan(values), 'a number, not NaN')


def no_nan_on_host(name: str, value: ArrayLike) -> None:
  """As `no_nan`, but what JAX holds passes, for a look at it would copy it here."""
  if not isinstance(value, jax.Array):
    no_nan(name, value)


def number(
  name: str,
  value: Any,
  inside: Callable[[Any], bool],
  allowed: str,
  kinds: tuple[type, ...] = (int, float, np.integer, np.floating),
) -> Any:
  """The value, a number of Python or NumPy inside a range; True and False are none."""
  is_number = isinstance(value, kinds) and not isinstance(value, bool)
  if not is_number or not inside(value):
    raise ValueError(f'{name} is {value!r}; it must be {allowed}')
  return value


def _whole(name: str, value: Any, inside: Callable[[int], bool], allowed: str) -> int:
  kinds = (int, np.integer)
  return int(number(name, value, inside, f'a whole number {allowed}', kinds))


def positive_int(name: str, value: int) -> int:
  """The value, a whole number of at least one."""
  return _whole(name, value, lambda x: x >= 1, '>= 1')


def at_least_two(name: str, value: int) -> int:
  """The value, a whole number of at least two."""
  return _whole(name, value, lambda x: x >= 2, '>= 2')


def non_negative_int(name: str, value: int) -> int:
  """The value, a whole number of at least zero."""
  return _whole(name, value, lambda x: x >= 0, '>= 0')


def positive(name: str, value: float) -> float:
  """The value, a finite number above zero."""
  return float(number(name, value, lambda x: 0 < x < math.inf, 'a finite number > 0'))


def non_negative_number(name: str, value: float) -> float:
  """The value, a finite number of at least zero."""
  return float(number(name, value, lambda x: 0 <= x < math.inf, 'a finite number >= 0'))


def share(name: str, value: float) -> float:
  """The value, a number in [0, 1)."""
  return float(number(name, value, lambda x: 0 <= x < 1, 'a number in [0, 1)'))


def one_of(name: str, value: str, allowed: Iterable[str]) -> str:
  """The value, one of the allowed strings."""
  allowed = sorted(allowed)
  if value not in allowed:
    near = difflib.get_close_matches(str(value), allowed, n=1)
    hint = f' (did you mean {near[0]!r}?)' if near else ''
    raise ValueError(f'{name} is {value!r}{hint}; it must be one of {allowed}')
  return value


def seed(name: str, value: int) -> int:
  """The value, a seed that a key can hold: a whole number in [0, 2 ** 32)."""
  allowed = f'in [0, {2**32 - 1}], for a key holds 32 bits of it'
  return _whole(name, value, lambda x: 0 <= x < 2**32, allowed)


def key(name: str, value: jax.Array, *, ndim: int | None = 0) -> None:
  """Checks that a value is a typed key, as `jax.random.key` makes it.

  Args:
    name: of the argument.
    value: the key or keys.
    ndim: axes that it must have; None allows any number.

  Raises:
    ValueError: no array of typed keys, or one of another rank.
  """
  dtype = getattr(value, 'dtype', None)
  if dtype is None or not jnp.issubdtype(dtype, jax.dtypes.prng_key):
    what = f'of type {dtype}' if dtype is not None else f'{value!r}'
    raise ValueError(
      f'{name} is {what}; it must be made by jax.random.key (jax.random.wrap_key_data '
      'converts one of jax.random.PRNGKey)'
    )
  if ndim is not None and value.ndim != ndim:
    raise ValueError(
      f'{name} has shape {value.shape}; it must be '
      f'{"one key" if not ndim else f"an array of keys with {ndim} axes"}'
    )


def routing(
  typed: jax.Array, min_accuracy: ArrayLike, max_latency_ms: ArrayLike
) -> None:
  """Checks what a router is called with: a typed key, and specs that hold no NaN.

  Args:
    typed: the key, see `key`.
    min_accuracy: of the specs; what JAX holds passes, see `no_nan_on_host`.
    max_latency_ms: likewise.

  Raises:
    ValueError: no typed key, or NaN.
  """
  key('key', typed)
  no_nan_on_host('min_accuracy', min_accuracy)
  no_nan_on_host('max_latency_ms', max_latency_ms)
