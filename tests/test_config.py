"""Configs: those that ship parse, and every mistake is named before work starts."""

import copy
import pathlib
import runpy

import pytest
from ml_collections import ConfigDict

from psml_jax import profiles, zoo
from psml_jax.experiments import config, plan, preflight
from psml_jax.experiments.config import Config, parse
from psml_jax.experiments.experiment import Experiment

CONFIGS = sorted(
  path
  for path in (pathlib.Path(__file__).parents[1] / 'configs').glob('*.py')
  if path.stem not in ('leakage', 'ladder', 'serve', 'threats')  # each has its test
)


def fields():
  return {
    'name': 'digits',
    'seed': 0,
    'seeds': 2,
    'data': {'name': 'digits', 'zoo_size': 300, 'pool_size': 100, 'test_size': 100},
    'zoo': {
      'models': {
        'linear': {'family': 'linear', 'size': 2},
        'mlp': {'family': 'mlp', 'widths': [32]},
      },
      'hyper': {'steps': 10, 'batch_size': 8, 'learning_rate': 1e-3},
    },
    'profiling': {'batch_size': 16, 'rounds': 3},
    'attacks': {'explicit': {}, 'naive': {}, 'fingerprint': {}, 'informed': {}},
    'fingerprint': {'accuracy_resolution': 0.02, 'latency_resolution': 0.05},
    'extraction': {
      'query_budgets': (30, 60),
      'surrogate': {'family': 'mlp', 'widths': [16]},
      'hyper': {'steps': 10, 'batch_size': 8, 'learning_rate': 1e-3},
      'rows_per_chunk': 4,
      'width': 1,
    },
    'defense': {
      'mechanisms': {'laplace': {'values': (0.05, 0.1)}, 'refusal': {}},
      'target_goodput': 0.8,
      'workload_size': 256,
    },
  }


def published():
  whole = fields()
  chosen = ('name', 'seed', 'seeds', 'fingerprint', 'defense')
  return {name: whole[name] for name in chosen} | {
    'published': {'name': 'cifar10_published'}
  }


def changed(path, value, base=fields):
  """The fields with one of them, named by a dotted path, set to another value."""
  result = copy.deepcopy(base())
  *parents, last = path.split('.')
  inner = result
  for name in parents:
    inner = inner[name]
  inner[last] = value
  return result


def without(path, base=fields):
  result = copy.deepcopy(base())
  *parents, last = path.split('.')
  inner = result
  for name in parents:
    inner = inner[name]
  del inner[last]
  return result


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_shipped_configs_parse(path):
  parsed = parse(runpy.run_path(str(path))['get_config']())
  assert isinstance(parsed, Config)
  assert parsed.seeds >= 2


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_models_of_shipped_configs_fit_their_images(path):
  parsed = parse(runpy.run_path(str(path))['get_config']())
  if parsed.zoo is None:
    assert parsed.published is not None
    return
  shape = {'digits': (8, 8, 1), 'cifar10': (32, 32, 3)}[parsed.data.name]
  for name in parsed.zoo.models:
    module = zoo.create(num_classes=10, **parsed.zoo.module_fields(name))
    assert zoo.abstract_variables(module, shape)['params']
    if parsed.zoo.recipe is not None:
      assert parsed.zoo.recipe_of(name).batch_size <= parsed.data.zoo_size


def test_the_fast_config_has_variants_at_equal_time():
  (path,) = (path for path in CONFIGS if path.stem == 'cifar10_fast')
  found = runpy.run_path(str(path))
  names, cells = set(), {}
  for variant in (*found['EPOCHS'], *found['ABLATIONS']):
    parsed = parse(found['get_config'](variant))
    sizes = {size: size for size in ('small', 'medium', 'large')}
    cells[variant] = plan.cells(
      parsed, sizes, dict.fromkeys(parsed.defense.mechanisms, 0.1)
    )
    names.add(parsed.name)
  assert len(names) == len(cells)
  assert all({*cells[v]} == {*cells['soft']} for v in found['EPOCHS'])
  explicit = [plan.Cell('large', 'explicit', 'none', 0.0, 4000)]
  assert all(cells[v] == explicit for v in found['ABLATIONS'] if v != 'answered')
  with pytest.raises(ValueError, match="variant is 'weak'; it must be one of .*'hard'"):
    found['get_config']('weak')


