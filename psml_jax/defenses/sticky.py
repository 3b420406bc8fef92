"""Sticky noise: a client who repeats a query meets the same noise again.

The spec plane is cut into cells; a spec becomes the middle of its cell, and gets noise
that a secret key, the client and the cell determine. Whatever a client sends inside one
cell is therefore one and the same spec to the router, always.

**What it bounds.** Averaging: n repeats tell no more than the router's own choice among
one feasible set does, while fresh noise lets a client measure the probability of being
served as finely as it pays for.

**What it does not.** A client's first query in a cell meets fresh noise: its law is
that of noise that is not sticky, at the cell's middle. Who tries many cells, or one
with many accounts, keeps the luckiest, and from then on nothing changes its luck.

**Theorem.** Let t be the largest probability, over the middles of all cells, that the
victim answers behind noise that is not sticky. An attacker who touches D pairs of an
account and a cell, chosen one after the other by all answers before, gets at most
`n (1 - (1 - t)^D)` answers of the victim from n queries, in the mean over the secret;
with k accounts and C cells each, D = kC.

*Proof.* Let r_i be the probability that the victim answers in pair i, given the noise
there. A pair's noise is independent of all that happened before the pair was first
touched, so `E[1 - r_i | past] >= 1 - t`, and by induction
`E prod (1 - r_i) >= (1 - t)^D`. Each answer comes in a touched pair, whose r_i is at
most `R = max r_i <= 1 - prod (1 - r_i)`; so of n queries at most n R, in the mean, are
the victim's, and `E R <= 1 - (1 - t)^D`.

For D = 1 that is the rate t of the plain noise, no less: sticky noise takes nothing
from an attacker who is told the best spec and asks there alone; it makes it all or
nothing. Honest clients fare likewise: one who always asks for the same gets it always
or never, and the mean over clients hides that.

| input | what it gives |
|---|---|
| scale 0 | the spec, bit for bit |
| infinite spec, in a server | first moved to the end of the zoo's range |
| infinite spec, by itself | unchanged: noise is finite |
| NaN spec, traced | NaN, which leaves no model feasible |
| client below 0 | ValueError; traced, refused |
"""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from psml_jax import _validate, struct
from psml_jax.core import Query, Spec, ZooProfile
from psml_jax.defenses.mechanisms import MECHANISMS, Deployment, Knob, Mechanism
from psml_jax.defenses.noise import Noise, laplace, relative_scale

_FARTHEST = 2**30


@struct.dataclass(eq=False)
class Sticky:
  """See `sticky`.

  Attributes:
    noise: at the middle of each cell, of any client.
    cell: f32[], the width of a cell in scales of the noise.
  """

  noise: Noise
  cell: jax.Array
  constant: ClassVar[bool] = True

  def init(self, key: jax.Array) -> jax.Array:
    """The secret; no query changes it, and ids of clients are any that are >= 0."""
    return key

  def apply(
    self, key: jax.Array, query: Query, state: jax.Array
  ) -> tuple[Query, jax.Array]:
    del key
    place, middle = self._grid(query.spec)
    own = jax.random.fold_in(state, query.client)
    own = jax.random.fold_in(own, place.min_accuracy)
    own = jax.random.fold_in(own, place.max_latency_ms)
    noised, _ = self.noise.apply(own, dataclasses.replace(query, spec=middle), ())
    return noised, state

  def middle(self, spec: Spec) -> Spec:
    """The middle of a spec's cell, f32[...] each; the spec itself without noise."""
    return self._grid(spec)[1]

  def kernel(self, router: Any, spec: Spec) -> jax.Array | None:
    """The law of a client's first query in a cell, see `Fieldwise.kernel`."""
    return self.noise.kernel(router, self.middle(spec))

  def _grid(self, spec: Spec) -> tuple[Spec, Spec]:
    accuracy = _cell(spec.min_accuracy, self.cell * self.noise.accuracy_scale)
    latency = _cell(spec.max_latency_ms, self.cell * self.noise.latency_scale_ms)
    return Spec(accuracy[0], latency[0]), Spec(accuracy[1], latency[1])


def _cell(value: jax.Array, width: jax.Array) -> tuple[jax.Array, jax.Array]:
  """i32[...] the cell of a value, and f32[...] its middle; itself, where infinite."""
  width = jnp.abs(width)
  place = jnp.floor(value / jnp.where(width > 0, width, 1))
  cut = (width > 0) & (jnp.abs(place) < _FARTHEST)
  number = jnp.clip(jnp.nan_to_num(place), -_FARTHEST, _FARTHEST).astype(jnp.int32)
  return number, jnp.where(cut, (place + 0.5) * width, value)


def sticky(
  accuracy_scale: ArrayLike, latency_scale_ms: ArrayLike, *, cell: ArrayLike = 0.5
) -> Sticky:
  """Laplace noise that is the same whenever a client asks in the same cell.

  Args:
    accuracy_scale: as in `laplace`.
    latency_scale_ms: as in `laplace`.
    cell: the width of a cell in scales of the noise, f32[], > 0; may be traced. Where
      the scale is 0 there are no cells.

  Returns:
    The transform. Its state is a secret key, so servers alone take it; they serve its
    queries at once and not one after the other. NaN in a traced spec leaves no model
    feasible.

  Raises:
    ValueError: as in `laplace`, or a concrete cell that is not finite and > 0.
  """
  if _validate.is_concrete(cell):
    _validate.positive('cell', float(_validate.floats('cell', cell)))
  return Sticky(
    laplace(accuracy_scale, latency_scale_ms), jnp.asarray(cell, jnp.float32)
  )


def luckiest_rate(rate: ArrayLike, accounts: ArrayLike, cells: ArrayLike) -> jax.Array:
  """The theorem's bound on the share of queries that the victim answers.

  Args:
    rate: t, the victim's largest rate behind noise that is not sticky, f32[...].
    accounts: k.
    cells: C, how many cells each account tries.

  Returns:
    f32[...], `1 - (1 - t)^(kC)`.

  >>> float(luckiest_rate(0.5, 1, 2))
  0.75
  """
  pairs = jnp.asarray(accounts, jnp.float32) * jnp.asarray(cells, jnp.float32)
  return -jnp.expm1(pairs * jnp.log1p(-jnp.asarray(rate, jnp.float32)))


def _deployed(
  profile: ZooProfile, scale: ArrayLike, *, cell: float = 0.5
) -> Deployment:
  return Deployment(defense=sticky(*relative_scale(profile, scale), cell=cell))


MECHANISMS.register(
  'sticky',
  Mechanism(Knob('scale', "share of the zoo's range", 0.0, 2.0**-20, 64.0), _deployed),
)
