"""What the student is taught: terms that compare, weights that scale them, and their sum."""

from attar.objective.algebra import Distiller, Loss, Objective, Property, Term, as_objective, blend
from attar.objective.align import Align, Aligned
from attar.objective.balancing import balance
from attar.objective.correlations import dist, mlkd
from attar.objective.embeddings import cosine, embedding_mse, list_kl, margin_mse, similarity_kl, similarity_mse
from attar.objective.features import attention_transfer, hint, regrasp
from attar.objective.gating import gate
from attar.objective.methods import (
    at,
    decoupled_kd,
    dist_kd,
    distilbert,
    fitnets,
    hinton,
    logit_standardisation,
    rkd,
    simkd,
    sp,
    srrl,
    tinybert,
)
from attar.objective.numbers import bounded, gaussian
from attar.objective.relations import cka, rkd_angle, rkd_distance, similarity_preserving
from attar.objective.targets import dkd, nkd, virtual_teacher
from attar.objective.terms import alpha_beta, jsd, kl, labels, mse, reverse_kl, skew_kl, total_variation
from attar.objective.transformers import attention_scores, cosine_hidden, every, hidden_states, minilm, minilmv2
from attar.objective.transforms import standardised, ttm, wttm
from attar.objective.weights import Weight, ramp

__all__ = [
    "Align",
    "Aligned",
    "Distiller",
    "Loss",
    "Objective",
    "Property",
    "Term",
    "Weight",
    "alpha_beta",
    "as_objective",
    "at",
    "attention_scores",
    "attention_transfer",
    "balance",
    "blend",
    "bounded",
    "cka",
    "cosine",
    "cosine_hidden",
    "decoupled_kd",
    "dist",
    "dist_kd",
    "distilbert",
    "dkd",
    "embedding_mse",
    "every",
    "fitnets",
    "gate",
    "gaussian",
    "hidden_states",
    "hint",
    "hinton",
    "jsd",
    "kl",
    "labels",
    "list_kl",
    "logit_standardisation",
    "margin_mse",
    "minilm",
    "minilmv2",
    "mlkd",
    "mse",
    "nkd",
    "ramp",
    "regrasp",
    "reverse_kl",
    "rkd",
    "rkd_angle",
    "rkd_distance",
    "similarity_kl",
    "similarity_mse",
    "similarity_preserving",
    "simkd",
    "skew_kl",
    "sp",
    "srrl",
    "standardised",
    "tinybert",
    "total_variation",
    "ttm",
    "virtual_teacher",
    "wttm",
]