def test_the_paper_config_trains_all_that_take_small_images():
  (path,) = (path for path in CONFIGS if path.stem == 'cifar10_paper')
  models = runpy.run_path(str(path))['MODELS']
  published = set(profiles.load('cifar10_published').names)
  assert published - set(models) == {n for n in published if n.startswith('vit_')}


def test_a_config_dict_and_a_dict_give_the_same_config():
  assert parse(ConfigDict(fields())) == parse(fields())


def test_the_order_of_models_is_no_part_of_the_experiment():
  backwards = copy.deepcopy(fields())
  backwards['zoo']['models'] = dict(reversed(backwards['zoo']['models'].items()))
  forwards = parse(fields()).zoo.models
  assert list(parse(backwards).zoo.models) == list(forwards)


def test_values_are_converted_to_plain_types():
  parsed = parse(changed('fingerprint.latency_resolution', 0.05))
  assert parsed.extraction.query_budgets == (30, 60)
  assert parsed.zoo.models['mlp'] == {'family': 'mlp', 'widths': [32]}
  whole = parse(changed('defense.target_goodput', 1))
  assert isinstance(whole.defense.target_goodput, float)


def test_none_stands_for_a_part_that_is_not_given():
  parsed = parse(published() | {'data': None})
  assert parsed.data is None
  assert parsed.published.name == 'cifar10_published'


def test_one_mechanism_stands_for_itself_and_random_refusal():
  short = fields()
  short['defense'] |= {'mechanism': 'laplace', 'scales': (0.05, 0.1)}
  with pytest.raises(ValueError, match="has mechanism 'laplace' and mechanisms"):
    parse(short)
  del short['defense']['mechanisms'], short['attacks']
  assert parse(short) == parse(fields())
  del short['defense']['mechanism'], short['defense']['scales']
  with pytest.raises(ValueError, match='and mechanisms .*; give exactly one'):
    parse(short)


def test_not_a_mapping():
  with pytest.raises(ValueError, match='config is 3; it must be a mapping'):
    parse(3)


@pytest.mark.parametrize(
  ('path', 'hint'),
  [
    ('seeds_', r"config\.seeds_ is no field \(did you mean 'seeds'\?\)"),
    ('defense.mecanisms', r"defense\.mecanisms is .*did you mean 'mechanisms'"),
    ('zoo.hyper.step', r"config\.zoo\.hyper\.step is .*did you mean 'steps'"),
    ('xyzzy', r'config\.xyzzy is no field; config has \['),
  ],
)
def test_unknown_field(path, hint):
  with pytest.raises(ValueError, match=hint):
    parse(changed(path, 3))


@pytest.mark.parametrize(
  'path', ['name', 'seed', 'defense', 'zoo.hyper.steps', 'data.name']
)
def test_missing_field(path):
  with pytest.raises(ValueError, match=rf'config\.{path} is missing'):
    parse(without(path))


@pytest.mark.parametrize(
  ('path', 'value', 'message'),
  [
    ('seeds', '3', 'of type int'),
    ('seeds', True, 'of type int'),
    ('seeds', 2.5, 'of type int'),
    ('name', 3, 'of type str'),
    ('defense.target_goodput', '0.8', 'of type float'),
    ('defense.target_goodput', True, 'of type float'),
    ('extraction.query_budgets', 60, 'a list'),
    ('defense.mechanisms.laplace', 0.1, 'a mapping'),
    ('defense.mechanisms.laplace.values', 0.1, 'a list'),
    ('attacks.naive', 3, 'a mapping'),
    ('zoo', 3, 'a mapping'),
    ('zoo.models', ['mlp'], 'a mapping'),
    ('zoo.models.mlp', 'mlp', 'a mapping'),
    ('extraction.surrogate', 'mlp', 'a mapping'),
    ('data.fields', ['image_size'], 'a mapping'),
  ],
)
def test_wrong_type(path, value, message):
  with pytest.raises(ValueError, match=rf'config\.{path} is .*{message}'):
    parse(changed(path, value))


