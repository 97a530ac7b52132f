"""How far a figure may be off because these rows were drawn and not others: bootstrap, proportions, paired proportions."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

__all__ = ["Draws", "Statistic", "bootstrap", "clopper_pearson", "newcombe", "paired_proportions", "unanimous", "wilson"]

Array = NDArray[np.float64]
Statistic = Callable[[Array], Array]
"""(R, N) row weights → (R,) values of one figure; see attar.statistics.metrics."""

K = TypeVar("K", bound=Hashable)

GROUPS = 200  # of the jackknife behind BCa's acceleration, a figure of order 1/√N that 200 groups give to about 0.002
BLOCK = 250_000  # row counts held at once: 2 MB, which stay in the cache


@dataclass(frozen=True)
class Draws:
    """One figure, and what it was on resampled rows. Draws of one bootstrap are paired: a difference of figures is `a - b`,
    a ratio `a / b`.

    value: on the rows as they are.
    draws: (R,) on resampled rows.
    left_out: (G,) with one of G groups of rows left out, for BCa.
    rows: N.
    """

    value: float
    draws: Array
    left_out: Array
    rows: int

    def __sub__(self, other: Draws) -> Draws:
        return Draws(self.value - other.value, self.draws - other.draws, self.left_out - other.left_out, self.rows)

    def __add__(self, other: Draws) -> Draws:
        return Draws(self.value + other.value, self.draws + other.draws, self.left_out + other.left_out, self.rows)

    def __mul__(self, factor: float) -> Draws:
        return Draws(self.value * factor, self.draws * factor, self.left_out * factor, self.rows)

    def __truediv__(self, other: Draws) -> Draws:
        with np.errstate(divide="ignore", invalid="ignore"):
            value = float(np.divide(self.value, other.value))
            return Draws(value, self.draws / other.draws, self.left_out / other.left_out, self.rows)

    @staticmethod
    def average(of: Iterable[Draws]) -> Draws:
        """The mean of several figures of one bootstrap, rows resampled for all of them together."""
        these = list(of)
        return reduce(lambda a, b: a + b, these) * (1 / len(these))

    @property
    def se(self) -> float:
        """Standard error from the sampling of rows; NaN where too few resamples gave a figure."""
        good = self._good()
        return float(good.std(ddof=1)) if len(good) else math.nan

    def quantile(self, p: float) -> float:
        """The bound below which the truth lies with confidence p: bias-corrected and accelerated (BCa). Efron 1987.

        NaN where more than a tenth of the resamples gave no figure (no positive row among them, say).
        """
        good = self._good()
        if not len(good) or math.isnan(self.value):
            return math.nan
        if good.min() == good.max():
            return float(good[0])
        share = ((good < self.value).sum() + (good <= self.value).sum()) / 2 / len(good)
        z0 = special.ndtri(np.clip(share, 0.5 / len(good), 1 - 0.5 / len(good)))
        off = np.nanmean(self.left_out) - self.left_out[~np.isnan(self.left_out)]
        spread = (off**2).sum() ** 1.5
        acceleration = (off**3).sum() / (6 * spread) if spread > 0 else 0.0
        z = z0 + special.ndtri(p)
        return float(np.quantile(good, special.ndtr(z0 + z / (1 - acceleration * z))))

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Two-sided BCa interval: (low, high)."""
        return self.quantile((1 - level) / 2), self.quantile((1 + level) / 2)

    def _good(self) -> Array:
        good = self.draws[~np.isnan(self.draws)]
        return good if len(good) >= 0.9 * len(self.draws) else good[:0]


