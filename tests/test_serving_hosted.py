"""A zoo that others serve, of a config: what it keeps, and what it refuses."""

import asyncio
import gc
import json

import numpy as np
import pytest

from psml_jax import _validate
from psml_jax.serving import accounts, hosted, records
from tests import serving_hosts

TABLE = 'model,accuracy,latency_ms\nsmall,0.5,1\nmedium,0.7,2\nlarge,0.9,4\n'
MODELS = dict(zip(('small', 'medium', 'large'), serving_hosts.BACKENDS))
FIELDS = {
  'table': {'csv': 'zoo.csv'},
  'models': MODELS,
  'defense': {'name': 'capped', 'value': 0.9},
  'log': 'log.jsonl',
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'zoo.csv').write_text(TABLE)
  return tmp_path


def served(folder, key, times):
  app = hosted.middleware(serving_hosts.Host().app, hosted.parse(FIELDS), folder)

  async def ask():
    async with serving_hosts.client_of(app) as client:
      return [
        await client.post(
          '/v1/chat/completions',
          headers={'authorization': f'Bearer {key}'},
          **serving_hosts.asking(0.5, 9.0),
        )
        for _ in range(times)
      ]

  return [reply.status_code for reply in asyncio.run(ask())]


def test_it_goes_on_where_it_ended(folder):
  key = accounts.add(folder / 'keys.csv', 0)
  statuses = served(folder, key, 3) + served(folder, key, 2)
  assert set(statuses) <= {200, 412}
  found = records.read(folder / 'log.jsonl')
  numbers = [record.number for record in found]
  assert len(numbers) == 5
  assert (np.diff(numbers) > 0).all()
  assert records.goodput(found).queries == 5
  secret = (folder / 'serving' / 'secret').read_text()
  assert secret not in (folder / 'log.jsonl').read_text()
  assert set(json.loads((folder / 'log.jsonl').read_text().splitlines()[0])) <= set(
    records.Record.__struct_fields__
  )


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    ({'profile': 'none'}, "config.profile is 'none'; it must be one of"),
    ({'policy': 'best'}, 'config.policy'),
    ({'defense': {'name': 'cap'}}, 'config.defense.name'),
    ({'defense': {'name': 'capped'}}, 'config.defense.value is -1.0'),
    ({'enforce': False}, 'a shadow must have a file'),
    ({'rules': {'most_body': 0}}, 'config.rules.most_body'),
    ({'rules': {'most': 0}}, 'config.rules'),
  ],
)
def test_configs_are_checked(fields, message):
  with pytest.raises(ValueError, match=message):
    hosted.parse(fields)


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    ({'table': {'csv': 'none.csv'}}, 'none.csv'),
    ({'models': {'huge': 'vendor/huge'}}, 'huge'),
    ({}, 'keys.csv'),
  ],
)
def test_files_are_checked(fields, message, folder):
  config = hosted.parse({**FIELDS, **fields})
  with pytest.raises(_validate.InputError, match=message):
    hosted.middleware(serving_hosts.Host().app, config, folder)


def test_a_memory_has_one_worker(folder):
  budget = {'name': 'budget', 'value': 3.0, 'fields': {'clients': 4}}
  config = hosted.parse({**FIELDS, 'defense': budget})
  first = hosted.guard(config, folder)
  with pytest.raises(_validate.InputError, match='it takes one worker'):
    hosted.guard(config, folder)
  del first
  gc.collect()  # Its compiled programs know it.
  hosted.guard(config, folder)