@pytest.mark.parametrize(
  ('path', 'value', 'message'),
  [
    ('zoo.models', {3: {'family': 'linear'}, 'a': {}}, r'config\.zoo\.models has .* 3'),
    ('zoo.models.mlp', {'family': 'mlp', 3: 4}, r'config\.zoo\.models\.mlp has .* 3'),
    ('data', {3: 4}, r'config\.data\.3 is no field'),
  ],
)
def test_a_name_that_is_no_string(path, value, message):
  with pytest.raises(ValueError, match=message):
    parse(changed(path, value))


def test_a_recipe_of_a_model_that_is_no_mapping():
  zoo_fields = {'models': {'a': {'family': 'linear', 'recipe': 3}}}
  with pytest.raises(ValueError, match=r'zoo\.models\.a\.recipe is 3; .* mapping'):
    parse(changed('zoo', zoo_fields | {'recipe': {'epochs': 1}}))


def test_wrong_type_within_a_list():
  with pytest.raises(ValueError, match=r"query_budgets is '60'.*of type int"):
    parse(changed('extraction.query_budgets', (30, '60')))


NAN = float('nan')


@pytest.mark.parametrize(
  ('path', 'value', 'message'),
  [
    ('seeds', 1, r'config\.seeds is 1; an interval needs at least 2'),
    ('seeds', 0, r'config\.seeds is 0'),
    ('fingerprint.accuracy_resolution', 0.0, r'accuracy_resolution is 0\.0'),
    ('fingerprint.accuracy_resolution', NAN, 'accuracy_resolution is nan'),
    ('fingerprint.latency_resolution', 1.0, r'latency_resolution is 1\.0'),
    ('fingerprint.latency_resolution', -0.1, r'latency_resolution is -0\.1'),
    (
      'fingerprint.accuracy_resolution',
      1e-7,
      r'accuracy_res.* is 1e-07.*2\*\*-23',
    ),
    (
      'fingerprint.latency_resolution',
      2.0**-24,
      r'latency_res.* is 5\.9.*2\*\*-23',
    ),
    ('defense.mechanisms.laplace.values', (0.1, 1e39), r'values is 1e\+39.*float32'),
    ('defense.mechanisms.laplace.values', (1e-40,), r'values is 1e-40.*float32'),
    (
      'defense.mechanisms.laplace.values',
      (0.1, -0.1),
      r'is -0\.1.*between 0 and 64',
    ),
    ('defense.mechanisms.laplace.values', (NAN,), r'laplace\.values is nan'),
    ('defense.mechanisms.laplace.values', ('x',), r"laplace\.values is 'x'"),
    ('defense.mechanisms.refusal.values', (1.5,), r'a share between 0 and 1'),
    ('defense.mechanisms.laplace.sharp', 1, r"fields of mechanism 'laplace' .*sharp"),
    ('defense.mechanisms.laplac', {}, "is 'laplac' .did you mean 'laplace'.*gaussian"),
    (
      'defense.workload',
      {'size': 3},
      'it must have a name, one of frontier, classes, log_latency, uniform, csv',
    ),
    ('defense.workload', {'name': 'unifrm'}, "workload.name is 'unifrm' .did you mean"),
    ('attacks.fingerprnt', {}, "attacks is 'fingerprnt' .did you mean 'fingerprint'"),
    ('attacks', {}, 'config.attacks is empty; name at least one of explicit'),
    ('attacks.asking', {'name': 'naiv'}, "attacks is 'naiv' .did you mean 'naive'"),
    ('attacks.asking', {'min_accuracy': 0.6}, "config.attacks is 'asking'"),
    (
      'attacks.asking',
      {'name': 'naive', 'depth': 3},
      r"attacks\.asking: fields of attack 'naive' .*depth",
    ),
    ('claims', {'margin': 0.0}, r'claims\.margin is 0\.0; .* in \(0, 1\)'),
    ('extraction.victims', (), r'extraction\.victims is empty'),
    ('extraction.victims', ('tiny',), r"extraction\.victims is 'tiny'"),
    ('attacks.naive.depth', 3, r"attacks\.naive: fields of attack 'naive' .*depth"),
    ('policy', 'fast', "config.policy is 'fast' .did you mean 'fastest'"),
    ('defense.target_goodput', 0.0, r'target_goodput is 0\.0'),
    ('defense.target_goodput', 80.0, r'target_goodput is 80\.0'),
    ('defense.target_goodput', NAN, 'target_goodput is nan'),
    ('defense.workload_size', 0, r'workload_size is 0'),
    ('extraction.rows_per_chunk', 0, r'rows_per_chunk is 0'),
    ('extraction.width', 0, r'width is 0'),
    ('extraction.query_budgets', (), 'query_budgets is empty'),
    ('extraction.query_budgets', (30, 0), 'query_budgets is 0'),
    ('extraction.query_budgets', (11, 30), 'holds 11; it must be above the 11 probes'),
    ('extraction.query_budgets', (101,), 'pool_size is 100.*budget 101'),
    ('zoo.hyper.steps', 0, r'config\.zoo\.hyper: steps is 0'),
    ('extraction.hyper.learning_rate', 0.0, r'extraction\.hyper: learning_rate is 0'),
    ('zoo.models', {}, r'config\.zoo\.models is \{\}; .*at least one'),
    ('zoo.models.mlp.family', 'mpl', r"config\.zoo\.models\.mlp: .*did you mean 'mlp'"),
    ('zoo.models.mlp', {'widths': [3]}, r'config\.zoo\.models\.mlp is .*with a family'),
    ('zoo.models.mlp.width', 3, r'config\.zoo\.models\.mlp: .*width'),
    ('zoo.models.mlp.num_classes', 3, r'config\.zoo\.models\.mlp.*num_classes'),
    ('zoo.models.mlp.family', 3, r'zoo\.models\.mlp: family is 3; it must be one of'),
    ('zoo.models.mlp.family', ['mlp'], r"family is \['mlp'\]; it must be one of"),
    ('zoo.models.mlp.widths', 32, r'zoo\.models\.mlp: widths is 32; .* list of one'),
    ('zoo.models.mlp.widths', [], r'zoo\.models\.mlp: widths is \(\); .* list of one'),
    ('zoo.models.mlp.widths', '32', r"widths is '32'; .* list of one"),
    ('zoo.models.mlp.widths', [32, 0.5], 'widths is 0.5; it must be a whole number'),
    ('zoo.models.mlp.size', 2.0, r'size is 2\.0; it must be a whole number >= 0'),
    ('zoo.models.linear.size', '2', r"linear: size is '2'; it must be a whole number"),
    (
      'extraction.surrogate',
      {'family': 'cnn', 'widths': [4], 'depth': 0},
      r'config\.extraction\.surrogate: depth is 0; it must be a whole number >= 1',
    ),
    (
      'data.name',
      'cifar1000',
      r"config\.data\.name is .* \(did you mean 'cifar100'",
    ),
    ('data.fields', {'size': 8}, r'config\.data\.fields\.size is no field of digits'),
    ('seeds', 10**6, r'config\.seeds is 1000000; it must be at most 100000'),
    ('defense.workload_size', 10**9, r'config\.defense\.workload_size is 10+; .* most'),
    ('zoo.hyper.steps', 10**9, r'config\.zoo\.hyper makes 10+ steps .* at most'),
    ('zoo.hyper.batch_size', 10**7, r'zoo\.hyper .* of batch_size 10+ .* at most'),
    ('extraction.hyper.steps', 10**9, r'extraction\.hyper makes 10+ steps .* at most'),
    (
      'extraction.hyper',
      {'steps': 10**7, 'batch_size': 10**3, 'learning_rate': 0.1},
      r'extraction\.hyper makes 10+ steps of batch_size 1000 .* 2147483647 images in',
    ),
    ('data.profile_size', -1, r'profile_size is -1; it must be a whole number >= 0'),
    ('extraction.surrogate.family', 'x', r"config\.extraction\.surrogate: .*is 'x'"),
  ],
)
def test_value_not_allowed(path, value, message):
  with pytest.raises(ValueError, match=message):
    parse(changed(path, value))


