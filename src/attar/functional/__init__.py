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
from attar.functional.targets import dkd, rest_cross_entropy, rest_kl, split, target_cross_entropy, target_kl

__all__ = [
    "alpha_beta",
    "dkd",
    "jsd",
    "kl",
    "kl_to_finite",
    "log_probabilities",
    "mse",
    "rest_cross_entropy",
    "rest_kl",
    "reverse_kl",
    "skew_kl",
    "skew_reverse_kl",
    "split",
    "squared_error",
    "target_cross_entropy",
    "target_kl",
    "total_variation",
]
