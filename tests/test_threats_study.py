"""A study of threats from its config to its report, and what its numbers come to."""

import copy
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from psml_jax import attacks, routers, servers, session
from psml_jax.attacks import canvass
from psml_jax.core import Knowledge, Spec, ZooProfile
from psml_jax.experiments import config_file, threats
from psml_jax.experiments.threats import membership, replicates, transfer
from psml_jax.report import threats as report
from psml_jax.report import threats_numbers
from psml_jax.report.threats_records import Fooled, Found, Inferred, Share, Threats
from tests import stored

LATENCIES = {'linear2': 1.0, 'mlp2': 2.0, 'mlp4-wide': 4.0}


@pytest.fixture(scope='module')
def fields(tmp_path_factory):
  """The tiny study, with latencies that do not depend on the machine."""
  made = config_file.load('configs/threats.py:tiny')
  path = stored.profile(tmp_path_factory.mktemp('stored'), LATENCIES, 0.02)
  made['experiment']['profiling']['stored'] = path
  return made


@pytest.fixture(scope='module')
def found(fields, tmp_path_factory):
  path = tmp_path_factory.mktemp('threats') / 'run'
  return threats.run(threats.parse(fields), path)


def lines(path):
  return [json.loads(line) for line in path.read_text().splitlines()]


def of_kind(found, kind):
  return [one for one in lines(found / 'threats.jsonl') if one['kind'] == kind]


def test_every_attack_is_there_once(found, fields):
  config = threats.parse(fields)
  records = of_kind(found, 'membership')
  behind = (1 + len(config.defenses)) * len(config.attacks)
  # Two kinds of shadows, and each number of repeats; the named victim is asked once.
  assert len(records) == 2 * len(config.membership.repeats) * behind + 1
  names = ('attack', 'defense', 'shadows', 'repeats')
  assert len({tuple(one[name] for name in names) for one in records}) == len(records)
  sent = of_kind(found, 'transfer')
  assert len(sent) == behind + 1
  for one in sent:
    assert all(
      len(one[kind]) == config.seeds for kind in ('transfer', 'noise', 'again')
    )


def test_membership_is_billed_and_answered_as_the_law_says(found):
  for one in of_kind(found, 'membership'):
    assert one['queries'] == one['repeats']
    if one['attack'] == 'explicit':
      assert (one['answered'], one['own']) == (1.0, 1.0)
    if (one['attack'], one['defense']) == ('informed', 'refusal'):
      wanted = 1 - 0.2 ** one['repeats']
      # Five standard deviations of a share of 8 x 160 candidates.
      assert one['answered'] == pytest.approx(wanted, abs=5 * 0.5 / np.sqrt(1280))


def test_the_undefended_corner_is_the_named_victim(found):
  records = [one for one in of_kind(found, 'membership') if one['defense'] == 'none']
  named = next(one for one in records if one['attack'] == 'explicit')
  told = [one for one in records if one['attack'] == 'informed']
  for one in told:
    assert one['found']['auc'] == pytest.approx(named['found']['auc'], abs=1e-4)
  sent = [one for one in of_kind(found, 'transfer') if one['defense'] == 'none']
  by_attack = {one['attack']: one for one in sent}
  for kind in ('transfer', 'white_box', 'noise', 'again'):
    assert by_attack['informed'][kind] == by_attack['explicit'][kind]
  assert by_attack['explicit']['again'] == [0.0, 0.0]


def test_the_white_box_fools_more_than_noise(found):
  for one in of_kind(found, 'transfer'):
    assert np.mean(one['white_box']) > np.mean(one['noise'])
    assert np.mean(one['itself']) > 0.3


def test_it_goes_on_where_it_stopped(found, fields, capsys):
  before = json.loads((found / 'study.json').read_text())
  (found / 'report.html').unlink()
  for name in ('membership', 'transfer-0'):
    done = (found / f'{name}.jsonl').read_bytes().splitlines(keepends=True)
    (found / f'{name}.jsonl').write_bytes(b''.join(done[:-1]))
  (found / 'replicates' / 'linear2.npz').unlink()
  threats.run(threats.parse(fields), found)
  printed = capsys.readouterr().out
  assert printed.count('replicates: ') == printed.count('membership: ') == 1
  again = json.loads((found / 'study.json').read_text())
  for part in ('models', 'membership', 'transfer'):
    assert again[part] == before[part]
  assert 'one query a candidate' in printed
  assert (found / 'threats.png').stat().st_size > 10_000
  assert 'the worst attack of every defense' in (found / 'results.md').read_text()


