"""Membership inference and adversarial examples through the router, with defenses.

python launch/threats.py --config=configs/threats.py --workdir=runs/threats
"""

from psml_jax.experiments import launcher

if __name__ == '__main__':
  launcher.main(until='report', of='psml_jax.experiments.threats')
