"""A zoo behind a real server: decisions, protocol, secrets, and Ray Serve.

`gate` decides about queries and knows no network; `protocol` is the wire; `vault` and
`accounts` hold secrets and identities; `application` is the ASGI application of all
that; `models` reads a zoo; `ingress` and `replica` put both on Ray Serve, `deployments`
starts them with what the `keeper` has, and `job` is what the launch script runs.
`middleware` is the same defense in front of others' servers, and `litellm` in LiteLLM's
router: a `guard` decides for both by a gate, enforcing or as a shadow, and keeps the
log that `records` reads; `hosted` makes them of a config. `deployments` and what it
imports of these need the extra `serve`, `upstream` needs `http`, and what `litellm`
makes needs `litellm`.
"""

from typing import TYPE_CHECKING

from psml_jax import _lazy

if TYPE_CHECKING:
  from psml_jax.serving.accounts import Accounts
  from psml_jax.serving.application import Application, Limits
  from psml_jax.serving.config import Serving, parse
  from psml_jax.serving.gate import Decision, Gate
  from psml_jax.serving.guard import Guard
  from psml_jax.serving.middleware import Middleware
  from psml_jax.serving.protocol import Zoo
  from psml_jax.serving.rules import Rules
  from psml_jax.serving.vault import Vault

__all__ = [
  'Accounts',
  'Application',
  'Decision',
  'Gate',
  'Guard',
  'Limits',
  'Middleware',
  'Rules',
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
      'Guard': 'psml_jax.serving.guard',
      'Limits': 'psml_jax.serving.application',
      'Middleware': 'psml_jax.serving.middleware',
      'Rules': 'psml_jax.serving.rules',
      'Serving': 'psml_jax.serving.config',
      'Vault': 'psml_jax.serving.vault',
      'Zoo': 'psml_jax.serving.protocol',
      'parse': 'psml_jax.serving.config',
    },
  )