def test_a_damaged_replicate_is_named(tmp_path):
  path = tmp_path / 'linear2.npz'
  path.write_bytes(b'nothing')
  with pytest.raises(ValueError, match='linear2.npz is damaged'):
    replicates._read(path)


def test_half_of_the_candidates_are_members():
  class Images:
    zoo_x, zoo_y = np.zeros((6, 2, 2, 1)), np.zeros(6, np.int32)
    test_x, test_y = np.ones((9, 2, 2, 1)), np.ones(9, np.int32)

  made = replicates.candidates(Images, jax.random.key(0), 5)
  assert made.member.shape == (5, 12)
  np.testing.assert_array_equal(made.member.sum(1), 6)
  assert len({tuple(each) for each in made.member.tolist()}) > 1
  np.testing.assert_array_equal(made.labels, [0] * 6 + [1] * 6)


def test_a_replicate_is_no_shadow_of_itself():
  """A confidence that one replicate alone has must not raise its own ratio."""
  rng = np.random.default_rng(0)
  confidence = rng.standard_normal((8, 6)).astype(np.float32)
  member = np.tile(np.arange(8)[:, None] % 2 == 0, (1, 6))
  found = membership._single(
    jnp.asarray(confidence)[:, None], jnp.asarray(confidence), jnp.asarray(member), True
  )
  from psml_jax.threats import Shadows, likelihood_ratios

  for i in range(8):
    others = np.arange(8) != i
    known = Shadows(jnp.asarray(confidence[others]), jnp.asarray(member[others]))
    wanted = likelihood_ratios(confidence[i], known, shared=True)
    np.testing.assert_allclose(found[i, 0], wanted, rtol=1e-4, atol=1e-4)


class TestCanvass:
  zoo = ZooProfile([0.7, 0.9], [1.0, 5.0], ('small', 'large'))

  def run(self, attack, spec, budget):
    outputs = jnp.stack([jnp.full((7, 3), 0.25), jnp.full((7, 3), 0.75)])
    server = servers.table(routers.uniform(self.zoo), self.zoo.latency_ms, outputs)
    knowledge = Knowledge(jnp.float32(9.0), pool_size=7, num_classes=3, spec=spec)
    state = server.init(jax.random.key(1))
    return session.run(
      jax.random.key(0), attack, server, state, knowledge, budget=budget
    )

  def test_every_image_is_asked_so_often(self):
    found = self.run(canvass.canvass('told', times=3), Spec.of(0.8, 9.0), 100)
    assert int(found.bill.queries) == 21
    assert found.harvest.served.shape == (3, 7)
    np.testing.assert_array_equal(found.harvest.outputs, 0.75)
    np.testing.assert_array_equal(found.harvest.latency_ms, 5.0)
    assert float(found.harvest.spec.min_accuracy) == pytest.approx(0.8)

  def test_what_the_budget_does_not_pay_for_is_not_answered(self):
    found = self.run(canvass.canvass('told', times=3), Spec.of(0.8, 9.0), 10)
    assert int(found.bill.queries) == int(found.harvest.served.sum()) == 10

  def test_the_spec_that_a_fingerprint_found(self):
    resources = attacks.Resources(5, 1e-3, 5e-3)
    before, last = canvass.parted(attacks.make('fingerprint', resources))
    phases = attacks.Phases((*before, canvass.canvass(last.spec)))
    found = self.run(phases, None, 100)
    assert found.harvest.served.all()
    np.testing.assert_array_equal(found.harvest.outputs, 0.75)
    assert float(found.harvest.spec.min_accuracy) == pytest.approx(0.9, abs=2e-3)

  def test_an_attack_that_ends_otherwise(self):
    made = attacks.make('informed_repeats', attacks.Resources(5, 1e-3, 5e-3))
    with pytest.raises(ValueError, match='^attack is Repeats; it must end by'):
      canvass.parted(made)

  @pytest.mark.parametrize(('spec', 'times'), [('no', 1), ('told', 0)])
  def test_mistakes(self, spec, times):
    with pytest.raises(ValueError, match=r"^(spec is 'no'|times is 0)"):
      canvass.canvass(spec, times=times)


def share(value):
  return Share(value, value - 0.01, value + 0.01)


