"""The study of a live server: what its switches hide, and what they cost.

The zoo is profiled first over the wire, as its clients see it; then a server is started
for every switch, loaded, probed and stopped.
"""

import dataclasses
import os
import pathlib
import shutil
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from psml_jax import _device, _files, _validate, defenses, goodput, workloads, zoo
from psml_jax._validate import InputError
from psml_jax.core import Spec, ZooProfile
from psml_jax.experiments import workdir as workdir_files
from psml_jax.metrics import Interval, interval
from psml_jax.serving import arrivals, inventory, load, models, scores
from psml_jax.serving.config import parse
from psml_jax.serving.inventory import Leak
from psml_jax.serving.load import Offered, Seen
from psml_jax.serving.target import Target, listening

_DRAWS = 64
_LOOSE_MS = 20_000.0
_OUT_OF_REACH = 2.0


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
    gap_s: between two of them, at least; a slow server gets more, so that calm probes
      do not queue.
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
    samples_ms: of each, what was measured for it.
    hold_ms: what the paddings hold answers for; None until it is known.
    sizes: how much was asked.
    switches: all of them.
    seconds: of wall-clock time, over all calls.
    busy: processes that wanted a core when it began (the load average of a minute).
    device: where.
  """

  models: list[str]
  accuracy: list[float]
  wire_ms: list[float]
  samples_ms: list[list[float]]
  hold_ms: float | None
  sizes: Sizes
  switches: list[Switch]
  seconds: float
  busy: float
  device: str


SWITCHES = (
  'none',
  'padded',
  'padded early',
  'held',
  'rounded',
  'labels only',
  'capped',
)
"""`padded` holds answers to the client's deadline or `hold_ms`, `padded early` to a
little before that deadline, `held` all that goes out, refusals too, to `hold_ms`."""


def run(
  workdir: str,
  directory: str,
  *,
  data_dir: str | None = None,
  sizes: Sizes | None = None,
  switches: Sequence[str] = SWITCHES,
  capped: float = 0.45,
  seed: int = 0,
) -> Live:
  """Measures a live server of a trained zoo under every switch.

  live.json is written after each, and a switch that it has is not measured again.

  Args:
    workdir: of the experiment that trained the zoo.
    directory: where live.json lies, and the zoo with its profile of the wire.
    data_dir: where image files lie, for data sets that need them.
    sizes: how much is asked.
    switches: of `SWITCHES`; `none` comes first, for it says how long to hold answers.
    capped: the cap of the switch `capped`, a router that refuses.
    seed: of loads and specs.

  Returns:
    The study.

  Raises:
    ValueError: an unknown switch, or others before `none`.
    InputError: anything that cannot be served, or an extra that is missing.
  """
  for name in switches:
    _validate.one_of('switches', name, SWITCHES)
  root = _files.local('directory', directory)
  root.mkdir(parents=True, exist_ok=True)
  file, wired = root / 'live.json', root / 'wired'
  live = workdir_files.read_json(file, Live) if file.exists() else None
  done = {switch.name for switch in live.switches} if live else set()
  left = [name for name in dict.fromkeys(switches) if name not in done]
  if live and not left:
    return live
  if left and left[0] != 'none' and 'none' not in done:
    raise ValueError(f"switches has {left[0]!r} before 'none', which must be first")
  from psml_jax.serving import deployments

  with deployments.connected():
    if live is None:
      live = _profiled(workdir, wired, data_dir, sizes or Sizes())
      workdir_files.write_json(file, live)
    served = models.read(wired, parse({}), data_dir)
    for name in left:
      began = time.perf_counter()
      fields, probes = _switch(name, live, capped)
      print(f'{name}: {fields}', flush=True)
      found = _measured(name, fields, probes, live, wired, served, data_dir, seed)
      live = dataclasses.replace(
        live,
        switches=[*live.switches, found],
        hold_ms=_padding(live, found) if name == 'none' else live.hold_ms,
        seconds=live.seconds + time.perf_counter() - began,
      )
      workdir_files.write_json(file, live)
  return live


def _switch(name: str, live: Live, capped: float) -> tuple[dict[str, Any], list[str]]:
  """The server's fields of a switch, and what it is probed for."""
  hold_ms = live.hold_ms
  fastest = float(np.quantile(min(live.samples_ms, key=np.median), 0.9))
  early = {'least_ms': hold_ms, 'margin_ms': fastest}
  every = ['calm', 'tight', 'crowd', 'rushed', 'refusals']
  found: dict[str, tuple[dict[str, Any], list[str]]] = {
    'none': ({}, every),
    'padded': ({'reply': {'padded': {'least_ms': hold_ms}}}, every),
    'padded early': ({'reply': {'padded': early}}, every[:2]),
    'held': ({'limits': {'hold_ms': hold_ms}}, every),
    'rounded': ({'reply': {'rounded': {'decimals': 1}}}, every[:1]),
    'labels only': ({'reply': {'labels_only': {}}}, every[:1]),
    'capped': ({'defense': {'name': 'capped', 'value': capped}}, []),
  }
  return found[name]


