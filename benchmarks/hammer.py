"""Sends one request again and again; prints what it took as JSON. See serving.py.

python benchmarks/hammer.py URL BODY_FILE CONNECTIONS SECONDS 'HEADERS'
"""

import json
import pathlib
import sys
import time

import gevent
from geventhttpclient import HTTPClient
from geventhttpclient.url import URL


def main(url: str, body: str, connections: str, seconds: str, headers: str) -> None:
  """Prints the latencies, in milliseconds, and the seconds that all of them took."""
  at, data = URL(url), pathlib.Path(body).read_bytes()
  count, spent = int(connections), list[float]()
  client = HTTPClient.from_url(at, concurrency=count, headers=json.loads(headers))
  end = time.perf_counter() + float(seconds)

  def ask() -> None:
    while (began := time.perf_counter()) < end:
      reply = client.post(at.request_uri, body=data)
      reply.read()
      if reply.status_code != 200:
        raise ValueError(f'{url} says {reply.status_code}')
      spent.append(1e3 * (time.perf_counter() - began))

  began = time.perf_counter()
  gevent.joinall([gevent.spawn(ask) for _ in range(count)], raise_error=True)
  print(json.dumps({'seconds': time.perf_counter() - began, 'latency_ms': spent}))


if __name__ == '__main__':
  main(*sys.argv[1:])
