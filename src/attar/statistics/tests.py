"""What the evidence allows to say: no worse than a margin, better than a control, or not enough to tell, and how much would be."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy import special, stats

__all__ = [
    "FEWEST_ROWS",
    "FEWEST_SEEDS",
    "Effect",
    "NonInferiority",
    "discordance_rows",
    "mcnemar",
    "non_inferiority",
    "rows_to_rule_out",
    "seed_effect",
]

FEWEST_ROWS = 30  # below it a bootstrap has seen too little of what rows can do: its intervals are too narrow
FEWEST_SEEDS = 5  # below it a standard deviation over seeds says next to nothing
ALPHA = 0.05
POWER = 0.90


def mcnemar(only_a: int, only_b: int) -> float:
    """Exact two-sided p of "a and b are right equally often", from the discordant rows. McNemar 1947.

    >>> round(mcnemar(10, 2), 4)
    0.0386
    """
    rows = only_a + only_b
    return 1.0 if rows == 0 else float(stats.binomtest(only_a, rows, 0.5).pvalue)


def discordance_rows(margin: float, discordance: float, alpha: float = ALPHA, power: float = POWER) -> int:
    """Rows that show non-inferiority of paired proportions with this power, if both are equally good: (z_α + z_β)² d / m².

    discordance: share of rows on which exactly one of the two is right.

    >>> [discordance_rows(m, discordance=0.10) for m in (0.005, 0.01, 0.02)]
    [34256, 8564, 2141]
    """
    z = special.ndtri(1 - alpha) + special.ndtri(power)
    return math.ceil(z * z * discordance / margin**2)


def rows_to_rule_out(share: float, alpha: float = ALPHA) -> int:
    """Rows, none of which shows a difference, that rule out one on `share` of all rows: (1 − share)ⁿ ≤ α, the rule of three.

    A share of more than a tenth, which a margin with a unit may be, counts as a tenth. Hanley and Lippman-Hand 1983.

    >>> [rows_to_rule_out(share) for share in (0.005, 0.01, 5.0)]
    [598, 299, 29]
    """
    return math.ceil(math.log(alpha) / math.log1p(-min(share, 0.1)))


@dataclass(frozen=True)
class NonInferiority:
    """Whether a difference lies above −margin, judged by one-sided 95 % bounds.

    answer: "yes": the lower bound is above −margin. "no": the upper bound is below it. Else "insufficient evidence".
    rows_needed: with which the answer would come with 90 % power if the difference stays as seen; None where it has come.
    rows_if_equal: with which it would be "yes" with 90 % power if the two are in truth equally good.
    """

    answer: Literal["yes", "no", "insufficient evidence"]
    difference: float
    low: float
    high: float
    margin: float
    rows: int
    rows_needed: int | None = None
    rows_if_equal: int | None = None


def non_inferiority(difference: float, low: float, high: float, se: float, *, margin: float, rows: int) -> NonInferiority:
    """The answer for a difference (more is better) with its one-sided 95 % bounds, from `rows` rows with standard error `se`.

    The rows needed scale the standard error by √rows; at least one row is needed more than there are. Where no resample tells the two
    apart (se 0) a bootstrap has no width, whatever the rows: "yes" then takes as many as rule out a difference on a share `margin` of rows.
    Fewer than thirty rows never suffice.
    """
    enough = rows_to_rule_out(margin) if se == 0 and low > -margin else FEWEST_ROWS
    as_seen, if_equal = _rows(se, difference + margin, rows), _rows(se, margin, rows)
    if rows < enough:
        if low > -margin or high < -margin:  # only the floor is missing
            as_seen = if_equal = enough
        as_seen, if_equal = (None if n is None else max(enough, n) for n in (as_seen, if_equal))
        return NonInferiority("insufficient evidence", difference, low, high, margin, rows, as_seen, if_equal)
    if low > -margin:
        return NonInferiority("yes", difference, low, high, margin, rows)
    if high < -margin:
        return NonInferiority("no", difference, low, high, margin, rows)
    return NonInferiority("insufficient evidence", difference, low, high, margin, rows, as_seen, if_equal)


@dataclass(frozen=True)
class Effect:
    """What a procedure gains over another, over seeds and rows together: a 95 % interval, and what it allows to say.

    answer: "helped": the interval lies above 0. "hurt": below 0. "no difference": within ±margin. Else "insufficient evidence".
    seeds, seed_sd: pairs of seeds, and the standard deviation of the difference over them.
    row_se: standard error of the mean difference from the sampling of rows, without what the seeds' spread holds already.
    seeds_needed, rows_needed: which would suffice with 90 % power if spread and difference stay as seen; None where nothing more is
        needed of them, and both None with "insufficient evidence" where only both together would do.
    """

    answer: Literal["helped", "no difference", "hurt", "insufficient evidence"]
    difference: float
    low: float
    high: float
    margin: float
    seeds: int
    seed_sd: float
    row_se: float
    rows: int
    seeds_needed: int | None = None
    rows_needed: int | None = None


def seed_effect(differences: ArrayLike, row_se: float, pair_ses: ArrayLike, *, margin: float, rows: int, level: float = 0.95) -> Effect:
    """Combine differences of pairs of seeds (k,), more is better, with the sampling of rows.

    row_se: standard error of their mean from the sampling of rows, the seeds as they are; pair_ses: (k,) that of each difference.
    With seed, row and interaction variances, s²/k estimates σ_seed²/k + σ_both²/kn, and row_se² estimates σ_row²/n + σ_both²/kn; the
    interaction, told from how much less the mean moves with the rows than its parts, is counted once. Degrees of freedom are
    Satterthwaite's, k − 1 where the seeds dominate. Fewer than five pairs or thirty rows are never enough,
    nor are rows of which nobody knows how far they mislead (NaN), nor an interval without width on fewer rows than `rows_to_rule_out`
    asks for.
    """
    d = np.asarray(differences, dtype=np.float64)
    k, mean = len(d), float(d.mean())
    sd = float(d.std(ddof=1)) if k > 1 else math.nan
    if k > 1:
        twice = (float(np.mean(np.square(pair_ses))) - row_se**2) / (k - 1)
        row_se = math.sqrt(max(row_se**2 - max(twice, 0.0), 0.0)) if not math.isnan(twice) else math.nan
    between, within = (sd**2 / k if k > 1 else math.nan), row_se**2
    if k > 1 and between + within > 0:
        freedom = (between + within) ** 2 / (between**2 / (k - 1) + within**2 / max(rows - 1, 1))
        half = float(special.stdtrit(freedom, (1 + level) / 2)) * math.sqrt(between + within)
    elif k > 1:
        half = between + within  # 0, or NaN where nobody knows how far the rows may mislead
    else:
        half = math.inf
    low, high = mean - half, mean + half
    found = Effect("insufficient evidence", mean, low, high, margin, k, sd, row_se, rows)
    if rows < (enough := rows_to_rule_out(margin) if half == 0 else FEWEST_ROWS):
        return Effect(**{**found.__dict__, "rows_needed": enough, "seeds_needed": FEWEST_SEEDS if k < FEWEST_SEEDS else None})
    if k >= FEWEST_SEEDS and not math.isnan(half):
        if low > 0:
            return _answered(found, "helped")
        if high < 0:
            return _answered(found, "hurt")
        if -margin < low and high < margin:
            return _answered(found, "no difference")
    seeds_needed, rows_needed = _enough(found, level)
    return Effect(**{**found.__dict__, "seeds_needed": seeds_needed, "rows_needed": rows_needed})


def _answered(effect: Effect, answer: Literal["helped", "no difference", "hurt"]) -> Effect:
    return Effect(**{**effect.__dict__, "answer": answer})


def _enough(effect: Effect, level: float) -> tuple[int | None, int | None]:
    """Seeds with these rows; else rows with these seeds; else both: what resolves the nearest answer with 90 % power."""
    k = effect.seeds
    if k < 2:
        return FEWEST_SEEDS, None
    gap = max(abs(effect.difference), effect.margin - abs(effect.difference))  # to 0, or to the ends of "no difference"
    power = special.ndtri(POWER)

    def resolves(seeds: int, rows: float) -> bool:
        between, within = effect.seed_sd**2 / seeds, effect.row_se**2 * effect.rows / rows
        if between + within == 0:
            return True
        freedom = (between + within) ** 2 / (between**2 / (seeds - 1) + within**2 / max(rows - 1, 1))
        return (special.stdtrit(freedom, (1 + level) / 2) + power) * math.sqrt(between + within) <= gap

    for seeds in range(max(k, FEWEST_SEEDS), 201):
        if resolves(seeds, effect.rows):
            return seeds if seeds > k else max(k + 1, FEWEST_SEEDS), None
    seeds = max(k, FEWEST_SEEDS)
    for doubled in range(1, 41):
        rows = effect.rows * 2 ** (doubled / 2)
        if resolves(seeds, rows):
            return (seeds if seeds > k else None), _round_up(rows)
    for doubled in range(1, 41):
        rows, many = effect.rows * 2 ** (doubled / 2), math.ceil(seeds * 2 ** (doubled / 2))
        if resolves(many, rows):
            return many, _round_up(rows)
    return None, None


def _rows(se: float, gap: float, rows: int) -> int | None:
    """Rows at which `gap` is z_α + z_β standard errors; None where no number of rows would do, or nobody knows."""
    if gap == 0 or math.isnan(se) or math.isnan(gap):
        return None
    z = special.ndtri(1 - ALPHA) + special.ndtri(POWER)
    return max(rows + 1, _round_up(rows * (z * se / gap) ** 2))


def _round_up(rows: float) -> int:
    """Up to two significant digits: such figures are no more exact than that."""
    unit = 10 ** max(0, math.floor(math.log10(max(rows, 1))) - 1)
    return math.ceil(rows / unit) * unit
