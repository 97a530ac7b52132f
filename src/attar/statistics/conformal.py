"""Conformal sets: the outcomes that cannot be ruled out, so that the right one is among them as often as was asked."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from attar.errors import EvidenceError

__all__ = ["conformal_rows", "conformal_sets", "conformal_spread", "conformal_thresholds"]

Array = NDArray[np.float64]


def conformal_rows(alpha: float) -> int:
    """The fewest calibration rows from which sets that miss at most a share alpha can be smaller than everything: ⌈1/α⌉ − 1.

    >>> [conformal_rows(alpha) for alpha in (0.1, 0.05, 0.01)]
    [9, 19, 99]
    """
    return math.ceil(1 / alpha - 1e-9) - 1


def conformal_thresholds(score: ArrayLike, labels: ArrayLike, alpha: float, *, by_class: bool = False) -> Array:
    """(n, C) scores of outcomes and (n,) labels of calibration rows → (C,): the score from which an outcome is in the set.

    score: more is likelier: probabilities, or their logs. The threshold is the ⌈(n + 1)(1 − α)⌉-th highest score of a right outcome: a
    new row's right outcome reaches it with probability ≥ 1 − α, over new and calibration rows together, if these are exchangeable.
    Split conformal prediction: Vovk et al. 2005; Sadinle et al. 2019 for the scores.
    by_class: one threshold for each class, from its own rows, so that each class is covered (Mondrian); else one for all.
    Raises EvidenceError where there are fewer rows, of a class where it is by class, than `conformal_rows`, and for alpha outside (0, 1).
    """
    if not 0 < alpha < 1:
        raise EvidenceError(f"alpha={alpha:g} is not between 0 and 1", hint="alpha=0.1 for sets that miss a tenth at most")
    s, y = np.asarray(score, dtype=np.float64), np.asarray(labels)
    right = np.take_along_axis(s, y[:, None], -1)[:, 0]
    counts = np.bincount(y, minlength=s.shape[-1]) if by_class else np.array([len(y)])
    needed = conformal_rows(alpha)
    if counts.min() < needed:
        where = f" of class {int(counts.argmin())}" if by_class else ""
        raise EvidenceError(f"{int(counts.min())} calibration rows{where}, and {needed} are needed for α = {alpha:g}", hint="more labels")
    parts = [right[y == c] for c in range(s.shape[-1])] if by_class else [right] * s.shape[-1]
    return np.array([_highest(part, alpha) for part in parts])


def conformal_sets(score: ArrayLike, thresholds: ArrayLike) -> NDArray[np.bool_]:
    """(N, C) scores → (N, C) bool: whether each outcome is in the row's set; a set may be empty.

    >>> calibration = np.log([[0.9, 0.1]] * 8 + [[0.6, 0.4]] * 2)
    >>> conformal_sets(np.log([[0.7, 0.3], [0.5, 0.5]]), conformal_thresholds(calibration, [0] * 10, 0.1)).sum(-1).tolist()
    [1, 0]
    """
    return np.asarray(score) >= np.asarray(thresholds)


def conformal_spread(rows: int, alpha: float, level: float = 0.95) -> tuple[float, float]:
    """Between which shares the coverage of new rows lies for so many calibration rows: Beta(k, n + 1 − k), k = ⌈(n + 1)(1 − α)⌉.

    The promise 1 − α is an average over calibration splits; of one split, this is what is known beforehand. Vovk 2012, where no two
    scores are equal. Raises EvidenceError for fewer rows than `conformal_rows`.

    >>> [round(x, 2) for x in conformal_spread(1000, 0.1)]
    [0.88, 0.92]
    """
    if rows < (needed := conformal_rows(alpha)):
        raise EvidenceError(f"{rows} calibration rows, and {needed} are needed for α = {alpha:g}", hint="more labels")
    k = _rank(rows, alpha)
    low, high = stats.beta.ppf([(1 - level) / 2, (1 + level) / 2], k, rows + 1 - k)
    return float(low), float(high)


def _rank(rows: int, alpha: float) -> int:
    return math.ceil((rows + 1) * (1 - alpha) - 1e-9)


def _highest(right: Array, alpha: float) -> float:
    k = _rank(len(right), alpha)
    return float(-np.partition(-right, k - 1)[k - 1])
