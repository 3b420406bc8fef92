"""Several processes on one experiment: the first writes, all train surrogates."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from psml_jax._validate import InputError


def join(coordinator: str, num_processes: int | None, process_id: int | None) -> None:
  """Joins the processes of an experiment; call it before JAX computes anything.

  Args:
    coordinator: HOST:PORT of the first process, or 'auto' on a cluster that JAX knows
      (SLURM, Kubernetes, TPU pods), which then tells the rest.
    num_processes: how many there are.
    process_id: which of them this one is, from 0.

  Raises:
    ValueError: numbers that are missing or do not fit, or no such coordinator.
  """
  numbers: dict[str, Any] = {}
  if coordinator != 'auto':
    if num_processes is None or process_id is None:
      raise ValueError(
        f'coordinator is {coordinator!r}, num_processes {num_processes} and '
        f'process_id {process_id}; give all three, or coordinator auto'
      )
    if not 0 <= process_id < num_processes:
      raise ValueError(
        f'process_id is {process_id}; it must be in [0, {num_processes}), of '
        'num_processes'
      )
    numbers = {
      'coordinator_address': coordinator,
      'num_processes': num_processes,
      'process_id': process_id,
    }
  try:
    jax.distributed.initialize(**numbers)
  except (RuntimeError, ValueError) as error:
    raise ValueError(f'coordinator is {coordinator!r}: {error}') from error


def _several() -> bool:
  return jax.distributed.is_initialized() and jax.process_count() > 1


def is_first() -> bool:
  """Whether this process is the one that writes."""
  return not _several() or jax.process_index() == 0


def wait(name: str) -> None:
  """Waits until all processes have come here."""
  if _several():
    multihost_utils.sync_global_devices(name)


def on_first(what: str, work: Callable[[], object]) -> None:
  """Runs work in the first process alone; the others wait for its end.

  Args:
    what: the work, for the error.
    work: the work.

  Raises:
    InputError: in the other processes, where it failed in the first one.
  """
  failed: BaseException | None = None
  if is_first():
    try:
      work()
    except BaseException as error:
      failed = error
  if _several():
    told = multihost_utils.broadcast_one_to_all(np.int32(failed is not None))
    if told and failed is None:
      raise InputError(f'{what} failed in the first process, which says why')
  if failed is not None:
    raise failed
