"""Measures a live server: goodput under load, and what each switch hides and costs.

python benchmarks/live.py --root=runs/live

Trains the zoo of configs/live.py into ROOT/zoo unless --workdir names a trained one,
then starts, loads, probes and stops a server for each switch. What is done lies in
ROOT/live.json, and the same command goes on from there.
"""

import pathlib
import subprocess
import sys

from absl import app, flags

from psml_jax.serving import study

_ROOT = flags.DEFINE_string('root', 'runs/live', 'Where all of it lies.')
_WORKDIR = flags.DEFINE_string('workdir', None, 'Of a trained zoo.')
_DATA_DIR = flags.DEFINE_string('data_dir', None, "Folder of the data set's files.")
_SWITCHES = flags.DEFINE_list('switches', list(study.SWITCHES), 'What is measured.')
_QUERIES = flags.DEFINE_integer('queries', 200, 'Of each pattern of the load.')
_RATE = flags.DEFINE_float('rate', 20.0, 'Of the load, queries a second.')
_PROBES = flags.DEFINE_integer('probes', 400, 'Of the inventory.')


def main(argv: list[str]) -> None:
  """Makes live.json."""
  del argv
  root = pathlib.Path(_ROOT.value).expanduser()
  study.run(
    _WORKDIR.value or _trained(root / 'zoo'),
    str(root),
    data_dir=_DATA_DIR.value,
    sizes=study.Sizes(queries=_QUERIES.value, rate=_RATE.value, probes=_PROBES.value),
    switches=_SWITCHES.value,
  )
  print(root / 'live.json')


def _trained(workdir: pathlib.Path) -> str:
  """Trains and profiles the zoo in a process of its own; done ones are left alone."""
  top = pathlib.Path(__file__).parents[1]
  script, config = top / 'launch' / 'profile_zoo.py', top / 'configs' / 'live.py'
  flags_ = [f'--config={config}', f'--workdir={workdir}']
  subprocess.run([sys.executable, str(script), *flags_], check=True)
  return str(workdir)


if __name__ == '__main__':
  app.run(main)
