"""What every router and every defense must keep; new ones join the dicts below."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from psml_jax import _validate, defenses, routers
from psml_jax.core import Spec
from tests import queries, references

pytestmark = pytest.mark.usefixtures('strict')

ZOO = references.random_profile(7, 7)
ROUTERS = {
  'uniform': lambda: routers.uniform(ZOO),
  'uniform, best effort': lambda: routers.uniform(ZOO, infeasible='best_effort'),
  'most_accurate': lambda: routers.most_accurate(ZOO),
  'most_accurate, best effort': lambda: routers.most_accurate(
    ZOO, infeasible='best_effort'
  ),
  'fastest': lambda: routers.fastest(ZOO),
  'fastest, best effort': lambda: routers.fastest(ZOO, infeasible='best_effort'),
  'explicit': lambda: routers.explicit(3),
}
NOISE = {'laplace': defenses.laplace, 'gaussian': defenses.gaussian}
DEFENSES = {
  'identity': defenses.identity,
  **{name: lambda make=make: make(0.1, 2.0) for name, make in NOISE.items()},
  'refusal': lambda: defenses.refusal(0.3),
  'chain': lambda: defenses.chain(
    defenses.laplace(0.1, 2.0), defenses.identity(), defenses.gaussian(0.2, 1.0)
  ),
}
REPLIES = {
  'REPLIES', 'ReplyTransform', 'in_turn', 'labels_only', 'padded', 'rounded',
  'untouched',
}  # fmt: skip
REGISTRY = {'MECHANISMS', 'Deployment', 'Knob', 'Mechanism', 'deploy'}
COMBINE = {'SpecTransform', 'chain', 'defend', 'relative_scale'} | REPLIES | REGISTRY
# Held to their contracts by the registry that names them, in test_registries.
BY_MECHANISM = {
  'Budget', 'FallBack', 'Fieldwise', 'MemoryRouter', 'Selection', 'Sticky', 'budget',
  'capped', 'capped_corners', 'defended', 'exponential', 'fall_back', 'log_noise',
  'luckiest_rate', 'most_answers', 'noise', 'permute_and_flip', 'privacy', 'quantised',
  'step_noise', 'sticky',
}  # fmt: skip


def make_route(name):
  """A subject named 'router', or 'router + defense', as `(key, spec) -> Route`."""
  router, _, defense = name.partition(' + ')
  made = ROUTERS[router]()
  return defenses.defend(made, DEFENSES[defense]()) if defense else made


def make_transform(name):
  transform = DEFENSES[name]()
  return lambda key, spec: queries.apply(transform, key, spec)[0]


MAKERS = {
  **{name: (make_route, name) for name in ROUTERS},
  **{
    name: (make_route, name)
    for name in (
      *(f'uniform + {defense}' for defense in DEFENSES),
      'explicit + laplace',
    )
  },
  **{f'defense {name}': (make_transform, name) for name in DEFENSES},
}


@pytest.fixture(scope='module', params=MAKERS)
def subject(request):
  make, name = MAKERS[request.param]
  return make(name)


@pytest.fixture(scope='module')
def compilations():
  events = []

  def listen(event, duration, **kwargs):
    if event.endswith('backend_compile_duration'):
      events.append(event)

  jax.monitoring.register_event_duration_secs_listener(listen)
  return events


def make_spec(seed, num_specs=12):
  rng = np.random.default_rng(seed)
  return Spec.of(rng.uniform(-0.1, 1.1, num_specs), rng.uniform(-1, 18, num_specs))


def same(one, other):
  jax.tree.map(np.testing.assert_array_equal, one, other)


def close(one, other):
  """Equal up to the rounding of fused arithmetic; integers exactly."""

  def check(x, y):
    if np.issubdtype(x.dtype, np.integer):
      np.testing.assert_array_equal(x, y)
    else:
      np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)

  jax.tree.map(check, one, other)


def test_every_router_is_registered():
  public = {
    name
    for name, function in inspect.getmembers(routers, inspect.isfunction)
    if function.__module__ == routers.__name__
    and not name.startswith('_')
    and name != 'as_pytree'
  }
  assert public == {name.partition(',')[0] for name in ROUTERS}


def test_every_defense_is_registered():
  others = COMBINE | BY_MECHANISM
  assert set(defenses.__all__) - others == set(DEFENSES) - {'chain'}


def test_is_pure(subject):
  same(
    subject(jax.random.key(1), make_spec(0)), subject(jax.random.key(1), make_spec(0))
  )


def test_jit_equals_no_jit_and_keeps_the_shape(subject):
  key, spec = jax.random.key(1), jax.tree.map(lambda x: x.reshape(3, 4), make_spec(0))
  compiled = jax.jit(subject)(key, spec)
  with jax.disable_jit():
    close(compiled, subject(key, spec))
  for leaf in jax.tree.leaves(compiled):
    assert leaf.shape == (3, 4)


def test_vmap_equals_loop(subject):
  keys, spec = jax.random.split(jax.random.key(2), 12), make_spec(1)
  batched = jax.vmap(subject)(keys, spec)
  single = [
    subject(keys[i], jax.tree.map(lambda x, i=i: x[i], spec)) for i in range(12)
  ]
  close(batched, jax.tree.map(lambda *rows: jnp.stack(rows), *single))


def test_longer_batch_starts_the_same(subject):
  key, spec = jax.random.key(3), make_spec(2)
  longer, head = (
    jax.tree.map(lambda x: x[:5], batch) for batch in (subject(key, spec), spec)
  )
  close(longer, subject(key, head))


def test_second_call_does_not_compile(subject, compilations):
  jax.block_until_ready(subject(jax.random.key(5), make_spec(4)))
  key, spec = jax.random.key(6), make_spec(5)
  before = len(compilations)
  jax.block_until_ready(subject(key, spec))
  assert len(compilations) == before


def test_compilations_are_seen(compilations):
  before = len(compilations)
  jax.jit(lambda x: x + 1)(jnp.ones(17))
  assert len(compilations) > before


@pytest.mark.parametrize('name', [name for name in ROUTERS if name != 'explicit'])
def test_router_and_nan(name):
  router = make_route(name)
  for accuracy, latency in ((jnp.nan, 9.0), (0.1, jnp.nan), (jnp.nan, jnp.nan)):
    with pytest.raises(ValueError, match='is nan'):
      router(jax.random.key(0), Spec(np.array([accuracy]), np.array([latency])))
    spec = Spec(jnp.array([accuracy]), jnp.array([latency]))
    fastest = references.fastest_of(ZOO, range(len(ZOO)))
    for route in (router, jax.jit(router)):
      found = route(jax.random.key(0), spec)
      assert found.num_feasible.tolist() == [0]
      assert found.model.tolist() == [fastest if 'best' in name else -1]


@pytest.mark.parametrize('name', ROUTERS)
def test_no_spec_that_jax_holds_is_copied_to_the_host(name, monkeypatch):
  router, key = make_route(name), jax.random.key(0)
  spec = Spec(jnp.array([0.5, 0.6]), jnp.array([9.0, 4.0]))
  router(key, spec)

  def asarray(value, *arguments, _real=np.asarray, **settings):
    assert not isinstance(value, jax.Array), 'copied to the host'
    return _real(value, *arguments, **settings)

  with monkeypatch.context() as patch:
    for function in ('asarray', 'array', 'isnan'):
      patch.setattr(np, function, asarray)
    with pytest.raises(AssertionError, match='copied'):
      _validate.no_nan('min_accuracy', spec.min_accuracy)
    route = router(key, spec)
  assert len(route.model.tolist()) == 2


@pytest.mark.parametrize('name', DEFENSES)
def test_defended_router_and_nan(name):
  router = make_route(f'uniform + {name}')
  spec = Spec(jnp.array([jnp.nan]), jnp.array([9.0]))
  for route in (router, jax.jit(router)):
    assert route(jax.random.key(0), spec).model.tolist() == [-1]
  with pytest.raises(ValueError, match='is nan'):
    router(jax.random.key(0), Spec(np.array([np.nan]), np.array([9.0])))


@pytest.mark.parametrize('name', DEFENSES)
def test_infinite_spec_stays(name):
  spec = Spec.of([np.inf, -np.inf, 0.5], [np.inf, 3.0, -np.inf])
  kept = make_transform(name)(jax.random.key(0), spec)
  infinite = jax.tree.map(np.isinf, spec)
  same(jax.tree.map(np.isinf, kept), infinite)
  for field in ('min_accuracy', 'max_latency_ms'):
    where = getattr(infinite, field)
    same(getattr(kept, field)[where], getattr(spec, field)[where])


@pytest.mark.parametrize('traced', [False, True])
@pytest.mark.parametrize('name', NOISE)
def test_zero_noise_is_the_identity(name, traced):
  spec = make_spec(6, 200)
  spec = Spec(
    *(jnp.append(x, jnp.array([jnp.inf, 0.0])) for x in spec.__dict__.values())
  )

  def apply(scale):
    return queries.apply(NOISE[name](scale, scale), jax.random.key(8), spec)[0]

  noised = (jax.jit(apply) if traced else apply)(0.0)
  for field in ('min_accuracy', 'max_latency_ms'):
    assert getattr(noised, field).tobytes() == getattr(spec, field).tobytes()


@pytest.mark.parametrize('name', NOISE)
def test_zero_noise_routes_as_no_defense(name):
  router, key, spec = routers.uniform(ZOO), jax.random.key(9), make_spec(7)
  defended = defenses.defend(router, NOISE[name](0.0, 0.0))(key, spec)
  same(defended, defenses.defend(router, defenses.identity())(key, spec))
