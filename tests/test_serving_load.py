import asyncio
import types

import jax
import numpy as np
import pytest

from psml_jax import Spec, ZooProfile, defenses, metrics
from psml_jax.core import Observation, Query
from psml_jax.serving import arrivals, inventory, load, scores, study, vault
from psml_jax.serving.application import name
from psml_jax.serving.config import parse
from psml_jax.serving.gate import Asked
from psml_jax.serving.load import Offered, Seen
from psml_jax.serving.target import Target
from tests import serving_local

ZOO = ZooProfile([0.7, 0.9], [10.0, 50.0], ('small', 'large'))


def dispersion(times, window):
  counts = np.bincount((times / window).astype(int))[:-1]
  return counts.var() / counts.mean()


def test_poisson_has_its_rate_and_dispersion_one():
  times = arrivals.poisson(jax.random.key(0), 20_000, rate=50.0)
  assert np.all(np.diff(times) >= 0)
  np.testing.assert_allclose(20_000 / times[-1], 50.0, rtol=0.03)
  np.testing.assert_allclose(dispersion(times, 1.0), 1.0, atol=0.2)


def test_bursts_have_the_mean_rate_and_the_dispersion_that_is_promised():
  rate, share, burst_s = 20.0, 0.25, 0.5
  times = arrivals.bursts(jax.random.key(1), 60_000, rate, share=share, burst_s=burst_s)
  assert np.all(np.diff(times) >= 0)
  np.testing.assert_allclose(60_000 / times[-1], rate, rtol=0.1)
  wanted = 1 + 2 * rate * burst_s * (1 - share) ** 2 / share
  found = dispersion(times, 20.0)
  assert 0.75 * wanted < found < 1.25 * wanted


@pytest.mark.parametrize('share', [0.0, 1.0, float('nan')])
def test_bursts_refuse_other_shares(share):
  with pytest.raises(ValueError, match='share is'):
    arrivals.bursts(jax.random.key(0), 3, 1.0, share=share, burst_s=1.0)


def test_bad_numbers_are_refused():
  with pytest.raises(ValueError, match='rate'):
    arrivals.poisson(jax.random.key(0), 3, 0.0)
  with pytest.raises(ValueError, match='together'):
    arrivals.evenly(3, 1.0, 0)


def seen_of(status, latency_ms):
  count = len(status)
  return Seen(
    [f'q{i}' for i in range(count)],
    np.array(status),
    np.full((count, 2), 0.5),
    np.zeros(count),
    np.array(latency_ms, float),
    [''] * count,
    [''] * count,
  )


def test_every_offered_query_is_counted():
  seen = seen_of([200, 200, 412, 429, 503, 504, load.BROKEN], [1.0] * 7)
  found = load.ledger(seen)
  assert (found.served, found.refused, found.missed) == (2, 1, 1)
  assert (found.in_doubt, found.turned_away, found.billed) == (1, 2, 5)
  with pytest.raises(ValueError, match='says 400'):
    load.ledger(seen_of([400], [1.0]))


def test_names_are_joined_with_the_journal():
  journal = [
    Asked(i, 0, 0.5, 9.0, m, name(n))
    for i, (n, m) in enumerate([('b', 1), ('else', 0), ('a', -1)])
  ]
  assert load.models(['a', 'b', 'c'], journal).tolist() == [-1, 1, load.UNDECIDED]
  with pytest.raises(ValueError, match='twice'):
    load.models(['a'], [*journal, journal[-1]])


def test_a_score_is_over_all_offered_queries():
  # In time; late; not accurate; by the wrong profile; refused; broken off.
  spec = Spec.of([0.8, 0.8, 0.8, 0.5, 0.8, 0.8], [60.0, 60.0, 60.0, 20.0, 60.0, 60.0])
  offered = Offered.of(np.zeros((1, 2, 2, 1)), spec, np.arange(6.0))
  seen = seen_of(
    [200, 200, 200, 200, 412, load.BROKEN], [55.0, 70.0, 5.0, 15.0, 1.0, 30_000.0]
  )
  model = np.array([1, 1, 0, 1, -1, load.UNDECIDED])
  found = scores.score(ZOO, offered, seen, model)
  assert found.by_profile.mean == pytest.approx(2 / 6)
  assert found.by_clock.mean == pytest.approx(2 / 6)
  assert found.p50_ms.mean == 35.0
  assert found.by_profile.low >= 0


def test_a_late_start_counts_as_latency():
  """The server holds its loop; queries that were due meanwhile look slow."""
  app, _ = serving_local.application()
  spec = Spec.of(0.0, 1000.0)
  due = np.zeros(30)
  offered = Offered.of(np.asarray(serving_local.IMAGES), spec, due)
  with serving_local.listening(app) as url:
    seen = asyncio.run(
      load.offer(
        url,
        'first',
        offered,
        num_classes=serving_local.OUTPUTS.shape[-1],
        connections=1,
      )
    )
  assert load.ledger(seen).served == 30
  # One connection: they are answered one after the other, and all were due at once.
  assert seen.latency_ms.max() > 5 * seen.latency_ms.min()


