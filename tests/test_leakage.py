"""Kernels: exact against a slow reference, and against what is drawn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from psml_jax import defenses, goodput, leakage, routers
from psml_jax.core import Spec
from tests import references

# Ties in either field, twins (2 and 3), dominated models (4 and 6).
ZOO = references.make_profile(
  [0.5, 0.6, 0.7, 0.7, 0.6, 0.8, 0.5], [2.0, 3.0, 5.0, 5.0, 5.0, 9.0, 9.0]
)
SPECS = Spec.of(
  [0.5, 0.55, 0.6, 0.7, 0.66, 0.8, 0.85, 0.4, -np.inf, np.inf, 0.6, 0.62],
  [9.0, 6.0, 3.0, 5.0, 20.0, 9.0, 9.0, 1.0, np.inf, 7.0, -np.inf, 2.5],
)
NOISES = ['laplace', 'gaussian', 'uniform_noise', 'laplace_tighten', 'laplace_loosen']
NOISES += ['laplace_log', 'laplace_step', 'best_effort', 'quantised']
SCALE = 0.15
CAPS = np.array([0.1, 0.5, 0.2, 0.3, 1.0, 0.05, 0.25])
OTHERS = {
  'refusal': ('refusal', 0.3, {}),
  'refuse': ('capped', 0.3, {}),
  'nearest': ('capped', 0.3, {'rest': 'nearest'}),
  'least': ('capped', 1 / 7, {'rest': 'nearest'}),
  'caps': ('capped', CAPS, {}),
  'caps_nearest': ('capped', CAPS, {'rest': 'nearest'}),
  'protect': ('capped', 0.2, {'protect': ('m2', 'm5')}),
  'protect_nearest': ('capped', 0.2, {'protect': ('m2', 'm5'), 'rest': 'nearest'}),
  'corners': ('capped_corners', 0.3, {}),
}
MEMORYLESS = {name: (name, SCALE, {}) for name in NOISES} | OTHERS
DRAWS = 1_000_000


def made(name):
  mechanism, value, fields = MEMORYLESS[name]
  return defenses.defended(ZOO, mechanism, value, **fields)


def below(name, x):
  """The distribution function of a law of scale 1, in double precision."""
  if name == 'gaussian':
    return scipy.special.ndtr(x)
  if name == 'uniform_noise':
    return np.clip((x + 1) / 2, 0, 1)
  return np.where(x < 0, np.exp(-np.abs(x)) / 2, 1 - np.exp(-np.abs(x)) / 2)


def at_most(name, room, scale):
  """P(noise of a scale makes a field stricter by at most some room)."""
  x = room / scale
  if name == 'laplace_tighten':
    return np.where(x >= 0, 2 * below(name, np.abs(x)) - 1, 0.0)
  if name == 'laplace_loosen':
    return np.where(x >= 0, 1.0, 2 * below(name, -np.abs(x)))
  return below(name, x)


def step(knots, value, side):
  """The frontier's step around a value, the nearest one outside."""
  for low, high in zip(knots, knots[1:]):
    if value < high or (value == high and side == 'left'):
      return high - low
  return knots[-1] - knots[-2]


def fields_laws(name, spec):
  """P(new minimum accuracy <= each), P(new maximum latency >= each), f64[M]."""
  a, ms = (x.astype(np.float64) for x in references.arrays(ZOO))
  accuracy, latency = (np.float64(x) for x in spec)
  accuracy, latency = max(accuracy, a.min()), min(latency, ms.max())
  if name == 'quantised':
    lines = a.min() + SCALE * np.ptp(a) * np.arange(20)
    accuracy = np.append(lines[lines >= accuracy - 1e-9], np.inf)[0]
    lines = ms.max() - SCALE * np.ptp(ms) * np.arange(20)
    latency = np.append(lines[lines <= latency + 1e-9], -np.inf)[0]
    return (accuracy <= a) * 1.0, (latency >= ms) * 1.0
  widths = SCALE * np.ptp(a), SCALE * np.ptp(ms)
  room = latency - ms
  if name == 'laplace_log':
    widths = widths[0], SCALE * np.ptp(np.log(ms))
    with np.errstate(divide='ignore'):
      room = np.log(max(latency, 0)) - np.log(ms)
  if name == 'laplace_step':
    models = references.frontier(ZOO)
    knots = np.unique(a[models]), np.unique(ms[models])
    widths = (
      SCALE * step(knots[0], accuracy, 'left'),
      SCALE * step(knots[1], latency, 'right'),
    )
  return at_most(name, a - accuracy, widths[0]), at_most(name, room, widths[1])