@pytest.mark.parametrize(
  ('part', 'recipe', 'message'),
  [
    (
      'extraction',
      {'epochs': 10**9, 'batch_size': 8},
      r'recipe makes 7\d+ steps .* 60',
    ),
    (
      'zoo',
      {'epochs': 10**9, 'batch_size': 8},
      r'zoo\.recipe makes 28\d+ steps .* 225',
    ),
    ('zoo', {'epochs': 2, 'batch_size': 226}, r'makes 0 steps .* out of 225 images'),
  ],
)
def test_a_recipe_that_draws_too_much_or_nothing(part, recipe, message):
  given = changed(f'{part}.recipe', recipe)
  del given[part]['hyper']
  with pytest.raises(ValueError, match=message):
    parse(given)


def test_a_recipe_of_one_model_that_draws_nothing():
  given = changed('zoo.recipe', {'epochs': 2, 'batch_size': 8})
  del given['zoo']['hyper']
  given['zoo']['models']['mlp']['recipe'] = {'batch_size': 226}
  with pytest.raises(ValueError, match=r'models\.mlp\.recipe makes 0 steps'):
    parse(given)


def test_the_finest_resolution_is_allowed():
  assert parse(changed('fingerprint.accuracy_resolution', 2.0**-23, published))


def test_a_budget_of_one_query_beyond_the_probes_is_allowed():
  assert parse(changed('extraction.query_budgets', (12, 100)))


