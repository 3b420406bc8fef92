"""The whole experiment: train a zoo, fingerprint it, extract, defend, report.

python launch/reproduce.py --config=configs/digits.py --workdir=runs/digits
"""

from psml_jax.experiments import launcher

if __name__ == '__main__':
  launcher.main(until='report')
