"""Every defense against every thief, over zoos: what a surrogate reaches.

python launch/ladder.py --config=configs/ladder.py --workdir=runs/ladder
"""

from psml_jax.experiments import launcher

if __name__ == '__main__':
  launcher.main(until='report', of='psml_jax.experiments.ladder')
