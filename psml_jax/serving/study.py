"""The study of a live server: what its switches hide, and what they cost.

The zoo is profiled first over the wire, as its clients see it; then a server is started
for every switch, loaded, probed and stopped.
"""

import asyncio
import dataclasses
import pathlib
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from psml_jax import _device, _files, defenses, goodput, workloads, zoo
from psml_jax._validate import InputError
from psml_jax.core import Spec, ZooProfile
from psml_jax.metrics import Interval, interval
from psml_jax.serving import arrivals, inventory, job, load, models, scores, vault
from psml_jax.serving.config import parse
from psml_jax.serving.inventory import Leak
from psml_jax.serving.load import Offered, Seen

_DRAWS = 64
_LOOSE_MS = 20_000.0
_OUT_OF_REACH = 2.0
FULL = ('calm', 'tight', 'crowd', 'rushed', 'refusals')
ANSWERS = ('calm',)


@dataclasses.dataclass(frozen=True)
class Sizes:
  """How much is asked of every server.

  Attributes:
    queries: of each pattern of the load.
    rate: of the load, queries a second in the mean.
    share: of the time that bursts are on.
    burst_s: how long one is, seconds in the mean.
    workload: of `workloads.WORKLOADS`.
    probes: of the inventory's calm queries; the others are fractions of it.
    gap_s: between two of them.
    together: queries of a crowd.
    quantile: of a model's latencies over the wire, which its profile promises.
  """

  queries: int = 200
  rate: float = 20.0
  share: float = 0.25
  burst_s: float = 0.5
  workload: str = 'uniform'
  probes: int = 400
  gap_s: float = 0.03
  together: int = 6
  quantile: float = 0.9


@dataclasses.dataclass(frozen=True)
class Loaded:
  """One load on one server.

  Attributes:
    pattern: 'poisson' or 'bursts'.
    offered: queries.
    served: of them; `refused`, `missed`, `in_doubt` and `turned_away` likewise, see
      `servers.http.Ledger`.
    logged: queries of the load in the operator's journal.
    simulated: goodput of the same defense and specs by `psml_jax.goodput`.
    by_profile: see `scores.Score`; so are the others.
  """

  pattern: str
  offered: int
  served: int
  refused: int
  missed: int
  in_doubt: int
  turned_away: int
  logged: int
  simulated: Interval
  by_profile: Interval
  by_clock: Interval
  p50_ms: Interval
  p99_ms: Interval


@dataclasses.dataclass(frozen=True)
class Switch:
  """A server with one switch on.

  Attributes:
    name: of the switch.
    fields: of the server's config.
    loads: on it.
    leaks: through it.
  """

  name: str
  fields: dict[str, Any]
  loads: list[Loaded]
  leaks: list[Leak]


@dataclasses.dataclass(frozen=True)
class Live:
  """The study, in live.json.

  Attributes:
    models: names of the zoo.
    accuracy: of each, a fraction.
    wire_ms: of each, the latency that its profile promises over the wire.
    median_ms: of each, over the wire.
    sizes: how much was asked.
    switches: all of them.
    seconds: of wall-clock time.
    busy: processes that wanted a core when it began (the load average of a minute).
    device: where.
  """

  models: list[str]
  accuracy: list[float]
  wire_ms: list[float]
  median_ms: list[float]
  sizes: Sizes
  switches: list[Switch]
  seconds: float
  busy: float
  device: str


@dataclasses.dataclass
class Target:
  """A server that listens, and what its client has to send."""

  url: str
  key: str
  vault: pathlib.Path
  images: np.ndarray
  labels: np.ndarray
  num_classes: int

  def offer(self, offered: Offered) -> tuple[Seen, np.ndarray]:
    """What a client sees of a load, and which models answered."""
    seen = asyncio.run(
      load.offer(self.url, self.key, offered, num_classes=self.num_classes)
    )
    return seen, load.models(seen.name, vault.read(self.vault))


