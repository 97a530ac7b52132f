"""Two models on one group of rows: paired differences, their intervals, the worst of many groups, and how far groups lie apart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from attar.statistics.delong import delong
from attar.statistics.intervals import paired_proportions
from attar.statistics.tests import mcnemar

__all__ = [
    "Apart",
    "Paired",
    "PairedMeans",
    "PairedShares",
    "apart",
    "found_by",
    "largest_loss",
    "paired_means",
    "paired_shares",
    "share_of",
]


class Paired(Protocol):
    """A figure of a and of b on the same rows: the difference a − b, the two-sided p of "none", and its interval at any level."""

    @property
    def a(self) -> float: ...
    @property
    def b(self) -> float: ...
    @property
    def difference(self) -> float: ...
    @property
    def p(self) -> float: ...
    def interval(self, level: float = 0.95) -> tuple[float, float]: ...


@dataclass(frozen=True)
class PairedShares:
    """Shares of decisions that are right. See `paired_shares`.

    rows: how many independent rows with equal weights would tell as much. only_a, only_b: on how many of them one alone is right.
    exact: whether these are counts.
    """

    a: float
    b: float
    rows: float
    only_a: float
    only_b: float
    exact: bool

    @property
    def difference(self) -> float:
        return self.a - self.b

    @property
    def p(self) -> float:
        """Exact McNemar; where rows are weighted or have several decisions its score test, which the interval inverts."""
        if self.exact:
            return mcnemar(round(self.only_a), round(self.only_b))
        apart = self.only_a + self.only_b
        return 1.0 if apart == 0 else float(2 * special.ndtr(-abs(self.only_a - self.only_b) / math.sqrt(apart)))

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Paired score interval. Tango 1998."""
        low, high = paired_proportions(self.only_a, self.only_b, self.rows, level)  # pyright: ignore[reportArgumentType] real numbers do as well
        return float(low), float(high)


@dataclass(frozen=True)
class PairedMeans:
    """Means of two numbers of each row. See `paired_means`. se: standard error of the difference; rows: behind it."""

    a: float
    b: float
    se: float
    rows: int

    @property
    def difference(self) -> float:
        return self.a - self.b

    @property
    def p(self) -> float:
        """Paired t test."""
        if self.rows < 2:
            return 1.0
        if self.se == 0:
            return 1.0 if self.difference == 0 else 0.0
        return float(2 * special.stdtr(self.rows - 1, -abs(self.difference) / self.se))

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Student's t."""
        half = math.inf if self.rows < 2 else float(special.stdtrit(self.rows - 1, (1 + level) / 2)) * self.se
        return self.difference - half, self.difference + half


def paired_shares(a: ArrayLike, b: ArrayLike, weight: ArrayLike | None = None, row: ArrayLike | None = None) -> PairedShares:
    """Where a and b are right, (M,) bool each, M ≥ 1 → their shares and what tells them apart.

    weight: (M,). row: (M,), which row each decision belongs to, where rows have several. With either, the counts are those of as many
    rows as give the difference the variance that it has (linearised, rows as clusters): Korn and Graubard 1998. Where no decision
    differs that is 0 / 0, and Kish's (Σ w)² / Σ w² of the rows stands in.

    >>> found = paired_shares([True] * 90 + [False] * 10, [True] * 84 + [False] * 16)
    >>> round(found.difference, 4), found.p, [round(x, 3) for x in found.interval()]
    (0.06, 0.03125, [0.021, 0.125])
    """
    x, y = np.asarray(a, dtype=bool), np.asarray(b, dtype=bool)
    w = np.ones(len(x)) if weight is None else np.asarray(weight, dtype=np.float64)
    total = w.sum()
    only_a, only_b = float(w @ (x & ~y) / total), float(w @ (y & ~x) / total)
    if weight is None and row is None:
        rows, exact = float(len(x)), True
    else:
        cluster = np.arange(len(x)) if row is None else np.unique(np.asarray(row), return_inverse=True)[1]
        off = w * (x.astype(np.float64) - y - (only_a - only_b))
        rows, exact = _effective(np.bincount(cluster, off), np.bincount(cluster, w), only_a + only_b - (only_a - only_b) ** 2), False
        rows = min(rows, float(len(x)))
    return PairedShares(float(w @ x / total), float(w @ y / total), rows, only_a * rows, only_b * rows, exact)


