"""Membership inference through the router, on every replicate of a zoo."""

import functools
import math
import pathlib
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from psml_jax import _compile, attacks, demix, leakage, threats
from psml_jax.attacks import canvass
from psml_jax.attacks.canvass import Answers
from psml_jax.core import Bill
from psml_jax.experiments import harness, plan
from psml_jax.experiments.harness import Run
from psml_jax.experiments.ladder.rungs import Place, runs_of
from psml_jax.experiments.ladder.zoo import Offer, Zoo
from psml_jax.experiments.threats import config as configs
from psml_jax.experiments.threats import replicates
from psml_jax.report.threats_records import Found, Inferred, Leak, Share
from psml_jax.threats import Detection, Shadows

FEW = 64
"""With fewer shadows all candidates share their deviations (Carlini et al. 2022)."""


class Asked(NamedTuple):
  """What came back from R replicates, each asked T times for each of N candidates.

  Attributes:
    answers: fields of leading axis R.
    probes: i32[R], queries before the candidates were sent.
    own: i32[R], answers that were the victim's.
  """

  answers: Answers
  probes: jax.Array
  own: jax.Array


class Inference:
  """Attacks the replicates of one zoo.

  Args:
    zoo: whose replicates they are.
    given: what the config says.
    offers: of a defense and a target.
    folder: of the replicates.
  """

  def __init__(
    self,
    zoo: Zoo,
    given: configs.Membership,
    offers: Callable[[str, float | None], Offer | None],
    folder: pathlib.Path,
  ) -> None:
    self._zoo = zoo
    self._given = given
    self._offers = offers
    self._folder = folder
    draw, self._fit_key, self._attack_key = jax.random.split(
      zoo.experiment.key('membership'), 3
    )
    self._candidates = replicates.candidates(
      zoo.experiment.images(), draw, given.replicates
    )
    self._shared = given.replicates - 1 < FEW
    config, profile, samples = (
      zoo.experiment.config,
      zoo.profile,
      zoo.tables.samples_ms,
    )
    times = max(given.repeats)
    resources = attacks.Resources(
      1, config.fingerprint.accuracy_resolution, config.fingerprint.latency_resolution
    )

    @_compile.jit('once', static_argnames=('attack', 'defense'))
    def every(attack: str, defense: str, outputs: jax.Array, runs: Run) -> Asked:
      registered, fields = attacks.configured(config.attacks, attack)
      made = attacks.make(registered, resources, **fields)
      before, last = canvass.parted(made)
      phases = attacks.Phases(
        (
          *before,
          canvass.canvass(last.spec, times=times, min_accuracy=last.min_accuracy),
        )
      )

      def one(each: tuple[jax.Array, Run]) -> Asked:
        found = harness.confront(
          phases,
          attacks.ATTACKS[registered].role,
          defense,
          config,
          profile,
          each[0],
          samples,
          each[1],
        )
        *probing, _ = found.bills
        probes = sum((bill.queries for bill in probing), start=Bill.zero().queries)
        return Asked(found.harvest, probes, found.answers[-1][each[1].victim])

      return jax.lax.map(one, (outputs, runs))

    self._every = every

  @property
  def size(self) -> int:
    """How many candidates there are."""
    return len(self._candidates.labels)

  @functools.cached_property
  def _replicates(self) -> replicates.Replicates:
    return replicates.make(
      self._zoo.experiment, self._candidates, self._fit_key, self._folder
    )

  def leaks(self) -> list[Leak]:
    """Every model of the zoo, named."""
    made, profile = self._replicates, self._zoo.profile
    return [
      Leak(
        model=name,
        accuracy=float(profile.accuracy[i]),
        latency_ms=float(profile.latency_ms[i]),
        held_out=float(made.accuracy[i].mean()),
        fit=float(made.fit[i].mean()),
        found=self._found(
          self._ratios(jnp.asarray(made.confidence[i])[:, None], i)[:, 0]
        ),
      )
      for i, name in enumerate(profile.names)
    ]

  def run(self, place: Place) -> list[Inferred]:
    """The records of an attack behind a defense.

    Empty where no value of the defense's knob keeps the target.
    """
    offer = self._offers(place.defense, place.target)
    if offer is None:
      return []
    zoo, given = self._zoo, self._given
    most = max(given.repeats)
    budget = place.queries + most * self.size  # The rest is for the probes.
    place = place._replace(queries=budget)
    runs = runs_of(zoo, place, offer, self._attack_key, given.replicates)
    outputs = jnp.asarray(self._replicates.outputs.swapaxes(0, 1))
    asked = self._every(place.attack, place.defense, outputs, runs)
    observed = jnp.where(
      asked.answers.served,
      threats.confidences(asked.answers.outputs, self._candidates.labels),
      jnp.nan,
    )
    victim = zoo.victims[place.size]
    ratios = {'victim': self._ratios(observed, victim)}
    reference = plan.entry(zoo.experiment.config, place.attack).role == 'reference'
    if not reference:
      responder = self._responders(offer, asked.answers)
      ratios['zoo'] = self._mixed(observed, responder)
    together = jax.vmap(threats.of_distinct)
    served = np.asarray(asked.answers.served)
    records = []
    for shadows, each in ratios.items():
      scores = np.asarray(together(each, observed))
      for times in (1,) if reference else given.repeats:
        records.append(
          Inferred(
            size=place.size,
            victim=zoo.profile.names[victim],
            defense=place.defense,
            target=place.target,
            value=offer.value
            if place.target is not None and math.isfinite(offer.value)
            else None,
            goodput=offer.goodput,
            attack=place.attack,
            shadows=shadows,
            repeats=times,
            queries=times + float(np.mean(asked.probes)) / self.size,
            answered=float(served[:, :times].any(1).mean()),
            own=float(np.sum(asked.own) / served.sum()) if served.any() else None,
            found=self._found(scores[:, times - 1]),
          )
        )
    return records

  def _ratios(self, observed: jax.Array, model: int) -> jax.Array:
    """f32[R, T, N], of answers that are taken for one model's."""
    confidence = jnp.asarray(self._replicates.confidence[model])
    member = jnp.asarray(self._candidates.member)
    return _single(observed, confidence, member, self._shared)

  def _mixed(self, observed: jax.Array, responder: jax.Array) -> jax.Array:
    """f32[R, T, N], of answers of models that are known with a probability."""
    confidence = jnp.asarray(self._replicates.confidence)
    member = jnp.asarray(self._candidates.member)
    return _mixture(observed, responder, confidence, member, self._shared)

  def _responders(self, offer: Offer, answers: Answers) -> jax.Array:
    """f32[R, M, T, N], by the law at the spec that was sent, and by the clock."""
    law = leakage.kernel(offer.router, answers.spec)[:, :-1]
    return _responders(answers.latency_ms, self._zoo.samples_ms, law)

  def _found(self, scores: jax.Array | np.ndarray) -> Found:
    rates = self._given.false_positive_rates
    found: Detection = threats.detection(
      np.asarray(scores), self._candidates.member, rates
    )
    return Found(
      at=list(rates),
      true_positive_rate=[Share.of(each) for each in found.true_positive_rate],
      auc=Share.of(found.auc),
    )


