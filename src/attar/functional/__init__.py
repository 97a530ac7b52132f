"""Formulas as in the papers: tensors in, tensors out, one number for each position, never reduced over positions."""

from attar.functional.distances import mse, squared_error
from attar.functional.divergences import (
    alpha_beta,
    jsd,
    kl,
    kl_to_finite,
    log_probabilities,
    reverse_kl,
    skew_kl,
    skew_reverse_kl,
    total_variation,
)

__all__ = [
    "alpha_beta",
    "jsd",
    "kl",
    "kl_to_finite",
    "log_probabilities",
    "mse",
    "reverse_kl",
    "skew_kl",
    "skew_reverse_kl",
    "squared_error",
    "total_variation",
]
