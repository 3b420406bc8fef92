"""Other goals of a thief: who was trained on, what fools the victim, who answered."""

from psml_jax.threats.channels import Told, told
from psml_jax.threats.detection import Detection, detection, true_positive_rate
from psml_jax.threats.membership import (
  Shadows,
  confidences,
  likelihood_ratios,
  mixed_ratios,
  of_distinct,
  shadows,
)
from psml_jax.threats.transfer import pgd, transfer_rate

__all__ = [
  'Detection',
  'Shadows',
  'Told',
  'confidences',
  'detection',
  'likelihood_ratios',
  'mixed_ratios',
  'of_distinct',
  'pgd',
  'shadows',
  'told',
  'transfer_rate',
  'true_positive_rate',
]
