"""Runs all extraction attacks, after the stages that they need.

python launch/extract.py --config=configs/digits.py --workdir=runs/digits
"""

from psml_jax.experiments import launcher

if __name__ == '__main__':
  launcher.main(until='extraction')
