"""The attacks' queries and answers, their bill, and what their code may import."""

import ast
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import psml_jax
from psml_jax import defenses, oracles, routers
from psml_jax.attacks import extraction, fingerprint
from psml_jax.core import Bill, Observation, Spec
from psml_jax.experiments import harness
from tests import references

KEY = jax.random.key(41)
ROOT = pathlib.Path(psml_jax.__file__).parent
FORBIDDEN = {
  'defenses',
  'experiments',
  'feasible',
  'oracles',
  'profiles',
  'routers',
  'zoo',
}
GROUND_TRUTH = {'Route', 'Router', 'Server', 'Transcript', 'ZooProfile'}


def test_anything_within():
  spec = extraction.anything_within(5.0)
  assert (float(spec.min_accuracy), float(spec.max_latency_ms)) == (0.0, 5.0)
  traced = jax.jit(extraction.anything_within)(7.0)
  assert float(traced.max_latency_ms) == 7.0
  with pytest.raises(ValueError, match='max_latency_ms is nan'):
    extraction.anything_within(np.nan)


def test_every_image_is_sent_once_at_most():
  inputs = np.asarray(extraction.choose_inputs(KEY, 50, 50))
  assert sorted(inputs) == list(range(50))
  assert inputs.dtype == np.int32
  assert inputs.tolist() != list(range(50))


def test_longer_draw_starts_the_same():
  long, short = (extraction.choose_inputs(KEY, 50, n) for n in (40, 9))
  np.testing.assert_array_equal(long[:9], short)


@pytest.mark.parametrize('num_queries', [0, -3, 1.5, True])
def test_choose_inputs_rejects_count(num_queries):
  with pytest.raises(ValueError, match=f'num_queries is {num_queries}'):
    extraction.choose_inputs(KEY, 5, num_queries)


def test_choose_inputs_rejects_small_pool():
  with pytest.raises(ValueError, match='pool_size is 5; it must be at least the 6'):
    extraction.choose_inputs(KEY, 5, 6)


@pytest.mark.parametrize('share', [0.0, 0.4, 1.0])
def test_harvest_matches_loop(share):
  rng = np.random.default_rng(0)
  served, inputs = rng.random(20) < share, rng.permutation(20).astype(np.int32)
  outputs = rng.random((20, 3)).astype(np.float32) * served[:, None]
  got = jax.jit(extraction.harvest)(
    jnp.asarray(inputs),
    Observation(jnp.asarray(served), jnp.asarray(outputs), jnp.zeros(20)),
  )
  kept = [i for i in range(20) if served[i]]
  assert int(got.count) == len(kept)
  np.testing.assert_array_equal(got.inputs[: len(kept)], inputs[kept])
  np.testing.assert_array_equal(got.targets[: len(kept)], outputs[kept])
  assert not got.targets[len(kept) :].any()


class CountingServer:
  """A live server with a till of its own, which no transcript feeds."""

  def __init__(self, router, num_models):
    self.requests, self.answers = 0, 0
    self._serve = oracles.live(router, [self._answer] * num_models, 2)

  def _answer(self, images):
    self.answers += 1
    return jnp.full((len(images), 2), 0.5)

  def __call__(self, key, inputs, spec, sent):
    self.requests += 1
    return self._serve(key, inputs, spec, sent)


