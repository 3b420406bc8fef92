"""Repeats: each image is sent several times; the answer that came most often counts."""

import dataclasses

import jax
import jax.numpy as jnp

from psml_jax import _validate, struct
from psml_jax.attacks import extraction
from psml_jax.attacks.base import ATTACKS, Entry, Resources
from psml_jax.core import Harvest, Knowledge, Observation, Query


@struct.dataclass(eq=False)
class Repeats:
  """See `repeats`; all fields are static."""

  spec: str = struct.field(pytree_node=False)
  num_queries: int = struct.field(pytree_node=False)
  times: int = struct.field(pytree_node=False)
  tolerance: float = struct.field(pytree_node=False)

  def init(self, key: jax.Array, knowledge: Knowledge) -> extraction.Sent:
    num_images = -(-self.num_queries // self.times)
    sent = extraction.replay(self.spec, num_images).init(key, knowledge)
    inputs = jnp.repeat(sent.inputs, self.times)[: self.num_queries]
    return dataclasses.replace(
      sent,
      inputs=inputs,
      observation=extraction.unanswered(self.num_queries, knowledge.num_classes),
    )

  def ask(self, state: extraction.Sent) -> Query:
    return Query.of(state.inputs, state.spec, sent=~state.asked)

  def tell(
    self, state: extraction.Sent, query: Query, observation: Observation
  ) -> extraction.Sent:
    del query
    return dataclasses.replace(state, observation=observation, asked=jnp.bool_(True))

  def harvest(self, state: extraction.Sent) -> Harvest:
    seen, rows = state.observation, len(state.inputs)
    padding = -rows % self.times
    images = (rows + padding) // self.times

    def by_image(column: jax.Array) -> jax.Array:
      rim = ((0, padding),) + ((0, 0),) * (column.ndim - 1)
      return jnp.pad(column, rim).reshape(images, self.times, *column.shape[1:])

    outputs, served = by_image(seen.outputs), by_image(seen.served)
    alike = jnp.abs(outputs[:, :, None] - outputs[:, None]).max(-1) <= self.tolerance
    votes = jnp.sum(alike & served[:, None] & served[:, :, None], axis=-1)
    chosen = jnp.argmax(votes, axis=-1)
    any_served = jnp.any(served, axis=-1)
    order = jnp.argsort(~any_served, stable=True)

    def of_chosen(column: jax.Array) -> jax.Array:
      found = jax.vmap(lambda each, i: each[i])(column, chosen)[order]
      return jnp.pad(found, ((0, rows - images),) + ((0, 0),) * (found.ndim - 1))

    return Harvest(
      inputs=of_chosen(by_image(state.inputs)),
      targets=of_chosen(outputs),
      count=jnp.sum(any_served, dtype=jnp.int32),
      latency_ms=of_chosen(by_image(seen.latency_ms)),
    )


def repeats(
  spec: str, num_queries: int, *, times: int = 3, tolerance: float = 1e-6
) -> Repeats:
  """Sends one spec with each image several times, every one of them billed.

  Two answers to an image are of one model where no probability differs by more than
  the tolerance. The answer kept is the one that came most often, the first of several.
  Where the victim answers more often than any other model, more repeats make it more
  surely the victim's, of fewer images.

  Args:
    spec: as in `extraction.replay`.
    num_queries: how many at most, repeats included.
    times: how often each image is sent.
    tolerance: of one model's probabilities, in [0, 1).

  Returns:
    The attack; it harvests a `Harvest` of `num_queries` rows, one for each image first.

  Raises:
    ValueError: another word, no whole number >= 1, or a tolerance outside its range;
      from `init`, what `replay` raises.
  """
  _validate.one_of('spec', spec, extraction.SPECS)
  return Repeats(
    spec,
    _validate.positive_int('num_queries', num_queries),
    _validate.positive_int('times', times),
    float(_validate.share('tolerance', tolerance)),
  )


def _told(resources: Resources, times: int = 3) -> Repeats:
  return repeats('told', resources.num_queries, times=times)


ATTACKS.register(
  'informed_repeats',
  Entry(_told, knows='the best spec under the defense', role='informed'),
)
