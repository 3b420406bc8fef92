"""What PyTorch does for a population of surrogates: one by one, or stacked."""

import itertools
import math
from collections.abc import Iterator, Sequence

import torch
from torch import nn

from psml_jax import train


def create(widths: Sequence[int]) -> nn.Sequential:
  """An MLP, initialised; `widths` are those of its inputs, layers and outputs."""
  layers: list[nn.Module] = []
  for fan_in, fan_out in itertools.pairwise(widths):
    layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
  return nn.Sequential(*layers[:-1])


def fit(
  model: nn.Module,
  inputs: torch.Tensor,
  targets: torch.Tensor,
  draws: torch.Tensor,
  recipe: train.Steps,
) -> None:
  """Trains a model as `train.pure_fit` does: same loss, steps and schedule.

  Args:
    model: changed in place.
    inputs: f32[N, F].
    targets: f32[N, K], class probabilities.
    draws: i64[steps, batch], the rows of each minibatch.
    recipe: the settings.
  """
  optimiser = torch.optim.AdamW(
    model.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay
  )
  schedule = torch.optim.lr_scheduler.LambdaLR(
    optimiser, lambda step: share(step, recipe.steps)
  )
  for drawn in draws:
    loss = nn.functional.cross_entropy(model(inputs[drawn]), targets[drawn])
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    schedule.step()


def stack(models: Sequence[nn.Sequential]) -> list[torch.Tensor]:
  """The parameters of R MLPs as f32[R, in, out] kernels and f32[R, 1, out] biases."""
  stacked = []
  for layers in zip(*models, strict=True):
    if isinstance(layers[0], nn.Linear):
      stacked.append(torch.stack([layer.weight.detach().T for layer in layers]))
      stacked.append(torch.stack([layer.bias.detach()[None] for layer in layers]))
  return stacked


def create_stacked(widths: Sequence[int], num_rows: int) -> list[torch.Tensor]:
  """R initialised MLPs, distributed as those of `create` and stacked as by `stack`."""
  stacked = []
  for fan_in, fan_out in itertools.pairwise(widths):
    for rows in (fan_in, 1):
      values = torch.empty(num_rows, rows, fan_out)
      stacked.append(values.uniform_(-(fan_in**-0.5), fan_in**-0.5))
  return stacked


def fit_stacked(
  parameters: Sequence[torch.Tensor],
  inputs: torch.Tensor,
  targets: torch.Tensor,
  draws: torch.Tensor,
  recipe: train.Steps,
) -> None:
  """Trains R models at once by batched matrix products; each as `fit` does.

  Args:
    parameters: as from `stack`; changed in place.
    inputs: f32[R, N, F].
    targets: f32[R, N, K], class probabilities.
    draws: i64[steps, R, batch], the rows of each model's minibatch.
    recipe: the settings.
  """
  num_rows, num_inputs, _ = inputs.shape
  leaves = [values.requires_grad_() for values in parameters]
  optimiser = torch.optim.AdamW(
    leaves, lr=recipe.learning_rate, weight_decay=recipe.weight_decay, fused=True
  )
  inputs, targets = inputs.flatten(0, 1), targets.flatten(0, 1)
  draws = (draws + num_inputs * torch.arange(num_rows)[:, None]).flatten(1)
  for step, drawn in enumerate(draws):
    optimiser.param_groups[0]['lr'] = recipe.learning_rate * share(step, recipe.steps)
    hidden = inputs.index_select(0, drawn).unflatten(0, (num_rows, -1))
    for layer, (kernel, bias) in enumerate(_pairs(leaves)):
      hidden = torch.baddbmm(bias, torch.relu(hidden) if layer else hidden, kernel)
    loss = nn.functional.cross_entropy(
      hidden.flatten(0, 1), targets.index_select(0, drawn), reduction='sum'
    )
    optimiser.zero_grad()
    (loss / recipe.batch_size).backward()
    optimiser.step()


def _pairs(
  leaves: Sequence[torch.Tensor],
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
  return zip(leaves[::2], leaves[1::2], strict=True)


def share(step: int, steps: int) -> float:
  """Of the peak learning rate: a linear warm-up, then a cosine to zero."""
  warm_up = max(1, steps // 20)
  if step < warm_up:
    return step / warm_up
  return 0.5 + 0.5 * math.cos(math.pi * (step - warm_up) / (steps - warm_up))
