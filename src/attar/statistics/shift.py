"""Shift: errors relative to the teacher's, accuracy told without labels, and when not to believe it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from attar.statistics.intervals import Draws

__all__ = [
    "CONFIDENCE",
    "DECISIONS",
    "LABELS",
    "Departure",
    "agreement_accuracy",
    "clustered_mean",
    "corruption_error",
    "departure",
    "error_of",
    "mean_error",
    "relative_error",
]

Array = NDArray[np.float64]

# How far the teacher's decisions and its confidence may move before the estimate is not to be believed. Over 753 pairs of a student and
# a corruption or other data (benchmarks/shift.py) 348 stay below; there it is off by 0.020 on average, the accuracy at home by 0.036. Of
# those that are off by more than 0.1, 95 % lie above, and of those off by less than 0.05, 31 %. On 172 pairs not looked at before: 0.018,
# 0.063, 98 % and 7 %.
DECISIONS, CONFIDENCE = 0.05, 0.1
LABELS = 30  # at home, below which nothing is told without labels


def error_of(metric: Draws, better: int) -> Draws:
    """The error that a metric tells: 1 − m where more is better (accuracy, AUROC, R² …), m itself where less is (RMSE, log-loss …)."""
    if better < 0:
        return metric
    return Draws(1 - metric.value, 1 - metric.draws, 1 - metric.left_out, metric.rows)


def corruption_error(student: Sequence[Draws], teacher: Sequence[Draws]) -> Draws:
    """CE = Σ_s E_student,s / Σ_s E_teacher,s over severities s. Hendrycks and Dietterich, ICLR 2019, section 4.2, arXiv:1903.12261.

    Their reference is AlexNet, ours the teacher: above 1 the student errs more than the teacher does. NaN where the teacher never errs.
    """
    return _ratio(_sum(student), _sum(teacher))


def relative_error(student: Sequence[Draws], teacher: Sequence[Draws], student_clean: Draws, teacher_clean: Draws) -> Draws:
    """Relative CE = Σ_s (E_student,s − E_student,clean) / Σ_s (E_teacher,s − E_teacher,clean), of the same paper.

    Above 1 the corruption costs the student more errors than the teacher, whatever both err on clean rows. NaN where the teacher loses
    nothing: a denominator that is not positive with 97.5 % confidence gives a ratio that means nothing.
    """
    lost = _sum([s - teacher_clean for s in teacher])
    if not lost.quantile(0.025) > 0:
        return Draws(math.nan, np.full_like(lost.draws, math.nan), np.full_like(lost.left_out, math.nan), lost.rows)
    return _ratio(_sum([s - student_clean for s in student]), lost)


def mean_error(errors: Sequence[Draws]) -> Draws:
    """mCE: the mean over corruptions of those that there are, each of which counts alike. NaN where there is none."""
    there = [error for error in errors if not math.isnan(error.value)]
    return Draws.average(there) if there else errors[0]


def agreement_accuracy(
    home_alike: ArrayLike, home_right: ArrayLike, alike: ArrayLike, home_weight: ArrayLike | None = None, weight: ArrayLike | None = None
) -> tuple[float, float, float]:
    """A student's accuracy on rows without labels, from how often it agrees there with its teacher: (value, low, high), 95 %.

    home_alike, home_right: (N,) bool of labelled rows at home: do student and teacher decide alike, and is the student right?
    alike: (M,) bool of the rows without labels. home_weight, weight: (N,), (M,) row weights.

    P(right) = P(alike) · a + (1 − P(alike)) · b, with a = P(right | alike) and b = P(right | not alike) as they are at home. So it knows
    what the student loses by leaving the teacher, and not what both lose together: `departure` says when that is to be feared. The
    interval is that of sampling alone. Baek et al. 2022 (arXiv:2206.13089) find agreement on a line with accuracy over many pairs of
    models; here there is one pair, whose teacher is known, so that the line is drawn from its own labelled rows. NaN below 30 of these.

    >>> [round(x, 2) for x in agreement_accuracy([True] * 80 + [False] * 20, [True] * 72 + [False] * 28, [True] * 50 + [False] * 50)]
    [0.46, 0.36, 0.56]
    """
    together, right, here = (np.asarray(x, dtype=np.float64) for x in (home_alike, home_right, alike))
    w, v = _weights(home_weight, len(together)), _weights(weight, len(here))
    if len(together) < LABELS or not len(here):
        return math.nan, math.nan, math.nan
    agreed = float((v * here).sum() / v.sum())
    (a, var_a), (b, var_b) = (_smoothed(w * chosen, right) for chosen in (together, 1 - together))
    value = agreed * a + (1 - agreed) * b
    sampled = agreed * (1 - agreed) * (v**2).sum() / v.sum() ** 2
    off = float(special.ndtri(0.975)) * math.sqrt((a - b) ** 2 * sampled + agreed**2 * var_a + (1 - agreed) ** 2 * var_b)
    return value, max(0.0, value - off), min(1.0, value + off)


def clustered_mean(values: ArrayLike, cluster: ArrayLike) -> tuple[float, float, float]:
    """The mean of (N,) values and its 95 % interval, where values of one cluster, (N,) numbers, go together: (mean, low, high).

    Linearised, Student's t with one degree of freedom less than there are clusters; no interval (NaN) of one alone. Liang and Zeger 1986,
    with the correction K / (K − 1).

    >>> [round(x, 3) for x in clustered_mean([0.01, 0.03, 0.04, 0.06], [0, 0, 1, 1])]
    [0.035, -0.156, 0.226]
    """
    v, which = np.asarray(values, dtype=np.float64), np.unique(np.asarray(cluster), return_inverse=True)[1]
    mean, count = float(v.mean()), int(which.max()) + 1
    if count < 2:
        return mean, math.nan, math.nan
    off = np.bincount(which, v - mean)
    half = float(special.stdtrit(count - 1, 0.975)) * math.sqrt(count / (count - 1) * float((off**2).sum())) / len(v)
    return mean, mean - half, mean + half


@dataclass(frozen=True)
class Departure:
    """How far a teacher's answers have moved from those at home, each 0..1.

    decisions: total variation between the shares of its decisions, less what chance makes of as many rows.
    confidence: by how much the mean probability of its likeliest outcome changed, either way.
    """

    decisions: float
    confidence: float

    @property
    def alarm(self) -> bool:
        """Whether what is told from agreement is not to be believed: the teacher itself may have collapsed."""
        return self.decisions > DECISIONS or self.confidence > CONFIDENCE


def departure(home: tuple[ArrayLike, ArrayLike], here: tuple[ArrayLike, ArrayLike], classes: int) -> Departure:
    """How far a teacher's answers have moved; home, here: (N,) decisions of so many classes, and (N,) probabilities of the likeliest.

    Confidence alone does not tell: a net that sees noise often says one class, and is sure of it. The shares of its decisions do, and
    they also move where the classes are in other proportions there, which spoils the estimate as well. Neither shows a teacher that is
    wrong as surely and in the same proportions as it was right, as of a new type of what it knows.
    """
    (decided, sure), (decided_here, sure_here) = ((np.asarray(d), np.asarray(c, dtype=np.float64)) for d, c in (home, here))
    n, m = len(decided), len(decided_here)
    p, q = (np.bincount(d, minlength=classes) / len(d) for d in (decided, decided_here))
    both = (n * p + m * q) / (n + m)
    chance = np.sqrt(2 / math.pi * both * (1 - both) * (1 / n + 1 / m)).sum() / 2  # mean of |N(0, σ²)| is σ √(2/π)
    return Departure(max(0.0, float(np.abs(p - q).sum() / 2 - chance)), abs(float(sure.mean() - sure_here.mean())))


def _smoothed(weight: Array, right: Array) -> tuple[float, float]:
    """A share and the variance of it, half a row of each kind added: one cell may be empty, and then it knows nothing."""
    total, square = float(weight.sum()), float((weight**2).sum())
    n = total**2 / square if square else 0.0
    p = (n * float((weight * right).sum()) / total + 0.5) / (n + 1) if total else 0.5
    return p, p * (1 - p) / (n + 1)


def _weights(weight: ArrayLike | None, rows: int) -> Array:
    return np.ones(rows) if weight is None else np.asarray(weight, dtype=np.float64)


def _sum(parts: Sequence[Draws]) -> Draws:
    return Draws.average(parts) * len(parts)


def _ratio(a: Draws, b: Draws) -> Draws:
    with np.errstate(divide="ignore", invalid="ignore"):
        value = a.value / b.value if b.value > 0 else math.nan
        draws, left_out = (np.where(y > 0, x / y, math.nan) for x, y in ((a.draws, b.draws), (a.left_out, b.left_out)))
    return Draws(value, draws, left_out, a.rows)
