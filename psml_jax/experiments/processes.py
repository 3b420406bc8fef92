"""Several processes on one experiment: the first writes, all train surrogates."""

import itertools
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from orbax.checkpoint import multihost

from psml_jax._validate import InputError

_DAYS = 7 * 24 * 3600
_waits = itertools.count()  # The coordinator knows a wait by its name, once.


def join(
  coordinator: str | None, num_processes: int | None, process_id: int | None
) -> None:
  """Joins the processes of an experiment; call it before JAX computes anything.

  Args:
    coordinator: HOST:PORT of the first process, or 'auto' on a cluster that JAX knows
      (SLURM, Kubernetes, TPU pods), which then tells the rest.
    num_processes: how many there are.
    process_id: which of them this one is, from 0.

  Raises:
    ValueError: numbers that are missing or do not fit, or no such coordinator.
  """
  given = f'coordinator is {coordinator!r}, num_processes {num_processes} and '
  given += f'process_id {process_id}'
  numbers: dict[str, Any] = {}
  if coordinator == 'auto':
    if (num_processes, process_id) != (None, None):
      raise ValueError(f'{given}; auto stands alone, for the cluster tells the rest')
  elif coordinator is None or num_processes is None or process_id is None:
    raise ValueError(f'{given}; give all three, or coordinator auto')
  elif not 0 <= process_id < num_processes:
    raise ValueError(
      f'process_id is {process_id}; it must be in [0, {num_processes}), of '
      'num_processes'
    )
  else:
    numbers = {
      'coordinator_address': coordinator,
      'num_processes': num_processes,
      'process_id': process_id,
    }
  try:
    jax.distributed.initialize(**numbers)
  except (RuntimeError, ValueError) as error:
    raise ValueError(f'coordinator is {coordinator!r}: {error}') from error


def several() -> bool:
  """Whether this process has joined others."""
  return jax.distributed.is_initialized() and jax.process_count() > 1


def is_first() -> bool:
  """Whether this process is the one that writes."""
  return not several() or jax.process_index() == 0


def wait(name: str) -> None:
  """Waits, for days if need be, until all processes have come here."""
  if several():
    multihost.sync_global_processes(
      f'{name} {next(_waits)}',
      timeout=_DAYS,
      processes=set(range(jax.process_count())),
    )


def on_first(what: str, work: Callable[[], np.ndarray | None]) -> np.ndarray | None:
  """Runs work in the first process alone; the others wait for its end.

  Args:
    what: the work, for the error.
    work: gives an array of 32 numbers or fewer, or nothing.

  Returns:
    What it gave, in every process.

  Raises:
    InputError: in the other processes, where it failed in the first one.
  """
  failed: BaseException | None = None
  given: np.ndarray | None = None
  if is_first():
    try:
      given = work()
    except BaseException as error:
      failed = error
  if several():
    wait(what)
    content = np.zeros(34, np.int32)
    if given is not None:
      content[: given.size + 1] = given.size, *given
    content[-1] = failed is not None
    content = multihost_utils.broadcast_one_to_all(content)
    if content[-1] and failed is None:
      raise InputError(f'{what} failed in the first process, which says why')
    given = content[1 : 1 + content[0]]
  if failed is not None:
    raise failed
  return given


def together(what: str, work: Callable[[], None]) -> None:
  """Runs work that all processes do at once; where one fails, all of them end.

  The others may be waiting for it in a program, which no exception reaches.

  Args:
    what: the work, for the error.
    work: the work.
  """
  try:
    work()
  except BaseException as error:
    if not several():
      raise
    traceback.print_exc()
    print(f'error: {what} failed in process {jax.process_index()}', file=sys.stderr)
    sys.stderr.flush()
    os._exit(130 if isinstance(error, KeyboardInterrupt) else 1)
