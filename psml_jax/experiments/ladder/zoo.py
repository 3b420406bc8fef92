"""One zoo of a ladder: its models' answers, and every defense calibrated to it."""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.metrics import roc_auc_score

from psml_jax import _files, leakage, pareto, routers
from psml_jax.core import Router, Spec, ZooProfile
from psml_jax.experiments import extraction_stage, pipeline
from psml_jax.experiments.experiment import Experiment, latency_budget
from psml_jax.experiments.harness import Tables
from psml_jax.experiments.ladder.config import Config
from psml_jax.experiments.plane import curves
from psml_jax.report.ladder_records import Neighbours

_GAP = 2e-3


class Offer(NamedTuple):
  """A defense at the value that keeps a goodput, and what it leaves to take.

  Attributes:
    value: of the knob.
    goodput: a fraction.
    router: the zoo behind it.
    best: size of the victim -> rate and spec of the best-informed client.
    prior: size of the victim -> f32[M], how often each model answers that spec.
  """

  value: float
  goodput: float
  router: Router
  best: Mapping[str, tuple[float, Spec]]
  prior: Mapping[str, jax.Array]


@dataclasses.dataclass(frozen=True, eq=False)
class Zoo:
  """A zoo that was trained, profiled and asked for all its answers.

  Attributes:
    config: of the ladder.
    seed: of the zoo.
    experiment: whose work directory holds it.
  """

  config: Config
  seed: int
  experiment: Experiment

  @functools.cached_property
  def profile(self) -> ZooProfile:
    return self.experiment.profile()

  @functools.cached_property
  def _asked(self) -> Tables:
    return extraction_stage.tables_of(self.experiment)

  @functools.cached_property
  def tables(self) -> Tables:
    """Images, answers, and the latencies that the server draws, half of all."""
    return self._asked._replace(samples_ms=_half(self._asked.samples_ms, 0))

  @functools.cached_property
  def victims(self) -> dict[str, int]:
    """Size -> index of the model, of those that the config names."""
    every = pareto.victims(self.profile)
    return {size: every[size] for size in self.config.victims}

  @property
  def samples_ms(self) -> jax.Array:
    """f32[M, S], latencies as an informed client measured them: the other half."""
    known = _half(self._asked.samples_ms, 1)
    return self.profile.latency_ms[:, None] if known is None else known

  def latency_budget_ms(self, size: str) -> float:
    """What the attacker knows of its victim."""
    return latency_budget(self.profile, self.victims[size])

  @functools.cached_property
  def _clients(self) -> curves.Clients:
    its = dict(self.config.workload)
    key = jax.random.fold_in(self.experiment.key('leakage'), 0)
    return curves.clients(key, self.profile, {its.pop('name'): its})

  def behind(self, defense: str, target: float | None) -> Offer | None:
    """A defense calibrated to a goodput, or none at all where the target is None.

    None where no value of the defense's knob keeps the target.
    """
    if target is None:
      policy = self.experiment.config.policy
      return self._offer(0.0, 1.0, routers.POLICIES[policy](self.profile))
    fields = self.config.defenses[defense]
    key = jax.random.fold_in(self.experiment.key('leakage'), 1)
    curve = curves.Curve(self.profile, self._clients, defense, fields, key, _GAP)
    workload = self.config.workload['name']
    try:
      strength = curve.at_goodput(workload, target)
    except curves.MissedError:
      return None
    value = curve.value(strength)
    return self._offer(value, curve.goodput(strength)[workload], curve.router(value))

  def _offer(self, value: float, goodput: float, router: Router) -> Offer:
    places = list(self.victims.values())
    found = leakage.worst(self.profile, router, victims=places, gap=_GAP)
    best, prior = {}, {}
    for i, size in enumerate(self.victims):
      spec = jax.tree.map(lambda field, i=i: field[i], found.spec)
      best[size] = (float(found.rate[i]), spec)
      prior[size] = jnp.asarray(leakage.kernel(router, spec)[:-1], jnp.float32)
    return Offer(value, goodput, router, best, prior)

  def neighbours(self) -> list[Neighbours]:
    """How well a clock tells each model from the next slower one."""
    latency, measured = np.asarray(self.profile.latency_ms), self._asked.samples_ms
    samples = latency[:, None] if measured is None else np.asarray(measured)
    order = np.argsort(latency)
    found = []
    for fast, slow in zip(order[:-1], order[1:], strict=True):
      truth = np.repeat([0, 1], samples.shape[1])
      scores = np.concatenate([samples[fast], samples[slow]])
      found.append(
        Neighbours(
          self.seed,
          self.profile.names[fast],
          self.profile.names[slow],
          float(latency[slow] / latency[fast]),
          float(roc_auc_score(truth, scores)),
        )
      )
    return found


def _half(samples_ms: jax.Array | None, first: int) -> jax.Array | None:
  """Every second of a model's latencies, which are in their order; a single one."""
  if samples_ms is None or samples_ms.shape[1] < 2:
    return samples_ms
  return samples_ms[:, first::2]


def opened(
  config: Config,
  seed: int,
  path: pathlib.Path,
  data_dir: str | os.PathLike[str] | None,
) -> Zoo:
  """A zoo of a study, trained, profiled and asked where it is not yet.

  Args:
    config: of the study's ladder.
    seed: of the zoo.
    path: the study's work directory; the zoo's own is in it.
    data_dir: where image files are, for data sets that need them.
  """
  own = config.of_zoo(seed)
  directory = pipeline.run(
    own, path / f'zoo-{seed}', until='predictions', data_dir=data_dir
  )
  folder = None if data_dir is None else str(_files.local('data_dir', data_dir))
  return Zoo(config, seed, Experiment(own, directory, folder))
