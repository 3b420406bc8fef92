"""Defenses: keyed transforms of the query on its way in, and of the reply.

They compose as optax composes gradient transforms::

  defended = defend(routers.uniform(zoo), laplace(*relative_scale(zoo, 0.1)))

The mechanism and its scale are public; only the key is secret.

| input | `identity` | `laplace`, `gaussian` | `refusal` |
|---|---|---|---|
| scale or share 0 | | the spec, bit for bit | the spec, bit for bit |
| negative, NaN or infinite, concrete | | ValueError | ValueError, and above 1 |
| negative, traced | | as its absolute value (the noise is symmetric) | as 0 |
| NaN, traced | | NaN specs, which leave no model feasible | as 0 |
| infinite spec | unchanged | unchanged: noise is finite | unchanged or refused |
| ... behind `defend` | | first moved to the end of the zoo's range | |
| NaN spec, traced | unchanged | NaN, which leaves no model feasible | likewise |
| empty feasible set | refused | noise can make it feasible, and the reverse | refused |
"""

from psml_jax.defenses.budget import Budget, budget, most_answers
from psml_jax.defenses.capped import capped, capped_corners
from psml_jax.defenses.fallback import FallBack, fall_back
from psml_jax.defenses.fieldwise import Fieldwise
from psml_jax.defenses.mechanisms import (
  MECHANISMS,
  Deployment,
  Knob,
  Mechanism,
  defended,
  deploy,
)
from psml_jax.defenses.noise import (
  gaussian,
  laplace,
  log_noise,
  noise,
  relative_scale,
  step_noise,
)
from psml_jax.defenses.quantised import quantised
from psml_jax.defenses.refusal import refusal
from psml_jax.defenses.reply import (
  REPLIES,
  ReplyTransform,
  in_turn,
  labels_only,
  padded,
  rounded,
  untouched,
)
from psml_jax.defenses.selection import Selection, exponential, permute_and_flip
from psml_jax.defenses.sticky import Sticky, luckiest_rate, sticky
from psml_jax.defenses.transform import (
  MemoryRouter,
  SpecTransform,
  chain,
  defend,
  identity,
)

__all__ = [
  'MECHANISMS',
  'REPLIES',
  'Budget',
  'Deployment',
  'FallBack',
  'Fieldwise',
  'Knob',
  'Mechanism',
  'MemoryRouter',
  'ReplyTransform',
  'Selection',
  'SpecTransform',
  'Sticky',
  'budget',
  'capped',
  'capped_corners',
  'chain',
  'defend',
  'defended',
  'deploy',
  'exponential',
  'fall_back',
  'gaussian',
  'identity',
  'in_turn',
  'labels_only',
  'laplace',
  'log_noise',
  'luckiest_rate',
  'most_answers',
  'noise',
  'padded',
  'permute_and_flip',
  'quantised',
  'refusal',
  'relative_scale',
  'rounded',
  'step_noise',
  'sticky',
  'untouched',
]
