"""The gate against the pure server, its journal, and what it keeps to itself."""

import concurrent.futures
import dataclasses
import math
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from psml_jax import _validate, defenses, struct
from psml_jax.core import Query, Spec
from psml_jax.defenses.reply import untouched
from psml_jax.serving import accounts, vault
from psml_jax.serving.gate import MOST_QUERIES, Asked, Counted, Decision, Gate
from tests import known_zoo
from tests.serving_local import OUTPUTS, PROFILE, SECRET, gate, table

LABELS = {'reply': defenses.labels_only()}
SERVERS = {
  'none': {},
  'noise': {'defense': defenses.laplace(0.1, 0.5)},
  'capped': {'router': defenses.capped(PROFILE, 0.3)},
  'sticky and labels': {'defense': defenses.sticky(0.1, 0.5), **LABELS},
  'budget': {'router': defenses.budget(PROFILE, 2.5, cap=0.2, clients=8)},
}


@struct.dataclass(eq=False)
class Late:
  """Answers are held until so many milliseconds."""

  until: float = struct.field(pytree_node=False)

  def init(self, key):
    return ()

  def apply(self, key, query, observation, state):
    held = jnp.maximum(observation.latency_ms, self.until)
    return dataclasses.replace(observation, latency_ms=held), state


def asked(size=40):
  """(client, accuracy, latency) of so many queries."""
  rng = np.random.default_rng(1)
  accuracy = rng.uniform(0.4, 0.95, size).astype(np.float32)
  latency = rng.uniform(0.5, 5.0, size).astype(np.float32)
  return list(
    zip(rng.integers(0, 4, size).tolist(), accuracy.tolist(), latency.tolist())
  )


def pure(server, queries):
  client, accuracy, latency = (np.array(column) for column in zip(*queries))
  query = Query.of(
    np.arange(len(queries)) % len(OUTPUTS[0]), Spec.of(accuracy, latency), client=client
  )
  return server.serve(server.init(SECRET), query)


@pytest.mark.parametrize('name', SERVERS)
def test_it_decides_as_the_server_with_its_secret(name):
  server, queries = table(**SERVERS[name]), asked()
  state, observation, transcript = pure(server, queries)
  made = gate(server)
  decisions = [made.decide(*query)[0] for query in queries]
  assert [decision.number for decision in decisions] == list(range(len(queries)))
  assert [decision.model for decision in decisions] == transcript.model.tolist()
  assert (made.log().queries, made.log().served) == (
    state.log.queries,
    state.log.served,
  )
  for i, (decision, query) in enumerate(zip(decisions, queries)):
    if decision.model >= 0:
      outputs = OUTPUTS[decision.model, i % len(OUTPUTS[0])]
      seen = made.reply(decision, *query, outputs, 3.0)
      np.testing.assert_array_equal(seen.outputs, observation.outputs[i])
      assert seen.latency_ms == 3.0


@pytest.mark.parametrize('name', ['noise', 'budget'])
def test_many_rows_are_as_many_queries(name):
  one, many = gate(table(**SERVERS[name])), gate(table(**SERVERS[name]))
  singles = [one.decide(1, 0.5, 3.0)[0] for _ in range(40)]
  assert many.decide(1, 0.5, 3.0, 40) == singles
  assert {decision.model for decision in singles} > {0}


@pytest.mark.parametrize('name', SERVERS)
def test_specs_that_are_asked_again_are_decided_as_any(name):
  few = asked(3)
  order = np.random.default_rng(2).integers(0, 3, 200)
  queries = [few[i] for i in order] + asked(600) + [few[i] for i in order]
  _, _, transcript = pure(table(**SERVERS[name]), queries)
  made = gate(table(**SERVERS[name]))
  models = [made.decide(*query)[0].model for query in queries]
  assert models == transcript.model.tolist()


def test_numbers_may_come_in_any_order():
  order = 7, 9, 8, 3, MOST_QUERIES - 1, MOST_QUERIES
  left = iter(order)

  class Given:
    def take(self, count):
      return [next(left)]

  server = table(**SERVERS['capped'])
  made = gate(server, numbers=Given())
  for number in order:
    fresh = gate(server, numbers=Counted(number))
    assert made.decide(1, 0.5, 3.0) == fresh.decide(1, 0.5, 3.0)


def test_memory_and_counts_come_back_from_the_journal(tmp_path):
  vault.Vault(tmp_path)
  server, queries = table(**SERVERS['budget']), asked(50)
  first = gate(server, journal=vault.Journal(tmp_path))
  for query in queries:
    first.decide(*query)
  again = gate(server, numbers=vault.Leased(vault.Vault(tmp_path).lease))
  again.recall(vault.read(tmp_path))
  assert (again.log().queries, again.log().served) == (
    first.log().queries,
    first.log().served,
  )
  assert [again.decide(*query) for query in queries] == [
    first.decide(*query) for query in queries
  ]
  for client in range(4):
    bill = vault.bill(vault.read(tmp_path), client)
    assert bill.queries == 2 * sum(query[0] == client for query in queries)


