"""Servers: the zoo behind its router, as its operator runs it and a client sees it.

A server's state holds its secret key, its log, and whatever memory its defenses keep.
Query number i of a server's life draws by the secret and i alone, so a batch of n gives
what n single queries give, and `table` and `live` differ in nothing that a client sees
but the clock. `http` is a client of a server elsewhere, see `psml_jax.serving`.
"""

from psml_jax.servers.base import Client, Server, State
from psml_jax.servers.http import Http, http
from psml_jax.servers.live import live
from psml_jax.servers.table import Table, table

__all__ = ['Client', 'Http', 'Server', 'State', 'Table', 'http', 'live', 'table']