def by_cells(name, spec):
  """The kernel behind noise: every cell of noised specs by itself."""
  a, ms = references.arrays(ZOO)
  size = len(ZOO)
  up, down = fields_laws(name, spec)
  edges_a, first_a = np.unique(a, return_index=True)
  edges_l, first_l = np.unique(ms, return_index=True)
  rows = np.diff(np.concatenate([[0], up[first_a], [1]]))
  columns = -np.diff(np.concatenate([[1], down[first_l], [0]]))
  law = np.zeros(size + 1)
  for row, accuracy in zip(rows, [*edges_a, np.inf], strict=True):
    for column, latency in zip(columns, [-np.inf, *edges_l], strict=True):
      models = references.feasible_set(ZOO, accuracy, latency)
      if not models:
        infeasible = 'best_effort' if name == 'best_effort' else 'refuse'
        models = [references.fallback(ZOO, latency, infeasible)]
      for model in models:
        law[model] += row * column / len(models)
  return law


def by_definition(name, spec):
  """The kernel of what does not move specs."""
  mechanism, value, fields = MEMORYLESS[name]
  size, law = len(ZOO), np.zeros(len(ZOO) + 1)
  models = references.feasible_set(ZOO, *spec)
  if mechanism == 'refusal':
    for model in models:
      law[model] = (1 - value) / len(models)
  elif mechanism == 'capped_corners':
    kept = [m for m in models if references.pareto_mask(ZOO)[m] and m != 3]
    for model in kept:
      twins = [2, 3] if model == 2 else [model]
      for twin in twins:
        law[twin] = min(value, 1 / len(kept)) / len(twins)
  else:
    caps = np.full(size, 1.0) if fields.get('protect') else np.full(size, value)
    for name in fields.get('protect', ()):
      caps[int(name[1:])] = value
    total = sum(caps[models])
    for model in models:
      law[model] = caps[model] / max(1, total)
    if fields.get('rest') == 'nearest':
      _, latency = references.arrays(ZOO)
      rest = [m for m in range(size) if m not in models]
      quick, slow = [], []
      for model in rest:
        (quick if latency[model] <= spec[1] else slow).append(model)
      order = []
      while quick:
        order.append(references.most_accurate_of(ZOO, quick))
        quick.remove(order[-1])
      for model in order + sorted(slow, key=lambda m: (latency[m], m)):
        law[model] = min(caps[model], max(0, 1 - law.sum()))
  law[-1] = 1 - law.sum()
  return law


def reference(name):
  slow = by_cells if name in NOISES else by_definition
  return np.array([slow(name, spec) for spec in references.each(SPECS)])


@pytest.mark.parametrize('name', MEMORYLESS)
def test_a_kernel_is_the_sum_over_all_cells(name):
  wanted = reference(name)
  np.testing.assert_allclose(wanted.sum(-1), 1, atol=1e-12)
  square = jax.tree.map(lambda field: field.reshape(3, 4), SPECS)
  found = leakage.interval(made(name), square)
  assert found.exact
  law = np.asarray(found.probability).reshape(12, -1)
  np.testing.assert_allclose(law, wanted, atol=2e-6)
  np.testing.assert_allclose(law.sum(-1), 1, atol=2e-6)


@pytest.mark.parametrize('policy', ['uniform', 'most_accurate', 'fastest'])
@pytest.mark.parametrize('infeasible', routers.INFEASIBLE)
def test_a_plain_routers_kernel(policy, infeasible):
  router = routers.POLICIES[policy](ZOO, infeasible=infeasible)
  choose = {
    'uniform': lambda models: models,
    'most_accurate': lambda models: [references.most_accurate_of(ZOO, models)],
    'fastest': lambda models: [references.fastest_of(ZOO, models)],
  }[policy]
  for law, spec in zip(leakage.kernel(router, SPECS), references.each(SPECS)):
    models = references.feasible_set(ZOO, *spec)
    models = (
      choose(models) if models else [references.fallback(ZOO, spec[1], infeasible)]
    )
    wanted = np.zeros(len(ZOO) + 1)
    wanted[models] = 1 / len(models)
    np.testing.assert_allclose(law, wanted, atol=1e-6)


def p_value(counts, laws):
  """Chi-squared over specs; answers that are expected less than 20 times are one."""
  statistic, freedom = 0.0, 0
  for seen, law in zip(counts, laws, strict=True):
    assert not seen[law < 1e-12].any()
    wanted = law / law.sum() * seen.sum()
    rare = wanted < 20
    seen, wanted = (np.append(x[~rare], x[rare].sum()) for x in (seen, wanted))
    kept = wanted > 1e-3
    statistic += np.sum((seen[kept] - wanted[kept]) ** 2 / wanted[kept])
    freedom += kept.sum() - 1
  return scipy.stats.chi2.sf(statistic, freedom)