def test_a_budget_forgets_nothing_of_a_client():
  made = gate(table(router=defenses.budget(PROFILE, 3, cap=0.0, clients=2)))
  corner = known_zoo.ACCURACY[2], known_zoo.LATENCY[2]
  served = [made.decide(0, *corner)[0].model >= 0 for _ in range(6)]
  assert served == [True] * 3 + [False] * 3
  assert made.decide(1, *corner)[0].model == 2
  assert int(made.log(0).served) == 3
  assert int(made.log(5).queries) == 0


def test_threads_share_it():
  made = gate(table(**SERVERS['budget']))

  def ask(client):
    return [made.decide(client, 0.5, 3.0, 2) for _ in range(20)]

  with concurrent.futures.ThreadPoolExecutor(4) as pool:
    found = [d for each in pool.map(ask, range(4)) for ds in each for d in ds]
  assert sorted(decision.number for decision in found) == list(range(160))
  assert int(made.log().queries) == 160


def test_another_spec_compiles_nothing():
  made = gate(table(**SERVERS['noise']))
  before = made._decide._cache_size()
  made.decide(0, 0.9, 1.0)
  made.decide(3, 0.2, math.inf, 5)
  made.decide(2**31 - 1, 1e300, 1e-30, 32)
  assert made._decide._cache_size() == before


def test_no_secret_is_a_constant_of_a_program():
  made = gate(table(**SERVERS['sticky and labels']))
  packed = np.zeros((1, 4), np.int32)
  text = made._decide.lower(made._secret, made._memory, packed).as_text()
  for word in np.asarray(jax.random.key_data(made._secret)).tolist():
    assert str(word) not in text
    assert str(np.uint32(word).view(np.int32)) not in text


@pytest.mark.parametrize(
  ('query', 'message'),
  [
    ((-1, 0.5, 3.0), r'client is -1; it must be in \[0, 7\]'),
    ((8, 0.5, 3.0), r'client is 8'),
    ((0, math.nan, 3.0), 'the spec holds NaN'),
    ((0, 0.5, math.nan), 'the spec holds NaN'),
    ((0, 0.5, 3.0, 0), 'rows is 0'),
  ],
)
def test_what_is_no_query(query, message):
  made = gate(table(**SERVERS['budget']))
  with pytest.raises(ValueError, match=message):
    made.decide(*query)
  assert int(made.log().queries) == 0


def test_a_secret_has_an_end():
  class Last:
    def take(self, count):
      return range(2**31, 2**31 + count)

  with pytest.raises(OverflowError, match='take a new one'):
    gate(table(), numbers=Last()).decide(0, 0.5, 3.0)


def test_a_reply_may_be_held_and_never_hurried():
  made = gate(table(reply=Late(20.0)))
  assert made.changes_replies
  decision = made.decide(0, 0.5, 3.0)[0]
  outputs = OUTPUTS[decision.model, 0]
  assert made.reply(decision, 0, 0.5, 3.0, outputs, 3.0).latency_ms == 20.0
  assert made.reply(decision, 0, 0.5, 3.0, outputs, 30.0).latency_ms == 30.0
  assert not gate(table(reply=untouched())).changes_replies


REPLIES = {
  'labels': (defenses.labels_only(), [0.0, 1.0, 0.0], 3.0),
  'rounded': (defenses.rounded(1), [0.3, 0.5, 0.2], 3.0),
  'padded': (defenses.padded(7.0), [0.26, 0.5, 0.24], 7.0),
}


@pytest.mark.parametrize('name', REPLIES)
def test_every_reply_of_the_library_is_applied(name):
  reply, outputs, latency_ms = REPLIES[name]
  made = Gate(table(reply=reply).front, SECRET, num_classes=3)
  assert made.changes_replies
  given = np.array([0.26, 0.5, 0.24], np.float32)
  seen = made.reply(made.decide(0, 0.5, 9.0)[0], 0, 0.5, 9.0, given, 3.0)
  np.testing.assert_allclose(seen.outputs, outputs, atol=1e-6)
  assert seen.latency_ms == latency_ms


def test_a_gate_wants_a_typed_key():
  with pytest.raises(ValueError, match='key is of type uint32'):
    Gate(table().front, jax.random.PRNGKey(0), num_classes=8)


