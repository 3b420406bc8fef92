"""Trains and checkpoints the zoo.

python launch/train_zoo.py --config=configs/digits.py --workdir=runs/digits
"""

from psml_jax.experiments import launcher

if __name__ == '__main__':
  launcher.main(until='zoo')
