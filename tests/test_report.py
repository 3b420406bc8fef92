"""The report: nothing clipped, nothing fetched, nothing taken for markup."""

import copy
import os
import re

import numpy as np
import pytest
from matplotlib.image import imread
from matplotlib.text import Text

from psml_jax import report
from psml_jax.report import plots

NAMES = ('tiny', 'linear_8', 'linear', 'mlp_16', 'mlp_64', 'slow_mlp', 'cnn')
ACCURACY = (0.43, 0.71, 0.874, 0.912, 0.953, 0.9, 0.972)
LATENCY = (0.021, 0.034, 0.058, 0.11, 0.24, 0.31, 0.9)
VICTIMS = {'small': 'tiny', 'medium': 'linear', 'large': 'cnn'}
SCALES = (0.02, 0.05, 0.1, 0.14, 0.2, 0.3)


def estimate(mean, spread=0.008):
  return {'mean': mean, 'ci95': [mean - spread, mean + spread]}


def bisection(accuracy, latency, rng):
  """Probes that halve the latency, then the accuracy, as a fingerprint would."""
  rows = [(0.0, np.inf, True)]
  low, high = 0.0, 1.2
  for _ in range(9):
    middle = (low + high) / 2
    rows.append((accuracy - 0.001, middle, middle >= latency))
    low, high = (low, middle) if middle >= latency else (middle, high)
  low, high = 0.0, 1.0
  for _ in range(9):
    middle = (low + high) / 2
    rows.append((middle, latency * 1.001, middle <= accuracy))
    low, high = (middle, high) if middle <= accuracy else (low, middle)
  return rows


def extraction_rows(rng):
  rows = []
  for name in VICTIMS.values():
    top = ACCURACY[NAMES.index(name)]
    for budget in (100, 200, 400):
      gain = 0.06 * np.log2(budget / 100) / 2
      for attack, defense, scale, loss, purity in (
        ('explicit', 'none', 0.0, 0.0, 1.0),
        ('naive', 'none', 0.0, 0.09, 0.2),
        ('fingerprint', 'none', 0.0, 0.004, 1.0),
        ('fingerprint', 'laplace(0.05)', 0.05, 0.03, 0.8),
        ('fingerprint', 'laplace(0.14)', 0.14, 0.055, 0.5),
        ('fingerprint', 'laplace(0.3)', 0.3, 0.08, None),
      ):
        fidelity = 0.92 + gain - loss + 0.004 * rng.normal()
        rows.append(
          {
            'victim': name,
            'attack': attack,
            'defense': defense,
            'scale': scale,
            'query_budget': budget,
            'queries_billed': budget - 0.4 * (attack == 'fingerprint'),
            'queries_served': budget * (0.8 if scale else 1.0),
            'victim_purity': purity,
            'accuracy': estimate(min(top, 0.97 * top + gain / 2 - loss)),
            'fidelity': estimate(fidelity, 0.012),
          }
        )
  return rows


@pytest.fixture
def summary():
  rng = np.random.default_rng(0)
  goodput = {scale: 1 - 1.35 * scale + scale**2 for scale in (0.0, *SCALES)}
  corners = {name: (ACCURACY[i], LATENCY[i]) for i, name in enumerate(NAMES)}
  return {
    'dataset': 'digits',
    'seeds': 5,
    'device': 'cpu (2 cores)',
    'wall_seconds': {'zoo': 31.2, 'profile': 8.0, 'attack': 64.9, 'report': 3.1},
    'zoo': [
      {'name': name, 'accuracy': a, 'latency_ms': ms, 'pareto': name != 'slow_mlp'}
      for name, a, ms in zip(NAMES, ACCURACY, LATENCY, strict=True)
    ],
    'victims': VICTIMS,
    'fingerprint': [
      {
        'victim': name,
        'probes': 19,
        'bound': 17.3,
        'min_accuracy': corners[name][0],
        'max_latency_ms': corners[name][1],
        'identified': True,
      }
      for name in VICTIMS.values()
    ],
    'probes': [
      {
        'victim': name,
        'min_accuracy': [row[0] for row in rows],
        'max_latency_ms': [row[1] for row in rows],
        'served': [bool(row[2]) for row in rows],
      }
      for name in VICTIMS.values()
      if (rows := bisection(*corners[name], rng))
    ],
    'extraction': extraction_rows(rng),
    'protection': [
      {
        'victim': 'linear',
        'attack': attack,
        'scale': scale,
        'goodput': estimate(goodput[scale]),
        'accuracy': estimate(0.86 - top * min(1, 4 * scale), 0.005),
        'fidelity': estimate(0.97 - 1.4 * top * min(1, 4 * scale), 0.006),
        'victim_purity': max(0.3, 1 - 3 * scale),
      }
      for attack, top in (('fingerprint', 0.09), ('corner', 0.07))
      for scale in (0.0, *SCALES)
    ],
    'goodput': [
      {
        'defense': f'laplace({scale:g})' if scale else 'none',
        'scale': scale,
        'goodput': estimate(goodput[scale], 0.004),
      }
      for scale in (0.0, *SCALES)
    ],
    'claims': [
      {
        'claim': 'fingerprinting beats the naive attack (accuracy, medium victim)',
        'paper': 'up to 14.6 % accuracy and 7.7 % fidelity',
        'measured': '+8.6 % (8.1 to 9.1) accuracy and +8.5 % (8.0 to 9.0) fidelity',
        'holds': True,
      },
      {
        'claim': 'useful at goodput above 80 %',
        'paper': 'yes',
        'measured': '84.2 % at b = 0.14',
        'holds': False,
      },
    ],
  }