class TestVault:
  def test_the_secret_stays_and_is_its_owners(self, tmp_path):
    made = vault.Vault(tmp_path / 'vault')
    assert vault.Vault(tmp_path / 'vault').secret == made.secret
    assert vault.Vault(tmp_path / 'other').secret != made.secret
    assert (tmp_path / 'vault' / 'secret').stat().st_mode & 0o777 == 0o600
    assert (tmp_path / 'vault').stat().st_mode & 0o777 == 0o700
    assert made.secret.hex() not in repr(made)
    key = vault.key(made.secret)
    assert np.asarray(jax.random.key_data(key)).tobytes() == made.secret

  def test_no_number_is_given_twice(self, tmp_path):
    first = vault.Vault(tmp_path)
    assert [first.lease(4), first.lease(5)] == [0, 4]
    assert vault.Vault(tmp_path).lease(1) == 9
    numbers = vault.Leased(vault.Vault(tmp_path).lease, 4)
    taken = [*numbers.take(3), *numbers.take(3), *numbers.take(1)]
    assert taken == [10, 11, 12, 14, 15, 16, 17]
    with pytest.raises(ValueError, match='count is 5; it must be at most 4'):
      numbers.take(5)

  def test_one_at_a_time_has_the_memory(self, tmp_path):
    first, second = (vault.Vault(tmp_path) for _ in range(2))
    assert first.remember()
    assert first.remember()
    assert not second.remember()
    del first
    assert second.remember()

  def test_processes_share_the_numbers(self, tmp_path):
    first, second = (vault.Vault(tmp_path) for _ in range(2))
    assert [first.lease(4), second.lease(4), first.lease(4)] == [0, 4, 8]

  def test_who_stands_by_has_no_numbers_yet(self, tmp_path):
    lease = vault.Vault(tmp_path).lease
    first, second = (vault.Leased(lease, 4) for _ in range(2))
    assert [*first.take(4), *first.take(4)] == [*range(8)]
    assert min(second.take(1)) > 7

  def test_numbers_are_after_the_journal(self, tmp_path):
    vault.Vault(tmp_path)
    vault.Journal(tmp_path)([Asked(70, 0, 0.5, 9.0, 1)])
    assert vault.Vault(tmp_path).lease(1) == 71

  def test_half_a_record_is_left_out(self, tmp_path):
    vault.Vault(tmp_path)
    query = Asked(7, 3, 0.5, math.inf, -1, 2**64 - 1)
    vault.Journal(tmp_path)([query, query._replace(number=8)])
    (path,) = tmp_path.glob('*.queries')
    path.write_bytes(path.read_bytes()[:-5])
    assert vault.read(tmp_path) == [query]
    assert path.stat().st_mode & 0o777 == 0o600

  def test_a_record_that_does_not_fit_is_taken_back(self, tmp_path, monkeypatch):
    vault.Vault(tmp_path)
    journal, query = vault.Journal(tmp_path), Asked(7, 3, 0.5, 9.0, 1)
    write = os.write
    with monkeypatch.context() as full:
      full.setattr(os, 'write', lambda handle, data: write(handle, data[:-5]))
      with pytest.raises(OSError, match='could not be written'):
        journal([query])
    journal([query._replace(number=8)])
    assert [asked.number for asked in vault.read(tmp_path)] == [8]

  def test_a_folder_of_others_is_refused(self, tmp_path):
    (tmp_path / 'vault').mkdir()
    (tmp_path / 'vault').chmod(0o770)
    with pytest.raises(_validate.InputError, match='chmod 700'):
      vault.Vault(tmp_path / 'vault')

  @pytest.mark.parametrize('text', ['', 'xyz', '00', '0' * 17])
  def test_a_damaged_secret_is_named(self, text, tmp_path):
    vault.Vault(tmp_path)
    (tmp_path / 'secret').write_text(text)
    with pytest.raises(_validate.InputError, match='no secret of a server'):
      vault.Vault(tmp_path)


class TestAccounts:
  def test_keys_are_given_and_known(self, tmp_path):
    path = tmp_path / 'keys.csv'
    keys = [accounts.add(path, client) for client in (0, 7, 7)]
    known = accounts.read(path)
    assert [known.client(key) for key in keys] == [0, 7, 7]
    assert known.client(keys[0] + 'x') is None
    assert known.largest == 7
    assert not any(key in path.read_text() for key in keys)

  @pytest.mark.parametrize(
    ('text', 'message'),
    [
      ('', 'must begin with'),
      ('client,key\n', 'must begin with'),
      ('client,sha256\n0,abc\n', 'line 2: it must be a client and a sha256'),
      (f'client,sha256\nx,{"0" * 64}\n', 'line 2: the client must be a number'),
      (f'client,sha256\n-1,{"0" * 64}\n', 'line 2: the client must be a number'),
      (f'client,sha256\n0,{"0" * 64}\n1,{"0" * 64}\n', 'line 3: .* another client'),
    ],
  )
  def test_damaged_tables_are_named(self, text, message, tmp_path):
    (tmp_path / 'keys.csv').write_text(text)
    with pytest.raises(ValueError, match=message):
      accounts.read(tmp_path / 'keys.csv')


def test_a_decision_is_a_number_and_a_model():
  assert gate(table()).decide(0, 0.95, 9.0) == [Decision(0, -1)]
