"""A server that a study, a siege or a raid starts, asks and stops."""

import asyncio
import contextlib
import dataclasses
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from psml_jax.serving import job, load, models, vault
from psml_jax.serving.load import Offered, Seen


@dataclasses.dataclass
class Target:
  """A server that listens, and what its client has to send.

  Attributes:
    plan: of the server.
    key: of its first client.
    images: f32[N, H, W, C], of the zoo's test images.
    labels: i32[N].
    num_classes: K.
  """

  plan: Any
  key: str
  images: np.ndarray
  labels: np.ndarray
  num_classes: int

  def offer(self, offered: Offered, **options: Any) -> Seen:
    """What a client sees of a load, see `load.offer`."""
    return asyncio.run(
      load.offer(
        self.plan.url, self.key, offered, num_classes=self.num_classes, **options
      )
    )

  def answered(self, offered: Offered) -> tuple[Seen, np.ndarray]:
    """The same, and by the operator's journal which models answered."""
    seen = self.offer(offered)
    return seen, load.models(seen.name, vault.read(self.plan.vault))


@contextlib.contextmanager
def listening(
  workdir: pathlib.Path,
  served: models.Served,
  fields: Mapping[str, Any],
  data_dir: str | None = None,
) -> Iterator[Target]:
  """A server from its start to its end, in the cluster of `deployments.connected`.

  Args:
    workdir: of the zoo; the server's vault lies in it.
    served: the zoo, as `models.read` reads it.
    fields: of the server's config.
    data_dir: where image files lie.
  """
  plan = job.planned(fields, workdir=str(workdir), data_dir=data_dir, port=0)
  images = served.experiment.images()
  from psml_jax.serving import deployments

  with deployments.serving(plan):
    yield Target(
      plan,
      pathlib.Path(plan.vault, job.FIRST_KEY).read_text('ascii').strip(),
      np.asarray(images.test_x),
      np.asarray(images.test_y),
      images.num_classes,
    )
