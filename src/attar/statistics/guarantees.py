"""What may be promised of rows not seen yet: an exact bound of an error rate, and thresholds found by testing in a fixed order."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats

from attar.errors import EvidenceError

__all__ = ["Sample", "Walk", "damage", "least_abstention", "path_of", "rows_needed", "start_of", "upper_bound", "walk"]

STEPS = 200  # thresholds on a path, each by half a percent of the validation rows laxer than the one before

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]


def upper_bound(errors: ArrayLike, rows: ArrayLike, delta: float) -> Floats:
    """The error rate that is not exceeded with confidence 1 − δ, of so many errors in so many rows: (...), (...) → (...).

    Exact and one-sided, Clopper and Pearson 1934: the δ-quantile from above of Beta(errors + 1, rows − errors). 1 where there is no row.
    Unlike `clopper_pearson`, which is two-sided, all of δ lies on one side.

    >>> upper_bound([0, 5], [45, 200], 0.1).round(4)
    array([0.0499, 0.0459])
    """
    k, n = np.asarray(errors, dtype=np.float64), np.asarray(rows, dtype=np.float64)
    return np.where(k < n, special.betaincinv(k + 1, np.maximum(n - k, 1), 1 - delta), 1.0)


def rows_needed(epsilon: float, delta: float, rate: float = 0.0) -> int | None:
    """The fewest rows that certify an error rate of at most ε with confidence 1 − δ, if a share `rate` of them is wrong.

    Without an error it is ⌈ln δ / ln(1 − ε)⌉. None where `rate` reaches ε: no number of rows will do.

    >>> rows_needed(0.05, 0.1), rows_needed(0.05, 0.1, rate=0.025), rows_needed(0.05, 0.1, rate=0.05)
    (45, 209, None)
    """
    if rate >= epsilon:
        return None
    if rate <= 0:
        return math.ceil(math.log(delta) / math.log1p(-epsilon) - 1e-9)

    def enough(rows: int) -> bool:
        return bool(upper_bound(math.ceil(rate * rows - 1e-9), rows, delta) <= epsilon)

    high = rows_needed(epsilon, delta) or 1
    while not enough(high):
        high *= 2
        if high > 1 << 40:
            return None  # so near ε that nobody has the rows
    low = high // 2
    while high - low > 1:  # not quite monotone, for errors come whole: the answer is right to one error
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def least_abstention(rate: ArrayLike, epsilon: float) -> Floats:
    """The share of rows that any guard must leave to somebody else, if answering all is wrong at `rate`: max(0, (μ − ε) / (1 − ε)).

    Even one that picks the wrong rows first cannot do with less: what is kept has at least μ − (1 − kept) errors. arXiv:2606.29054.

    >>> least_abstention([0.02, 0.11], 0.05).round(4)
    array([0.    , 0.0632])
    """
    return np.maximum(0.0, (np.asarray(rate, dtype=np.float64) - epsilon) / (1 - epsilon))


@dataclass(frozen=True)
class Sample:
    """N rows that a student was asked.

    confidence: (N,) float32, how sure it is; larger is surer. decision: (N,) in 0..D−1, what it decides. wrong: (N,) bool, whether that
    is not what is right. cell: (N,) or (N, K) in 0..C−1, the cells whose error rates the row belongs to, one for each of K ways to part
    the rows; −1 where one of these has no place for it. may: (N,) bool, where False a row is not answered, however sure the student is;
    None: any may be.
    Raises EvidenceError for a confidence that is no number.
    """

    confidence: NDArray[np.float32]
    decision: Counts
    wrong: NDArray[np.bool_]
    cell: Counts
    may: NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        if bad := int((~np.isfinite(self.confidence)).sum()):
            raise EvidenceError(f"{bad:,} of {len(self):,} confidences are not finite numbers", hint="did the student's training diverge?")

    def __len__(self) -> int:
        return len(self.confidence)

    def answered(self, thresholds: NDArray[np.float32]) -> NDArray[np.bool_]:
        """(..., D) thresholds → (..., N), whether each row's confidence reaches the threshold of its decision, and it may be answered."""
        sure = self.confidence >= thresholds[..., self.decision]
        return sure if self.may is None else sure & self.may

    def counts(self, path: NDArray[np.float32], cells: int) -> tuple[Counts, Counts]:
        """(J, D) thresholds, none stricter than the one before → rows answered and errors among them in each cell, (J, C) twice."""
        steps = len(path)
        first = np.full(len(self), steps)  # the first threshold that each row reaches
        for d in range(path.shape[1]):
            mine = self.decision == d
            first[mine] = np.searchsorted(-path[:, d], -self.confidence[mine], side="left")
        if self.may is not None:
            first[~self.may] = steps
        rows, errors = self._tallied(first, steps + 1, cells)
        return rows[:steps].cumsum(0), errors[:steps].cumsum(0)

    def totals(self, cells: int) -> tuple[Counts, Counts]:
        """Rows of each cell, whether or not they may be answered, and errors if all were, (C,) twice."""
        rows, errors = self._tallied(np.zeros(len(self), np.int64), 1, cells)
        return rows[0], errors[0]

    def _tallied(self, bin: Counts, bins: int, cells: int) -> tuple[Counts, Counts]:
        """(N,) which of so many bins each row falls into → rows and errors by bin and cell, (bins, C) twice."""
        ways = self.cell[:, None] if self.cell.ndim == 1 else self.cell
        row, way = np.nonzero(ways >= 0)
        place, wrong = bin[row] * cells + ways[row, way], self.wrong[row]
        rows, errors = (np.bincount(at, minlength=bins * cells).reshape(bins, cells) for at in (place, place[wrong]))
        return rows, errors


