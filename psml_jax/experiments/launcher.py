"""What the launch scripts share: their flags, and running up to their stage."""

import functools
import importlib
import os
import signal
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
  from types import FrameType

  from psml_jax.experiments.command_line import Arguments

# Heavy modules are imported where they are needed, so that a mistake in the flags is
# reported at once and Ctrl-C ends in one line also while they are imported.


def main(until: str, of: str = 'psml_jax.experiments') -> None:
  """Runs a launch script by its flags, see `command_line.define`.

  A mistake of the user ends in one line and exit code 2, Ctrl-C in one line and 130.

  Args:
    until: the last stage to run; the stages that it needs run first, and those whose
      artifact lies in the work directory are skipped.
    of: the module whose `parse` makes a config of the fields and whose `run` runs it.
  """
  interrupts: list[int] = []

  def interrupt(number: int, frame: 'FrameType | None') -> NoReturn:
    # Libraries turn KeyboardInterrupt into errors of their own, or print and lose it in
    # callbacks, as JAX does in that of the garbage collection; so it is repeated.
    sys.excepthook = lambda *lost: None
    sys.unraisablehook = lambda lost: None
    interrupts.append(number)
    signal.setitimer(signal.ITIMER_REAL, 0.5)
    raise KeyboardInterrupt

  if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, interrupt)
    signal.signal(signal.SIGALRM, interrupt)
  try:
    _launch(until, of)
  except BaseException as error:
    signal.setitimer(signal.ITIMER_REAL, 0)
    if not interrupts or (isinstance(error, SystemExit) and not error.code):
      raise
    print('\ninterrupted; the same command continues', file=sys.stderr, flush=True)
    sys.stdout.flush()
    os._exit(130)  # XLA crashes when Python tidies up under a program half compiled.


def _launch(until: str, of: str) -> None:
  from absl import app, flags

  from psml_jax.experiments import command_line

  def parse(argv: Sequence[str]) -> 'Arguments':
    try:
      arguments = command_line.parse(argv, flags.FLAGS)
    except ValueError as error:
      fail(error)
    if arguments is None:
      sys.exit(0)
    return arguments

  command_line.define(flags.FLAGS)
  app.run(functools.partial(_run, until, of=of), flags_parser=parse)


def _run(until: str, arguments: 'Arguments', of: str = 'psml_jax.experiments') -> None:
  from absl import logging

  from psml_jax import _validate

  job = importlib.import_module(of)

  logging.set_verbosity(logging.WARNING)
  try:
    config = job.parse(arguments.fields)
    cluster = (arguments.coordinator, arguments.num_processes, arguments.process_id)
    if cluster != (None, None, None):
      from psml_jax.experiments import processes

      processes.join(*cluster)
  except ValueError as error:
    fail(error)
  try:
    directory = job.run(
      config, arguments.workdir, until=until, data_dir=arguments.data_dir
    )
  except (_validate.InputError, OSError) as error:
    fail(error)
  print(f'Results: {directory}')


def fail(error: Exception) -> NoReturn:
  """Ends the process with an error in one line, and exit code 2."""
  print(f'error: {" ".join(str(error).split())}', file=sys.stderr)
  sys.exit(2)
