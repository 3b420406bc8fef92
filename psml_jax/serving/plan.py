"""What every process of a server is told."""

import os
from typing import NamedTuple

from psml_jax.serving.config import Serving
from psml_jax.serving.protocol import Zoo


class Plan(NamedTuple):
  """What every process of a server is told; it holds no secret.

  Attributes:
    directory: the experiment's work directory.
    data_dir: of the experiment.
    serving: the config.
    zoo: what clients may know.
    names: of the models, in the order of the router's.
    keys: the table of API keys.
    host: where the ingress listens.
    port: likewise.
    keeper: its name, of this server alone: a cluster may have one of another run.
  """

  directory: str
  data_dir: str | None
  serving: Serving
  zoo: Zoo
  names: tuple[str, ...]
  keys: str
  host: str
  port: int
  keeper: str

  @property
  def vault(self) -> str:
    """The folder of secret, numbers and journals."""
    return os.path.join(self.directory, 'serving')

  @property
  def url(self) -> str:
    """Of the zoo."""
    return f'http://{self.host}:{self.port}/v2/models/{self.serving.name}'

  @property
  def application(self) -> str:
    """The name of the application."""
    return f'psml_jax-{self.serving.name}'
