"""Adversarial examples that are made on surrogates and sent through the router."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from psml_jax import _compile, attacks, session, threats, train, zoo
from psml_jax.attacks import canvass
from psml_jax.attacks.base import Recorded
from psml_jax.core import Harvest, Spec
from psml_jax.experiments import harness, plan, zoo_stage
from psml_jax.experiments.harness import Run, Score, Tables
from psml_jax.experiments.ladder.rungs import Place, runs_of
from psml_jax.experiments.ladder.zoo import Offer, Zoo
from psml_jax.experiments.threats import config as configs
from psml_jax.report.threats_records import Fooled

KINDS = ('clean', 'again', 'noise', 'white_box', 'surrogate')
"""What is sent, in this order: every test image five times."""


class Made(NamedTuple):
  """Surrogates and what was made on them, of leading axis S.

  Attributes:
    score: of the surrogates.
    images: f32[S, N, H, W, C], adversarial; clean where the surrogate diverged.
    itself: f32[S], the share of them that fool the surrogate.
  """

  score: Score
  images: jax.Array
  itself: jax.Array


class Fooling:
  """Makes and sends adversarial examples for one zoo.

  Args:
    zoo: the zoo.
    given: what the config says.
    offers: of a defense and a target.
  """

  def __init__(
    self,
    zoo: Zoo,
    given: configs.Transfer,
    offers: Callable[[str, float | None], Offer | None],
  ) -> None:
    self._zoo = zoo
    self._given = given
    self._offers = offers
    self._harvest_key = zoo.experiment.key('extraction')
    self._noise_key, self._box_key, self._send_key, self._ascent_key = jax.random.split(
      zoo.experiment.key('transfer'), 4
    )
    config, profile, samples = (
      zoo.experiment.config,
      zoo.profile,
      zoo.tables.samples_ms,
    )
    assert config.extraction is not None
    self._extraction = config.extraction
    resources = attacks.Resources(
      max(config.extraction.query_budgets),
      config.fingerprint.accuracy_resolution,
      config.fingerprint.latency_resolution,
    )

    def confronted(
      attack: canvass.Canvass | attacks.Phases,
      role: str,
      defense: str,
      outputs: jax.Array,
      run: Run,
    ) -> session.Session:
      return harness.confront(
        attack, role, defense, config, profile, outputs, samples, run
      )

    @_compile.jit('once', static_argnames=('attack', 'defense'))
    def stolen(
      attack: str, defense: str, outputs: jax.Array, runs: Run
    ) -> tuple[Harvest, Spec]:
      registered, fields = attacks.configured(config.attacks, attack)
      made = attacks.make(registered, resources, **fields)
      before, last = canvass.parted(made)
      phases = attacks.Phases((*before, Recorded(last, 1)))
      role = attacks.ATTACKS[registered].role

      def one(run: Run) -> tuple[Harvest, Spec]:
        harvest, trail = confronted(phases, role, defense, outputs, run).harvest
        return harvest, Spec(trail.min_accuracy[0], trail.max_latency_ms[0])

      return jax.lax.map(one, runs)

    @_compile.jit('once', static_argnames=('named', 'defense'))
    def sent(named: bool, defense: str, outputs: jax.Array, runs: Run) -> jax.Array:
      role = 'reference' if named else 'informed'
      attack = canvass.canvass('anything' if named else 'told')

      def one(each: tuple[jax.Array, Run]) -> jax.Array:
        seen = confronted(attack, role, defense, *each).harvest
        classes = jnp.argmax(seen.outputs[0], axis=-1)
        return jnp.where(seen.served[0], classes, -1)

      return jax.lax.map(one, (outputs, runs))

    self._stolen, self._sent = stolen, sent

  @functools.cached_property
  def _models(self) -> list[zoo.Model]:
    own = self._zoo.experiment
    return list(zoo_stage.models_of(own, own.images()).values())

  def _answers(self, images: jax.Array | np.ndarray) -> np.ndarray:
    """f32[M, N, K], of the whole zoo."""
    shown = np.asarray(images)
    return np.stack([zoo.predict(model, shown) for model in self._models])

  @functools.cached_property
  def _noise(self) -> np.ndarray:
    """f32[M, N, K], the zoo's answers to test images with random signs added."""
    test = self._zoo.tables.test
    signs = jax.random.rademacher(self._noise_key, test.shape, jnp.float32)
    return self._answers(jnp.clip(test + self._given.epsilon * signs, 0, 1))

  @functools.cached_property
  def _white_box(self) -> dict[str, np.ndarray]:
    """Size -> the zoo's answers to what was made on the victim itself."""
    found = {}
    for size, victim in self._zoo.victims.items():
      key = jax.random.fold_in(self._box_key, victim)
      tables, model = self._zoo.tables, self._models[victim]
      made, _ = _on_model(model.module, model.variables, key, tables, self._given)
      found[size] = self._answers(made)
    return found

  def run(self, place: Place) -> list[Fooled]:
    """The record of a surrogate's attack behind a defense, one for all seeds.

    Empty where no value of the defense's knob keeps the target.
    """
    offer = self._offers(place.defense, place.target)
    if offer is None:
      return []
    own, tables = self._zoo, self._zoo.tables
    seeds = own.experiment.config.seeds
    runs = runs_of(own, place, offer, self._harvest_key, seeds)
    harvest, spec = self._stolen(place.attack, place.defense, tables.pool_outputs, runs)
    sending = runs_of(own, place, offer, self._send_key, seeds)
    fold_in = jax.vmap(jax.random.fold_in, (None, 0))
    made = train.gather(
      _on_surrogates(
        self._extraction.training(tables.pool_outputs.shape[-1]),
        tables,
        self._given,
        runs,
        fold_in(self._ascent_key, jnp.arange(seeds)),
        harvest,
        self._extraction.test_batch,
        self._extraction.width,
        train.local_mesh(),
      )
    )
    count, images = len(tables.test), made.images
    answers = self._answers(images.reshape(-1, *images.shape[2:]))
    fixed = [
      np.asarray(tables.test_outputs),
      np.asarray(tables.test_outputs),
      self._noise,
      self._white_box[place.size],
    ]
    outputs = np.stack(
      [
        np.concatenate([*fixed, each], axis=1)
        for each in answers.reshape(len(answers), seeds, count, -1).swapaxes(0, 1)
      ]
    )
    sending = dataclasses.replace(
      sending,
      told=spec,
      query_budget=jnp.full_like(sending.query_budget, outputs.shape[2]),
    )
    named = plan.entry(own.experiment.config, place.attack).role == 'reference'
    classes = self._sent(named, place.defense, jnp.asarray(outputs), sending)
    return [self._record(place, offer, made, np.asarray(classes))]

  def _record(
    self, place: Place, offer: Offer, made: Made, classes: np.ndarray
  ) -> Fooled:
    labels = np.asarray(self._zoo.tables.test_labels)
    by_kind = dict(zip(KINDS, np.split(classes, len(KINDS), axis=1), strict=True))
    clean = by_kind['clean']
    finite = np.isfinite(made.score.loss)

    def fooled(kind: str) -> np.ndarray:
      return np.asarray(threats.transfer_rate(clean, by_kind[kind], labels))

    def of_surrogate(values: np.ndarray) -> list[float | None]:
      return _known(np.where(finite, values, np.nan))

    defended = place.target is not None
    with np.errstate(invalid='ignore'):
      right = (clean == labels).sum(1) / (clean >= 0).sum(1)
    return Fooled(
      zoo=self._zoo.seed,
      size=place.size,
      victim=self._zoo.profile.names[self._zoo.victims[place.size]],
      defense=place.defense,
      target=place.target,
      value=offer.value if defended and math.isfinite(offer.value) else None,
      goodput=offer.goodput,
      attack=place.attack,
      queries=place.queries,
      accuracy=of_surrogate(np.asarray(made.score.accuracy)),
      fidelity=of_surrogate(np.asarray(made.score.fidelity)),
      itself=of_surrogate(np.asarray(made.itself)),
      right=_known(right),
      transfer=of_surrogate(fooled('surrogate')),
      white_box=_known(fooled('white_box')),
      noise=_known(fooled('noise')),
      again=_known(fooled('again')),
    )