@pytest.mark.parametrize('name', MEMORYLESS)
def test_a_million_routes_follow_the_kernel(name):
  """Each of the specs gets its share of them; 2 % of an answer more is noticed."""
  router = made(name)
  few = jax.tree.map(lambda field: field[jnp.array([1, 4, 6, 11])], SPECS)
  share = DRAWS // 4
  many = jax.tree.map(lambda field: jnp.repeat(field, share), few)
  models = np.asarray(router(jax.random.key(7), many).model).reshape(4, share)
  counts = np.stack([np.bincount(row % 8, minlength=8) for row in models])
  law = reference(name)[[1, 4, 6, 11]].clip(0)
  law[law < 1e-12] = 0  # what rounding leaves of nothing
  assert p_value(counts, law) > 1e-3
  if name == 'quantised':  # it draws from the feasible set alone
    law, counts = law[1:2], counts[1:2]
  place = np.argsort(law, -1)[:, -1:]
  planted = law.copy()
  np.put_along_axis(planted, place, 0.98 * np.take_along_axis(law, place, -1), -1)
  assert p_value(counts, planted) < 1e-3


def test_a_router_without_a_law_is_drawn_from():
  spec = Spec.of([0.5, 0.66], 9.0)
  plain = routers.uniform(ZOO)

  def unknown(key, spec):
    return plain(key, spec)

  found = leakage.interval(unknown, spec, key=jax.random.key(0), num_models=7)
  law = np.asarray(plain.kernel(spec))
  assert not found.exact
  assert ((found.low <= law) & (law <= found.high)).mean() >= 0.9
  assert 0 < (found.high - found.low)[law > 0].max() < 0.01
  np.testing.assert_array_equal(found.low[law == 0], 0)
  with pytest.raises(ValueError, match='key is None and num_models None; the law of'):
    leakage.kernel(unknown, spec)
  with pytest.raises(ValueError, match='key is of type uint32; it must be made by'):
    leakage.kernel(unknown, spec, key=jax.random.PRNGKey(0), num_models=7)


def test_purity_leaves_refusals_out():
  law = jnp.array([[0.25, 0.25, 0.5], [0.0, 0.0, 1.0]])
  np.testing.assert_allclose(leakage.purity(law, 0), [0.5, 0.0])


@pytest.mark.parametrize('name', NOISES)
def test_goodput_from_shared_cells_is_the_kernels(name):
  """Of clients on the models' numbers, between them, and outside of the range."""
  router = made(name)
  kept = leakage.Kept(ZOO, defenses.defended(ZOO, name, SCALE).router, SPECS)
  assert leakage.Kept.knows(router)
  found = kept(router)
  np.testing.assert_allclose(found, leakage.kept(ZOO, router, SPECS), atol=2e-6)
  met = np.asarray(ZOO.meets(SPECS))
  wanted = (reference(name)[:, :-1] * met).sum(-1)
  np.testing.assert_allclose(found, wanted, atol=2e-6)
  other = defenses.defended(ZOO, name, 2 * SCALE)
  np.testing.assert_allclose(
    kept(other), leakage.kept(ZOO, other, SPECS), atol=2e-6
  )  # one table for all strengths
  assert not leakage.Kept.knows(routers.uniform(ZOO))


@pytest.mark.parametrize('seed', range(3))
def test_the_uniform_measure_is_the_uniform_workload(seed):
  zoo = references.spaced_profile(seed, 12)
  measure = leakage.uniform(zoo)
  drawn = goodput.uniform_workload(jax.random.key(seed), zoo, 200_000)
  low, high = (np.asarray(x) for x in (zoo.accuracy, zoo.latency_ms))

  def moments(spec):
    x = (np.asarray(spec.min_accuracy) - low.min()) / np.ptp(low)
    y = (np.asarray(spec.max_latency_ms) - high.min()) / np.ptp(high)
    sizes = np.asarray(zoo.meets(spec)).sum(-1)
    return np.stack([x, y, x * x, x * y, y * y, sizes == 1, sizes > 3, x**3, y**3])

  exact = moments(measure.spec) @ measure.weight
  sample = moments(drawn)
  error = sample.std(1) / np.sqrt(sample.shape[1])
  np.testing.assert_array_less(np.abs(exact - sample.mean(1)), 4 * error + 1e-12)
  assert (error < 0.002).all()
  assert np.asarray(zoo.meets(measure.spec)).any(-1).all()


def test_a_region_without_area_is_the_last_corner():
  measure = leakage.uniform(references.make_profile([0.5, 0.5], [1.0, 3.0]))
  assert measure.weight.tolist() == [1.0]
  assert measure.spec.max_latency_ms.tolist() == [1.0]


def test_a_draw_is_whether_the_client_is_served():
  router = defenses.defended(ZOO, 'capped', 0.3)
  many = jax.tree.map(lambda field: jnp.repeat(field, 20_000), SPECS)
  seen = np.asarray(leakage.drawn(jax.random.key(1), ZOO, router, many))
  seen = seen.reshape(12, -1).mean(-1)
  np.testing.assert_allclose(seen, leakage.kept(ZOO, router, SPECS), atol=0.015)
