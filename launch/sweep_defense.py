"""Calibrates the defense and measures goodput over its scale.

python launch/sweep_defense.py --config=configs/digits.py --workdir=runs/digits
"""

from psml_jax.experiments import launcher

if __name__ == '__main__':
  launcher.main(until='defense')
