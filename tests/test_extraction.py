"""Replays of a spec, and what the code of attacks may import."""

import ast
import dataclasses
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import psml_jax
from psml_jax import attacks
from psml_jax.attacks import extraction
from psml_jax.core import Knowledge, Observation, Spec

pytestmark = pytest.mark.usefixtures('strict')

KEY = jax.random.key(41)
ROOT = pathlib.Path(psml_jax.__file__).parent
FORBIDDEN = {
  'defenses',
  'experiments',
  'feasible',
  'profiles',
  'routers',
  'servers',
  'session',
  'zoo',
}
GROUND_TRUTH = {'Route', 'Router', 'Transcript', 'ZooProfile'}
KNOWLEDGE = Knowledge(jnp.float32(5), pool_size=50, num_classes=3)


def asked(which, **known):
  attack = extraction.replay(which, 4)
  return attack.ask(attack.init(KEY, dataclasses.replace(KNOWLEDGE, **known))).spec


def test_the_naive_attack_asks_for_anything_within_its_budget():
  spec = asked('anything')
  np.testing.assert_array_equal(spec.min_accuracy, np.zeros(4))
  np.testing.assert_array_equal(spec.max_latency_ms, np.full(4, 5.0))


def test_a_naive_client_may_ask_for_an_accuracy():
  resources = attacks.Resources(4, 1e-3, 1e-3)
  attack = attacks.make('naive', resources, min_accuracy=0.6)
  spec = attack.ask(attack.init(KEY, KNOWLEDGE)).spec
  np.testing.assert_array_equal(spec.min_accuracy, np.full(4, 0.6, np.float32))
  np.testing.assert_array_equal(spec.max_latency_ms, np.full(4, 5.0))
  with pytest.raises(ValueError, match=r'min_accuracy is 1\.5'):
    attacks.make('naive', resources, min_accuracy=1.5)


def test_a_replay_asks_for_what_it_was_told_or_has_found():
  found = Knowledge(jnp.float32(1), spec=Spec.of(0.6, 2.0))
  known = {'spec': Spec.of(0.7, 3.0), 'found': found}
  assert float(asked('told', **known).min_accuracy[0]) == pytest.approx(0.7)
  assert float(asked('found', **known).max_latency_ms[3]) == 2.0


@pytest.mark.parametrize('spec', ['told', 'found'])
def test_a_spec_that_is_not_known_is_named(spec):
  with pytest.raises(ValueError, match=f"spec is '{spec}', but the attacker knows no"):
    asked(spec)


def test_a_replay_wants_a_known_word():
  with pytest.raises(ValueError, match="spec is 'corner'; it must be one of"):
    extraction.replay('corner', 4)


def test_a_replay_asks_once():
  attack = extraction.replay('anything', 4)
  state = attack.init(KEY, KNOWLEDGE)
  query = attack.ask(state)
  assert query.sent.all()
  seen = Observation(jnp.ones(4, bool), jnp.ones((4, 3)), jnp.ones(4))
  assert not attack.ask(attack.tell(state, query, seen)).sent.any()


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
  served = rng.random(20) < share
  outputs = rng.random((20, 3)).astype(np.float32) * served[:, None]
  attack = extraction.replay('anything', 20)
  state = attack.init(KEY, KNOWLEDGE)
  inputs = np.asarray(attack.ask(state).inputs)
  seen = Observation(jnp.asarray(served), jnp.asarray(outputs), jnp.zeros(20))
  got = jax.jit(attack.harvest)(attack.tell(state, attack.ask(state), seen))
  kept = [i for i in range(20) if served[i]]
  assert int(got.count) == len(kept)
  np.testing.assert_array_equal(got.inputs[: len(kept)], inputs[kept])
  np.testing.assert_array_equal(got.targets[: len(kept)], outputs[kept])
  assert not got.targets[len(kept) :].any()


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


def test_attacks_know_neither_routers_nor_zoo_nor_servers():
  modules, names = reached_from((ROOT / 'attacks').glob('*.py'))
  assert forbidden_in(modules) == set()
  assert 'importlib' not in modules
  assert names & GROUND_TRUTH == set()
  assert 'psml_jax.core' in modules


@pytest.mark.parametrize(
  ('source', 'expected'),
  [
    ('from psml_jax import routers', {'routers', 'feasible'}),
    (
      'import psml_jax.servers',
      {'defenses', 'feasible', 'routers', 'servers'},
    ),
    ('from psml_jax.routers import uniform', {'routers', 'feasible'}),
    ('def f():\n  from psml_jax.zoo import model', {'zoo'}),
    ('from psml_jax import metrics, pareto', set()),
  ],
)
def test_the_walk_sees_forbidden_imports(tmp_path, source, expected):
  path = tmp_path / 'attack.py'
  path.write_text(source)
  assert forbidden_in(reached_from([path])[0]) == expected
