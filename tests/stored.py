"""A stored profile, so that latencies do not depend on the machine."""

import json

import numpy as np


def profile(folder, latencies, spread):
  """Writes profile.csv, whose path it returns, and profile.json with its samples."""
  lines = [f'{name},0.5,{latency}' for name, latency in latencies.items()]
  text = '\n'.join(['name,accuracy,latency_ms', *lines]) + '\n'
  (folder / 'profile.csv').write_text(text)
  jitter = np.exp(spread * np.random.default_rng(0).standard_normal(256))
  samples = {name: (at * jitter).tolist() for name, at in latencies.items()}
  described = {'device': 'made up', 'samples_ms': samples}
  (folder / 'profile.json').write_text(json.dumps(described))
  return str(folder / 'profile.csv')