def run(
  workdir: str,
  directory: str,
  *,
  data_dir: str | None = None,
  sizes: Sizes | None = None,
  capped: float = 0.45,
  seed: int = 0,
) -> Live:
  """Measures a live server of a trained zoo under every switch.

  Args:
    workdir: of the experiment that trained the zoo.
    directory: where the servers keep what is theirs; anew, if it exists.
    data_dir: where image files lie, for data sets that need them.
    sizes: how much is asked.
    capped: the cap of the switch `capped`, a router that refuses.
    seed: of loads and specs.

  Returns:
    The study.

  Raises:
    InputError: anything that cannot be served, or an extra that is missing.
  """
  began, sizes, busy = time.perf_counter(), sizes or Sizes(), _busy()
  keys = jax.random.split(jax.random.key(seed), 3)
  wired = _files.local('directory', directory)
  samples = _wire(workdir, wired, data_dir, sizes)
  served = models.read(wired, parse({}), data_dir)
  profile = served.profile
  spec = workloads.make(sizes.workload, size=sizes.queries)(keys[0], profile)
  found: list[Switch] = []

  def measure(name: str, fields: Mapping[str, Any], probes: Sequence[str]) -> Switch:
    print(f'{name}: {dict(fields)}', flush=True)
    loads: list[Loaded] = []
    leaks: list[Leak] = []

    def wait(target: Target) -> None:
      _warm(target)
      simulated = _simulated(wired, served, fields, keys[1], spec)
      for pattern, due_s in _patterns(keys[2], sizes).items():
        offered = Offered.of(target.images, spec, due_s)
        loads.append(_loaded(pattern, profile, offered, target, simulated))
      leaks.extend(_leaks(target, profile, samples, sizes, probes))

    serve(wired, served, fields, wait, data_dir)
    found.append(Switch(name, dict(fields), loads, leaks))
    return found[-1]

  plain = measure('none', {}, FULL)
  hold_ms = _padding(samples, plain)
  margin_ms = float(np.quantile(np.concatenate(samples), 0.1))
  measure('padded', {'reply': {'padded': {'least_ms': hold_ms}}}, FULL)
  early = {'least_ms': hold_ms, 'margin_ms': margin_ms}
  measure('padded early', {'reply': {'padded': early}}, ('calm', 'tight'))
  measure('held', {'limits': {'hold_ms': hold_ms}}, FULL)
  measure('rounded', {'reply': {'rounded': {'decimals': 1}}}, ANSWERS)
  measure('labels only', {'reply': {'labels_only': {}}}, ANSWERS)
  measure('capped', {'defense': {'name': 'capped', 'value': capped}}, ())
  return Live(
    list(profile.names),
    np.asarray(profile.accuracy, float).tolist(),
    np.asarray(profile.latency_ms, float).tolist(),
    [float(np.median(each)) for each in samples],
    sizes,
    found,
    time.perf_counter() - began,
    busy,
    _device.name(),
  )


def serve(
  workdir: pathlib.Path,
  served: models.Served,
  fields: Mapping[str, Any],
  use: Callable[[Target], None],
  data_dir: str | None = None,
) -> None:
  """Starts a server, has it used, and stops it.

  Args:
    workdir: of the zoo; the server's vault lies in it.
    served: the zoo, as `models.read` reads it.
    fields: of the server's config.
    use: called while it listens.
    data_dir: where image files lie.
  """
  port = job._free('127.0.0.1', 0)
  images = served.experiment.images()
  own = workdir / 'serving'

  def wait() -> None:
    use(
      Target(
        f'http://127.0.0.1:{port}/v2/models/{served.zoo.name}',
        (own / job._FIRST_KEY).read_text('ascii').strip(),
        own,
        np.asarray(images.test_x),
        np.asarray(images.test_y),
        images.num_classes,
      )
    )

  job.run(fields, workdir=str(workdir), data_dir=data_dir, port=port, wait=wait)


def _wire(
  workdir: str, wired: pathlib.Path, data_dir: str | None, sizes: Sizes
) -> list[np.ndarray]:
  """Makes a work directory whose profile is of the wire; each model's latencies."""
  source = _files.local('workdir', workdir)
  served = models.read(source, parse({}), data_dir)
  shutil.rmtree(wired, ignore_errors=True)
  shutil.copytree(source, wired, ignore=shutil.ignore_patterns('serving', 'training'))
  samples: list[np.ndarray] = []

  def measure(target: Target) -> None:
    _warm(target)
    offered = _probe(target, sizes.probes, _spec(_LOOSE_MS), sizes.gap_s)
    seen, model = target.offer(offered)
    took = inventory.clock(seen, offered.due_s)
    samples.extend(
      took[(model == i) & (seen.status == 200)] for i in range(len(served.profile))
    )

  serve(wired, served, {}, measure, data_dir)
  few = [n for n, s in zip(served.profile.names, samples, strict=True) if len(s) < 10]
  if few:
    raise InputError(f'{few} answered fewer than 10 of {sizes.probes} probes; ask more')
  latency = [float(np.quantile(each, sizes.quantile)) for each in samples]
  profile = ZooProfile(served.profile.accuracy, latency, served.profile.names)
  zoo.write_profile(wired / 'profile.csv', profile)
  return samples


def _simulated(
  workdir: pathlib.Path,
  served: models.Served,
  fields: Mapping[str, Any],
  key: jax.Array,
  spec: Spec,
) -> Interval:
  """Goodput of the same defense at the same specs, over the server's own draws."""
  config = served.experiment.config
  front = models.front(workdir, config, served.profile, parse(fields))
  if front.learns:
    raise InputError('config.defense remembers its clients; a load is of one client')
  route = defenses.defend(front.router, front.defense)
  worth = jax.vmap(lambda key: goodput.goodput(served.profile, spec, route(key, spec)))
  return interval(np.asarray(worth(jax.random.split(key, _DRAWS))))


def _loaded(
  pattern: str,
  profile: ZooProfile,
  offered: Offered,
  target: Target,
  simulated: Interval,
) -> Loaded:
  seen, model = target.offer(offered)
  score = scores.score(profile, offered, seen, model)
  counts = dataclasses.asdict(score.counts)
  logged = int((model != load.UNDECIDED).sum())
  return Loaded(
    pattern, len(model), logged=logged, simulated=simulated, **counts, **_rest(score)
  )


