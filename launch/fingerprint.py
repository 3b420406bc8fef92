"""Finds the corner of every Pareto-optimal model by probes.

python launch/fingerprint.py --config=configs/digits.py --workdir=runs/digits
"""

from psml_jax.experiments import launcher

if __name__ == '__main__':
  launcher.main(until='fingerprint')