def inferred(**fields):
  found = Found(
    [0.001, 0.01], [share(0.02), share(fields.pop('rate', 0.05))], share(0.6)
  )
  made = {
    'size': 'large', 'victim': 'm', 'defense': 'none', 'target': None, 'value': None,
    'goodput': 1.0, 'attack': 'naive', 'shadows': 'victim', 'repeats': 1,
    'queries': 1.0, 'answered': 1.0, 'own': 0.5, 'found': found,
  }  # fmt: skip
  return Inferred(**{**made, **fields})


def fooled(**fields):
  made = {
    'zoo': 0, 'size': 'large', 'victim': 'm', 'defense': 'none', 'target': None,
    'value': None, 'goodput': 1.0, 'attack': 'naive', 'queries': 400,
    'accuracy': [0.5, 0.6], 'fidelity': [0.6, None], 'itself': [1.0, None],
    'right': [0.9, 0.9], 'transfer': [0.4, None], 'white_box': [0.8, 0.8],
    'noise': [0.1, 0.2], 'again': [0.0, 0.0],
  }  # fmt: skip
  return Fooled(**{**made, **fields})


class TestNumbers:
  def test_the_worst_attack_finds_most_at_the_last_rate(self):
    study = self.study([inferred(), inferred(shadows='zoo', rate=0.2)], [])
    (place,) = threats_numbers.sides(study, 'large')
    assert threats_numbers.worst(study, place, 1).shadows == 'zoo'

  def test_what_is_not_known_counts_in_no_mean(self):
    study = self.study(
      [inferred()], [fooled(), fooled(zoo=1, transfer=[0.6, 0.6], noise=[0.1, 0.1])]
    )
    (place,) = threats_numbers.sides(study, 'large')
    found = threats_numbers.fooled(study, place, 'naive', lambda one: one.transfer)
    assert found.mean == pytest.approx(0.5)
    over = threats_numbers.fooled(
      study, place, 'naive', lambda one: threats_numbers.more(one.transfer, one.noise)
    )
    assert over.mean == pytest.approx(0.4)

  def study(self, members, sent):
    return Threats(
      'hand', [0, 1], 2, 400, 8, 160, 0.1, 5, [], members, sent, [], 1.0, 'here'
    )

  def test_the_summary_has_a_line_a_victim(self):
    naive = [fooled(), fooled(zoo=1, transfer=[0.6, 0.6])]
    assert 'large victim' in report.summary(self.study([inferred()], naive))
    assert 'none 5.0 % and 37.5 points' in report.summary(
      self.study([inferred()], naive)
    )
    informed = [
      fooled(zoo=zoo, attack='informed', transfer=[0.45, 0.45], noise=[0.0, 0.0])
      for zoo in (0, 1)
    ]
    study = self.study([inferred()], naive + informed)
    assert 'none 5.0 % and 45.0 points' in report.summary(study)


def test_answers_of_one_kind_alone_are_none():
  assert transfer._known(np.array([np.nan, 0.5])) == [None, 0.5]


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'victims': ('tiny',)}, "config.victims is 'tiny'"),
    ({'attacks': {'explicit': {}}}, "config.attacks has 'explicit'"),
    ({'attacks': {'informed_repeats': {}}}, 'repeats: attack is Repeats; it must'),
    ({'membership': {'replicates': 4}}, 'config.membership.replicates is 4'),
    ({'membership': {'repeats': ()}}, 'config.membership.repeats is empty'),
    ({'membership': {'repeats': (0,)}}, 'config.membership.repeats is 0'),
    (
      {'membership': {'false_positive_rates': (1.0,)}},
      'config.membership.false_positive_rates is 1.0',
    ),
    ({'transfer': {'epsilon': 0.0}}, 'config.transfer.epsilon is 0.0'),
    ({'transfer': {'steps': 0}}, 'config.transfer.steps is 0'),
    ({'transfer': {'size': 1}}, 'config.transfer.size is no field'),
    ({'defenses': {'laplace': {'q': 1}}}, 'config.defense.mechanisms.laplace'),
  ],
)
def test_bad_fields_are_named(fields, change, message):
  with pytest.raises(ValueError, match=message):
    threats.parse({**copy.deepcopy(fields), **change})


def test_as_many_others_as_members_are_needed(fields):
  changed = copy.deepcopy(fields)
  changed['experiment']['data']['test_size'] = 79
  with pytest.raises(ValueError, match=r'config.experiment.data.test_size is 79'):
    threats.parse(changed)
