"""The rungs of a ladder: an attack on a victim behind a defense, over all seeds."""

import functools
import math
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.metrics import roc_auc_score

from psml_jax import demix, train
from psml_jax.core import Harvest, Spec
from psml_jax.experiments import harness, plan
from psml_jax.experiments.harness import Run, Spoils
from psml_jax.experiments.ladder.config import Config
from psml_jax.experiments.ladder.zoo import Offer, Zoo
from psml_jax.experiments.plan import NONE
from psml_jax.report.ladder_records import Rung

_EXPLICIT = 'explicit'
_DEMIXING = 2  # beside the attacker's 0 and the surrogate's 1, see `harness`


class Place(NamedTuple):
  """Where a rung stands; `target` is None without a defense."""

  size: str
  attack: str
  defense: str
  target: float | None
  queries: int


def places(config: Config) -> list[Place]:
  """All rungs of a zoo: the explicit curve, no defense, and every defense."""
  extraction = config.of_zoo(config.zoos[0]).extraction
  assert extraction is not None
  budgets = sorted(extraction.query_budgets)
  listed = [
    Place(size, _EXPLICIT, NONE, None, budget)
    for size in config.victims
    for budget in budgets
  ]
  behind: list[tuple[str, float | None]] = [(NONE, None)]
  behind += [(defense, to) for defense in config.defenses for to in config.targets]
  listed += [
    Place(size, attack, defense, target, budgets[-1])
    for defense, target in behind
    for size in config.victims
    for attack in config.attacks
  ]
  return listed


def methods(config: Config, attack: str) -> list[str]:
  """The de-mixing that an attack may have: what knows the zoo is for the informed."""
  if attack == _EXPLICIT:
    return ['none']
  informed = plan.entry(config.of_zoo(config.zoos[0]), attack).role == 'informed'
  return [n for n in config.demixing if informed or not demix.METHODS[n].informed]


class Climb:
  """Runs the rungs of one zoo; programs are shared between them.

  Args:
    zoo: the zoo.
  """

  def __init__(self, zoo: Zoo) -> None:
    self._zoo = zoo
    self._config = config = zoo.experiment.config
    extraction = config.extraction
    assert extraction is not None
    self._extraction = extraction
    classes = zoo.tables.pool_outputs.shape[-1]
    self._own = extraction.training(classes)
    self._trainings = {}
    for name in zoo.config.surrogates:
      own = zoo.config.of_zoo(zoo.seed, name).extraction
      assert own is not None
      self._trainings[name] = own.training(classes)
    profile = zoo.profile

    @functools.partial(jax.jit, static_argnames=('attack', 'defense'))
    def every(attack: str, defense: str, tables: harness.Tables, runs: Run) -> Spoils:
      one = functools.partial(harness.collect, attack, defense, config, profile, tables)
      return jax.lax.map(one, runs)

    self._every = every
    self._key = zoo.experiment.key('extraction')
    self._offer = functools.cache(zoo.behind)

  def run(self, place: Place) -> list[Rung]:
    """The records of a rung, one for each de-mixing and surrogate.

    Empty where no value of the defense's knob keeps the target.
    """
    zoo = self._zoo
    offer = self._offer(place.defense, place.target)
    if offer is None:
      return []
    runs = runs_of(zoo, place, offer, self._key, self._config.seeds)
    spoils = self._every(place.attack, place.defense, zoo.tables, runs)
    view = demix.View(
      pool=zoo.tables.pool,
      latency_budget_ms=runs.latency_budget_ms[0],
      samples_ms=zoo.samples_ms,
      prior=offer.prior[place.size],
      victim=runs.victim[0],
      training=self._own,
    )
    allowed = methods(zoo.config, place.attack)
    keys = jax.vmap(jax.random.fold_in, (0, None))(runs.pairing_key, _DEMIXING)
    believed = [_believed(method, keys, spoils.harvest, view) for method in allowed]
    kept = [jax.vmap(demix.keep)(spoils.harvest, each) for each in believed]
    rows = jax.tree.map(lambda *each: jnp.concatenate(each), *kept)
    records = []
    for name, training in self._trainings.items():
      result = train.gather(
        harness.scores(
          training,
          zoo.tables,
          jnp.concatenate([runs.pairing_key] * len(allowed)),
          jnp.concatenate([runs.victim] * len(allowed)),
          rows,
          self._extraction.test_batch,
          self._extraction.width,
          train.global_mesh(),
        )
      )
      for i, method in enumerate(allowed):
        part = slice(i * len(runs.victim), (i + 1) * len(runs.victim))
        score = jax.tree.map(lambda leaf, part=part: leaf[part], result)
        seen = self._seen(place, spoils, believed[i], kept[i])
        records.append(self._record(place, offer, method, name, score, seen))
    return records

  def _seen(
    self, place: Place, spoils: Spoils, believed: jax.Array, kept: Harvest
  ) -> dict[str, list[Any]]:
    """What the server knows of the answers, a number a seed."""
    victim = self._zoo.victims[place.size]
    outputs = np.asarray(self._zoo.tables.pool_outputs[victim])

    def own(harvest: Harvest) -> Iterator[np.ndarray]:
      """Which answers are the victim's."""
      for inputs, targets, count in zip(
        np.asarray(harvest.inputs),
        np.asarray(harvest.targets),
        np.asarray(harvest.count),
        strict=True,
      ):
        # To the bit: sure models agree on sure images up to rounding.
        yield (outputs[inputs[:count]] == targets[:count]).all(-1)

    truths = list(own(spoils.harvest))
    billed = np.asarray(spoils.bill.queries)
    return {
      'rate': (np.asarray(spoils.own) / np.maximum(billed, 1)).tolist(),
      'kept': [float(truth.mean()) if truth.size else 0.0 for truth in own(kept)],
      'auc': [
        _auc(truth, np.asarray(each)[: len(truth)])
        for truth, each in zip(truths, believed, strict=True)
      ],
      'probes': np.asarray(spoils.probes).tolist(),
    }

  def _record(
    self,
    place: Place,
    offer: Offer,
    method: str,
    surrogate: str,
    score: harness.Score,
    seen: dict[str, list[Any]],
  ) -> Rung:
    finite = np.isfinite(score.loss)
    defended = place.target is not None

    def scored(values: np.ndarray) -> list[float | None]:
      return [float(x) if ok else None for x, ok in zip(values, finite, strict=True)]

    return Rung(
      zoo=self._zoo.seed,
      size=place.size,
      victim=self._zoo.profile.names[self._zoo.victims[place.size]],
      defense=place.defense,
      target=place.target,
      value=offer.value if defended and math.isfinite(offer.value) else None,
      goodput=offer.goodput,
      attack=place.attack,
      demix=method,
      surrogate=surrogate,
      queries=place.queries,
      best_rate=None if place.attack == _EXPLICIT else offer.best[place.size][0],
      accuracy=scored(np.asarray(score.accuracy)),
      fidelity=scored(np.asarray(score.fidelity)),
      **seen,
    )


