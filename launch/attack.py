"""Attacks a server by HTTP: finds a corner, extracts a surrogate, black box.

python launch/attack.py --target=http://127.0.0.1:8000/v2/models/zoo \
  --key_file=runs/demo/serving/first.key --attack=fingerprint --latency_budget_ms=0.1
"""

import pathlib

from psml_jax.experiments import commands

if __name__ == '__main__':
  commands.main(
    'psml_jax.experiments.raid:run',
    str(pathlib.Path(__file__).parents[1] / 'configs' / 'digits.py'),
    {
      'target': (str, None, 'Address of the zoo, http://HOST:PORT/v2/models/NAME.'),
      'attack': (str, 'fingerprint', 'An attack of the config, or a registered one.'),
      'key_file': (str, None, 'File with the API key; else $PSML_JAX_API_KEY.'),
      'latency_budget_ms': (float, None, 'Latency that the attacker can afford.'),
      'queries': (int, None, 'Queries at most; the largest budget of the config.'),
      'concurrency': (int, 1, 'Requests under way at once.'),
      'workdir': (str, None, 'Directory of the results, if they shall be kept.'),
      'data_dir': (str, None, "Folder of the data set's files, where it needs one."),
    },
  )