def share_of(hits: ArrayLike, weight: ArrayLike | None = None, row: ArrayLike | None = None) -> tuple[float, float, float]:
    """Where something is so, (M,) bool, M ≥ 1 → (share, low, high), Wilson's 95 % interval; weight and row as in `paired_shares`.

    >>> [round(x, 4) for x in share_of([True] * 9 + [False])]
    [0.9, 0.5958, 0.9821]
    """
    found = paired_shares(hits, np.zeros(len(np.asarray(hits)), dtype=bool), weight, row)
    return (found.a, *_score(found.a, found.rows, 0.05))


def found_by(scores: ArrayLike, hits: ArrayLike, level: float = 0.95) -> tuple[float, float, float]:
    """How well scores (N,) rank the rows that are hits, (N,) bool, above the others: (AUROC, low, high); two rows of either kind or more.

    DeLong's variance on the log-odds scale, which keeps the ends within 0..1, with Student's t of as many degrees of freedom as the rarer
    kind of row leaves: of ten such rows and an AUROC of 0.96 a normal quantile covers 89 % in simulation. Where all pairs are ranked
    right that has no width: the rows of the rarer kind, each paired with one of the other, are then as many independent trials that all
    went well (Clopper and Pearson).

    >>> [round(x, 3) for x in found_by([0.1, 0.4, 0.35, 0.8, 0.2, 0.3, 0.7], [False, False, True, True, False, False, True])]
    [0.917, 0.014, 1.0]
    """
    scores, hits = np.asarray(scores, dtype=np.float64), np.asarray(hits, dtype=bool)
    value, covariance = (float(x.ravel()[0]) for x in delong(scores, hits))
    fewest = min(int(hits.sum()), int((~hits).sum()))
    edge = ((1 - level) / 2) ** (1 / fewest)
    if value >= 1:
        return 1.0, edge, 1.0
    if value <= 0:
        return 0.0, 0.0, 1 - edge
    half = float(special.stdtrit(fewest - 1, (1 + level) / 2)) * math.sqrt(covariance) / (value * (1 - value))
    middle = float(special.logit(value))
    return value, float(special.expit(middle - half)), float(special.expit(middle + half))


def _effective(off: NDArray, w: NDArray, variance: float) -> float:
    """Rows that tell as much, from (k,) weighted deviations of clusters and their weights, and the variance of one decision."""
    k = len(off)
    spread = (off @ off) * k / max(k - 1, 1) / w.sum() ** 2
    return variance / spread if spread > 1e-15 and variance > 0 else float(w.sum() ** 2 / (w @ w))


def paired_means(a: ArrayLike, b: ArrayLike, weight: ArrayLike | None = None) -> PairedMeans:
    """Two numbers of each row, (N,) each, N ≥ 1 → their weighted means, and the standard error of the difference.

    The error is √(Σ w² (d − mean d)² n / (n − 1)) / Σ w: without weights that of the paired t test.

    >>> found = paired_means([1.0, 2.0, 4.0], [1.0, 1.5, 2.5])
    >>> round(found.difference, 4), round(found.p, 4)
    (0.6667, 0.2697)
    """
    x, y = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    w = np.ones(len(x)) if weight is None else np.asarray(weight, dtype=np.float64)
    means, n = (float(w @ x / w.sum()), float(w @ y / w.sum())), len(x)
    off = w * (x - y - (means[0] - means[1]))
    se = math.sqrt(float(off @ off) * n / max(n - 1, 1)) / float(w.sum())
    return PairedMeans(*means, se=se, rows=n)