@dataclass(frozen=True)
class Walk:
    """Thresholds tested one after the other, from the strictest on.

    path: (J, D) thresholds by decision. start: the first that was tested; those before it are too strict for anything to be shown.
    last: the last that passed, with all from `start` on; None where not even the first did.
    rows, errors: (J, C) calibration rows answered in each cell, and those wrong. bounds: (J, C) of their error rates, each at 1 − δ.
    """

    path: NDArray[np.float32]
    start: int
    last: int | None
    rows: Counts
    errors: Counts
    bounds: Floats

    @property
    def nearest(self) -> int:
        """The threshold at which the worst cell's bound is least, of equals the laxest: how near the walk could have come."""
        return len(self.bounds) - 1 - int(self.bounds.max(1)[::-1].argmin())


def damage(decision: Counts, probability: Floats, cell_shares: Floats) -> Floats:
    """How much an error in each decision costs the cells it falls into, beside that of the dearest decision, (D,) in 0..1.

    decision: (N,) what the student decides on validation rows. probability: (N, C) what it holds of each outcome, which are the cells.
    cell_shares: (C,) how many of the rows lie in each.

    A student that says d where c was right adds an error to cell c, and where c is rare, few errors are its whole share. Of decision d
    the errors go to c in proportion to the probability that c has where d is decided, m_c: damage is Σ_{c≠d} m_c / π_c. With two outcomes
    it is 1 / π of the other: of 100 rows with 2 positive, a wrong "no" is worth 49 wrong "yes".
    """
    cells = probability.shape[1]
    shares = np.maximum(cell_shares, 1 / (len(decision) + 1))
    found = np.empty(cells)
    for d in range(cells):
        mine = decision == d
        others = np.delete(probability[mine].mean(0) if mine.any() else np.full(cells, 1 / cells), d)
        total = others.sum()
        others = others / total if total > 0 else np.full(cells - 1, 1 / (cells - 1))
        found[d] = (others / np.delete(shares, d)).sum()
    return found / found.max()


