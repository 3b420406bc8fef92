"""Attackers and accounts of a leakage study."""

from collections.abc import Callable, Sequence

import jax

from psml_jax.core import ZooProfile
from psml_jax.experiments.plane.config import Config
from psml_jax.report.plane_records import Accounts, Attacked, Defense


def jobs(
  config: Config, profile: ZooProfile, key: jax.Array, measured: Sequence[Defense]
) -> dict[str, Callable[[], list[Attacked]]]:
  return {}


def accounts(
  config: Config, profile: ZooProfile, key: jax.Array
) -> dict[str, Callable[[], list[Accounts]]]:
  return {}
