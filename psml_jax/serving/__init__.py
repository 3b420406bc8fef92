"""A zoo behind a real server: decisions, protocol, secrets, and Ray Serve.

`gate` decides about queries and knows no network; `protocol` is the wire; `vault` and
`accounts` hold secrets and identities; `application` is the ASGI application of all
that; `models` compiles a zoo; `deployments` puts both on Ray Serve and `job` is what
the launch script runs. Only `listener` and `deployments` need the extra `serve`.
"""

from typing import TYPE_CHECKING

from psml_jax import _lazy

if TYPE_CHECKING:
  from psml_jax.serving.accounts import Accounts
  from psml_jax.serving.application import Application, Limits
  from psml_jax.serving.config import Serving, parse
  from psml_jax.serving.gate import Decision, Gate
  from psml_jax.serving.protocol import Zoo
  from psml_jax.serving.vault import Vault

__all__ = [
  'Accounts',
  'Application',
  'Decision',
  'Gate',
  'Limits',
  'Serving',
  'Vault',
  'Zoo',
  'parse',
]

if not TYPE_CHECKING:
  __getattr__, __dir__ = _lazy.attach(
    __name__,
    __all__,
    {
      'Accounts': 'psml_jax.serving.accounts',
      'Application': 'psml_jax.serving.application',
      'Decision': 'psml_jax.serving.gate',
      'Gate': 'psml_jax.serving.gate',
      'Limits': 'psml_jax.serving.application',
      'Serving': 'psml_jax.serving.config',
      'Vault': 'psml_jax.serving.vault',
      'Zoo': 'psml_jax.serving.protocol',
      'parse': 'psml_jax.serving.config',
    },
  )
