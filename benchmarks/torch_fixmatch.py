"""FixMatch as a plain PyTorch loop: one surrogate after the other."""

import copy
from collections.abc import Sequence

import torch
import torch_surrogates
from torch import nn

from psml_jax import train

_TURN, _SHEAR, _SHIFT, _FACTOR = torch.pi / 6, 0.3, 0.3, 0.95


def fit(
  widths: Sequence[int],
  pool: torch.Tensor,
  sent: torch.Tensor,
  targets: torch.Tensor,
  recipe: train.Steps,
  objective: train.FixMatch,
) -> nn.Module:
  """Trains an MLP as `train.pure_fit` does: loss, augmentation, steps, average.

  Args:
    widths: of its inputs, layers and outputs.
    pool: f32[P, 1, H, W], pixels in [0, 1].
    sent: i64[N], indices of the answered images.
    targets: f32[N, K], class probabilities.
    recipe: the settings; `rotation_degrees` is its augmentation.
    objective: likewise.

  Returns:
    The average of the weights.
  """
  model = torch_surrogates.create(widths)
  average = copy.deepcopy(model).requires_grad_(False)
  optimiser = torch.optim.AdamW(
    model.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay
  )
  schedule = torch.optim.lr_scheduler.LambdaLR(
    optimiser, lambda step: torch_surrogates.share(step, recipe.steps)
  )
  most = torch.pi * recipe.rotation_degrees / 180
  size = recipe.batch_size
  for step in range(recipe.steps):
    rows = torch.randint(len(sent), (size,))
    unlabelled = pool[torch.randint(len(pool), (objective.unlabelled * size,))]
    with torch.no_grad():
      guess = model(_flat(_turned(unlabelled, most))).softmax(-1)
      sure, classes = guess.max(-1)
      again = strong(_turned(unlabelled, most))
      shown = torch.cat([_turned(pool[sent[rows]], most), again])
    logits = model(_flat(shown))
    loss = nn.functional.cross_entropy(logits[:size], targets[rows])
    each = nn.functional.cross_entropy(logits[size:], classes, reduction='none')
    loss = loss + objective.weight * (each * (sure >= objective.threshold)).mean()
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    schedule.step()
    decay = min(recipe.ema_decay, (1 + step) / (10 + step))
    with torch.no_grad():
      for kept, new in zip(average.parameters(), model.parameters(), strict=True):
        kept.lerp_(new, 1 - decay)
  return average


def strong(images: torch.Tensor) -> torch.Tensor:
  """As `train.strong`: two of ten operations an image, and a grey square."""
  count = len(images)
  chosen = torch.rand(count, 10).argsort(-1) < 2
  strength = (2 * torch.rand(count, 10) - 1) * chosen
  images = _warped(
    images, _TURN * strength[:, 0], _SHEAR * strength[:, 1:3], _SHIFT * strength[:, 3:5]
  )
  rest = strength[:, 5:, None, None, None]
  factor = 1 + _FACTOR * rest
  images = images * factor[:, 0]
  mean = images.mean((1, 2, 3), keepdim=True)
  images = mean + (images - mean) * factor[:, 1]
  grey = images.mean(1, keepdim=True)
  images = (grey + (images - grey) * factor[:, 2]).clamp(0, 1)
  images = torch.where(images > 1 - rest[:, 3].abs(), 1 - images, images)
  levels = (2 ** (8 - 4 * rest[:, 4].abs())).round() - 1
  images = torch.where(rest[:, 4] == 0, images, (images * levels).round() / levels)
  extent = torch.tensor(images.shape[2:], dtype=torch.float32)
  side, centre = torch.rand(count, 1) / 2 * extent, torch.rand(count, 2) * extent
  rows, columns = (
    (torch.arange(images.shape[2 + axis]) + 0.5 - centre[:, axis, None]).abs()
    < side[:, axis, None] / 2
    for axis in (0, 1)
  )
  return images.masked_fill((rows[:, :, None] & columns[:, None])[:, None], 0.5)


def _turned(images: torch.Tensor, most: float) -> torch.Tensor:
  turn = (2 * torch.rand(len(images)) - 1) * most
  none = torch.zeros(len(images), 2)
  return _warped(images, turn, none, none)


def _warped(
  images: torch.Tensor, turn: torch.Tensor, shear: torch.Tensor, shift: torch.Tensor
) -> torch.Tensor:
  cosine, sine, one = turn.cos(), turn.sin(), torch.ones_like(turn)
  turned = torch.stack([cosine, -sine, sine, cosine], -1).view(-1, 2, 2)
  sheared = torch.stack([one, shear[:, 1], shear[:, 0], one], -1).view(-1, 2, 2)
  matrix = torch.cat([turned @ sheared, -2 * shift.flip(-1)[:, :, None]], -1)
  grid = nn.functional.affine_grid(matrix, list(images.shape), align_corners=False)
  return nn.functional.grid_sample(images, grid, align_corners=False)


def _flat(images: torch.Tensor) -> torch.Tensor:
  return (4 * images - 2).flatten(1)
