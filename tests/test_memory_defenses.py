"""Defenses with memory: whom they know, what they bound, and sybils against them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from psml_jax import (
  accounts,
  attacks,
  defenses,
  goodput,
  pareto,
  profiles,
  routers,
  servers,
  session,
)
from psml_jax.attacks import sybils
from psml_jax.core import Knowledge, Observation, Query, Spec
from psml_jax.experiments import deployment
from tests import references

ZOO = references.make_profile([0.4, 0.6, 0.7, 0.9], [2.0, 3.0, 4.0, 8.0])
KEY, SECRET = jax.random.split(jax.random.key(31))
OUTPUTS = np.random.default_rng(0).random((4, 40, 5)).astype(np.float32)


def budgeted(budget=2, cap=0.25, clients=5, outputs=OUTPUTS, zoo=ZOO):
  router = defenses.budget(zoo, budget, cap=cap, clients=clients)
  return servers.table(router, zoo.latency_ms, outputs)


def stuck(scale=0.1, zoo=ZOO, outputs=OUTPUTS, **fields):
  defense = defenses.sticky(*defenses.relative_scale(zoo, scale), **fields)
  return servers.table(routers.uniform(zoo), zoo.latency_ms, outputs, defense=defense)


def serve(server, query):
  return server.serve(server.init(SECRET), query)


def arrays(tree):
  keys = lambda x: jnp.issubdtype(x.dtype, jax.dtypes.prng_key)  # noqa: E731
  return [
    np.asarray(jax.random.key_data(x) if keys(x) else x) for x in jax.tree.leaves(tree)
  ]


def same(one, other):
  for a, b in zip(arrays(one), arrays(other), strict=True):
    np.testing.assert_array_equal(a, b)


class TestIdentities:
  def test_a_query_names_no_client_unless_told(self):
    assert Query.of([0, 1], Spec.of(0.5, 9.0)).client.tolist() == [-1, -1]
    bare = servers.table(routers.uniform(ZOO), ZOO.latency_ms, OUTPUTS)
    assert serve(bare, Query.of([0], Spec.of(0.5, 9.0)))[1].served.all()

  @pytest.mark.parametrize('make', [budgeted, stuck])
  def test_memory_wants_one(self, make):
    query = Query.of([0, 1], Spec.of(0.4, 9.0), client=[0, -1])
    with pytest.raises(ValueError, match=r'client\[1\] is -1; .* an id in \[0, '):
      serve(make(), query)
    unsent = dataclasses.replace(query, sent=jnp.array([True, False]))
    assert serve(make(), unsent)[2].sent.tolist() == [True, False]

  def test_a_live_server_wants_one_too(self):
    models = [lambda images: jnp.ones((1, 5))] * 4
    server = servers.live(defenses.budget(ZOO, 1), models, 5)
    query = Query.of(jnp.zeros((1, 2, 2, 1)), Spec.of(0.4, 9.0))
    with pytest.raises(ValueError, match=r'client\[0\] is -1'):
      serve(server, query)

  def test_it_has_room_for_so_many(self):
    query = Query.of([0, 1], Spec.of(0.4, 9.0), client=[4, 5])
    with pytest.raises(ValueError, match=r'client\[1\] is 5; .* \[0, 4\]'):
      serve(budgeted(), query)
    chained = defenses.chain(defenses.identity(), defenses.sticky(0.1, 1.0))
    server = servers.table(
      defenses.budget(ZOO, 1, clients=3), ZOO.latency_ms, OUTPUTS, defense=chained
    )
    with pytest.raises(ValueError, match=r'client\[0\] is 4; .* \[0, 2\]'):
      serve(server, query)
    assert serve(
      stuck(0.0),
      Query.of(
        [0],
        dataclasses.replace(
          query.spec, min_accuracy=jnp.float32(0.4), max_latency_ms=jnp.float32(9)
        ),
        client=2**31 - 1,
      ),
    )[1].served.all()

  @pytest.mark.parametrize('make', [budgeted, stuck])
  def test_traced_others_are_refused_billed_and_forgotten(self, make):
    server = make()
    ids = jnp.array([-1, -1, 0, -7], jnp.int32)
    query = Query.of(jnp.arange(4), Spec.of(0.0, 99.0), client=ids)
    state, seen, told = jax.jit(lambda query: serve(server, query))(query)
    assert not seen.served[jnp.array([0, 1, 3])].any()
    assert told.model[jnp.array([0, 1, 3])].tolist() == [-1] * 3
    assert int(state.log.queries) == 4
    assert bool(seen.served[2])
    for old, new in zip(arrays(server.init(SECRET).memory), arrays(state.memory)):
      if make is budgeted:
        np.testing.assert_array_equal(old[1:], new[1:])
        assert abs(new[0].sum() - old[0].sum() - 1) < 1e-6
      else:
        np.testing.assert_array_equal(old, new)

  def test_a_traced_one_past_the_memory_leaves_the_last_client_alone(self):
    server = budgeted()
    query = Query.of(jnp.arange(3), Spec.of(0.4, 9.0), client=jnp.array([5, 6, 99]))
    state, seen, _ = jax.jit(lambda query: serve(server, query))(query)
    assert not seen.served.any()
    same(state.memory, server.init(SECRET).memory)

  @pytest.mark.parametrize('name', ['naive', 'fingerprint', 'informed'])
  def test_attacks_that_name_nobody_are_one_client(self, name):
    attack = attacks.make(name, attacks.Resources(30, 4e-3, 4e-2))
    knowledge = Knowledge(
      jnp.float32(9), pool_size=40, num_classes=5, spec=Spec.of(0.9, 8.0)
    )
    server = budgeted(budget=3, cap=0.0)
    found = session.run(KEY, attack, server, server.init(SECRET), knowledge, budget=40)
    used = np.floor(np.asarray(found.state.memory[1]))
    assert used[0].sum() == int(found.log.served) > 0
    assert used.max() == 3
    assert not used[1:].any()


def law(feasible, over, cap):
  """The rule of a budget in plain words: f64[M + 1], a refusal last."""
  out, count = np.zeros(len(feasible) + 1), feasible.sum()
  if count:
    share = min(cap, 1 / count)
    left = feasible & ~over
    out[:-1][feasible & over] = share
    out[:-1][left] = (1 - share * (feasible & over).sum()) / max(left.sum(), 1)
  out[-1] = 1 - out[:-1].sum()
  return out


class TestBudget:
  @pytest.mark.parametrize(
    ('spec', 'over', 'cap'),
    [
      ((0.4, 8.0), [1, 0, 1, 0], 0.15),
      ((0.4, 8.0), [1, 0, 1, 1], 0.9),
      ((0.6, 8.0), [1, 1, 1, 1], 0.2),
      ((0.6, 8.0), [1, 1, 1, 1], 0.4),
      ((0.6, 8.0), [0, 1, 1, 1], 0.0),
      ((0.4, 8.0), [0, 0, 0, 0], 0.1),
      ((0.5, 4.0), [1, 0, 0, 0], 0.0),
      ((0.8, 4.0), [0, 0, 0, 0], 0.5),
    ],
  )
  def test_its_law_by_simulation(self, spec, over, cap):
    router = defenses.budget(ZOO, 2, cap=cap, clients=2)
    memory = jnp.stack([jnp.zeros(4), 2.0 * jnp.array(over) + 0.5])
    query = jax.tree.map(lambda x: x[0], Query.of([0], Spec.of(*spec), client=1))
    keys = jax.random.split(KEY, 200_000)
    model, after = jax.jit(
      jax.vmap(lambda key: router.route(key, query, memory), axis_size=200_000)
    )(keys)
    counts = np.bincount(np.asarray(model) % 5, minlength=5)
    assert (np.asarray(model) < 4).all()
    feasible = np.asarray(ZOO.meets(Spec.of(*spec)))
    want = law(feasible, np.array(over, bool), cap)
    possible = want > 1e-9
    assert not counts[~possible].any()
    if possible.sum() > 1:
      expected = want[possible] * len(keys)
      assert stats.chisquare(counts[possible], expected).pvalue > 1e-3
      bent = expected * np.linspace(0.98, 1.02, possible.sum())
      bent *= expected.sum() / bent.sum()
      assert stats.chisquare(counts[possible], bent).pvalue < 1e-3
    added = np.asarray(after) - np.asarray(memory)
    assert not added[:, 0].any()
    np.testing.assert_allclose(added[:, 1].sum(-1), np.asarray(model) >= 0)

  def test_table_and_live_remember_alike(self):
    rng = np.random.default_rng(3)
    query = Query.of(
      rng.integers(0, 40, 12),
      Spec.of(rng.uniform(0.3, 0.9, 12), 9.0),
      client=rng.integers(0, 2, 12),
      sent=rng.random(12) < 0.8,
    )
    models = [
      lambda images, m=m: jnp.asarray(OUTPUTS[m, images.astype(int).ravel()[:1]])
      for m in range(4)
    ]
    live = servers.live(defenses.budget(ZOO, 1, cap=0.3, clients=5), models, 5)
    images = dataclasses.replace(
      query, inputs=query.inputs.astype(jnp.float32)[:, None, None, None]
    )
    one, seen, told = serve(budgeted(budget=1, cap=0.3), query)
    other, live_seen, live_told = serve(live, images)
    same(
      (seen.served, seen.outputs, told),
      (live_seen.served, live_seen.outputs, live_told),
    )
    same(one.memory, other.memory)
    assert 0 < int(seen.served.sum()) < int(query.sent.sum())

  @pytest.mark.parametrize('accounts_', [1, 7, 40])
  def test_sybils_get_what_the_theorem_says_and_no_more(self, accounts_):
    """At the corner the bound is attained, so one answer too many a budget shows."""
    n, budget, cap, seeds = 600, 10, 0.2, 24
    server = budgeted(budget, cap, 64, np.ones((4, n, 1), np.float32))
    known = Knowledge(jnp.float32(9), pool_size=n, spec=pareto.corner(ZOO, 3))
    got = accounts.victim_answers(
      KEY,
      [sybils.spread('told', n, accounts_)],
      server,
      3,
      known,
      num_queries=n,
      seeds=seeds,
    )
    bound = defenses.most_answers(n, accounts_, budget, cap)
    deviation = np.sqrt((n - accounts_ * budget) * cap * (1 - cap) / seeds)
    assert abs(got.mean() - bound) < 4 * deviation < accounts_ * budget
    high = defenses.most_answers(n, accounts_, budget, cap, failure=1e-6)
    assert got.max() <= high
    row = accounts.table([accounts_], got, [bound])[0]
    assert row.answers.mean == got.mean()
    assert row.bound == bound

  def test_an_attacker_who_asks_for_more_models_gets_no_more(self):
    n = 400
    server = budgeted(5, 0.3, 4, np.ones((4, n, 1), np.float32))
    got = accounts.victim_answers(
      KEY,
      [sybils.spread('told', n, 4)],
      server,
      3,
      Knowledge(jnp.float32(9), pool_size=n, spec=Spec.of(0.7, 8.0)),
      num_queries=n,
      seeds=8,
    )
    assert got.mean() < defenses.most_answers(n, 4, 5, 0.3)

  @pytest.mark.parametrize('budget', [3, 2.5, 0.3])
  @pytest.mark.parametrize('n', [50, 1000])
  def test_the_bound_of_high_probability_is_one(self, budget, n):
    """Against draws of the theorem: the free answers, and a binomial of the rest."""
    k, cap, failure = 20, 0.1, 1e-3
    whole, part = int(budget), budget % 1
    rng = np.random.default_rng(0)
    some = rng.binomial(k, part, 10**6)
    free = np.minimum(n, k * whole + some)
    drawn = free + rng.binomial(n - free, cap)
    high = defenses.most_answers(n, k, budget, cap, failure=failure)
    assert np.mean(drawn > high) <= failure
    assert high <= min(n, 1.3 * np.quantile(drawn, 1 - failure) + 8)
    assert drawn.mean() <= defenses.most_answers(n, k, budget, cap) * (1 + 1e-3)
    assert high >= drawn.mean()

  def test_a_budget_between_two_whole_numbers_is_one_of_them(self):
    server = budgeted(2.3, 0.0, 1000)
    ask = Query.of(
      jnp.zeros(5000, int), Spec.of(0.9, 8.0), client=jnp.arange(5000) % 1000
    )
    served = np.asarray(serve(server, ask)[1].served).reshape(5, 1000).sum(0)
    assert set(served) == {2, 3}
    assert abs(served.mean() - 2.3) < 4 * np.sqrt(0.21 / 1000)

  def test_honest_clients_lose_at_most_what_the_cap_costs(self):
    zoo, cap = profiles.load('cifar10_published'), 0.25
    spec = goodput.uniform_workload(jax.random.key(5), zoo, 4000)
    spec = jax.tree.map(lambda field: field.reshape(40, 100), spec)
    capped = float(jnp.minimum(1, cap * zoo.meets(spec).sum(-1)).mean())
    outputs = np.ones((22, 1, 1), np.float32)

    def spread(budget):
      server = budgeted(budget, cap, 40, outputs, zoo)
      return accounts.spread(accounts.client_goodput(KEY, zoo, server, spec))

    assert spread(100).low == 1
    few, none = spread(5), spread(0)
    assert abs(none.mean - capped) < 4 * np.sqrt(0.25 / 4000)
    assert capped + 0.03 < few.mean < 0.99
    assert few.low < few.mean < few.high

  @pytest.mark.parametrize(
    ('fields', 'models'),
    [
      ({'budget': np.nan, 'cap': 0.0}, {-1}),
      ({'budget': -3.0, 'cap': np.nan}, {-1}),
      ({'budget': 0.0, 'cap': -0.5}, {-1}),
      ({'budget': 0.0, 'cap': 7.0}, {2, 3}),
      ({'budget': np.inf, 'cap': 0.0}, {2, 3}),
    ],
  )
  def test_what_traced_strengths_give(self, fields, models):
    query = Query.of(jnp.zeros(60, int), Spec.of(0.65, 9.0), client=0)
    told = jax.jit(lambda budget, cap: serve(budgeted(budget, cap), query)[2])(
      fields['budget'], fields['cap']
    )
    assert set(told.model.tolist()) == models

  def test_as_router_has_clients_take_turns(self):
    server = budgeted(1, 0.0, 4)
    spec = Spec.of(jnp.full(40, 0.9), 8.0)
    route = jax.jit(deployment.as_router(server))(KEY, spec)
    assert (route.model == 3).tolist() == [True] * 4 + [False] * 36

  @pytest.mark.parametrize(
    ('fields', 'message'),
    [
      ({'budget': -1}, 'budget is -1.0; budget must be >= 0'),
      ({'budget': np.nan}, 'budget is nan'),
      ({'cap': 1.5}, 'cap is 1.5; cap must be a fraction'),
      ({'clients': 0}, 'clients is 0; it must be a whole number >= 1'),
    ],
  )
  def test_bad_arguments(self, fields, message):
    with pytest.raises(ValueError, match=message):
      defenses.budget(ZOO, **{'budget': 3, **fields})

  def test_a_router_without_memory_is_not_made_of_it(self):
    for router, defense in (
      (defenses.budget(ZOO, 1), defenses.identity()),
      (routers.uniform(ZOO), defenses.sticky(0.1, 1.0)),
    ):
      with pytest.raises(ValueError, match='has state; a Router is stateless'):
        defenses.defend(router, defense)


class TestSticky:
  DEFENSE = defenses.sticky(0.05, 0.5)

  def noised(self, spec, client=0, secret=SECRET, defense=DEFENSE):
    query = Query.of(jnp.zeros(1, int), spec, client=client)
    query = jax.tree.map(lambda field: field[0], query)
    new, state = defense.apply(KEY, query, secret)
    assert state is secret
    return float(new.spec.min_accuracy), float(new.spec.max_latency_ms)

  def test_it_sticks_to_secret_client_and_cell(self):
    first = self.noised(Spec.of(0.501, 3.01))
    assert self.noised(Spec.of(0.524, 3.24)) == first
    others = [
      self.noised(Spec.of(0.526, 3.01)),
      self.noised(Spec.of(0.499, 3.01)),
      self.noised(Spec.of(0.501, 3.26)),
      self.noised(Spec.of(3.01, 0.501)),
      self.noised(Spec.of(0.501, 3.01), client=1),
      self.noised(Spec.of(0.501, 3.01), secret=KEY),
    ]
    assert len({first, *others}) == 7

  def test_noise_is_around_the_middle_of_a_cell_and_new_in_each(self):
    def shift(spec):
      middle = self.DEFENSE.middle(Spec.of(*spec))
      return np.subtract(self.noised(Spec.of(*spec)), jax.tree.leaves(middle))

    middle = self.DEFENSE.middle(Spec.of(0.501, 3.01))
    np.testing.assert_allclose(jax.tree.leaves(middle), [0.5125, 3.125], rtol=1e-6)
    first = shift((0.501, 3.01))
    for other in ((0.526, 3.01), (0.501, 3.26)):
      assert (abs(shift(other) - first) > 1e-4).all()

  def test_without_noise_it_is_the_identity(self):
    none = defenses.sticky(0.0, 0.0)
    for spec in ((0.123, 4.567), (-np.inf, np.inf)):
      wanted = tuple(float(np.float32(field)) for field in spec)
      assert self.noised(Spec.of(*spec), defense=none) == wanted

  def test_infinite_specs_stay_infinite_and_nan_is_refused(self):
    assert self.noised(Spec.of(-np.inf, np.inf)) == (-np.inf, np.inf)
    assert np.isfinite(self.noised(Spec.of(-1e30, 1e30))).all()
    spec = Spec(jnp.array([jnp.nan, 0.5]), jnp.array([9.0, jnp.nan]))
    assert not serve(stuck(), Query.of([0, 0], spec, client=0))[1].served.any()

  def test_repeats_tell_nothing_and_are_not_served_one_by_one(self):
    server = stuck(0.2)
    query = Query.of(
      jnp.zeros(200, int), Spec.of(0.7, 4.0), client=jnp.arange(200) // 50
    )
    served = np.asarray(serve(server, query)[1].served).reshape(4, 50)
    assert (served.all(1) | ~served.any(1)).all()
    program = str(jax.make_jaxpr(lambda query: serve(server, query))(query))
    assert 'scan' not in program
    assert 'scan' in str(
      jax.make_jaxpr(lambda query: serve(budgeted(clients=5), query))(query)
    )

  @pytest.mark.parametrize('spec', [(0.6, 5.0), (0.9, 8.0), (0.2, 99.0)])
  def test_a_first_query_has_the_law_of_fresh_noise(self, spec):
    size = 40_000
    query = Query.of(jnp.zeros(size, int), Spec.of(*spec), client=jnp.arange(size))
    counts = np.bincount(np.asarray(serve(stuck(0.2), query)[2].model) % 5, minlength=5)

    def pvalue(scale):
      server = stuck(scale)
      clipped = Spec.of(max(spec[0], 0.4), min(spec[1], 8.0))
      clipped = stuck(0.2).front.defense.middle(clipped)
      want = server.front.defense.noise.kernel(routers.uniform(ZOO), clipped)
      want = np.asarray(want, np.float64)
      return stats.chisquare(counts, want / want.sum() * size).pvalue

    assert pvalue(0.2) > 1e-3
    assert pvalue(0.25) < 1e-3

  def test_the_luckiest_of_many_is_within_the_theorem(self):
    """The best of D pairs by the noised specs themselves: no attacker knows more."""
    router, spec = routers.uniform(ZOO), Spec.of(0.65, 5.0)
    defense = stuck(0.2).front.defense
    rate = float(defense.kernel(router, spec)[2])
    clients = jnp.arange(4000, dtype=jnp.int32)
    query = Query.of(jnp.zeros(4000, int), spec, client=clients)
    new, _ = jax.vmap(lambda one: defense.apply(KEY, one, SECRET), out_axes=(0, None))(
      query
    )
    rates = np.asarray(jax.vmap(router.kernel)(new.spec)[:, 2])
    for pairs in (1, 2, 5):
      best = rates.reshape(-1, pairs).max(1)
      bound = float(defenses.luckiest_rate(rate, 1, pairs))
      assert bound == pytest.approx(1 - (1 - rate) ** pairs, rel=1e-4)
      error = best.std() / np.sqrt(len(best))
      assert best.mean() < bound + 4 * error
      assert best.mean() > 0.6 * bound
    assert abs(rates.mean() - rate) < 4 * rates.std() / np.sqrt(4000)

  def test_lucky_sybils_undo_it_and_stay_within_the_theorem(self):
    zoo = profiles.load('cifar10_published')
    victim, n, seeds = pareto.victims(zoo)['medium'], 1000, 16
    server = stuck(0.07, zoo, np.ones((22, n, 1), np.float32))
    defense = server.front.defense
    told = Spec.of(0.9408, 26.8)
    rate = float(defense.kernel(routers.uniform(zoo), told)[victim])

    def got(k, make=sybils.luckiest, **fields):
      return accounts.victim_answers(
        KEY,
        [make('told', n, k, **fields)],
        server,
        victim,
        Knowledge(jnp.float32(27), pool_size=n, spec=told),
        num_queries=n,
        seeds=seeds,
      )[0] / n  # fmt: skip

    fields = {
      'cells': 1,
      'probes': 6,
      'accuracy_step': 0.003,
      'latency_step_ms': 2.0,
      'latency_resolution': 0.005,
    }
    one, ten = got(1, **fields), got(10, **fields)
    plain = got(10, sybils.spread)
    error = lambda rates: rates.std() / np.sqrt(seeds)  # noqa: E731
    assert one.mean() < defenses.luckiest_rate(rate, 1, 1) + 3 * error(one)
    assert ten.mean() < defenses.luckiest_rate(rate, 10, 1) + 3 * error(ten)
    assert abs(plain.mean() - rate) < 4 * error(plain)
    assert ten.mean() > 0.7 > 1.4 * plain.mean()

  @pytest.mark.parametrize(
    ('arguments', 'fields', 'message'),
    [
      ((-1.0, 1.0), {}, 'accuracy_scale is -1.0'),
      ((0.1, np.nan), {}, 'latency_scale_ms is nan'),
      ((0.1, 1.0), {'cell': 0.0}, 'cell is 0.0; it must be a finite number > 0'),
    ],
  )
  def test_bad_arguments(self, arguments, fields, message):
    with pytest.raises(ValueError, match=message):
      defenses.sticky(*arguments, **fields)


class TestSybils:
  KNOWLEDGE = Knowledge(jnp.float32(9), pool_size=12, spec=Spec.of(0.6, 4.0))
  FIELDS = {  # noqa: RUF012
    'cells': 2,
    'probes': 2,
    'accuracy_step': 0.1,
    'latency_step_ms': 0.5,
    'latency_resolution': 0.01,
  }

  def test_without_memory_they_are_one(self):
    bare = servers.table(routers.uniform(ZOO), ZOO.latency_ms, OUTPUTS)
    known = dataclasses.replace(self.KNOWLEDGE, num_classes=5)

    def run(attack):
      found = session.run(KEY, attack, bare, bare.init(SECRET), known, budget=9)
      return found.harvest, found.bills, found.log

    same(
      run(sybils.spread('told', 12, 5)),
      run(attacks.extraction.replay('told', 12)),
    )

  def test_the_luckiest_is_what_answers_most_as_the_most_common_one(self):
    attack = sybils.luckiest('told', 12, 2, **self.FIELDS)
    state = attack.init(KEY, self.KNOWLEDGE)
    query = attack.ask(state)
    assert query.sent.tolist() == [True] * 8 + [False] * 4
    assert query.client.tolist()[:8] == [0, 0, 1, 1, 0, 0, 1, 1]
    np.testing.assert_allclose(query.spec.min_accuracy[:8], [0.6] * 4 + [0.5] * 4)
    np.testing.assert_allclose(query.spec.max_latency_ms[:8], [4.0] * 4 + [4.5] * 4)
    # 3 ms thrice, once in pair 0 and twice in pair 3; 12 ms is beyond the budget.
    latency = jnp.array([3, 0, 12, 12, 12, 12, 3.05, 3, 0, 0, 0, 0], jnp.float32)
    answer = Observation(latency > 0, jnp.ones((12, 1)), latency)
    state = attack.tell(state, query, answer)
    query = attack.ask(state)
    assert query.sent.tolist() == [False] * 8 + [True] * 4
    assert query.client.tolist() == [1] * 12
    np.testing.assert_allclose(query.spec.min_accuracy, 0.5)
    state = attack.tell(state, query, Observation(query.sent, answer.outputs, latency))
    assert not attack.ask(state).sent.any()
    assert int(attack.harvest(state).count) == 7 + 4

  def test_cells_are_steps_both_ways(self):
    attack = sybils.luckiest('told', 12, 2, **{**self.FIELDS, 'cells': 5, 'probes': 1})
    spec = attack.ask(attack.init(KEY, self.KNOWLEDGE)).spec
    steps = np.repeat([0, 1, -1, 2, -2], 2)
    np.testing.assert_allclose(spec.min_accuracy[:10], 0.6 - 0.1 * steps, rtol=1e-5)
    np.testing.assert_allclose(spec.max_latency_ms[:10], 4 + 0.5 * steps, rtol=1e-5)

  @pytest.mark.parametrize(
    ('name', 'value', 'message'),
    [
      ('cells', 0, 'cells is 0'),
      ('probes', 1.5, 'probes is 1.5'),
      ('accuracy_step', -0.1, 'accuracy_step is -0.1'),
      ('latency_resolution', np.inf, 'latency_resolution is inf'),
    ],
  )
  def test_bad_arguments(self, name, value, message):
    with pytest.raises(ValueError, match=message):
      sybils.luckiest('told', 12, 2, **{**self.FIELDS, name: value})
    with pytest.raises(ValueError, match='accounts is 0'):
      sybils.spread('told', 12, 0)