def path_of(valid: Sample, weight: Floats, steps: int = STEPS) -> NDArray[np.float32]:
    """(J, D) thresholds, from the strictest to one that all rows reach: answered is who has (1 − confidence) · weight ≤ ρ.

    valid: rows by which nothing will be promised. ρ goes through `steps` of the quantiles of those that may be answered. weight: (D,) see
    `damage`; ones give one threshold for all decisions.
    """
    score = (1 - valid.confidence.astype(np.float64)) * weight[valid.decision]
    score = score if valid.may is None else score[valid.may]
    rho = np.unique(np.quantile(score, np.linspace(0, 1, steps), method="inverted_cdf")) if len(score) else np.zeros(0)
    path = np.maximum(1 - rho[:, None] / weight, 0).astype(np.float32)
    return np.unique(np.concatenate((path, np.zeros((1, len(weight)), np.float32))), axis=0)[::-1]


def walk(path: NDArray[np.float32], valid: Sample, calibration: Sample, cells: int, *, epsilon: float, delta: float) -> Walk:
    """Test thresholds on calibration rows in the order of `path`, and stop before the first that fails.

    A threshold passes where in every cell the rows it answers have an error rate of at most ε by `upper_bound` at 1 − δ. With probability
    1 − δ or more, what passes keeps ε in every cell at once, if calibration rows and those to come are exchangeable, and `path`, its
    order and start come from elsewhere, as from validation rows: of the thresholds that break the promise only the first to be tested
    matters, for nothing after it is tested unless it passed (fixed-sequence testing), and it passes only if the cell in which it breaks
    the promise does, with probability δ at most. Where all cells have to pass, δ need not be shared among them (an intersection–union
    test, Berger 1982), nor need they be disjoint; a guard that certifies some of them has to share it.

    See `start_of` for where it starts; whatever the start, the promise holds.
    """
    rows, errors = calibration.counts(path, cells)
    bounds = upper_bound(errors, rows, delta)
    start = start_of(path, valid, cells, len(calibration), epsilon=epsilon, delta=delta)
    failed = np.flatnonzero((bounds[start:] > epsilon).any(1))
    passed = int(failed[0]) if len(failed) else len(path) - start
    return Walk(path, start, start + passed - 1 if passed else None, rows, errors, bounds)


def start_of(path: NDArray[np.float32], valid: Sample, cells: int, calibration_rows: int, *, epsilon: float, delta: float) -> int:
    """The threshold of `path` that so many calibration rows are likeliest to pass in every cell, as the validation rows have it.

    At the strictest threshold a handful of rows are answered, too few to show anything, and a walk that fails at once ends at once.
    So every cell has to expect 2 ⌈ln δ / ln(1 − ε)⌉ rows answered; of a cell with few rows half of them, but enough for a sample without
    an error. Of the thresholds after that the one counts whose chance of passing is largest: with n rows it
    is P(Bin(n, r) ≤ k), k errors being the most that n rows bear and r the validation rows' error rate, (errors + ½) / (rows + 1), and
    the product of these over cells. Where a few rows are wrong however sure the student is, twice the fewest rows would pass by luck.
    Cells of which the validation rows promise too few calibration rows for anything tell of no threshold, unless there are no others.
    """
    rows, errors = valid.counts(path, cells)
    expected = rows * (calibration_rows / max(len(valid), 1))
    fewest = rows_needed(epsilon, delta) or 1
    if (telling := expected[-1] >= fewest).any():
        rows, errors, expected = rows[:, telling], errors[:, telling], expected[:, telling]
    most = expected[-1]
    wanted = np.minimum(np.minimum(2 * fewest, most), np.maximum(fewest, most / 2))
    first = int((expected >= wanted - 1e-9).all(1).argmax())  # the last threshold answers all, and so is one of them
    n = np.floor(expected[first:])
    borne = stats.binom.ppf(delta, n, epsilon)
    borne -= stats.binom.cdf(borne, n, epsilon) > delta  # ppf rounds up, and a bound must not
    chance = stats.binom.cdf(borne, n, (errors[first:] + 0.5) / (rows[first:] + 1)).prod(1)
    return first + int(np.nan_to_num(chance).argmax())
