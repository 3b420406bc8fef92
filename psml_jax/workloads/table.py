"""An operator's own clients, from a table of their specs."""

from psml_jax import goodput
from psml_jax.workloads import base


def csv(path: str, **columns: str) -> base.Workload:
  """The specs of a table; the key changes nothing.

  For an operator's own clients. Specs that no model meets count as lost; `check` says
  whether any can be met.

  Args:
    path: a CSV file, one spec a row.
    **columns: the others of `goodput.load_workload`.

  Returns:
    The workload.

  Raises:
    ValueError: as `goodput.load_workload`.
  """
  given = goodput.load_workload(path, **columns)
  return lambda key, profile: given


base.WORKLOADS.register('csv', csv)