def _others(place: jax.Array, count: int) -> jax.Array:
  """The replicates without one."""
  each = jnp.arange(count - 1)
  return each + (each >= place)


@functools.partial(jax.jit, static_argnames='shared')
def _single(
  observed: jax.Array, confidence: jax.Array, member: jax.Array, shared: bool
) -> jax.Array:
  def one(each: tuple[jax.Array, jax.Array]) -> jax.Array:
    others = _others(each[0], len(member))
    known = Shadows(confidence[others], member[others])
    return threats.likelihood_ratios(each[1], known, shared=shared)

  return jax.lax.map(one, (jnp.arange(len(member)), observed))


@functools.partial(jax.jit, static_argnames='shared')
def _mixture(
  observed: jax.Array,
  responder: jax.Array,
  confidence: jax.Array,
  member: jax.Array,
  shared: bool,
) -> jax.Array:
  def one(each: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
    others = _others(each[0], len(member))
    known = Shadows(confidence[:, others], member[others])
    return threats.mixed_ratios(each[1], known, each[2], shared=shared)

  return jax.lax.map(one, (jnp.arange(len(member)), observed, responder))


@jax.jit
def _responders(
  latency_ms: jax.Array, samples_ms: jax.Array, law: jax.Array
) -> jax.Array:
  def one(each: tuple[jax.Array, jax.Array]) -> jax.Array:
    took, prior = each
    found = demix.responders(took.ravel(), samples_ms, prior)
    return found.reshape(-1, *took.shape)

  return jax.lax.map(one, (latency_ms, law))
