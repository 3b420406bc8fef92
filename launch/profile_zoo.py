"""Measures the zoo's accuracy and its latency on this device.

python launch/profile_zoo.py --config=configs/digits.py --workdir=runs/digits
"""

from psml_jax.experiments import launcher

if __name__ == '__main__':
  launcher.main(until='profile')
