"""One row of the benchmark's result: ours against a peer, timed in turns."""

import dataclasses
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax

from psml_jax import _device

_TURN_SECONDS = 1.0
MIB = 2.0**20


@dataclasses.dataclass(frozen=True)
class Row:
  """A comparison; `ratio` > 1 says that ours is faster or smaller.

  Attributes:
    name: what is measured.
    ours: in `unit`.
    peer: in `unit`.
    unit: a rate, which should be high, or a size, which should be low.
    peer_name: who the peer is.
    spread: lowest and highest ratio of a round; empty where there are no rounds.
    bar: what was aimed at; empty where nothing was.
  """

  name: str
  ours: float
  peer: float
  unit: str
  peer_name: str
  spread: tuple[float, ...] = ()
  bar: str = ''

  @property
  def ratio(self) -> float:
    if self.unit.endswith('/s'):
      return self.ours / self.peer
    return self.peer / self.ours

  def record(self) -> dict[str, Any]:
    """The row as it is written to JSON."""
    return {
      'name': self.name,
      'ours': self.ours,
      'peer': self.peer,
      'ratio': self.ratio,
      'unit': self.unit,
      'peer_name': self.peer_name,
      'device': device(),
    }


def device() -> str:
  """The devices that JAX runs on; peers run on this machine's CPU."""
  return f'{_device.name()}; {len(jax.devices())} JAX devices'


def seconds(work: Callable[[], Any]) -> float:
  """How long some work takes, its JAX results awaited."""
  began = time.perf_counter()
  jax.block_until_ready(work())
  return time.perf_counter() - began


def calls_per_second(work: Callable[[], Any]) -> float:
  """The throughput of a turn: calls one after the other for at least a second."""
  began, calls = time.perf_counter(), 0
  while (spent := time.perf_counter() - began) < _TURN_SECONDS or not calls:
    jax.block_until_ready(work())
    calls += 1
  return calls / spent


def rates(
  name: str,
  ours: tuple[Callable[[], Any], int],
  peer: tuple[Callable[[], Any], int],
  *,
  rounds: int,
  unit: str,
  peer_name: str,
  bar: str = '',
) -> Row:
  """Times ours and the peer in turns of one second, after one turn as a warm-up.

  A turn counts its throughput: a program's first call after the other side's turn is
  up to twice as slow as the ones that follow.

  Args:
    name: the row's.
    ours: the work, and how many units one call does.
    peer: likewise.
    rounds: turns of each.
    unit: of the rates, ending in '/s'.
    peer_name: who the peer is.
    bar: what is aimed at.

  Returns:
    The row: the medians of both rates, and the lowest and highest ratio of a round.
  """
  rate: list[list[float]] = [[], []]
  for done in range(rounds + 1):
    for rates_of_side, (work, count) in zip(rate, (ours, peer), strict=True):
      measured = count * calls_per_second(work)
      if done:
        rates_of_side.append(measured)
  ratios = [a / b for a, b in zip(*rate, strict=True)]
  return Row(
    name=name,
    ours=statistics.median(rate[0]),
    peer=statistics.median(rate[1]),
    unit=unit,
    peer_name=peer_name,
    spread=(min(ratios), max(ratios)),
    bar=bar,
  )


def table(rows: Sequence[Row]) -> str:
  """The rows as text, one a line."""
  lines = [('', 'ours', 'peer', 'unit', 'ratio', 'rounds', 'bar', 'peer')]
  for row in rows:
    spread = '{:.2f} to {:.2f}'.format(*row.spread) if row.spread else ''
    lines.append(
      (
        row.name,
        f'{row.ours:,.1f}',
        f'{row.peer:,.1f}',
        row.unit,
        f'{row.ratio:,.2f}',
        spread,
        row.bar,
        row.peer_name,
      )
    )
  widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
  return '\n'.join(
    '  '.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
    for line in lines
  )