def _known(values: np.ndarray) -> list[float | None]:
  return [float(x) if np.isfinite(x) else None for x in values]


def _made(
  module: nn.Module,
  variables: Any,
  key: jax.Array,
  tables: Tables,
  given: configs.Transfer,
) -> tuple[jax.Array, jax.Array]:
  """Adversarial test images of a model, and how many of them fool it: f32[]."""

  def logits_of(images: jax.Array) -> jax.Array:
    logits = module.apply(variables, images)
    assert isinstance(logits, jax.Array)
    return logits

  labels = tables.test_labels
  images = threats.pgd(
    key, logits_of, tables.test, labels, epsilon=given.epsilon, steps=given.steps
  )
  before, after = (logits_of(each).argmax(-1) for each in (tables.test, images))
  return images, threats.transfer_rate(before, after, labels)


_on_model = _compile.jit('surrogates', static_argnames=('module', 'given'))(_made)


@_compile.jit(
  'surrogates', static_argnames=('training', 'given', 'test_batch', 'width', 'mesh')
)
def _on_surrogates(
  training: train.Training,
  tables: Tables,
  given: configs.Transfer,
  runs: Run,
  keys: jax.Array,
  harvests: Harvest,
  test_batch: int,
  width: int,
  mesh: Mesh,
) -> Made:
  """Trains a surrogate a run, and makes adversarial examples on it."""

  def row(each: tuple[jax.Array, jax.Array, jax.Array, Harvest]) -> Made:
    pairing_key, key, victim, harvest = each
    variables, score = harness.steal(
      training, tables, pairing_key, victim, harvest, test_batch
    )
    images, itself = _made(training.module, variables, key, tables, given)
    usable = jnp.isfinite(images).all()
    return Made(score, jnp.where(usable, images, tables.test), itself)

  rows = (runs.pairing_key, keys, runs.victim, harvests)
  return train.over_population(row, rows, width=width, mesh=mesh)
