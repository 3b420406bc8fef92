"""What the numbers of a ladder come to: means over zoos, and the worst thief."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, TypeVar

import numpy as np

from psml_jax.metrics import Interval, interval
from psml_jax.report.ladder_records import Ladder, Rung

T = TypeVar('T')


class Thief(NamedTuple):
  """Who steals, and what becomes of it."""

  attack: str
  demix: str
  surrogate: str


class Behind(NamedTuple):
  """What a thief faces; `target` is None without a defense."""

  size: str
  defense: str
  target: float | None


def over_zoos(rungs: Iterable[T], of: Callable[[T], list[float]]) -> Interval:
  """A number's mean, with its interval over zoos; of one zoo, over seeds.

  Args:
    rungs: the same rung, or another record of runs, a zoo each.
    of: the rung's numbers, a seed each.
  """
  each = [of(rung) for rung in rungs]
  if len(each) == 1:
    return interval(each[0]) if len(each[0]) > 1 else Interval(*[np.nan] * 3)
  means = [float(np.mean(values)) for values in each if values]
  return interval(means) if len(means) > 1 else Interval(*[np.nan] * 3)


def fidelity(rung: Rung) -> list[float]:
  """Of all surrogates that did not diverge."""
  return [value for value in rung.fidelity if value is not None]


def gain(
  rungs: Iterable[Rung],
  others: Iterable[Rung],
  of: Callable[[Rung], list[float | None]],
) -> Interval:
  """How much more of a number the first rungs have, paired by zoo and seed.

  Args:
    rungs: a zoo each.
    others: the ones that they are compared with, of the same zoos.
    of: the number, a seed each; None where a surrogate diverged.
  """
  by_zoo = {rung.zoo: rung for rung in others}

  def beyond(rung: Rung) -> list[float]:
    pairs = zip(of(rung), of(by_zoo[rung.zoo]), strict=True)
    return [a - b for a, b in pairs if a is not None and b is not None]

  return over_zoos([rung for rung in rungs if rung.zoo in by_zoo], beyond)


def worst(study: Ladder) -> dict[Behind, tuple[Thief, Interval]]:
  """The thief with the highest mean fidelity behind each defense, and that fidelity."""
  found: dict[Behind, tuple[Thief, Interval]] = {}
  for (place, thief), rungs in grouped(study.rungs).items():
    value = over_zoos(rungs, fidelity)
    known = place in found and not np.isnan(found[place][1].mean)
    if not known or value.mean > found[place][1].mean:
      found[place] = (thief, value)
  return found


def explicit(study: Ladder, size: str, surrogate: str) -> dict[int, Interval]:
  """The fidelity of extraction from the named model at each number of queries."""
  own = [
    rung
    for rung in study.rungs
    if (rung.attack, rung.size, rung.surrogate) == ('explicit', size, surrogate)
  ]
  budgets = sorted({rung.queries for rung in own})
  return {
    n: over_zoos([rung for rung in own if rung.queries == n], fidelity) for n in budgets
  }


def predicted(study: Ladder, rung: Rung) -> float:
  """The explicit curve at rate times queries, linear in their logarithm.

  NaN where that is more than a tenth below the fewest queries of the curve.
  """
  curve = {
    one.queries: float(np.mean(fidelity(one)))
    for one in study.rungs
    if (one.zoo, one.attack, one.size, one.surrogate)
    == (rung.zoo, 'explicit', rung.size, rung.surrogate)
  }
  answers = (rung.best_rate or 0.0) * rung.queries
  if not curve or answers < 0.9 * min(curve):
    return float('nan')
  budgets = sorted(curve)
  at = np.interp(np.log(answers), np.log(budgets), [curve[n] for n in budgets])
  return float(at)


def grouped(rungs: Sequence[Rung]) -> dict[tuple[Behind, Thief], list[Rung]]:
  """The rungs of all zoos by what is faced and by who faces it."""
  found: dict[tuple[Behind, Thief], list[Rung]] = {}
  for rung in rungs:
    if rung.attack != 'explicit':
      place = Behind(rung.size, rung.defense, rung.target)
      thief = Thief(rung.attack, rung.demix, rung.surrogate)
      found.setdefault((place, thief), []).append(rung)
  return found
