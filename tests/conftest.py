"""Strict settings for all tests: two CPU devices, and no silent rank promotion."""

import jax

jax.config.update('jax_num_cpu_devices', 2)
jax.config.update('jax_numpy_rank_promotion', 'raise')
