"""Other goals of a thief: who was trained on, and inputs that fool the victim."""

from psml_jax.threats.membership import (
  confidences,
  likelihood_ratios,
  shadows,
  true_positive_rate,
)
from psml_jax.threats.transfer import pgd, transfer_rate

__all__ = [
  'confidences',
  'likelihood_ratios',
  'pgd',
  'shadows',
  'transfer_rate',
  'true_positive_rate',
]
