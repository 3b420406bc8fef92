"""Mechanisms that select a model by its score: differentially private routers.

The exponential mechanism answers with model m with probability proportional to
`exp(epsilon u_m / (2 sensitivity))` of the scores u (`defenses.scores`), permute-and-flip
with the model of highest `epsilon u_m / (2 sensitivity)` plus exponential noise.
`defenses.privacy` says what either guarantees.

| input | what happens |
|---|---|
| epsilon infinite (off) | a model of the best score, ties at random: of `goodput` the uniform router, of the others the nearest model that meets the spec |
| epsilon 0, traced | any model at random |
| negative or NaN epsilon, traced | as 0: the most private reading |
| epsilon not above 0 or NaN, concrete | ValueError |
| nothing feasible | answered all the same, at off too: of `goodput` by any model at random, of the others by the nearer the more often |
| infinite or out-of-range spec | as one at the end of the range for nearness |
| NaN spec, traced | nothing is feasible; places of `l1` are 0; answered |
| a draw | one uniform number of 2^-23 resolution: rarer models are never drawn |
"""  # noqa: E501

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from psml_jax import _validate, pareto, struct
from psml_jax.core import Route, Spec, ZooProfile
from psml_jax.defenses import laws
from psml_jax.defenses.mechanisms import MECHANISMS, Deployment, Knob, Mechanism
from psml_jax.defenses.scores import SCORES, Score, first, meets_between

MODELS = ('all', 'frontier')


@struct.dataclass(eq=False)
class Selection:
  """A router that selects by score.

  Attributes:
    profile: the zoo.
    candidates: bool[M], which models may answer.
    epsilon: f32[], of each query.
    score: how well a model suits a spec (static).
    law: of the scores' differences to the best, see `defenses.laws` (static).
    models: which the candidates are, one of `MODELS` (static).
  """

  profile: ZooProfile
  candidates: jax.Array
  epsilon: jax.Array
  score: Score = struct.field(pytree_node=False)
  law: laws.Law = struct.field(pytree_node=False)
  models: str = struct.field(pytree_node=False, default='all')

  own_is_best = True  # docs/theory.md, theorem 3b; not so behind other transforms

  @property
  def loosest(self) -> Spec:
    """The zoo's lowest accuracy and highest latency, f32[] each."""
    return Spec(jnp.min(self.profile.accuracy), jnp.max(self.profile.latency_ms))

  def __call__(self, key: jax.Array, spec: Spec) -> Route:
    _validate.routing(key, spec.min_accuracy, spec.max_latency_ms)
    return _route(self, key, spec)

  def kernel(self, spec: Spec) -> jax.Array:
    """The probability that each model answers a spec; none is refused (the last).

    Args:
      spec: any leading axes, each field f32[...].

    Returns:
      f32[..., M + 1].
    """
    return _kernel(self, Spec.of(spec.min_accuracy, spec.max_latency_ms))

  def ceiling(self, low: Spec, high: Spec) -> jax.Array:
    """An upper bound of `kernel` over all specs between two, field by field.

    A model's probability rises with its own score and falls with the others', so it is
    at most what its highest score and their lowest give.

    Args:
      low: the lower end of both fields, f32[...].
      high: the upper end.

    Returns:
      f32[..., M + 1]; tight where the two are one spec.
    """
    return _ceiling(self, low, high)

  def logits(self, least: jax.Array, most: jax.Array) -> tuple[jax.Array, jax.Array]:
    """f32[M, ...] each of two scores, less the best of the first; 0 at the best."""
    mine = first(self.candidates, least[0])
    best = jnp.max(jnp.where(mine, least, -jnp.inf), 0, keepdims=True)
    epsilon = jnp.where(self.epsilon > 0, self.epsilon, 0.0)
    slope = epsilon / (2 * self.score.sensitivity)

    def one(score: jax.Array) -> jax.Array:
      gap = score - best
      return jnp.where(mine, jnp.where(gap == 0, 0.0, slope * gap), -jnp.inf)

    return one(least), one(most)

  def weights(self, spec: Spec) -> jax.Array:
    """f32[M, ...], what the law's probabilities are proportional to."""
    score = self.score.of(self.profile, spec)
    return self.law.weights(self.logits(score, score)[0])


