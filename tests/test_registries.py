"""What every entry of a registry must keep, a user's own included."""

import dataclasses
import functools
from typing import ClassVar
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from psml_jax import (
  attacks,
  data,
  defenses,
  goodput,
  routers,
  servers,
  session,
  train,
  workloads,
  zoo,
)
from psml_jax.attacks.repeats import Repeats
from psml_jax.core import Harvest, Knowledge, Observation, Query, Spec
from tests import references, toys
from tests.models import Normed

toys.register()

ZOO = references.make_profile([0.4, 0.6, 0.7, 0.9], [2.0, 3.0, 4.0, 8.0])
SAME_SIZE = references.make_profile([0.3, 0.5, 0.8, 0.85], [1.0, 3.0, 6.0, 7.0])
OUTPUTS = np.random.default_rng(0).random((4, 40, 5)).astype(np.float32)
KEY, SECRET = jax.random.split(jax.random.key(23))
RESOURCES = attacks.Resources(
  30,
  4e-3,
  4e-2,
  pool=jnp.asarray(np.random.default_rng(3).random((40, 4, 4, 1)), jnp.float32),
  training=train.Training(
    zoo.create('linear', num_classes=5),
    train.Steps(steps=4, batch_size=8, learning_rate=1e-2),
  ),
)
KNOWLEDGE = Knowledge(
  jnp.float32(9), pool_size=40, num_classes=5, spec=Spec.of(0.6, 3.0)
)
BUDGET = 45


def deployed(name, value, zoo=ZOO):
  """A server of the zoo behind a mechanism."""
  parts = defenses.deploy(name, zoo, value)
  return servers.table(
    parts.router or routers.uniform(zoo),
    zoo.latency_ms,
    OUTPUTS,
    defense=parts.defense,
    reply=parts.reply,
  )


def strong(name):
  """A value in the middle of the knob's range."""
  return float(defenses.MECHANISMS[name].knob.at(jnp.float32(0.6)))


def make_query(size=60):
  rng = np.random.default_rng(1)
  return Query.of(
    rng.integers(0, 40, size),
    Spec.of(rng.uniform(0.2, 1.0, size), rng.uniform(1.0, 9.0, size)),
    client=rng.integers(0, 5, size),
    sent=rng.random(size) < 0.9,
  )


def serve(server, query):
  return server.serve(server.init(SECRET), query)


def plain(tree):
  """The leaves as arrays, keys as their data."""
  return [
    np.asarray(jax.random.key_data(leaf))
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    else np.asarray(leaf)
    for leaf in jax.tree.leaves(tree)
  ]


def same(one, other):
  for a, b in zip(plain(one), plain(other), strict=True):
    np.testing.assert_array_equal(a, b)