@pytest.mark.parametrize('part', ['data', 'zoo', 'profiling', 'extraction'])
def test_a_trained_zoo_needs_all_its_parts(part):
  with pytest.raises(ValueError, match='config lacks one of data, zoo'):
    parse(without(part))


def test_published_beside_a_trained_zoo():
  with pytest.raises(ValueError, match='config has published beside data'):
    parse(fields() | {'published': {'name': 'cifar10_published'}})
  with pytest.raises(ValueError, match='config has published beside data'):
    parse(published() | {'data': fields()['data']})


@pytest.mark.parametrize('given', [{}, {'name': 'a', 'csv': 'b.csv'}])
def test_published_needs_a_name_or_a_file(given):
  with pytest.raises(ValueError, match=r'config\.published has name .*exactly one'):
    parse(changed('published', given, published))


def test_a_workload_that_all_seeds_together_cannot_hold():
  large = {**published(), 'seeds': 1000}
  large['defense']['workload_size'] = 10**8
  with pytest.raises(
    ValueError, match=r'workload_size is 10+, drawn for each of .* 1000'
  ):
    parse(large)


def test_a_published_name_that_is_none():
  message = r"config\.published\.name is .*\(did you mean 'cifar10_published'\?\)"
  with pytest.raises(ValueError, match=message):
    parse(changed('published.name', 'cifar10_publishd', published))


def test_check_takes_what_parse_made():
  config.check(parse(fields()))


@pytest.mark.parametrize(
  ('part', 'limit'),
  [('zoo', 'the 225 images of config.zoo.models.linear'), ('extraction', 'pool_size')],
)
def test_a_step_takes_no_more_unlabelled_images_than_there_are(part, limit):
  objective = {'name': 'fixmatch', 'unlabelled': 40}
  with pytest.raises(
    ValueError,
    match=rf'^config\.{part}\.objective takes 320 unlabelled images .*{limit}',
  ):
    parse(changed(f'{part}.objective', objective))


def test_rounds_divide_every_budget(tmp_path):
  made = changed('attacks.fingerprint_k_center', {'rounds': 4})
  made['extraction']['query_budgets'] = (30, 60)
  with pytest.raises(
    ValueError,
    match=r'^config\.attacks\.fingerprint_k_center: rounds is 4; .* the 30 queries',
  ):
    preflight.check(Experiment(parse(made), tmp_path))


@pytest.mark.parametrize(
  ('attacks', 'on_refusal'),
  [
    (('naive', 'fingerprint', 'informed'), {'informed'}),
    (('naive', 'fingerprint'), {'naive', 'fingerprint'}),
  ],
)
def test_random_refusal_is_attacked_by_the_best_there_is(attacks, on_refusal):
  parsed = parse(changed('attacks', {'explicit': {}} | {name: {} for name in attacks}))
  sizes = {size: size for size in ('small', 'medium', 'large')}
  calibrated = {'laplace': 0.07, 'refusal': 0.2}
  found = plan.cells(parsed, sizes, calibrated)
  at = {c.attack for c in found if (c.defense, c.value) == ('refusal', 0.2)}
  assert at == on_refusal
