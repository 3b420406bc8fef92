"""What the launch scripts share: their flags, and running up to their stage."""

import json
import os
from collections.abc import Callable, Sequence

import jax
from absl import app, flags, logging
from ml_collections import config_flags

from psml_jax import report
from psml_jax.experiments.config import parse
from psml_jax.experiments.pipeline import run


def main(until: str) -> None:
  """Runs a launch script: `--config`, `--workdir` and `--data_dir`.

  Args:
    until: the last stage to run; the stages that it needs run first, and those whose
      artifact lies in the work directory are skipped.
  """
  config = config_flags.DEFINE_config_file(
    'config', None, 'Config file, e.g. configs/digits.py.', lock_config=True
  )
  workdir = flags.DEFINE_string(
    'workdir', None, 'Directory of the results; an interrupted run continues there.'
  )
  data_dir = flags.DEFINE_string(
    'data_dir', None, "Folder of the data set's files, for data sets that need one."
  )
  flags.mark_flags_as_required(['config', 'workdir'])
  app.run(_job(until, config, workdir, data_dir))


def _job(
  until: str,
  config: flags.FlagHolder,
  workdir: flags.FlagHolder,
  data_dir: flags.FlagHolder,
) -> Callable[[Sequence[str]], None]:
  def job(argv: Sequence[str]) -> None:
    if len(argv) > 1:
      raise app.UsageError(f'unknown arguments {argv[1:]}; all settings are flags')
    logging.set_verbosity(logging.WARNING)
    jax.config.update('jax_num_cpu_devices', len(os.sched_getaffinity(0)))
    try:
      parsed = parse(config.value)
      directory = run(parsed, workdir.value, until=until, data_dir=data_dir.value)
    except ValueError as error:
      raise app.UsageError(str(error)) from error
    if until == 'report':
      summary = json.loads((directory / 'summary.json').read_text('utf-8'))
      print(report.claims_table(summary))
    print(f'Results: {directory}')

  return job