def close(one, other):
  for a, b in zip(plain(one), plain(other), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.fixture(scope='module')
def compilations():
  events = []
  jax.monitoring.register_event_duration_secs_listener(
    lambda event, *_, **__: (
      events.append(event) if event.endswith('backend_compile_duration') else None
    )
  )
  return events


class TestMechanisms:
  @pytest.fixture(params=list(defenses.MECHANISMS))
  def name(self, request):
    return request.param

  def test_strength_0_is_the_identity(self, name):
    off = defenses.MECHANISMS[name].knob.at(jnp.float32(0))
    bare = servers.table(routers.uniform(ZOO), ZOO.latency_ms, OUTPUTS)
    _, seen, told = serve(deployed(name, off), make_query())
    _, wanted, truth = serve(bare, make_query())
    if defenses.deploy(name, ZOO, off).router is None:
      close((seen, told), (wanted, truth))
    feasible = np.asarray(ZOO.meets(make_query().spec))
    answers_all = defenses.MECHANISMS[name].answers_all
    for met, model, sent in zip(feasible, told.model, told.sent, strict=True):
      if sent and met.any():
        assert met[model]
      else:
        assert (model >= 0) == (answers_all and bool(sent))

  def test_a_strong_one_changes_something(self, name):
    off = defenses.MECHANISMS[name].knob.off
    _, seen, _ = serve(deployed(name, strong(name)), make_query())
    _, undefended, _ = serve(deployed(name, off), make_query())
    strongest = deployed(name, defenses.MECHANISMS[name].knob.strongest)
    _, most, _ = serve(strongest, make_query())
    changed = [
      any((a != b).any() for a, b in zip(plain(one), plain(undefended), strict=True))
      for one in (seen, most)
    ]
    assert any(changed)

  def test_jit_equals_no_jit(self, name):
    server, query = deployed(name, strong(name)), make_query(8)
    with jax.disable_jit():
      eager = serve(server, query)
    close(jax.jit(lambda query: serve(server, query))(query), eager)

  def test_a_batch_equals_single_queries(self, name):
    server, query = deployed(name, strong(name)), make_query()
    state, seen, told = serve(server, query)
    single, parts = server.init(SECRET), []
    for i in range(len(query.sent)):
      one = jax.tree.map(lambda field, i=i: field[i : i + 1], query)
      single, *part = server.serve(single, one)
      parts.append(part)
    joined = jax.tree.map(lambda *each: jnp.concatenate(each), *parts)
    close(joined, [seen, told])
    close(single, state)

  def test_vmap_equals_loop(self, name):
    query = make_query(6)
    values = defenses.MECHANISMS[name].knob.at(jnp.array([0.3, 0.6]))
    batched = jax.vmap(lambda value: serve(deployed(name, value), query))(values)
    for i, value in enumerate(values):
      one = jax.tree.map(lambda leaf, i=i: leaf[i], batched)
      close(one, serve(deployed(name, value), query))

  def test_another_value_and_zoo_compile_nothing(self, name, compilations):
    query = make_query()
    first = serve(deployed(name, strong(name)), query)
    other = jax.block_until_ready(deployed(name, 0.9 * strong(name), SAME_SIZE))
    before = len(compilations)
    jax.block_until_ready(serve(other, query))
    assert len(compilations) == before
    assert first[1].served.shape == query.sent.shape

  def test_a_spec_of_nan_is_refused(self, name):
    spec = Spec(jnp.array([jnp.nan, 0.5]), jnp.array([9.0, jnp.nan]))
    query = Query.of(jnp.zeros(2, int), spec, client=0)
    off = defenses.MECHANISMS[name].knob.off
    served = serve(deployed(name, off), query)[1].served
    assert (served == defenses.MECHANISMS[name].answers_all).all()

  def test_calibration_meets_its_target(self, name):
    spec = goodput.uniform_workload(jax.random.key(2), ZOO, 500)
    query = Query.of(jnp.zeros(500, int), spec, client=jnp.arange(500))

    def kept(key, value):
      server = deployed(name, value)
      transcript = server.serve(server.init(key), query)[2]
      route = routers.Route(transcript.model, transcript.model)
      return goodput.goodput(ZOO, spec, route)

    knob = defenses.MECHANISMS[name].knob
    found = goodput.calibrate(KEY, kept, knob, target=0.7)
    assert found.goodput.low >= 0.7
    assert knob.allows(found.value)
    again = [float(kept(jax.random.key(i), found.value)) for i in range(8)]
    assert np.mean(again) >= 0.7
    if found.monotone and found.value != knob.strongest:
      assert found.goodput.mean < 0.8


class TestAttacks:
  @pytest.fixture(params=list(attacks.ATTACKS))
  def attack(self, request):
    # Few probes, so that the budget pays for the replay behind them too; and sums in
    # another order, of which one in a million turns a move, meet few moves.
    fields = {'posterior': {'probes': 12}}.get(request.param, {})
    return attacks.make(request.param, RESOURCES, **fields)

  @pytest.fixture(params=['laplace', 'quota'])
  def server(self, request):
    return deployed(request.param, {'laplace': 0.1, 'quota': 20.0}[request.param])

  def run(self, attack, server, budget=BUDGET):
    return session.run(
      KEY, attack, server, server.init(SECRET), KNOWLEDGE, budget=budget
    )

  @pytest.mark.parametrize('budget', [0, 3, BUDGET])
  def test_its_bill_is_the_log_and_within_the_budget(self, attack, server, budget):
    found = self.run(attack, server, budget)
    assert int(found.bill.queries) <= budget
    same(found.bill, found.log)

  def test_run_equals_run_live(self, attack, server):
    pure = self.run(attack, server)
    client = servers.Client(server, SECRET)
    live = session.run_live(KEY, attack, client, KNOWLEDGE, budget=BUDGET)
    close((pure.harvest, pure.bills), (live.harvest, live.bills))
    same(pure.log, client.log)

  def test_vmap_equals_loop(self, attack):
    server, keys = deployed('laplace', 0.1), jax.random.split(KEY, 2)

    def one(key):
      found = session.run(
        key, attack, server, server.init(key), KNOWLEDGE, budget=BUDGET
      )
      return found.harvest, found.bills, found.answers

    batched = jax.vmap(one)(keys)
    for i, key in enumerate(keys):
      close(jax.tree.map(lambda leaf, i=i: leaf[i], batched), one(key))

  def test_it_harvests_what_was_served(self, attack, server):
    found = self.run(attack, server)
    count, served = int(found.harvest.count), int(found.bills[-1].served)
    assert count <= served if isinstance(attack, Repeats) else count == served
    inputs = found.harvest.inputs[: int(found.harvest.count)]
    assert len(set(inputs.tolist())) == len(inputs)


@pytest.mark.parametrize('name', list(routers.POLICIES))
def test_a_policy_answers_with_feasible_models(name):
  router, query = routers.POLICIES[name](ZOO), make_query()
  route = router(KEY, query.spec)
  for met, model in zip(np.asarray(ZOO.meets(query.spec)), route.model, strict=True):
    assert met[model] if met.any() else model == -1


@pytest.mark.parametrize('name', [n for n in workloads.WORKLOADS if n != 'csv'])
def test_a_workload_can_be_served(name):
  spec = workloads.make(name, size=50)(KEY, ZOO)
  again = workloads.make(name, size=50)(KEY, ZOO)
  same(spec, again)
  assert spec.min_accuracy.shape == spec.max_latency_ms.shape == (50,)
  assert np.asarray(ZOO.meets(spec)).any(-1).all()


def read_as(read, **fields):
  """The splits of a data set that is registered for this call."""
  entries = {**data.DATASETS, 'mine': data.Entry(read)}
  with mock.patch.object(data.DATASETS, '_entries', entries):
    return data.load('mine', seed=0, zoo_size=1, pool_size=1, test_size=1, **fields)


X, Y = np.arange(27).reshape(3, 3, 3) / 27, np.arange(3)


def test_a_data_set_may_take_any_fields():
  def read(data_dir, **fields):
    return data.Images(X, Y, num_classes=fields.get('classes'))

  assert read_as(read).num_classes == 3
  with pytest.warns(UserWarning, match='no image of class 3, 4'):
    assert read_as(read, classes=5).num_classes == 5


def objective_as(make, **fields):
  """The objective that is registered for this call."""
  with mock.patch.object(train.OBJECTIVES, '_entries', {'mine': make}):
    return train.objectives.make('mine', **fields)


@dataclasses.dataclass(frozen=True)
class Weighted:
  weights: object = (1.0,)
  unlabelled: object = 0

  def __call__(self, *arguments):
    return train.CROSS_ENTROPY(*arguments)


@pytest.mark.parametrize('weights', [[1.0, [2.0]], np.array([1.0, 2.0])])
def test_lists_of_an_objective_become_tuples(weights):
  objective = objective_as(Weighted, weights=weights)
  assert isinstance(hash(objective), int)
  assert isinstance(objective.weights, tuple)


class TestDataSets:
  """Those that read no files."""

  SIZES: ClassVar = {'zoo': 60, 'pool': 50, 'test': 40, 'profile': 30}

  @pytest.fixture(params=[n for n, e in data.DATASETS.items() if e.files is None])
  def load(self, request):
    sizes = {f'{part}_size': size for part, size in self.SIZES.items()}
    return functools.partial(data.load, request.param, seed=1, **sizes)

  def test_equal_arguments_give_equal_splits(self, load):
    one, again, other = (vars(load(**fields)) for fields in ({}, {}, {'seed': 2}))
    for field, value in one.items():
      np.testing.assert_array_equal(value, again[field])
    assert not np.array_equal(one['zoo_x'], other['zoo_x'])

  def test_splits_are_disjoint_and_as_asked(self, load):
    splits = load()
    everything = set()
    for part, size in self.SIZES.items():
      x = getattr(splits, f'{part}_x')
      assert (len(x), x.ndim, x.dtype) == (size, 4, np.float32)
      assert 0 <= x.min() < x.max() <= 1
      everything |= {image.tobytes() for image in x}
      if part != 'pool':
        y = getattr(splits, f'{part}_y')
        assert (y.shape, y.dtype) == ((size,), np.int32)
        assert 0 <= y.min() < y.max() < splits.num_classes
    assert len(everything) == sum(self.SIZES.values())


@pytest.mark.parametrize(
  ('call', 'message'),
  [
    (
      lambda: defenses.deploy('laplac', ZOO, 1.0),
      "is 'laplac' .did you mean",
    ),
    (lambda: attacks.make('naiv', RESOURCES), "attack is 'naiv' .did you mean 'naive'"),
    (lambda: workloads.make('unifrm'), "workload is 'unifrm' .did you mean 'uniform'"),
    (lambda: workloads.make('uniform', sise=3), r'fields of workload .*sise'),
    (lambda: attacks.make('naive', RESOURCES, x=1), r'fields of attack .*x'),
    (lambda: defenses.deploy('laplace', ZOO, 1.0, x=1), r'fields of mechanism .*x'),
    (lambda: defenses.MECHANISMS.register('laplace', None), 'is registered already'),
    (lambda: attacks.ATTACKS.register('a b', None), "attack is 'a b'; it must be let"),
    (lambda: attacks.Entry(None, role='spy'), "role is 'spy'; it must be one of"),
    (lambda: objective_as(lambda: 3), "objective 'mine' is 3; it must be a value that"),
    (lambda: objective_as(lambda: Weighted), 'must be a value that can be called'),
    (lambda: objective_as(Weighted, weights={}), 'fields that are not hashable'),
    (lambda: objective_as(Weighted, unlabelled=-1), "'mine' is -1; it must be a whole"),
    (
      lambda: objective_as(lambda: lambda: 0),
      "unlabelled of .*'mine' is None; it must",
    ),
    (lambda: data.DATASETS.register('f', read_as), "set 'f' is .*; .* of type Entry"),
    (lambda: attacks.ATTACKS.register('f', None), "attack 'f' is None; .* type Entry"),
    (lambda: data.Entry(3), 'read is 3 and files None; they must be functions'),
    (lambda: data.Entry(len, 3), 'and files 3; they must be functions'),
    (
      lambda: data.Entry(lambda: 0),
      'read must take data_dir before all else: too many',
    ),
    (lambda: data.Entry(lambda *, size: 0), 'read must take data_dir before all else'),
    (
      lambda: data.Entry(lambda _, seed=1: 0),
      'read has a field seed, which load takes',
    ),
    (
      lambda: read_as(lambda _: lambda *_, **sizes: 5),
      'mine is made as 5; .* as Splits',
    ),
    (
      lambda: read_as(lambda _: data.Images(X, Y, None, Y)),
      'x_test is None; give both',
    ),
    (lambda: read_as(lambda _: data.Images(X, Y, X)), 'y_test is None; give both'),
    (
      lambda: read_as(lambda _: data.Images([[1, 2], [3]], Y)),
      'x_train is no array .*',
    ),
    (
      lambda: read_as(lambda _: data.Images(X, [[1], [2, 3]])),
      'y_train is no array .*',
    ),
    (lambda: read_as(lambda _: (1, 2)), 'mine is read as tuple; it must be as Images'),
    (lambda: read_as(lambda _: data.Images([[[2.0]]], [1])), r'x_train.* is 2\.0; '),
    (lambda: read_as(lambda _, size: None), 'size is missing; mine needs it'),
  ],
)
def test_mistakes_are_named(call, message):
  with pytest.raises(ValueError, match=message):
    call()


class TestObjectives:
  """Of a registry's objectives with their fields as they are unless given."""

  IMAGES = np.random.default_rng(2).random((96, 6, 6, 1)).astype(np.float32)
  MODULE = Normed(num_classes=5)

  @pytest.fixture(params=list(train.OBJECTIVES))
  def training(self, request):
    recipe = train.Steps(steps=2, batch_size=6, learning_rate=0.01, flip=True)
    objective = train.objectives.make(request.param)
    assert hash(objective) == hash(train.objectives.make(request.param))
    return train.Training(self.MODULE, recipe, objective)

  def harvest(self, count=12):
    targets = jax.nn.softmax(jnp.asarray(OUTPUTS[0, :12]))
    return Harvest(jnp.arange(0, 24, 2), targets, jnp.int32(count))

  def fit(self, training, key=KEY, harvest=None):
    images, harvest = jnp.asarray(self.IMAGES), harvest or self.harvest()
    return jax.jit(train.pure_fit, static_argnums=1)(key, training, images, harvest)

  def test_the_same_key_gives_the_same_and_another_another(self, training):
    same(self.fit(training), self.fit(training))
    other = self.fit(training, SECRET)
    assert any((a != b).any() for a, b in zip(plain(other), plain(self.fit(training))))

  def test_jit_is_no_jit(self, training):
    with jax.disable_jit():
      eager = train.pure_fit(KEY, training, jnp.asarray(self.IMAGES), self.harvest())
    for a, b in zip(plain(eager), plain(self.fit(training)), strict=True):
      np.testing.assert_allclose(a, b, atol=1e-4)

  def test_a_population_is_its_rows(self, training):
    keys = jax.random.split(KEY, 3)
    images, harvest = jnp.asarray(self.IMAGES), self.harvest()
    rows = jax.jit(
      lambda keys: train.over_population(
        lambda key: train.pure_fit(key, training, images, harvest), keys, width=3
      )
    )(keys)
    for a, b in zip(plain(rows), plain(self.fit(training, keys[1])), strict=True):
      np.testing.assert_allclose(a[1], b, atol=1e-4)

  def test_classes_are_their_one_hot_rows(self, training):
    classes = jnp.arange(12) % 5
    soft = jax.nn.one_hot(classes, 5)
    both = [
      self.fit(training, harvest=Harvest(jnp.arange(12), targets, jnp.int32(12)))
      for targets in (classes, soft)
    ]
    close(*both)

  def test_padding_changes_nothing(self, training):
    harvest = self.harvest(5)
    other = Harvest(
      harvest.inputs.at[5:].set(1), harvest.targets.at[5:].set(jnp.nan), harvest.count
    )
    same(self.fit(training, harvest=harvest), self.fit(training, harvest=other))

  def test_it_learns(self, training):
    recipe = train.Steps(steps=60, batch_size=12, learning_rate=0.03)
    longer = dataclasses.replace(training, recipe=recipe)
    harvest = Harvest(jnp.arange(12), jnp.arange(12) % 5, jnp.int32(12))
    _, metrics = self.fit(longer, harvest=harvest)
    assert metrics.loss[-10:].mean() < 0.5 * metrics.loss[:10].mean()
    assert ((metrics.accuracy >= 0) & (metrics.accuracy <= 1)).all()


def test_a_second_objective_of_equal_fields_compiles_nothing(compilations):
  """The library's programs are cached by the values of what is trained."""
  recipe = train.Epochs(epochs=1, batch_size=6)
  labels = np.arange(30) % 5
  images = TestObjectives.IMAGES[:30]
  for _ in range(2):
    before = len(compilations)
    train.fit(
      KEY, Normed(5), images, labels, num_classes=5, recipe=recipe,
      objective=train.objectives.make('cross_entropy', label_smoothing=0.25),
    )  # fmt: skip
  assert len(compilations) == before


REPLY_FIELDS = {'padded': {'least_ms': 5.0}, 'rounded': {'decimals': 1}}


class TestReplies:
  """Transforms of replies: what they hide, and what they must leave alone."""

  def served(self, reply):
    """What comes back behind a transform."""
    outputs = OUTPUTS / OUTPUTS.sum(-1, keepdims=True)
    server = servers.table(routers.uniform(ZOO), ZOO.latency_ms, outputs, reply=reply)
    return serve(server, make_query())[1]

  def make(self, name):
    return defenses.REPLIES.find(name)(**REPLY_FIELDS.get(name, {}))

  @pytest.mark.parametrize('name', defenses.REPLIES)
  def test_it_changes_answers_alone(self, name):
    before, after = map(self.served, (defenses.untouched(), self.make(name)))
    np.testing.assert_array_equal(before.served, after.served)
    assert before.served.any()
    assert not before.served.all()
    for field in ('outputs', 'latency_ms'):
      old, new = getattr(before, field), getattr(after, field)
      assert (old.shape, old.dtype) == (new.shape, new.dtype)
      np.testing.assert_array_equal(old[~before.served], new[~before.served])
    assert (after.latency_ms >= before.latency_ms).all()

  @pytest.mark.parametrize('name', defenses.REPLIES)
  def test_twice_is_once(self, name):
    reply = self.make(name)
    once, twice = map(self.served, (reply, defenses.in_turn(reply, reply)))
    jax.tree.map(np.testing.assert_array_equal, once, twice)

  def test_none_in_turn_change_nothing(self):
    before, after = map(self.served, (defenses.untouched(), defenses.in_turn()))
    jax.tree.map(np.testing.assert_array_equal, before, after)

  def test_in_turn_remembers_and_knows_as_many_clients(self):
    class Later:
      clients = 3

      def init(self, key):
        return jnp.float32(0)

      def apply(self, key, query, observation, state):
        late = dataclasses.replace(observation, latency_ms=state)
        return late, state + 1

    both = defenses.in_turn(defenses.labels_only(), Later())
    assert both.clients == 3
    assert not both.constant
    state = both.init(SECRET)
    answer = Observation(jnp.bool_(True), jnp.array([0.3, 0.7]), jnp.float32(9))
    for turn in range(3):
      seen, state = both.apply(KEY, None, answer, state)
      assert float(seen.latency_ms) == turn
      assert seen.outputs.tolist() == [0, 1]

  def test_padding_holds_to_the_time_or_the_deadline(self):
    before, after = map(self.served, (defenses.untouched(), defenses.padded(3.5)))
    due = np.minimum(3.5, make_query().spec.max_latency_ms)
    held = np.maximum(before.latency_ms, due)
    served = np.asarray(before.served)
    np.testing.assert_array_equal(after.latency_ms[served], held[served])
    assert (np.asarray(after.latency_ms)[served] != due[served]).any()

  @pytest.mark.parametrize('decimals', [-1, 7, 1.5])
  def test_decimals_that_float32_does_not_have(self, decimals):
    with pytest.raises(ValueError, match='decimals'):
      defenses.rounded(decimals)

  @pytest.mark.parametrize('least_ms', [0.0, -1.0, float('inf'), float('nan')])
  def test_a_time_that_cannot_be_waited(self, least_ms):
    with pytest.raises(ValueError, match='least_ms'):
      defenses.padded(least_ms)