def _measured(
  name: str,
  fields: Mapping[str, Any],
  probes: Sequence[str],
  live: Live,
  wired: pathlib.Path,
  served: models.Served,
  data_dir: str | None,
  seed: int,
) -> Switch:
  """Starts the server of a switch, loads it, and probes it."""
  profile, sizes = served.profile, live.sizes
  spec_key, draw_key, due_key = jax.random.split(jax.random.key(seed), 3)
  spec = workloads.make(sizes.workload, size=sizes.queries)(spec_key, profile)
  simulated = _simulated(wired, served, fields, draw_key, spec)
  loads: list[Loaded] = []
  with listening(wired, served, fields, data_dir) as target:
    _warm(target)
    for pattern, due_s in _patterns(due_key, sizes).items():
      offered = Offered.of(target.images, spec, due_s)
      loads.append(_loaded(pattern, profile, offered, target, simulated))
    leaks = _leaks(target, profile, live.samples_ms, sizes, probes)
  return Switch(name, dict(fields), loads, leaks)


def _profiled(
  workdir: str, wired: pathlib.Path, data_dir: str | None, sizes: Sizes
) -> Live:
  """Makes a work directory whose profile is of the wire."""
  began, busy = time.perf_counter(), os.getloadavg()[0]
  source = _files.local('workdir', workdir)
  served = models.read(source, parse({}), data_dir)
  shutil.rmtree(wired, ignore_errors=True)
  shutil.copytree(source, wired, ignore=shutil.ignore_patterns('serving', 'training'))
  with listening(wired, served, {}, data_dir) as target:
    _warm(target)
    sizes = dataclasses.replace(sizes, gap_s=max(sizes.gap_s, _pace(target)))
    offered = _probe(target, sizes.probes, _spec(_LOOSE_MS), sizes.gap_s)
    seen, model = target.answered(offered)
    took = inventory.clock(seen, offered.due_s)
    samples = [
      took[(model == i) & (seen.status == 200)].tolist()
      for i in range(len(served.profile))
    ]
  names = served.profile.names
  few = [name for name, each in zip(names, samples, strict=True) if len(each) < 10]
  if few:
    raise InputError(f'{few} answered fewer than 10 of {sizes.probes} probes; ask more')
  latency = [float(np.quantile(each, sizes.quantile)) for each in samples]
  accuracy = np.asarray(served.profile.accuracy, np.float64)
  zoo.write_profile(wired / 'profile.csv', ZooProfile(accuracy, latency, names))  # type: ignore[arg-type]
  return Live(
    list(names),
    accuracy.tolist(),
    latency,
    samples,
    None,
    sizes,
    [],
    time.perf_counter() - began,
    busy,
    _device.name(),
  )


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
  seen, model = target.answered(offered)
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
  samples: Sequence[Sequence[float]],
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
    seen, model, offered, labels = _answered(*target.answered(offered), offered, target)
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
    seen, model, offered, _ = _answered(*target.answered(offered), offered, target)
    took = inventory.clock(seen, offered.due_s)
    found.append(inventory.leak('latency, tight deadline', took, model))
  if 'crowd' in probes:
    offered = _probe(target, sizes.probes, loose, 6 * sizes.gap_s, sizes.together)
    seen, model, offered, _ = _answered(*target.answered(offered), offered, target)
    at = inventory.order(seen, offered.due_s)
    found.append(inventory.leak('order in a crowd', at, model))
  if 'rushed' in probes:
    limit = float(np.quantile(np.concatenate(samples), 0.5)) / 1e3
    offered = _probe(target, some, loose, sizes.gap_s, timeout_s=limit)
    seen, model = target.answered(offered)
    decided = model >= 0
    told = inventory.texts([f'{s} {t}' for s, t in zip(seen.status, seen.text)])
    found.append(inventory.leak('errors, short timeout', told[decided], model[decided]))
  if 'refusals' in probes:
    offered = _probe(target, some, loose, sizes.gap_s)
    asked = np.where(np.random.default_rng(0).random(some) < 0.5, _OUT_OF_REACH, 0.0)
    spec = Spec.of(asked, offered.spec.max_latency_ms)
    offered = offered._replace(spec=spec)
    seen, model = target.answered(offered)
    decided = np.isin(seen.status, (200, 412))
    took = inventory.clock(seen, offered.due_s)[decided]
    found.append(inventory.leak('latency: refused or not', took, (model >= 0)[decided]))
  return found


def _answered(
  seen: Seen, model: np.ndarray, offered: Offered, target: Target
) -> tuple[Seen, np.ndarray, Offered, np.ndarray]:
  """What was answered alone, and the true classes of its images."""
  at = np.flatnonzero((seen.status == 200) & (model >= 0))
  labels = target.labels[np.arange(len(model)) % len(target.labels)]
  texts = ('name', 'headers', 'text')
  some: dict[str, Any] = {
    field: [value[i] for i in at] if field in texts else value[at]
    for field, value in seen._asdict().items()
    if field != 'broken'
  }
  kept = Offered(
    offered.images[at],
    jax.tree.map(lambda field: field[at], offered.spec),
    offered.due_s[at],
    offered.timeout_s[at],
  )
  return Seen(**some), model[at], kept, labels[at]


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


def _pace(target: Target) -> float:
  """Seconds between probes that do not meet, for nine of ten answers twice over."""
  one = _probe(target, 1, _spec(_LOOSE_MS), 1.0)
  took = [inventory.clock(target.offer(one), one.due_s)[0] for _ in range(20)]
  return 2e-3 * float(np.quantile(took, 0.9))


def _padding(live: Live, plain: Switch) -> float:
  """Milliseconds that hide the slowest model's tail and what a busy server adds."""
  wire = max(float(np.quantile(each, 0.99)) for each in live.samples_ms)
  busy = max(loaded.p99_ms.mean for loaded in plain.loads)
  return float(np.ceil(1.5 * max(wire, busy)))