def exponential(
  profile: ZooProfile,
  epsilon: ArrayLike,
  *,
  score: str = 'goodput',
  models: str = 'all',
) -> Selection:
  """The exponential mechanism (McSherry and Talwar 2007).

  Answers with model m with probability proportional to `exp(epsilon u_m / 2)`, for
  every score's sensitivity is 1.

  Args:
    profile: the zoo; concrete values.
    epsilon: f32[], of each query, above 0; may be infinite, or traced.
    score: 'goodput', 'l1' or 'quantile', see `defenses.scores`.
    models: which may answer: 'all', or those on the 'frontier'.

  Returns:
    `(key, spec) -> Route`; no query is refused. The key is consumed; query i of a batch
    depends on the key and i alone.

  Raises:
    ValueError: a concrete epsilon that is not above 0, an unknown score, or `models`
      that are neither; from the router, as `routers.uniform`.

  >>> zoo = ZooProfile([0.7, 0.9], [1.0, 5.0], ('small', 'large'))
  >>> exponential(zoo, 2 * jnp.log(3)).kernel(Spec.of(0.8, 9.0)).round(2).tolist()
  [0.25, 0.75, 0.0]
  """
  return _selection(profile, epsilon, score, models, laws.EXPONENTIAL)


def permute_and_flip(
  profile: ZooProfile,
  epsilon: ArrayLike,
  *,
  score: str = 'goodput',
  models: str = 'all',
) -> Selection:
  """Permute-and-flip (McKenna and Sheldon 2020): as private, and nearer to the best.

  Takes the models in random order and answers with the first one that a coin of
  probability `exp(epsilon (u_m - max u) / 2)` accepts, again from the start if none
  does. That is the model of the highest `epsilon u_m / 2` plus exponential noise of
  mean 1 (Ding et al. 2021), of which the law is an integral.

  Args:
    profile: the zoo; concrete values.
    epsilon: as in `exponential`.
    score: likewise.
    models: likewise.

  Returns:
    `(key, spec) -> Route`, as `exponential`; its `kernel` is exact to 1e-6.

  Raises:
    ValueError: as `exponential`.

  >>> zoo = ZooProfile([0.7, 0.9], [1.0, 5.0], ('small', 'large'))
  >>> permute_and_flip(zoo, 2 * jnp.log(2)).kernel(Spec.of(0.8, 9.0)).round(2).tolist()
  [0.25, 0.75, 0.0]
  """
  return _selection(profile, epsilon, score, models, laws.PERMUTE_AND_FLIP)


def _selection(
  profile: ZooProfile, epsilon: ArrayLike, score: str, models: str, law: laws.Law
) -> Selection:
  _validate.one_of('score', score, SCORES)
  _validate.one_of('models', models, MODELS)
  if _validate.is_concrete(epsilon):
    values = _validate.floats('epsilon', epsilon)
    _validate.reject('epsilon', values, ~(values > 0), '> 0; infinity is allowed')
  candidates = (
    jnp.ones(len(profile), bool) if models == 'all' else pareto.pareto_mask(profile)
  )
  return Selection(
    profile,
    candidates,
    jnp.asarray(epsilon, jnp.float32),
    SCORES[score],
    law,
    models,
  )


@jax.jit
def _kernel(router: Selection, spec: Spec) -> jax.Array:
  def law(spec: Spec) -> jax.Array:
    weights = router.weights(spec)
    return weights / jnp.sum(weights, 0, keepdims=True)

  return _unrefused(_in_chunks(law, router, spec))


