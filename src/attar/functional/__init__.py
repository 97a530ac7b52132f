"""Formulas as in the papers: tensors in, tensors out, one number for each position, never reduced over positions."""

from attar.functional.correlations import class_relation, decorrelation, pearson, row_relation
from attar.functional.distances import cosine, mse, squared_error
from attar.functional.divergences import (
    alpha_beta,
    jsd,
    kl,
    kl_to_finite,
    log_probabilities,
    power_sum,
    reverse_kl,
    skew_kl,
    skew_reverse_kl,
    standardise,
    total_variation,
)
from attar.functional.gaussians import gaussian_kl
from attar.functional.rankings import margin_mse
from attar.functional.relations import (
    attention_kl,
    attention_map,
    attention_transfer,
    cka,
    relation_kl,
    rkd_angle,
    rkd_distance,
    similarity,
    similarity_kl,
    similarity_mse,
    similarity_preserving,
)
from attar.functional.targets import dkd, rest_cross_entropy, rest_kl, split, target_cross_entropy, target_kl

__all__ = [
    "alpha_beta",
    "attention_kl",
    "attention_map",
    "attention_transfer",
    "cka",
    "class_relation",
    "cosine",
    "decorrelation",
    "dkd",
    "gaussian_kl",
    "jsd",
    "kl",
    "kl_to_finite",
    "log_probabilities",
    "margin_mse",
    "mse",
    "pearson",
    "power_sum",
    "relation_kl",
    "rest_cross_entropy",
    "rest_kl",
    "reverse_kl",
    "rkd_angle",
    "rkd_distance",
    "row_relation",
    "similarity",
    "similarity_kl",
    "similarity_mse",
    "similarity_preserving",
    "skew_kl",
    "skew_reverse_kl",
    "split",
    "squared_error",
    "standardise",
    "target_cross_entropy",
    "target_kl",
    "total_variation",
]