def bootstrap(
    statistics: Mapping[K, Statistic], rows: int, *, resamples: int = 2000, seed: int = 0, weight: Array | None = None
) -> dict[K, Draws]:
    """Every statistic on the same resamples of `rows` rows, so that all differences are paired.

    weight: (N,) row weights, which the row counts multiply. Rows are taken to be independent.

    >>> values = np.arange(100.0)
    >>> found = bootstrap({"mean": lambda w: w @ values / w.sum(-1)}, 100, resamples=500)["mean"]
    >>> found.value, round(found.se)
    (49.5, 3)
    """
    weight = np.ones(rows) if weight is None else np.asarray(weight, dtype=np.float64)
    rng = np.random.default_rng(seed)
    groups = min(GROUPS, rows)
    member = rng.permutation(rows) % groups
    drawn: dict[K, list[Array]] = {name: [] for name in statistics}
    for counts in _counts(rng, rows, resamples):
        counts *= weight
        for name, statistic in statistics.items():
            drawn[name].append(statistic(counts))
    held_out: dict[K, list[Array]] = {name: [] for name in statistics}
    for start in range(0, groups, step := max(1, BLOCK // rows)):
        kept = weight * (member != np.arange(start, min(start + step, groups))[:, None])
        for name, statistic in statistics.items():
            held_out[name].append(statistic(kept))
    return {
        name: Draws(float(statistic(weight)), np.concatenate(drawn[name]), np.concatenate(held_out[name]), rows)
        for name, statistic in statistics.items()
    }


def wilson(hits: int, rows: int, level: float = 0.95) -> tuple[float, float]:
    """Score interval of a proportion; good coverage at any size. Wilson 1927."""
    found = stats.binomtest(hits, rows).proportion_ci(level, method="wilson")
    return float(found.low), float(found.high)


def clopper_pearson(hits: int, rows: int, level: float = 0.95) -> tuple[float, float]:
    """Exact interval of a proportion: never covers less than it says. Clopper and Pearson 1934."""
    found = stats.binomtest(hits, rows).proportion_ci(level, method="exact")
    return float(found.low), float(found.high)


def unanimous(share: float, rows: float, level: float = 0.95) -> tuple[float, float]:
    """Exact interval of a share of 0 or 1, of which a bootstrap knows no width: Clopper and Pearson's, closed in this case.

    rows: need not be whole, where they weigh differently and (Σ w)² / Σ w² of them count (Kish).

    >>> [round(x, 4) for x in unanimous(1.0, 100)]
    [0.9638, 1.0]
    """
    edge = ((1 - level) / 2) ** (1 / rows)
    return (edge, 1.0) if share >= 1 else (0.0, 1 - edge)


def paired_proportions(only_a: int, only_b: int, rows: int, level: float = 0.95) -> tuple[float, float]:
    """Score interval of P(a) − P(b) on the same rows, from the discordant rows: right in a only, right in b only. Tango 1998.

    Unlike a bootstrap it has a width where no row is discordant, which is when a claim of equality would be too easy.
    `level` is two-sided: the ends of 0.90 are the one-sided bounds at 5 %.

    >>> [round(x, 4) for x in paired_proportions(0, 0, 100)]
    [-0.037, 0.037]
    """
    z = special.ndtri((1 + level) / 2)
    observed = (only_a - only_b) / rows

    def excess(difference: float) -> float:
        # the score statistic; q: probability of "b only", by maximum likelihood given the difference
        b = -only_a - only_b + (2 * rows - only_a + only_b) * difference
        c = -only_b * difference * (1 - difference)
        q = (math.sqrt(max(b * b - 8 * rows * c, 0.0)) - b) / (4 * rows)
        variance = rows * (2 * q + difference * (1 - difference))
        off = only_a - only_b - rows * difference
        return 0.0 if off == 0 else off / math.sqrt(variance) if variance > 0 else math.copysign(math.inf, off)

    return _where(lambda d: excess(d) > z, -1.0, observed), _where(lambda d: excess(d) > -z, observed, 1.0)


def newcombe(both: int, only_a: int, only_b: int, neither: int, level: float = 0.95) -> tuple[float, float]:
    """Interval of P(a) − P(b) on the same rows, from all four counts: right in both, in a only, in b only, in neither. Newcombe 1998.

    His method 10: the Wilson intervals of the two shares, put together with the correlation φ of the pairs, corrected for continuity.
    Unlike Tango's score interval, `paired_proportions`, it uses the concordant rows, too, and needs no search.

    >>> [round(x, 3) for x in newcombe(1, 1, 7, 12)]
    [-0.507, -0.026]
    """
    rows = both + only_a + only_b + neither
    a, b = both + only_a, both + only_b
    (low_a, high_a), (low_b, high_b) = wilson(a, rows, level), wilson(b, rows, level)
    together = both * neither - only_a * only_b
    margins = a * (rows - a) * b * (rows - b)
    phi = (max(together - rows / 2, 0.0) if together > 0 else together) / math.sqrt(margins) if margins else 0.0

    def off(one: float, other: float) -> float:
        return math.sqrt(max(one * one - 2 * phi * one * other + other * other, 0.0))

    difference = (only_a - only_b) / rows
    return difference - off(a / rows - low_a, high_b - b / rows), difference + off(high_a - a / rows, b / rows - low_b)


def _where(left: Callable[[float], bool], low: float, high: float) -> float:
    """The point between low and high at which `left` turns from true to false, by bisection."""
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if left(middle) else (low, middle)
    return (low + high) / 2


def _counts(rng: np.random.Generator, rows: int, resamples: int) -> Iterator[Array]:
    """(r, rows) float64 counts of rows drawn with replacement, in blocks of r resamples."""
    step = max(1, BLOCK // rows)
    for start in range(0, resamples, step):
        r = min(step, resamples - start)
        drawn = rng.integers(0, rows, size=(r, rows)) + np.arange(r)[:, None] * rows
        yield np.bincount(drawn.ravel(), minlength=r * rows).reshape(r, rows).astype(np.float64)