@pytest.mark.parametrize('scale', [0.0, 0.2])
def test_attackers_bill_equals_the_servers_own_count(scale):
  profile = references.make_profile([0.4, 0.6, 0.9], [2.0, 4.0, 8.0])
  noise = defenses.laplace(*defenses.relative_scale(profile, scale))
  server = CountingServer(defenses.defend(routers.uniform(profile), noise), 3)
  machine = fingerprint.bisection(
    9.0, accuracy_resolution=0.01, latency_resolution_ms=0.5
  )
  image = jnp.zeros((1, 1, 1))
  with jax.disable_jit():  # its while loop then runs in Python, as the server must
    state, bill, log = harness.interrogate(KEY, machine, server, image, jnp.bool_(True))
  corner = machine.result(state)
  assert 0 < server.answers < server.requests
  for count in (bill, log):
    assert int(count.queries) == server.requests == int(corner.probes)
    assert int(count.served) == server.answers
  ask = oracles.client(server)
  specs = [corner.spec, extraction.anything_within(9.0), Spec.of(0.99, 9.0)]
  for i, spec in enumerate(specs * 3):
    observation = ask(jax.random.fold_in(KEY, 1000 + i), image, spec)
    bill = bill.charge(jnp.bool_(True), observation.served)
  assert int(bill.queries) == server.requests == int(corner.probes) + 9
  assert int(bill.served) == server.answers


def test_attackers_bill_equals_the_log_of_a_batch():
  profile = references.random_profile(0, 8)
  server = oracles.table(
    routers.uniform(profile), profile.latency_ms, jnp.full((8, 5, 2), 0.5)
  )
  rng = np.random.default_rng(0)
  spec = Spec.of(rng.random(300), rng.uniform(0, 18, 300))
  sent = jnp.asarray(rng.random(300) < 0.7)
  observation, transcript = server(KEY, jnp.zeros(300, jnp.int32), spec, sent)
  bill = Bill.zero().charge(sent, observation.served)
  log = Bill.zero().charge(transcript.sent, transcript.model >= 0)
  assert 0 < int(bill.served) < int(bill.queries) == int(sent.sum())
  jax.tree.map(np.testing.assert_array_equal, bill, log)


def path_of(module):
  """The file of a dotted name below psml_jax, or None if it names no module."""
  base = ROOT.parent.joinpath(*module.split('.'))
  for path in (base.with_suffix('.py'), base / '__init__.py'):
    if path.exists():
      return path
  return None


def imports_of(path):
  """What one file imports: pairs of a module and a name, None for all of it."""
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      yield from ((alias.name, None) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, f'{path} has a relative import'
      yield from ((node.module, alias.name) for alias in node.names)


def reached_from(paths):
  """All modules of psml_jax that the files import, directly or not, and the names.

  `from psml_jax import x` counts as an import of `psml_jax.x`.
  """
  todo, seen, modules, names = list(paths), set(), set(), set()
  while todo:
    path = todo.pop()
    if path in seen:
      continue
    seen.add(path)
    for module, name in imports_of(path):
      if module.split('.')[0] != 'psml_jax':
        modules.add(module.split('.')[0])
        continue
      inner = f'{module}.{name}'
      target = inner if name and path_of(inner) else module
      assert target != 'psml_jax', f'{path} imports the whole package'
      modules.add(target)
      names |= {name} if target == module else set()
      todo.append(path_of(target))
  return modules, names


def forbidden_in(modules):
  parts = {m.split('.')[1] for m in modules if m.startswith('psml_jax.')}
  return parts & FORBIDDEN


def test_attacks_know_neither_routers_nor_zoo_nor_oracles():
  modules, names = reached_from((ROOT / 'attacks').glob('*.py'))
  assert forbidden_in(modules) == set()
  assert 'importlib' not in modules
  assert names & GROUND_TRUTH == set()
  assert 'psml_jax.core' in modules


@pytest.mark.parametrize(
  ('source', 'expected'),
  [
    ('from psml_jax import routers', {'routers', 'feasible'}),
    ('import psml_jax.oracles', {'oracles'}),
    ('from psml_jax.routers import uniform', {'routers', 'feasible'}),
    ('def f():\n  from psml_jax.zoo import model', {'zoo'}),
    ('from psml_jax import goodput, pareto', set()),
  ],
)
def test_the_walk_sees_forbidden_imports(tmp_path, source, expected):
  path = tmp_path / 'attack.py'
  path.write_text(source)
  assert forbidden_in(reached_from([path])[0]) == expected
