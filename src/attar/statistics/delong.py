"""DeLong's variance of the area under the ROC curve: what a bootstrap of it would give, without resampling."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats

__all__ = ["AurocDifference", "auroc_difference", "delong"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class AurocDifference:
    """AUROC of a − AUROC of b on the same rows: its value, its interval, and the two-sided p of "both rank alike".

    Where both rank every pair of rows alike nothing varies: the interval is NaN, and p is 1.
    """

    value: float
    low: float
    high: float
    p: float


def delong(scores: ArrayLike, positive: ArrayLike) -> tuple[Array, Array]:
    """AUROCs of M scorings of the same rows and their covariance: (M, N), (N,) bool → (M,), (M, M). DeLong et al. 1988.

    The placement of a positive row is the share of negative rows scored below it, ties counting half, and the other way round; the
    AUROC is their mean, and its variance is that of two means. Placements come from mid-ranks, in O(N log N): Sun and Xu 2014.
    NaN covariance where there are fewer than two rows of either kind; NaN throughout without one of each. Rows weigh alike.

    >>> value, covariance = delong([[0.1, 0.4, 0.35, 0.8]], [False, False, True, True])
    >>> float(value[0]), float(covariance[0, 0])
    (0.75, 0.125)
    """
    z, hit = np.atleast_2d(np.asarray(scores, dtype=np.float64)), np.asarray(positive, dtype=bool)
    p, q = int(hit.sum()), int((~hit).sum())
    if not (p and q):
        return np.full(len(z), np.nan), np.full((len(z), len(z)), np.nan)
    among_all = stats.rankdata(z, axis=-1)
    of_positives = (among_all[:, hit] - stats.rankdata(z[:, hit], axis=-1)) / q  # (M, P)
    of_negatives = 1 - (among_all[:, ~hit] - stats.rankdata(z[:, ~hit], axis=-1)) / p  # (M, Q)
    value = of_positives.mean(-1)
    if min(p, q) < 2:
        return value, np.full((len(z), len(z)), np.nan)
    return value, np.atleast_2d(np.cov(of_positives)) / p + np.atleast_2d(np.cov(of_negatives)) / q


def auroc_difference(a: ArrayLike, b: ArrayLike, positive: ArrayLike, level: float = 0.95) -> AurocDifference:
    """AUROC of the scores a (N,) − that of b (N,) on the same rows, positive (N,) bool, with a normal interval. DeLong et al. 1988.

    Like the paired bootstrap of `auroc`, and as good from some thirty rows of each kind, at the cost of one sorting. Rows weigh alike;
    of weighted rows ask the bootstrap.

    >>> found = auroc_difference([0.1, 0.4, 0.35, 0.8, 0.6], [0.3, 0.4, 0.2, 0.5, 0.1], [False, False, True, True, True])
    >>> round(found.value, 3), round(found.p, 2)
    (0.5, 0.13)
    """
    value, covariance = delong(np.stack([np.asarray(a), np.asarray(b)]), positive)
    difference = float(value[0] - value[1])
    variance = float(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    if not variance > 1e-15:  # rounding leaves as much of two rankings that are the same
        return AurocDifference(difference, math.nan, math.nan, 1.0 if difference == 0 and variance >= -1e-15 else math.nan)
    half = float(special.ndtri((1 + level) / 2)) * math.sqrt(variance)
    return AurocDifference(
        difference, difference - half, difference + half, float(2 * special.ndtr(-abs(difference) / math.sqrt(variance)))
    )