def _rest(score: scores.Score) -> dict[str, Any]:
  return {name: value for name, value in score._asdict().items() if name != 'counts'}


def _patterns(key: jax.Array, sizes: Sizes) -> dict[str, np.ndarray]:
  poisson_key, bursts_key = jax.random.split(key)
  return {
    'poisson': arrivals.poisson(poisson_key, sizes.queries, sizes.rate),
    'bursts': arrivals.bursts(
      bursts_key, sizes.queries, sizes.rate, share=sizes.share, burst_s=sizes.burst_s
    ),
  }


def _leaks(
  target: Target,
  profile: ZooProfile,
  samples: Sequence[np.ndarray],
  sizes: Sizes,
  probes: Sequence[str],
) -> list[Leak]:
  """The inventory of one server: some queries a channel."""
  found: list[Leak] = []
  some = max(sizes.probes // 2, 10)
  tight = _spec(float(np.max(np.asarray(profile.latency_ms))))
  loose = _spec(_LOOSE_MS)
  if 'calm' in probes:
    offered = _probe(target, sizes.probes, loose, sizes.gap_s)
    seen, model, offered, labels = _answered(*target.offer(offered), offered, target)
    for channel, features in {
      'status': seen.status,
      'headers': inventory.texts(seen.headers),
      'label': inventory.label(seen, labels),
      'outputs': inventory.outputs(seen, labels),
      'latency': inventory.clock(seen, offered.due_s),
    }.items():
      found.append(inventory.leak(channel, features, model))
  if 'tight' in probes:
    offered = _probe(target, sizes.probes, tight, sizes.gap_s)
    seen, model, offered, _ = _answered(*target.offer(offered), offered, target)
    took = inventory.clock(seen, offered.due_s)
    found.append(inventory.leak('latency, tight deadline', took, model))
  if 'crowd' in probes:
    offered = _probe(target, sizes.probes, loose, 6 * sizes.gap_s, sizes.together)
    seen, model, offered, _ = _answered(*target.offer(offered), offered, target)
    at = inventory.order(seen, offered.due_s)
    found.append(inventory.leak('order in a crowd', at, model))
  if 'rushed' in probes:
    limit = float(np.quantile(np.concatenate(samples), 0.5)) / 1e3
    offered = _probe(target, some, loose, sizes.gap_s, timeout_s=limit)
    seen, model = target.offer(offered)
    decided = model >= 0
    told = inventory.texts([f'{s} {t}' for s, t in zip(seen.status, seen.text)])
    found.append(
      inventory.leak('errors, short timeout', told[decided], model[decided])
    )
  if 'refusals' in probes:
    offered = _probe(target, some, loose, sizes.gap_s)
    asked = np.where(np.random.default_rng(0).random(some) < 0.5, _OUT_OF_REACH, 0.0)
    spec = Spec(asked.astype(np.float32), np.asarray(offered.spec.max_latency_ms))
    offered = offered._replace(spec=spec)
    seen, model = target.offer(offered)
    decided = np.isin(seen.status, (200, 412))
    took = inventory.clock(seen, offered.due_s)[decided]
    found.append(
      inventory.leak('latency: refused or not', took, (model >= 0)[decided])
    )
  return found


def _answered(
  seen: Seen, model: np.ndarray, offered: Offered, target: Target
) -> tuple[Seen, np.ndarray, Offered, np.ndarray]:
  """What was answered alone, and the true classes of its images."""
  at = np.flatnonzero((seen.status == 200) & (model >= 0))
  labels = target.labels[np.arange(len(model)) % len(target.labels)]
  texts = {name: [getattr(seen, name)[i] for i in at] for name in _TEXTS}
  arrays = {f: getattr(seen, f)[at] for f in Seen._fields if f not in _TEXTS}
  kept = Offered(
    offered.images[at],
    jax.tree.map(lambda field: field[at], offered.spec),
    offered.due_s[at],
    offered.timeout_s[at],
  )
  return Seen(**texts, **arrays), model[at], kept, labels[at]


_TEXTS = ('name', 'headers', 'text')


def _probe(
  target: Target,
  count: int,
  spec: Spec,
  gap_s: float,
  together: int = 1,
  timeout_s: float = np.inf,
) -> Offered:
  due_s = arrivals.evenly(count, gap_s, together)
  return Offered.of(target.images, spec, due_s, timeout_s)


def _spec(max_latency_ms: float) -> Spec:
  """One that every model meets if the latency admits it."""
  return Spec(np.float32(0.0), np.float32(max_latency_ms))  # type: ignore[arg-type]


def _warm(target: Target) -> None:
  target.offer(_probe(target, 40, _spec(_LOOSE_MS), 0.05))


def _padding(samples: Sequence[np.ndarray], plain: Switch) -> float:
  """Milliseconds that hide the slowest model's tail and what a busy server adds."""
  wire = max(float(np.quantile(each, 0.99)) for each in samples)
  busy = max(loaded.p99_ms.mean for loaded in plain.loads)
  return float(np.ceil(1.5 * max(wire, busy)))


def _busy() -> float:
  import os

  return os.getloadavg()[0]