def runs_of(zoo: Zoo, place: Place, offer: Offer, key: jax.Array, count: int) -> Run:
  """So many runs of a rung; their keys follow from the rung and their number.

  Args:
    zoo: whose rung it is.
    place: the rung.
    offer: of its defense.
    key: consumed; equal for rungs whose runs are to be paired.
    count: how many.

  Returns:
    The runs, fields of shape [count].
  """
  pairing, serving = jax.random.split(key)
  seeds = jnp.arange(count, dtype=jnp.uint32)
  number = np.uint32(zlib.crc32(repr(tuple(place)).encode()))
  fold_in = jax.vmap(jax.random.fold_in, (None, 0))
  every = functools.partial(jnp.broadcast_to, shape=seeds.shape)
  informed = plan.entry(zoo.experiment.config, place.attack).role == 'informed'
  told = offer.best[place.size][1] if informed else Spec.of(jnp.inf, -jnp.inf)
  return Run(
    victim=every(jnp.int32(zoo.victims[place.size])),
    value=every(jnp.float32(offer.value)),
    query_budget=every(jnp.int32(place.queries)),
    latency_budget_ms=every(jnp.float32(zoo.latency_budget_ms(place.size))),
    told=jax.tree.map(every, told),
    pairing_key=fold_in(pairing, seeds),
    serving_key=fold_in(jax.random.fold_in(serving, number), seeds),
  )


@functools.partial(jax.jit, static_argnames='method')
def _believed(
  method: str, keys: jax.Array, harvests: Harvest, view: demix.View
) -> jax.Array:
  def one(row: tuple[jax.Array, Harvest]) -> jax.Array:
    return demix.METHODS[method].believe(*row, view)

  return train.over_population(one, (keys, harvests))


def _auc(truth: np.ndarray, believed: np.ndarray) -> float | None:
  if truth.all() or not truth.any():
    return None
  return float(roc_auc_score(truth, believed))
