"""Serves the zoo of a work directory by HTTP, defended, until Ctrl-C.

python launch/serve.py --workdir=runs/demo --config.defense.name=capped \
  --config.defense.value=0.3
"""

import pathlib

from psml_jax.experiments import commands

if __name__ == '__main__':
  commands.main(
    'psml_jax.serving.job:run',
    str(pathlib.Path(__file__).parents[1] / 'configs' / 'serve.py'),
    {
      'workdir': (str, None, 'Work directory of the experiment that trained the zoo.'),
      'data_dir': (str, None, "Folder of the data set's files, where it needs one."),
      'address': (str, None, 'Of a Ray cluster; this machine alone unless given.'),
      'host': (str, '127.0.0.1', 'Address to listen at.'),
      'port': (int, 8000, 'Port to listen at.'),
    },
  )
