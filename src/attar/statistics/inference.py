"""Few labels and many rows without: how often a student is right, with the teacher's answers standing in for labels."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

__all__ = ["FEWEST_DISAGREEMENTS", "PredictionPowered", "prediction_powered"]

FEWEST_DISAGREEMENTS = 5  # of student and teacher on labelled rows: with fewer, these rows hardly show whom to believe where it matters
SURE = 8  # a Poisson count of this mean is at least five in nine of ten cases
PSEUDO = 0.5  # counts added either way to the spread of the correction, so that it does not vanish where few labels show an error


@dataclass(frozen=True)
class PredictionPowered:
    """A share estimated from labels and from what stands in for them, with an interval.

    value, low, high: NaN where the labelled rows hold too few disagreements to be trusted.
    disagreements: of student and teacher on labelled rows.
    labels_needed: with which there would be enough in nine of ten cases; None where there are, or where the two never disagree.
    """

    value: float
    low: float
    high: float
    labelled: int
    unlabelled: int
    disagreements: int
    labels_needed: int | None = None

    @property
    def refused(self) -> bool:
        """Whether there are too few disagreements, or no unlabelled row."""
        return math.isnan(self.value)


def prediction_powered(right: ArrayLike, agrees: ArrayLike, agrees_unlabelled: ArrayLike, level: float = 0.95) -> PredictionPowered:
    """P(student is right): mean of 1[s = t] over unlabelled rows, plus mean of 1[s = y] − 1[s = t] over labelled ones.

    right: (n,) bool, student = label; agrees: (n,) bool, student = teacher, on the same rows; agrees_unlabelled: (N,) bool. Labelled rows
    are to be a random sample of all. Angelopoulos et al. 2023, arXiv:2301.09633: whatever the teacher is worth, the second mean takes its
    errors out again. The interval is narrower than that of labels alone unless the teacher errs more often than the student.

    The variance is that of the two means. The correction lies in {−1, 0, +1} and is rarely not 0 where the teacher is good: half a count is
    added to either sign in its variance, without which a few hundred labels that show no error of the teacher would promise too much.
    Unlike PPI++ (arXiv:2311.01453) the second mean is not scaled by a λ fitted on the same rows, which covers too rarely with 200 labels.
    Refused (NaN) where student and teacher disagree on fewer than five labelled rows, or no row is without a label.

    >>> right, agrees = np.arange(200) % 9 > 0, np.arange(200) % 8 > 0
    >>> found = prediction_powered(right, agrees, np.arange(5000) % 8 > 0)
    >>> round(found.value, 3), found.disagreements
    (0.885, 25)
    """
    s, f, far = (np.asarray(x, dtype=bool) for x in (right, agrees, agrees_unlabelled))
    n, many, disagreements = len(s), len(far), int((~f).sum())
    if disagreements < FEWEST_DISAGREEMENTS or not many:
        rate = ((~f).sum() + (~far).sum()) / max(n + many, 1)
        needed = max(n + 1, math.ceil(SURE / rate)) if rate > 0 else None
        return PredictionPowered(math.nan, math.nan, math.nan, n, many, disagreements, needed)
    stands_in = float(far.mean())
    up, down = float((s & ~f).sum()), float((f & ~s).sum())
    value = min(max(stands_in + (up - down) / n, 0.0), 1.0)  # few labels can carry the sum of two means beyond what a share can be
    p, q = (up + PSEUDO) / (n + 2 * PSEUDO), (down + PSEUDO) / (n + 2 * PSEUDO)
    variance = stands_in * (1 - stands_in) / many + (p + q - (p - q) ** 2) / n
    half = float(special.ndtri((1 + level) / 2)) * math.sqrt(variance)
    return PredictionPowered(value, max(0.0, value - half), min(1.0, value + half), n, many, disagreements)
