"""Specs, zoo profiles, their CSV files and bills."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from psml_jax.core import Bill, Observation, Route, Spec, Transcript, ZooProfile
from tests import references

COLUMNS = {
  'name_column': 'model',
  'accuracy_column': 'top1',
  'latency_column': 'ms',
}


def read(tmp_path, text, unit='fraction'):
  path = tmp_path / 'zoo.csv'
  path.write_text(text)
  return ZooProfile.from_csv(path, accuracy_unit=unit, **COLUMNS)


def test_spec_broadcasts_to_float32():
  spec = Spec.of(np.array([[0.5], [0.6]]), [1, 2, np.inf])
  assert spec.min_accuracy.shape == spec.max_latency_ms.shape == (2, 3)
  assert spec.min_accuracy.dtype == spec.max_latency_ms.dtype == jnp.float32
  assert np.isinf(spec.max_latency_ms[:, 2]).all()


@pytest.mark.parametrize(
  ('accuracy', 'latency', 'message'),
  [
    (np.nan, 1.0, 'min_accuracy is nan'),
    ([0.5, np.nan], 1.0, r'min_accuracy\[1\] is nan'),
    (0.5, [[1.0, np.nan]], r'max_latency_ms\[0, 1\] is nan'),
    ('much', 1.0, 'min_accuracy must hold numbers'),
    ([0.1, 0.2], [1.0, 2.0, 3.0], 'shapes'),
  ],
)
def test_spec_rejects(accuracy, latency, message):
  with pytest.raises(ValueError, match=message):
    Spec.of(accuracy, latency)


def test_spec_beyond_float32_is_infinite():
  spec = Spec.of(0.5, [1e39, 1.0])
  np.testing.assert_array_equal(spec.max_latency_ms, [np.inf, 1.0])


@pytest.mark.parametrize(
  'make',
  [
    lambda: Spec.of([0.5, 0.6], 1.0),
    lambda: Route(jnp.arange(2), jnp.arange(2)),
    lambda: Observation(jnp.ones(2, bool), jnp.ones((2, 3)), jnp.ones(2)),
    lambda: Transcript(jnp.arange(2), jnp.ones(2, bool)),
    lambda: Bill(jnp.arange(2), jnp.arange(2)),
    lambda: ZooProfile([0.5, 0.6], [1, 2], ('a', 'b')),
  ],
)
def test_batches_compare_and_hash_by_identity(make):
  value = make()
  assert value == value
  assert value != make()
  assert len({value, value}) == 1


def test_wide_types_and_strict_promotion():
  with jax.enable_x64(True), jax.numpy_dtype_promotion('strict'):
    spec = Spec.of(np.float64([0.5, 0.6]), 2)
    zoo = ZooProfile(jnp.array([0.5, 0.9]), jnp.array([1, 2]), ('a', 'b'))
    bill = Bill.zero().charge(jnp.ones(3, bool), jnp.array([True, False, True]))
  assert spec.min_accuracy.dtype == spec.max_latency_ms.dtype == jnp.float32
  assert zoo.accuracy.dtype == zoo.latency_ms.dtype == jnp.float32
  assert bill.queries.dtype == bill.served.dtype == jnp.int32
  assert (int(bill.queries), int(bill.served)) == (3, 2)


def test_traced_spec_may_hold_nan():
  spec = jax.jit(Spec.of)(jnp.nan, 1.0)
  assert np.isnan(spec.min_accuracy)


@pytest.mark.parametrize(
  ('accuracy', 'latency', 'names', 'message'),
  [
    ([], [], (), 'one or more models'),
    (0.5, 1.0, ('a',), r'accuracy has shape \(\)'),
    ([[0.5]], [[1.0]], ('a',), r'accuracy has shape \(1, 1\)'),
    ([0.5, np.nan], [1, 2], 'ab', r'accuracy\[1\] is nan'),
    ([0.5, np.inf], [1, 2], 'ab', r'accuracy\[1\] is inf'),
    ([-0.1, 0.5], [1, 2], 'ab', r'accuracy\[0\] is -0.1'),
    ([0.5, 1.5], [1, 2], 'ab', r'accuracy\[1\] is 1.5'),
    ([50.0, 93.0], [1, 2], 'ab', 'looks like percent: divide by 100'),
    ([0.5, 0.6], [1, np.nan], 'ab', r'latency_ms\[1\] is nan'),
    ([0.5, 0.6], [np.inf, 1], 'ab', r'latency_ms\[0\] is inf'),
    ([0.5, 0.6], [1, -2], 'ab', r'latency_ms\[1\] is -2'),
    ([0.5, 0.6], [1, 2, 3], 'ab', r'latency_ms has shape \(3,\)'),
    ([0.5, 0.6], [1, 2], 'abc', 'names has 3 entries'),
    ([0.5, 0.6], [1, 2], 'a', 'names has 1 entries'),
    ([0.5, 0.6], [1, 2], ('b', 'b'), "names holds 'b' twice"),
    (['good'], [1], 'a', 'accuracy must hold numbers'),
    ([0.5, 0.6], [1, 1e39], 'ab', r'latency_ms\[1\] is 1e\+39; .* within float32'),
    ([0.5, 0.6], [1e-60, 1], 'ab', r'latency_ms\[0\] is 1e-60; .* 0 or within float32'),
    ([1e-40, 0.6], [1, 1], 'ab', r'accuracy\[0\] is 1e-40; .* 0 or within float32'),
    ([0.5, 0.6], [1, 2], ('a', 3), 'names holds 3; it must hold strings'),
  ],
)
def test_profile_rejects(accuracy, latency, names, message):
  with pytest.raises(ValueError, match=message):
    ZooProfile(accuracy, latency, tuple(names))


def test_profile_names_are_no_single_string():
  with pytest.raises(ValueError, match="names is 'ab'; it must be a tuple of names"):
    ZooProfile([0.5, 0.6], [1, 2], 'ab')


def test_percent_hint_only_where_it_can_be_percent():
  with pytest.raises(ValueError, match='fraction') as caught:
    ZooProfile([0.5, 300.0], [1, 2], ('a', 'b'))
  assert 'percent' not in str(caught.value)


def test_profile_edges_are_allowed():
  zoo = ZooProfile([0.0, 1.0], [0.0, 1e6], ('a', 'b'))
  assert zoo.accuracy.dtype == zoo.latency_ms.dtype == jnp.float32


def test_profile_is_a_pytree_with_static_names():
  zoo = references.make_profile([0.5, 0.9], [1.0, 2.0])
  half = jax.jit(lambda z: jax.tree.map(lambda x: x / 2, z))(zoo)
  assert isinstance(half, ZooProfile)
  assert half.names == zoo.names
  np.testing.assert_array_equal(half.latency_ms, [0.5, 1.0])
  paths = [jax.tree_util.keystr(p) for p, _ in jax.tree.leaves_with_path(zoo)]
  assert paths == ['.accuracy', '.latency_ms']


def test_traced_profile_is_not_checked():
  build = jax.jit(lambda x: ZooProfile(x, x, ('a', 'b')).accuracy)
  np.testing.assert_array_equal(build(jnp.array([-1.0, 7.0])), [-1.0, 7.0])


def test_index():
  zoo = references.make_profile([0.5, 0.9], [1.0, 2.0])
  assert zoo.index('m1') == 1
  with pytest.raises(ValueError, match="name is 'large'; it must be one of m0, m1"):
    zoo.index('large')


def test_from_csv(tmp_path):
  text = 'ms,model,other,top1\n1.5, a ,x,50\n2,b,y,90\n'
  zoo = read(tmp_path, text, 'percent')
  assert zoo.names == ('a', 'b')
  np.testing.assert_allclose(zoo.accuracy, [0.5, 0.9])
  np.testing.assert_allclose(zoo.latency_ms, [1.5, 2.0])


@pytest.mark.parametrize(
  ('rows', 'unit', 'message'),
  [
    ('', 'fraction', 'has no rows'),
    ('a,0.5,1\na,0.6,2\n', 'fraction', "model in lines 2 and 3 of .* is 'a'; every"),
    ('a,0.5,\n', 'fraction', 'ms in line 2 of .* is empty'),
    ('a,0.5,1\n ,0.5,1\n', 'fraction', 'model in line 3 of .* is empty'),
    ('a,0.5\n', 'fraction', 'line 2 of .* has 2 cells and the header 3'),
    ('a,0.5,1\nb,high,1\n', 'fraction', "top1 in line 3 of .* is 'high'"),
    ('a,0.5,fast\n', 'fraction', "ms in line 2 of .* is 'fast'"),
    ('a,93.1,1\n', 'fraction', 'looks like percent'),
    ('a,101,1\n', 'percent', r'top1 in line 2 of .* is 101; it must be percent'),
    ('a,-1,1\n', 'percent', 'must be percent'),
    ('a,0.93,1\n', 'percent', 'give accuracy_unit fraction'),
    ('a,nan,1\n', 'percent', 'must be percent'),
    ('a,nan,1\n', 'fraction', r'top1 in line 2 of .* is nan; it must be a fraction'),
    ('a,0.5,inf\n', 'fraction', r'ms in line 2 of .* is inf; it must be finite'),
    ('a,0.5,-1\n', 'fraction', r'ms in line 2 of .* is -1; it must be .* >= 0'),
    ('a,0.5,0\nb,0.6,0.0\n', 'fraction', 'ms in .* is 0 in every row'),
    ('a,0.5,1\n', 'permille', "accuracy_unit is 'permille'"),
  ],
)
def test_from_csv_rejects(tmp_path, rows, unit, message):
  with pytest.raises(ValueError, match=message):
    read(tmp_path, 'model,top1,ms\n' + rows, unit)


@pytest.mark.parametrize('header', ['model,top1', 'model,accuracy,ms'])
def test_from_csv_rejects_missing_column(tmp_path, header):
  with pytest.raises(ValueError, match=r'column .* is missing'):
    read(tmp_path, f'{header}\n')


def test_from_csv_rejects_unreadable(tmp_path):
  binary = tmp_path / 'binary.csv'
  binary.write_bytes(b'model,top1,ms\n\xff\xfe,0.5,1\n')
  for path in (tmp_path / 'no.csv', tmp_path, binary):
    with pytest.raises(ValueError, match='it must be a CSV file'):
      ZooProfile.from_csv(path, accuracy_unit='fraction', **COLUMNS)


def test_bill_counts_every_query():
  rng = np.random.default_rng(0)
  bill, queries, served_queries = Bill.zero(), 0, 0
  for shape in ((), (7,), (3, 4)):
    sent, served = rng.random(shape) < 0.6, rng.random(shape) < 0.5
    bill = bill.charge(jnp.asarray(sent), jnp.asarray(served))
    for one_sent, one_served in zip(np.ravel(sent), np.ravel(served)):
      queries += bool(one_sent)
      served_queries += bool(one_sent and one_served)
  assert (int(bill.queries), int(bill.served)) == (queries, served_queries)