@jax.jit
def _ceiling(router: Selection, low: Spec, high: Spec) -> jax.Array:
  def bound(low: Spec, high: Spec) -> jax.Array:
    least, most = router.logits(*router.score.between(router.profile, low, high))
    return jnp.where(
      first(router.candidates, least[0]), router.law.ceiling(least, most), 0.0
    )

  return _unrefused(_in_chunks(bound, router, low, high))


@jax.jit
def _route(router: Selection, key: jax.Array, spec: Spec) -> Route:
  spec = Spec.of(spec.min_accuracy, spec.max_latency_ms)

  def draw(spec: Spec, share: jax.Array) -> Route:
    weights = router.weights(spec)
    mark = share * jnp.sum(weights, 0)

    # The last possible model that begins below the mark: never one of weight 0.
    def step(
      carry: tuple[jax.Array, jax.Array], each: tuple[jax.Array, jax.Array]
    ) -> tuple[tuple[jax.Array, jax.Array], None]:
      begin, chosen = carry
      weight, model = each
      chosen = jnp.where((weight > 0) & (begin <= mark), model, chosen)
      return (begin + weight, chosen), None

    start = (jnp.zeros_like(mark), jnp.zeros(mark.shape, jnp.int32))
    order = jnp.arange(len(weights), dtype=jnp.int32)
    (_, chosen), _ = jax.lax.scan(step, start, (weights, order))
    met, _ = meets_between(router.profile, spec, spec)
    return Route(chosen, jnp.sum(met, 0, dtype=jnp.int32))

  share = jax.random.uniform(key, spec.min_accuracy.shape, jnp.float32)
  return _in_chunks(draw, router, spec, share)


_CELLS_AT_ONCE = 1 << 15  # 128 KiB an array of them: they stay in the cache


def _in_chunks(function: Callable[..., Any], router: Selection, *batch: Any) -> Any:
  """A function of batches [C], on batches of any shape, chunk by chunk."""
  shape = jnp.shape(jax.tree.leaves(batch)[0])
  size, width = math.prod(shape), max(1, _CELLS_AT_ONCE // len(router.profile))
  if size <= width:
    return function(*batch)
  chunks = -(-size // width)

  def cut(leaf: jax.Array) -> jax.Array:
    padded = jnp.pad(jnp.ravel(leaf), (0, chunks * width - size), mode='edge')
    return padded.reshape(chunks, width)

  def joined(leaf: jax.Array) -> jax.Array:
    # [chunks, ..., width] -> [..., *shape]
    flat = jnp.moveaxis(leaf, 0, -2)
    flat = flat.reshape(*flat.shape[:-2], chunks * width)[..., :size]
    return flat.reshape(*flat.shape[:-1], *shape)

  found = jax.lax.map(lambda each: function(*each), jax.tree.map(cut, batch))
  return jax.tree.map(joined, found)


def _unrefused(law: jax.Array) -> jax.Array:
  """f32[..., M + 1] of f32[M, ...]."""
  law = jnp.concatenate([law, jnp.zeros_like(law[:1])])
  return jnp.moveaxis(law, 0, -1)


_EPSILON = Knob('epsilon', 'nats', float('inf'), 1e6, 1e-6)


def _mechanism(make: Callable[..., Selection], of: str) -> Mechanism:
  def deployed(
    profile: ZooProfile, epsilon: ArrayLike, score: str = of, models: str = 'all'
  ) -> Deployment:
    return Deployment(router=make(profile, epsilon, score=score, models=models))

  return Mechanism(_EPSILON, deployed, answers_all=True)


MECHANISMS.register('exponential', _mechanism(exponential, 'goodput'))
MECHANISMS.register('exponential_l1', _mechanism(exponential, 'l1'))
MECHANISMS.register('exponential_quantile', _mechanism(exponential, 'quantile'))
MECHANISMS.register('permute_and_flip', _mechanism(permute_and_flip, 'goodput'))
