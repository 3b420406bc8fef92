"""The checks that many functions share."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from psml_jax import _validate, profiles


@pytest.mark.parametrize('value', [0, 7, 2**32 - 1, np.int64(3), np.uint32(2**32 - 1)])
def test_seed(value):
  seed = _validate.seed('seed', value)
  assert seed == value
  assert type(seed) is int


@pytest.mark.parametrize(
  'value', [-1, 2**32, 2**64, 0.0, True, '0', None, np.int64(-1)]
)
def test_seed_rejects(value):
  with pytest.raises(ValueError, match=r'config.seed is .*\[0, 4294967295\]'):
    _validate.seed('config.seed', value)


@pytest.mark.parametrize('value', [0, 3, np.int64(5)])
def test_non_negative_int(value):
  assert _validate.non_negative_int('n', value) == value


@pytest.mark.parametrize('value', [-1, 0.0, True, '1', None])
def test_non_negative_int_rejects(value):
  with pytest.raises(ValueError, match='n is .*; it must be a whole number >= 0'):
    _validate.non_negative_int('n', value)


def test_in_float32_is_what_float32_holds():
  values = np.array([1e-60, 1e-40, 1.2e-38, 1e-37, 1.0, -1.0, 3.4e38, 3.5e38, 1e60])
  with np.errstate(over='ignore'):
    held = values.astype(np.float32)
  tiny = np.finfo(np.float32).tiny
  wanted = np.isfinite(held) & (np.abs(held) >= tiny)
  np.testing.assert_array_equal(_validate.in_float32(values), wanted)
  assert not _validate.in_float32([0.0, np.inf, np.nan]).any()


def test_key():
  _validate.key('key', jax.random.key(0))
  _validate.key('keys', jax.random.split(jax.random.key(0), 3), ndim=1)
  _validate.key('keys', jax.random.split(jax.random.key(0), 3), ndim=None)


@pytest.mark.parametrize(
  ('value', 'message'),
  [
    (jnp.zeros(2, jnp.uint32), 'key is of type uint32; .*jax.random.key'),
    (0, 'key is 0; .*jax.random.key'),
    (None, 'key is None'),
  ],
)
def test_key_rejects(value, message):
  with pytest.raises(ValueError, match=message):
    _validate.key('key', value)


def test_key_rejects_other_ranks():
  keys = jax.random.split(jax.random.key(0), 3)
  with pytest.raises(ValueError, match=r'key has shape \(3,\); it must be one key'):
    _validate.key('key', keys)
  with pytest.raises(ValueError, match=r'has shape \(\); it must be an array of keys'):
    _validate.key('keys', keys[0], ndim=1)


def test_profiles_take_typed_keys_under_wide_types():
  with pytest.raises(ValueError, match='key is of type uint32'):
    profiles.synthetic(jax.random.PRNGKey(0), 5)
  wanted = profiles.synthetic(jax.random.key(0), 50)
  with jax.enable_x64(True), jax.numpy_dtype_promotion('strict'):
    got = profiles.synthetic(jax.random.key(0), 50)
  assert got.accuracy.dtype == got.latency_ms.dtype == jnp.float32
  np.testing.assert_allclose(got.accuracy, wanted.accuracy, atol=2e-4)
  np.testing.assert_allclose(got.latency_ms, wanted.latency_ms, rtol=1e-4, atol=2e-3)