def largest_loss(groups: Sequence[Paired], *, better: int = 1, level: float = 0.95) -> tuple[int, float, float, float]:
    """Which of m groups loses most from b to a, how much, and an interval of the largest loss: (place, loss, low, high).

    better: +1 where more of the figure is better, −1 where less is. The loss seen is too large on average, for it is the largest of m;
    the interval holds all the same: with every group's interval at level 1 − (1 − level) / m all hold at once (Bonferroni), and the
    largest true loss then lies between the largest of their low ends and the largest of their high ends.
    """
    losses = [-better * g.difference for g in groups]
    ends = [sorted(-better * end for end in g.interval(1 - (1 - level) / len(groups))) for g in groups]
    worst = int(np.argmax(losses))
    return worst, losses[worst], max(low for low, _ in ends), max(high for _, high in ends)


@dataclass(frozen=True)
class Apart:
    """How far the rates of groups lie apart: the largest difference between two of them, of a and of b, each with its interval.

    change: a's less b's.
    """

    a: float
    b: float
    of_a: tuple[float, float]
    of_b: tuple[float, float]
    change: tuple[float, float]


def apart(strata: Sequence[Sequence[PairedShares]], level: float = 0.95) -> Apart:
    """Groups' rates of a positive decision, by a and by b → how far they lie apart.

    strata: one of all rows gives the difference in demographic parity; one of positive and one of negative rows that in equalised odds.
        In each the same two groups or more. The formulae are those of fairlearn's demographic_parity_difference and
        equalized_odds_difference; Hardt, Price and Srebro 2016.

    A bootstrap does not serve here: where groups are alike the largest difference cannot fall below 0, and in simulation its intervals
    missed the truth always. Instead the differences of all m pairs of groups have intervals at once (Newcombe's from Wilson's, at
    1 − (1 − level) / m), and the largest lies between the largest of their low ends and the largest of their high ends. Of the change:
    it lies between the change of that pair that lies farthest apart by b and that of the one that does so by a; all pairs that may be
    these are looked at, with half of what may go wrong for finding them, and half for their changes (square and add of Tango's).
    """
    alpha = (1 - level) / sum(len(stratum) * (len(stratum) - 1) / 2 for stratum in strata)
    values, ends, wide = ({who: [] for who in ("a", "b")} for _ in range(3))
    for stratum in strata:
        for who, rates in (("a", [g.a for g in stratum]), ("b", [g.b for g in stratum])):
            values[who] += [p - q for p, q in permutations(rates, 2)]  # both orders: the interval of one is the other's, turned round
            for found, share in ((ends, alpha), (wide, alpha / 4)):
                scored = [(p, _score(p, g.rows, share)) for p, g in zip(rates, stratum, strict=True)]
                found[who] += [_less(*g, *h) for g, h in permutations(scored, 2)]
    told = [pair for stratum in strata for pair in permutations([(g.difference, g.interval(1 - alpha / 2)) for g in stratum], 2)]
    changes = [_less(*g, *h) for g, h in told]
    floor = {who: max(low for low, _ in wide[who]) for who in wide}
    first = {who: [c for c, end in zip(changes, wide[who], strict=True) if end[1] >= floor[who]] for who in wide}
    return Apart(
        max(values["a"]),
        max(values["b"]),
        _largest(ends["a"]),
        _largest(ends["b"]),
        (min(low for low, _ in first["b"]), max(high for _, high in first["a"])),
    )


def _largest(ends: Sequence[tuple[float, float]]) -> tuple[float, float]:
    return max(0.0, max(low for low, _ in ends)), max(high for _, high in ends)


def _less(x: float, of_x: tuple[float, float], y: float, of_y: tuple[float, float]) -> tuple[float, float]:
    """The interval of x − y from those of x and y, which are independent: square and add. Zou and Donner 2008."""
    return x - y - math.hypot(x - of_x[0], of_y[1] - y), x - y + math.hypot(of_x[1] - x, y - of_y[0])


def _score(p: float, n: float, alpha: float) -> tuple[float, float]:
    """Wilson's interval, of rows that need not be a whole number."""
    z = float(special.ndtri(1 - alpha / 2))
    middle, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return (middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)
