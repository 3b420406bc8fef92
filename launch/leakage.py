"""What every defense gives away at equal goodput, against the law; nothing is trained.

python launch/leakage.py --config=configs/leakage.py:cifar10_published \
  --workdir=runs/leakage
"""

from psml_jax.experiments import launcher

if __name__ == '__main__':
  launcher.main(until='report', of='psml_jax.experiments.plane')
