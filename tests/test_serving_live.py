"""The study of a live server, small, on Ray Serve."""

import pytest

from psml_jax.serving import study
from tests import serving_zoo

pytestmark = [pytest.mark.serve, pytest.mark.slow]
SIZES = study.Sizes(queries=40, rate=40.0, probes=90, gap_s=0.02)


def test_a_study_begins_with_the_switch_that_the_others_need(tmp_path):
  with pytest.raises(ValueError, match="'padded' before 'none', which must be first"):
    study.run('zoo', str(tmp_path), switches=['padded', 'none'])


def test_a_study_counts_all_and_goes_on_where_it_was(once, tmp_path):
  zoo = once('served', serving_zoo.make) / 'zoo'
  first, again = (
    study.run(str(zoo), str(tmp_path), sizes=SIZES, switches=['none']) for _ in range(2)
  )
  assert first.switches == again.switches
  assert first.hold_ms > 0
  (switch,) = first.switches
  for load in switch.loads:
    ends = load.served, load.refused, load.missed, load.in_doubt, load.turned_away
    assert sum(ends) == load.offered == 40
    assert load.served + load.refused + load.missed <= load.logged
    assert load.by_clock.mean <= load.by_profile.mean <= load.simulated.high
  leaks = {leak.channel: leak for leak in switch.leaks}
  assert leaks['outputs'].auc > leaks['status'].auc
