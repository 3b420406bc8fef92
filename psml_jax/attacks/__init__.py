"""Attacks: what a client can do with specs, inputs and observations alone.

Nothing here knows the router or the zoo. Each attack decides which queries to send
and what to make of the answers; whoever runs it carries the queries to the server.
"""

from psml_jax.attacks import extraction, fingerprint

__all__ = ['extraction', 'fingerprint']
