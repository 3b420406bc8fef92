"""Measures speed and memory against peers in one run: `make bench`.

python benchmarks/run.py --out=runs/bench/bench.json
"""

import os
import pathlib
from collections.abc import Sequence

import jax
import records
import routing
import selecting
from absl import app, flags
from ml_collections import config_flags

from psml_jax.experiments import workdir
from psml_jax.experiments.config import parse

_OUT = flags.DEFINE_string('out', 'runs/bench/bench.json', 'File of the results.')
_CONFIG = config_flags.DEFINE_config_file(
  'config', 'configs/digits.py', 'Experiment whose surrogates are trained.'
)


def main(argv: Sequence[str]) -> None:
  """Measures, prints a table and writes the results whole or not at all."""
  if len(argv) > 1:
    raise app.UsageError(f'unknown arguments {argv[1:]}; all settings are flags')
  jax.config.update('jax_num_cpu_devices', os.cpu_count())
  rows = [routing.measure_peak_rss(), *routing.measure(), *selecting.measure()]
  # Late: what PyTorch holds would count as the new process's memory.
  import fixmatch
  import population
  import zoo_training

  rows += population.measure(parse(_CONFIG.value))
  rows += fixmatch.measure(parse(_CONFIG.value))
  rows += zoo_training.measure()
  print(f'\n{records.device()}\n{records.table(rows)}')
  out = pathlib.Path(_OUT.value)
  out.parent.mkdir(parents=True, exist_ok=True)
  workdir.write_json(out, [row.record() for row in rows])
  print(f'Results: {out}')


if __name__ == '__main__':
  app.run(main)