def test_a_load_agrees_with_the_journal():
  journal = []
  app, _ = serving_local.application(journal=journal.extend)
  spec = Spec.of(np.tile([0.0, 2.0], 20), 1000.0)
  due = arrivals.poisson(jax.random.key(0), 40, 400.0)
  offered = Offered.of(np.asarray(serving_local.IMAGES), spec, due)
  with serving_local.listening(app) as url:
    seen = asyncio.run(
      load.offer(url, 'first', offered, num_classes=serving_local.OUTPUTS.shape[-1])
    )
  counted, model = load.ledger(seen), load.models(seen.name, journal)
  assert (counted.served, counted.refused) == (20, 20)
  np.testing.assert_array_equal(model >= 0, seen.status == 200)
  served = np.flatnonzero(model >= 0)
  images = served % len(serving_local.IMAGES)
  np.testing.assert_allclose(
    seen.outputs[served], serving_local.OUTPUTS[model[served], images], rtol=1e-5
  )
  assert len({each for each, m in zip(seen.headers, model, strict=True) if m >= 0}) == 1


def test_a_channel_that_tells_is_found_and_another_is_not():
  rng = np.random.default_rng(0)
  model = rng.integers(0, 2, 400)
  clock = inventory.leak('clock', model + 0.1 * rng.normal(size=400), model)
  nothing = inventory.leak('noise', rng.normal(size=400), model)
  assert clock.auc > 0.95
  assert abs(nothing.auc - 0.5) < 2 * nothing.chance
  constant = inventory.leak('constant', inventory.texts(['x'] * 400), model)
  assert abs(constant.auc - 0.5) < constant.chance
  assert inventory.leak('one', np.zeros(20), np.zeros(20, int)).auc is None


def test_replies_of_a_config_are_applied_in_turn():
  replies = parse(
    {'reply': {'rounded': {'decimals': 1}, 'padded': {'least_ms': 5.0}}}
  ).replies()
  query = Query(None, Spec.of(0.0, 9.0), None, None)
  answer = Observation(np.bool_(True), np.array([0.28, 0.72]), np.float32(1))
  seen, _ = defenses.in_turn(*replies).apply(jax.random.key(0), query, answer, ((), ()))
  assert float(seen.latency_ms) == 5.0
  np.testing.assert_allclose(seen.outputs, [0.3, 0.7])


@pytest.mark.parametrize(
  ('reply', 'said'),
  [
    ({'pad': {}}, 'config.reply'),
    ({'padded': {}}, 'config.reply.padded'),
    ({'padded': {'least_ms': -1.0}}, 'least_ms'),
    ({'rounded': {'decimals': 9}}, 'config.reply.rounded: decimals is 9'),
  ],
)
def test_unknown_replies_and_fields_are_refused(reply, said):
  with pytest.raises(ValueError, match=said):
    parse({'reply': reply})


def test_padding_leaves_a_margin_before_the_deadline():
  answer = Observation(np.bool_(True), np.ones(1), np.float32(1))
  query = Query(None, Spec.of(0.0, 9.0), None, None)
  apply = defenses.padded(50.0, margin_ms=3.0).apply
  assert float(apply(jax.random.key(0), query, answer, ())[0].latency_ms) == 6.0
  with pytest.raises(ValueError, match='margin_ms'):
    defenses.padded(50.0, margin_ms=-1.0)


def test_the_inventory_of_a_server_without_ray(tmp_path):
  app, _ = serving_local.application(journal=vault.Journal(tmp_path))
  profile, sizes = serving_local.PROFILE, study.Sizes(40, probes=120, gap_s=0.01)
  spec = Spec.of(np.zeros(40), 1e4)
  probes = ['calm', 'tight', 'crowd', 'rushed', 'refusals']
  samples = [[1e3]] * len(profile)
  with serving_local.listening(app) as url:
    target = Target(
      types.SimpleNamespace(url=url, vault=tmp_path),
      'first',
      np.asarray(serving_local.IMAGES),
      np.asarray(serving_local.LABELS),
      serving_local.OUTPUTS.shape[-1],
    )
    due = arrivals.evenly(40, 0.01)
    loaded = study._loaded(
      'evenly',
      profile,
      Offered.of(target.images, spec, due),
      target,
      metrics.interval([1.0, 1.0]),
    )
    leaks = study._leaks(target, profile, samples, sizes, probes)
  assert loaded.served == loaded.logged == loaded.offered == 40
  assert loaded.by_profile.mean == 1
  found = {leak.channel: leak for leak in leaks}
  assert len(found) == len(leaks) == 9
  assert found['latency: refused or not'].responses == 60
  assert found['outputs'].auc > 0.6
  for channel in ('status', 'headers', 'errors, short timeout'):
    assert abs(found[channel].auc - 0.5) < 0.1
