"""What a score will be on rows that nobody has asked yet: prediction intervals, and what the choice of the best owes to luck."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

__all__ = ["Foreseen", "foreseen", "next_share", "shrunk"]


@dataclass(frozen=True)
class Foreseen:
    """Where a score will lie: value, low, high; and the standard deviations that this comes from.

    seeds: of one training about the mean of these, whose own error is in it. rows: of the rows at hand and those to come.
    both: of what these rows are to one seed and not to another, on the rows to come and in the mean at hand.
    """

    value: float
    low: float
    high: float
    seeds: float
    rows: float
    both: float


def foreseen(values: ArrayLike, row_se: float, own_ses: ArrayLike, *, rows: float, next_rows: float, level: float = 0.95) -> Foreseen:
    """The score of one more training, one file, on `next_rows` rows that are still to be asked, from (k,) seeds on `rows` other rows.

    values: (k,) scores of the seeds. row_se: standard error of their mean from the sampling of rows; own_ses: (k,) that of each, from the
        same resamples. rows, next_rows: where they weigh differently, as many as they count for (Kish).

    With n rows, m to come and the variances of a seed, of a row and of their interaction,

        Var(next − mean) = σ_seed² (1 + 1/k) + σ_row² (1/n + 1/m) + σ_both² (1/(k n) + 1/m),

    where s², the variance over `values`, estimates σ_seed² + σ_both²/n, the mean of own_ses² σ_row²/n + σ_both²/n, and row_se²
    σ_row²/n + σ_both²/(k n). Each part is widened by the t-quantile of its own degrees of freedom, k − 1 of the seeds' and n − 1 of the
    rows' (Banerjee 1960, Sankhyā 22): five seeds that happen to lie close would else be believed, and Satterthwaite's degrees of freedom
    cover some 94 % where 95 % are asked. `seed_effect` has the interval of the mean instead: of trainings and rows without end, and so
    narrower. Infinite for fewer than two seeds, NaN where a standard error is.

    >>> found = foreseen([0.80, 0.81, 0.79, 0.80, 0.80], 0.02, [0.02] * 5, rows=500, next_rows=1000)
    >>> round(found.value, 3), round(found.low, 3), round(found.high, 3)
    (0.8, 0.747, 0.853)
    """
    x, own = np.asarray(values, np.float64), np.asarray(own_ses, np.float64)
    k, mean = len(x), float(x.mean())
    if k < 2:
        return Foreseen(mean, -math.inf, math.inf, math.inf, row_se, 0.0)
    share = rows / next_rows
    both = k / (k - 1) * max(float(np.mean(own**2)) - row_se**2, 0.0)  # σ_both² / n
    seed = max(float(x.var(ddof=1)) - both, 0.0)
    row = max(row_se**2 - both / k, 0.0)
    parts = seed * (1 + 1 / k), row * (1 + share), both * (1 / k + share)
    of_seeds, of_rows = (float(special.stdtrit(freedom, (1 + level) / 2)) for freedom in (k - 1, max(rows - 1, 1)))
    half = math.sqrt(of_seeds**2 * parts[0] + of_rows**2 * (parts[1] + parts[2]))
    return Foreseen(mean, mean - half, mean + half, *(math.sqrt(part) for part in parts))


def next_share(share: float, rows: float, next_rows: float, level: float = 0.95) -> tuple[float, float]:
    """Where a share will lie on `next_rows` rows, of which `share` of `rows` others is known: (low, high).

    Rows are right or wrong with one probability, which both samples tell together: the roots of (p − y)² = z² π (1 − π) (1/n + 1/m), π the
    share of both. So it has a width where all rows agree. Krishnamoorthy and Peng 2011, Journal of Statistical Planning and Inference 141.

    >>> [round(x, 3) for x in next_share(1.0, 300, 600)]
    [0.987, 1.0]
    """
    z = float(special.ndtri((1 + level) / 2))
    linear, square = z**2 / rows, 1 + z**2 * next_rows / (rows * (rows + next_rows))
    middle = linear * (1 - 2 * share)
    spread = math.sqrt(middle**2 + 4 * square * z**2 * share * (1 - share) * (1 / rows + 1 / next_rows))
    return max(0.0, share + (middle - spread) / (2 * square)), min(1.0, share + (middle + spread) / (2 * square))


def shrunk(values: ArrayLike, noise: float) -> NDArray[np.float64]:
    """(J,) figures of candidates that are compared on the same rows → (J,) drawn towards their mean, as far as they may differ by luck.

    noise: the variance of one figure beside another that is due to luck; of paired figures half the variance of their difference.

    Whoever is chosen for a figure, by whatever rule, has it from merit and from luck; what is left of it is this. True figures are normal
    about a common mean, and the share of luck in their variance, κ = noise / (noise + τ²), has beforehand a density as 1 / √κ (of
    Strawderman's family, 1971): what is left is 1 − E(κ). A posterior mean needs no correction for the choice (Efron 2011, "Tweedie's
    formula and selection bias"), as far as the prior is right: the best of three, flattered by .85 standard deviations of luck where all
    are equal, keeps .43 of it, and is put .2 too low where they differ much; with a flat density that were .36 and .33.
    One candidate alone was not chosen and keeps its figure.

    >>> shrunk([0.80, 0.79, 0.78], noise=1e-4).round(4).tolist(), shrunk([0.80, 0.70, 0.60], noise=1e-6).round(4).tolist()
    ([0.7947, 0.79, 0.7853], [0.8, 0.7, 0.6])
    """
    x = np.asarray(values, np.float64)
    off = x - x.mean()
    if len(x) < 2 or not noise > 0:
        return x
    a, rate = len(x) / 2, float((off**2).sum()) / (2 * noise)
    # κ is Gamma(a, rate) cut off at 1: its mean, which without squares is a / (a + 1)
    luck = a / (a + 1) if rate < 1e-9 else a / rate * float(special.gammainc(a + 1, rate) / special.gammainc(a, rate))
    return x.mean() + (1 - luck) * off
