"""What the student is taught: terms that compare, weights that scale them, and their sum."""

from attar.objective.algebra import Distiller, Loss, Objective, Property, Term, as_objective, blend
from attar.objective.align import Align, Aligned
from attar.objective.balancing import balance
from attar.objective.correlations import dist, mlkd
from attar.objective.gating import gate
from attar.objective.numbers import bounded, gaussian
from attar.objective.targets import dkd, nkd, virtual_teacher
from attar.objective.terms import alpha_beta, jsd, kl, labels, mse, reverse_kl, skew_kl, total_variation
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
    "balance",
    "blend",
    "bounded",
    "dist",
    "dkd",
    "gate",
    "gaussian",
    "jsd",
    "kl",
    "labels",
    "mlkd",
    "mse",
    "nkd",
    "ramp",
    "reverse_kl",
    "skew_kl",
    "standardised",
    "total_variation",
    "ttm",
    "virtual_teacher",
    "wttm",
]
