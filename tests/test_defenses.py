"""The noise's distribution, and how defenses combine."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from psml_jax import defenses, routers
from psml_jax.core import Spec
from tests import queries, references
from tests.queries import OnSpecs

pytestmark = pytest.mark.usefixtures('strict')

FAMILIES = {
  'laplace': (defenses.laplace, scipy.stats.laplace),
  'gaussian': (defenses.gaussian, scipy.stats.norm),
}
ACCURACY_SCALE, LATENCY_SCALE = 0.07, 3.0
BAD_SCALES = (-0.1, -1e-9, np.nan, np.inf)
NUM_QUERIES = 20_000
ACCEPT, REJECT = 1e-3, 1e-9  # p-values


def noise(make, accuracy_scale, latency_scale, spec=(0.0, 0.0)):
  """What the transform adds to many copies of one spec, both fields."""
  batch = Spec.of(np.full(NUM_QUERIES, spec[0]), spec[1])
  transform = make(accuracy_scale, latency_scale)
  noised, _ = queries.apply(transform, jax.random.key(11), batch)
  return (
    np.asarray(noised.min_accuracy - batch.min_accuracy, np.float64),
    np.asarray(noised.max_latency_ms - batch.max_latency_ms, np.float64),
  )


def p_value(sample, family, scale):
  return scipy.stats.kstest(sample, family(0.0, scale).cdf).pvalue


@pytest.mark.parametrize('spec', [(0.0, 0.0), (0.8, 20.0)])
@pytest.mark.parametrize('name', FAMILIES)
def test_scale(name, spec):
  make, family = FAMILIES[name]
  samples = noise(make, ACCURACY_SCALE, LATENCY_SCALE, spec)
  for sample, scale in zip(samples, (ACCURACY_SCALE, LATENCY_SCALE)):
    assert p_value(sample, family, scale) > ACCEPT
    for wrong in (2 / 3, 3 / 2):
      assert p_value(sample, family, wrong * scale) < REJECT
      assert p_value(wrong * sample, family, scale) < REJECT


@pytest.mark.parametrize('name', FAMILIES)
def test_family(name):
  """The other family is rejected even at the same standard deviation."""
  make, family = FAMILIES[name]
  (other,) = (right for _, right in FAMILIES.values() if right is not family)
  for sample in noise(make, ACCURACY_SCALE, LATENCY_SCALE):
    assert p_value(sample, other, sample.std() / other.std()) < REJECT


@pytest.mark.parametrize('name', FAMILIES)
def test_noise_is_independent(name):
  """Of the other field and of the other queries, also in size."""
  accuracy, latency = noise(FAMILIES[name][0], 1.0, 1.0)
  for change in (lambda x: x, abs):
    a, b = change(accuracy), change(latency)
    for one, other in ((a, b), (a[:-1], a[1:]), (b[:-1], b[1:])):
      assert abs(np.corrcoef(one, other)[0, 1]) < 4 / np.sqrt(NUM_QUERIES)


@pytest.mark.parametrize('name', FAMILIES)
def test_one_field_alone(name):
  accuracy, latency = noise(FAMILIES[name][0], 0.0, 1.0)
  assert not accuracy.any()
  assert latency.all()


@pytest.mark.parametrize('bad', BAD_SCALES)
@pytest.mark.parametrize('name', FAMILIES)
def test_rejects_bad_scale(name, bad):
  make, _ = FAMILIES[name]
  with pytest.raises(ValueError, match=f'accuracy_scale is {bad}; .* finite and >= 0'):
    make(bad, 1.0)
  with pytest.raises(ValueError, match=f'latency_scale_ms is {bad}'):
    make(1.0, bad)


@pytest.mark.parametrize('name', FAMILIES)
def test_rejects_nan_spec(name):
  make, _ = FAMILIES[name]
  with pytest.raises(ValueError, match='max_latency_ms is nan'):
    queries.apply(
      make(1.0, 1.0), jax.random.key(0), Spec(jnp.float32(0), jnp.float32('nan'))
    )


@pytest.mark.parametrize('name', FAMILIES)
def test_traced_negative_scale_is_its_absolute_value(name):
  make, family = FAMILIES[name]
  samples = jax.jit(
    lambda b: queries.apply(
      make(b, b), jax.random.key(1), Spec.of(jnp.zeros(NUM_QUERIES), 0.0)
    )[0]
  )(-0.5)
  for sample in (samples.min_accuracy, samples.max_latency_ms):
    assert p_value(np.asarray(sample), family, 0.5) > ACCEPT


@pytest.mark.parametrize('name', FAMILIES)
def test_traced_nan_scale_is_refused(name):
  router = routers.uniform(references.random_profile(0, 5))
  spec = Spec.of(jnp.zeros(3), jnp.inf)

  @jax.jit
  def route(scale):
    return defenses.defend(router, FAMILIES[name][0](scale, 0.0))(
      jax.random.key(0), spec
    )

  assert route(jnp.nan).model.tolist() == [-1] * 3
  assert (route(0.0).model >= 0).all()


def test_relative_scale():
  zoo = references.random_profile(0, 9)
  accuracy, latency = references.arrays(zoo)
  for scale in (
    defenses.relative_scale(zoo, 0.25),
    jax.jit(defenses.relative_scale)(zoo, 0.25),
  ):
    np.testing.assert_allclose(scale, [np.ptp(accuracy) / 4, np.ptp(latency) / 4])
  assert float(jax.jit(defenses.relative_scale)(zoo, -1.0)[0]) < 0


@pytest.mark.parametrize('bad', BAD_SCALES)
def test_relative_scale_rejects(bad):
  with pytest.raises(ValueError, match=f'scale is {bad}'):
    defenses.relative_scale(references.random_profile(0, 3), bad)


def shift(by):
  return OnSpecs(
    lambda key, spec, state: (
      Spec.of(spec.min_accuracy + by, spec.max_latency_ms),
      state,
    ),
  )


def double():
  return OnSpecs(
    lambda key, spec, state: (
      Spec.of(spec.min_accuracy * 2, spec.max_latency_ms),
      state,
    ),
  )


def counter():
  """Adds to the latency how often it was called."""

  def apply(key, spec, state):
    return Spec.of(spec.min_accuracy, spec.max_latency_ms + state), state + 1

  return OnSpecs(apply, lambda: jnp.float32(0))


def run(transform, spec, state=None, key=None):
  key = jax.random.key(0) if key is None else key
  return queries.apply(transform, key, spec, state)


def test_chain_applies_the_first_first():
  spec = Spec.of(0.25, 1.0)
  assert float(run(defenses.chain(shift(0.5), double()), spec)[0].min_accuracy) == 1.5
  assert float(run(defenses.chain(double(), shift(0.5)), spec)[0].min_accuracy) == 1.0


def test_empty_chain_and_identity_change_nothing():
  spec = Spec.of(0.25, 1.0)
  for transform in (defenses.chain(), defenses.identity()):
    assert run(transform, spec)[0] is spec


def test_chain_keeps_every_state():
  transform = defenses.chain(counter(), shift(0.1), counter())
  spec = Spec.of(0.0, 0.0)
  first, state = run(transform, spec)
  second, state = run(transform, spec, state)
  assert (float(first.max_latency_ms), float(second.max_latency_ms)) == (0.0, 2.0)
  assert jax.tree.map(float, state) == (2.0, (), 2.0)


def test_chain_draws_each_noise_with_its_own_key():
  key, spec = jax.random.key(4), Spec.of(jnp.zeros(6), 0.0)
  one = defenses.gaussian(1.0, 1.0)
  chained, _ = run(defenses.chain(one, one), spec, key=key)
  step = spec
  for i in range(2):
    step, _ = run(one, step, key=jax.random.fold_in(key, i))
  np.testing.assert_allclose(chained.min_accuracy, step.min_accuracy, rtol=1e-6)
  np.testing.assert_allclose(chained.max_latency_ms, step.max_latency_ms, rtol=1e-6)
  single, _ = run(one, spec, key=jax.random.fold_in(key, 0))
  assert not np.allclose(chained.min_accuracy, 2 * single.min_accuracy)


def test_chained_noise_adds_its_variances():
  def chained(accuracy_scale, latency_scale):
    half = defenses.gaussian(accuracy_scale * 0.6, latency_scale * 0.6)
    return defenses.chain(
      half, defenses.gaussian(accuracy_scale * 0.8, latency_scale * 0.8)
    )

  for sample in noise(chained, 1.0, 1.0):
    assert p_value(sample, scipy.stats.norm, 1.0) > ACCEPT
    assert p_value(sample, scipy.stats.norm, 1.4) < REJECT


def test_defend_routes_the_transformed_spec():
  zoo = references.make_profile([0.5, 0.9], [1.0, 2.0])
  router = routers.fastest(zoo)
  route = defenses.defend(router, shift(-0.3))(
    jax.random.key(0), Spec.of([0.7, 0.9, 1.3], 9.0)
  )
  assert route.model.tolist() == [0, 1, -1]
  assert route.num_feasible.tolist() == [2, 1, 0]


def test_defend_moves_loose_specs_to_the_end_of_the_range():
  """The same feasible set without noise, and the same noise as at the end."""
  zoo = references.make_profile([0.5, 0.7, 0.9], [1.0, 2.0, 4.0])
  noise = defenses.laplace(*defenses.relative_scale(zoo, 0.3))
  router = defenses.defend(routers.uniform(zoo), noise)
  loose = [(-1e30, 2.0), (-np.inf, 2.0), (0.7, np.inf), (0.7, 1e30), (-1.0, 99.0)]
  ends = [(0.5, 2.0), (0.5, 2.0), (0.7, 4.0), (0.7, 4.0), (0.5, 4.0)]
  for one, other in zip(loose, ends):
    routes = [
      router(jax.random.key(0), Spec.of(np.full(500, a), b)) for a, b in (one, other)
    ]
    np.testing.assert_array_equal(routes[0].model, routes[1].model)
    assert (np.asarray(routes[0].model) < 0).any()


def test_defend_leaves_specs_that_ask_for_too_much():
  zoo = references.make_profile([0.5, 0.9], [1.0, 2.0])
  router = defenses.defend(routers.uniform(zoo), defenses.laplace(0.0, 0.0))
  route = router(jax.random.key(0), Spec.of([0.95, np.inf, 0.5, 0.5], [9, 9, 0.5, -9]))
  assert route.model.tolist() == [-1] * 4


def test_a_defended_router_can_be_defended():
  zoo = references.make_profile([0.5, 0.9], [1.0, 2.0])
  inner = defenses.defend(routers.fastest(zoo), shift(0.0))
  outer = defenses.defend(inner, defenses.gaussian(0.3, 0.3))
  specs = [Spec.of(np.full(200, 0.9), latency) for latency in (2.0, np.inf)]
  routes = [outer(jax.random.key(1), spec) for spec in specs]
  np.testing.assert_array_equal(routes[0].model, routes[1].model)


def test_noise_is_float32_under_x64():
  with jax.enable_x64(True):
    for make in (defenses.laplace, defenses.gaussian):
      spec, _ = run(make(0.1, 1.0), Spec.of(jnp.zeros(3), 1.0))
      assert spec.min_accuracy.dtype == spec.max_latency_ms.dtype == jnp.float32


@pytest.mark.parametrize('make', [defenses.laplace, defenses.gaussian])
def test_noise_rejects_a_key_of_the_old_kind(make):
  with pytest.raises(ValueError, match='key is of type uint32'):
    run(make(0.1, 1.0), Spec.of(0.5, 1.0), key=jax.random.PRNGKey(0))


def test_refusal_refuses_its_share_whatever_the_spec():
  router = routers.uniform(references.make_profile([0.5], [1.0]))
  spec = Spec.of(np.zeros(NUM_QUERIES), np.inf)
  for share in (0.0, 0.2, 1.0):
    route = defenses.defend(router, defenses.refusal(share))(jax.random.key(2), spec)
    refused = np.mean(np.asarray(route.model) < 0)
    assert abs(refused - share) <= 4 * np.sqrt(share * (1 - share) / NUM_QUERIES)


def test_refusal_makes_nothing_feasible():
  spec, _ = run(defenses.refusal(0.5), Spec.of(np.full(100, 2.0), -1.0))
  assert (np.asarray(spec.min_accuracy) >= 2.0).all()
  assert (np.asarray(spec.max_latency_ms) <= -1.0).all()


@pytest.mark.parametrize('bad', [-0.1, 1.5, np.nan])
def test_refusal_rejects_what_is_no_share(bad):
  with pytest.raises(ValueError, match=r'share is .*; share must be a fraction'):
    defenses.refusal(bad)


def test_defend_gives_noise_and_route_different_keys():
  keys = []

  def spy(key, spec, state):
    keys.append(key)
    return spec, state

  def router(key, spec):
    keys.append(key)
    return routers.explicit(0)(key, spec)

  key = jax.random.key(3)
  with jax.disable_jit():
    defenses.defend(router, OnSpecs(spy))(key, Spec.of(0.1, 1.0))
  data = {tuple(np.asarray(jax.random.key_data(k))) for k in (key, *keys)}
  assert len(data) == 3


def test_noise_makes_the_infeasible_feasible_and_the_reverse():
  zoo = references.make_profile([0.5], [1.0])
  router = defenses.defend(routers.uniform(zoo), defenses.laplace(0.1, 0.1))
  spec = Spec.of(np.repeat([0.45, 0.55], 500), 1.05)
  served = np.asarray(router(jax.random.key(0), spec).model).reshape(2, 500) >= 0
  assert (served.any(axis=1) & ~served.all(axis=1)).all()


@pytest.mark.parametrize(
  'transform', [counter(), defenses.chain(defenses.identity(), counter())]
)
def test_defend_rejects_state(transform):
  router = routers.uniform(references.make_profile([0.5], [1.0]))
  with pytest.raises(ValueError, match='transform .* has state'):
    defenses.defend(router, transform)


def test_chains_of_stateless_transforms_can_be_defenses():
  router = routers.uniform(references.make_profile([0.5], [1.0]))
  chained = defenses.chain(defenses.chain(), defenses.identity(), shift(0.0))
  route = defenses.defend(router, chained)(jax.random.key(0), Spec.of(0.5, 1.0))
  assert int(route.model) == 0
