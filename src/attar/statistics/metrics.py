"""How good answers are: metrics of classes, scores, probabilities and numbers, for one weighting of the rows or for many.

Everywhere `weight` is (N,), or (R, N) with one weighting per resample; the result has its leading shape: () or (R,). A bootstrap
is then one call: row counts of R resamples are weights. None weighs all rows alike. What cannot be computed (no positive row, no
spread) is NaN.

What sorts rows comes twice: as a function of everything, and prepared, the rows sorted once and the weights to come: `Ranking`,
`mean_recall`, `rank_correlation`. A bootstrap asks the same rows thousands of times, and would spend them on sorting.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "LOG_FLOOR",
    "Ranking",
    "accuracy",
    "auroc",
    "average_precision",
    "balanced_accuracy",
    "brier",
    "brier_rows",
    "cohen_kappa",
    "log_loss",
    "log_loss_rows",
    "log_softmax",
    "mae",
    "mean",
    "mean_recall",
    "pearson",
    "r2",
    "rank_correlation",
    "recall_at_fpr",
    "rmse",
    "spearman",
    "threshold_at_fpr",
]

Array = NDArray[np.float64]

TINY = np.finfo(np.float64).tiny
LOG_FLOOR = -100.0  # log p of an outcome called impossible: e⁻¹⁰⁰, so that one such row costs 100 nats instead of infinity


def log_softmax(logits: ArrayLike) -> Array:
    """log p of (..., C) logits, in float64; −inf stays −inf."""
    z = np.asarray(logits, dtype=np.float64)
    z = z - z.max(axis=-1, keepdims=True)
    return z - np.log(np.exp(z).sum(axis=-1, keepdims=True))


def mean(values: ArrayLike, weight: ArrayLike | None = None, parts: ArrayLike | None = None) -> Array:
    """Σ w v / Σ w of (N,) values → () or (R,). `parts`: (N,) how much of each row counts (known labels of a row), v summed over them.

    >>> float(mean([1.0, 3.0], weight=[1.0, 3.0]))
    2.5
    """
    v = np.asarray(values, dtype=np.float64)
    w = _weights(weight, len(v))
    count = w.sum(-1) if parts is None else w @ np.asarray(parts, dtype=np.float64)
    return _ratio(w @ v, count)


def accuracy(decided: ArrayLike, labels: ArrayLike, weight: ArrayLike | None = None) -> Array:
    """Share of rows whose decided class (N,) is the label (N,); also the agreement of two models.

    >>> float(accuracy([0, 1, 1], [0, 1, 0])).__round__(3)
    0.667
    """
    return mean(np.asarray(decided) == np.asarray(labels), weight)


def balanced_accuracy(decided: ArrayLike, labels: ArrayLike, weight: ArrayLike | None = None) -> Array:
    """Mean over classes of the recall of each class that occurs among the labels."""
    return mean_recall(decided, labels)(_weights(weight, len(np.asarray(labels))))


def mean_recall(decided: ArrayLike, labels: ArrayLike) -> Callable[[Array], Array]:
    """`balanced_accuracy` of (N,), (N,) as a function of row weights, the rows sorted by class once."""
    labels = np.asarray(labels)
    order, starts = _runs(labels)
    hit = (np.asarray(decided) == labels)[order]

    def balanced(weight: Array) -> Array:
        w = np.take(weight, order, axis=-1)
        there = np.add.reduceat(w, starts, axis=-1)  # (..., classes that occur)
        right = np.add.reduceat(w * hit, starts, axis=-1)
        recall = np.divide(right, there, out=np.zeros_like(there), where=there > 0)
        return _ratio(recall.sum(-1), (there > 0).sum(-1).astype(np.float64))

    return balanced


def cohen_kappa(a: ArrayLike, b: ArrayLike, weight: ArrayLike | None = None) -> Array:
    """(agreement − agreement by chance) / (1 − agreement by chance) of two ratings (N,), (N,). Cohen 1960."""
    a, b = np.asarray(a), np.asarray(b)
    w = _weights(weight, len(a))
    w = _ratio(w, w.sum(-1, keepdims=True))
    agree = w @ (a == b).astype(np.float64)
    chance = np.zeros_like(agree)
    both = np.intersect1d(a, b)
    if len(both):
        in_a, in_b = np.isin(a, both), np.isin(b, both)
        chance = (_by_class(a[in_a])(w[..., in_a]) * _by_class(b[in_b])(w[..., in_b])).sum(-1)
    return _ratio(agree - chance, 1.0 - chance)


@dataclass(frozen=True, eq=False)
class Ranking:
    """Rows sorted by their score once, so that every metric of the ranking is a function of row weights alone.

    order: (N,) rows from the highest score down. ends: (runs,) the last place in it of each run of equal scores. positive: (N,) in that
    order. positives: (P,), negatives: (Q,): rows of either kind, highest first. ahead, level: (P,) negative rows ranked above each positive
    row, and these with those ranked as high. taken: (P,) rows of any kind ranked at least as high; found: (P,) positive ones among them.

    >>> ranking = Ranking.of([0.1, 0.4, 0.35, 0.8], [False, False, True, True])
    >>> float(ranking.auroc(np.ones(4))), round(float(ranking.average_precision(np.ones(4))), 4)
    (0.75, 0.8333)
    """

    order: NDArray[np.intp]
    ends: NDArray[np.intp]
    positive: NDArray[np.bool_]
    positives: NDArray[np.intp]
    negatives: NDArray[np.intp]
    ahead: NDArray[np.intp]
    level: NDArray[np.intp]
    taken: NDArray[np.intp]
    found: NDArray[np.intp]

    @classmethod
    def of(cls, scores: ArrayLike, positive: ArrayLike) -> Ranking:
        """The ranking of scores (N,) of rows that are positive or not, (N,) bool."""
        order, ends = _descending(np.asarray(scores, dtype=np.float64))
        hit = np.asarray(positive, dtype=bool)[order]
        places = np.flatnonzero(hit)
        run = np.searchsorted(ends, places)  # which run of equal scores each positive row lies in
        until = ends[run] + 1
        start = np.append(0, ends[:-1] + 1)[run]
        aside = np.append(0, np.cumsum(~hit))  # entry k: negative rows among the first k
        return cls(order, ends, hit, order[hit], order[~hit], aside[start], aside[until], until, until - aside[until])

    def auroc(self, weight: Array) -> Array:
        """See `attar.statistics.metrics.auroc`."""
        above = _cumulate(np.take(weight, self.negatives, axis=-1))  # (..., Q + 1): weight of the negative rows ranked highest
        w = np.take(weight, self.positives, axis=-1)
        beaten = np.take(above, self.ahead, axis=-1)
        if (self.ahead != self.level).any():
            beaten = (beaten + np.take(above, self.level, axis=-1)) / 2
        return 1.0 - _ratio(np.einsum("...i,...i->...", w, beaten), w.sum(-1) * above[..., -1])

    def average_precision(self, weight: Array) -> Array:
        """See `attar.statistics.metrics.average_precision`."""
        w = np.take(weight, self.positives, axis=-1)
        taken = np.take(_cumulate(np.take(weight, self.order, axis=-1)), self.taken, axis=-1)
        found = np.take(_cumulate(w), self.found, axis=-1)
        precision = found / np.maximum(taken, TINY)  # where nothing was taken, nothing was found: 0
        return _ratio(np.einsum("...i,...i->...", w, precision), w.sum(-1))

    def recall_at_fpr(self, fpr: float, weight: Array) -> Array:
        """See `attar.statistics.metrics.recall_at_fpr`."""
        w = np.take(weight, self.order, axis=-1)
        found, alarms = np.cumsum(w * self.positive, axis=-1)[..., self.ends], np.cumsum(w * ~self.positive, axis=-1)[..., self.ends]
        all_found, all_alarms = found[..., -1], alarms[..., -1]
        allowed = alarms <= fpr * all_alarms[..., None] * (1 + 1e-12)
        recall = _ratio(np.where(allowed, found, 0.0).max(-1), all_found)
        return np.where(all_alarms > 0, recall, np.nan)


def auroc(scores: ArrayLike, positive: ArrayLike, weight: ArrayLike | None = None) -> Array:
    """P(score of a positive row > score of a negative row) + ½ P(equal), rows weighted; scores (N,), positive (N,) bool.

    >>> float(auroc([0.1, 0.4, 0.35, 0.8], [False, False, True, True]))
    0.75
    """
    return Ranking.of(scores, positive).auroc(_weights(weight, len(np.asarray(scores))))


def average_precision(scores: ArrayLike, positive: ArrayLike, weight: ArrayLike | None = None) -> Array:
    """Σ (Rₖ − Rₖ₋₁) Pₖ over distinct scores from the highest down, without interpolation (scikit-learn's convention).

    >>> round(float(average_precision([0.1, 0.4, 0.35, 0.8], [False, False, True, True])), 4)
    0.8333
    """
    return Ranking.of(scores, positive).average_precision(_weights(weight, len(np.asarray(scores))))


def recall_at_fpr(scores: ArrayLike, positive: ArrayLike, fpr: float, weight: ArrayLike | None = None) -> Array:
    """The highest recall of any threshold on these very rows whose false-positive rate is at most `fpr`, 0..1.

    Optimistic, for the threshold is chosen where it is judged; a rule for other rows comes from `threshold_at_fpr`.
    """
    return Ranking.of(scores, positive).recall_at_fpr(fpr, _weights(weight, len(np.asarray(scores))))


def threshold_at_fpr(scores: ArrayLike, positive: ArrayLike, fpr: float, weight: ArrayLike | None = None) -> float:
    """The lowest threshold t so that score ≥ t has a false-positive rate of at most `fpr` on these rows: midway between two scores.

    Midway, so that a score that went through another number format still falls on its side. Where even the highest score raises too
    many false alarms, t lies above it, by a thousandth: a number of 11 bits is off by half of that.
    """
    scores, positive = np.asarray(scores, dtype=np.float64), np.asarray(positive, dtype=bool)
    w = _weights(weight, len(scores))
    order, ends = _descending(scores)
    ranked = scores[order]
    alarms = np.cumsum(w[order] * ~positive[order])[ends]
    allowed = np.flatnonzero(alarms <= fpr * alarms[-1] * (1 + 1e-12))
    if not len(allowed):
        return float(ranked[0] + 1e-3 * max(abs(ranked[0]), 1.0) if np.isfinite(ranked[0]) else np.nextafter(ranked[0], np.inf))
    end = ends[allowed[-1]]
    lower = ranked[end + 1] if end + 1 < len(ranked) else ranked[end]
    return float((ranked[end] + lower) / 2 if np.isfinite(lower) else ranked[end] - 1.0)  # below it are impossible ones alone


def log_loss(logits: ArrayLike, labels: ArrayLike, weight: ArrayLike | None = None) -> Array:
    """Mean of −log p(label), nats; logits (N, C), labels (N,) int. See LOG_FLOOR."""
    return mean(log_loss_rows(logits, labels), weight)


def log_loss_rows(logits: ArrayLike, labels: ArrayLike) -> Array:
    """−log p(label) of each position: (..., C), (...) → (...)."""
    log_p = np.take_along_axis(log_softmax(logits), np.asarray(labels)[..., None], axis=-1)[..., 0]
    return -np.maximum(log_p, LOG_FLOOR)


def brier(logits: ArrayLike, labels: ArrayLike, weight: ArrayLike | None = None) -> Array:
    """Mean of Σ_c (p_c − 1[c = label])², 0..2; with two outcomes twice the one-sided score. Brier 1950."""
    return mean(brier_rows(logits, labels), weight)


def brier_rows(logits: ArrayLike, labels: ArrayLike) -> Array:
    """Σ_c (p_c − 1[c = label])² of each position: (..., C), (...) → (...)."""
    p = np.exp(log_softmax(logits))
    p_label = np.take_along_axis(p, np.asarray(labels)[..., None], axis=-1)[..., 0]
    return (p * p).sum(-1) - 2 * p_label + 1


def rmse(predicted: ArrayLike, labels: ArrayLike, weight: ArrayLike | None = None) -> Array:
    """√ mean (prediction − label)², in the label's unit."""
    return np.sqrt(mean((np.asarray(predicted, dtype=np.float64) - np.asarray(labels, dtype=np.float64)) ** 2, weight))


def mae(predicted: ArrayLike, labels: ArrayLike, weight: ArrayLike | None = None) -> Array:
    """Mean |prediction − label|, in the label's unit."""
    return mean(np.abs(np.asarray(predicted, dtype=np.float64) - np.asarray(labels, dtype=np.float64)), weight)


def r2(predicted: ArrayLike, labels: ArrayLike, weight: ArrayLike | None = None) -> Array:
    """1 − Σ (prediction − label)² / Σ (label − mean label)²."""
    p, y = np.asarray(predicted, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    y = y - y.mean()  # shifting changes nothing but the rounding of y²
    p = p - np.asarray(labels, dtype=np.float64).mean()
    spread = _spread(y, weight)
    return 1.0 - _ratio(mean((p - y) ** 2, weight), spread)


def pearson(a: ArrayLike, b: ArrayLike, weight: ArrayLike | None = None) -> Array:
    """Correlation of (N,) and (N,)."""
    x, y = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    x, y = x - x.mean(), y - y.mean()  # changes nothing but the rounding below
    together = mean(x * y, weight) - mean(x, weight) * mean(y, weight)
    return _ratio(together, np.sqrt(_spread(x, weight) * _spread(y, weight)))


def spearman(a: ArrayLike, b: ArrayLike, weight: ArrayLike | None = None) -> Array:
    """Correlation of the (mid-)ranks of (N,) and (N,); a weight counts a row so many times."""
    return rank_correlation(a, b)(_weights(weight, len(np.asarray(a))))


def rank_correlation(a: ArrayLike, b: ArrayLike) -> Callable[[Array], Array]:
    """`spearman` of (N,), (N,) as a function of row weights, both sorted once."""
    rank_a, rank_b = _midranks(np.asarray(a, dtype=np.float64)), _midranks(np.asarray(b, dtype=np.float64))

    def correlation(weight: Array) -> Array:
        x, y = rank_a(weight), rank_b(weight)
        total = weight.sum(-1, keepdims=True)
        x, y = (v - _ratio((weight * v).sum(-1, keepdims=True), total) for v in (x, y))
        return _ratio((weight * x * y).sum(-1), np.sqrt((weight * x * x).sum(-1) * (weight * y * y).sum(-1)))

    return correlation


def _weights(weight: ArrayLike | None, rows: int) -> Array:
    return np.ones(rows) if weight is None else np.asarray(weight, dtype=np.float64)


def _spread(values: Array, weight: ArrayLike | None) -> Array:
    """Variance of centred values; 0 where it is rounding alone, as with one row drawn again and again."""
    square, centre = mean(values * values, weight), mean(values, weight)
    spread = square - centre**2
    return np.where(spread <= 1e-12 * square, 0.0, spread)


def _ratio(numerator: Array, denominator: Array) -> Array:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(denominator == 0, np.nan, np.asarray(numerator) / denominator)


def _cumulate(w: Array) -> Array:
    """(..., N) → (..., N + 1): entry k is the sum of the first k."""
    out = np.zeros((*w.shape[:-1], w.shape[-1] + 1))
    np.cumsum(w, axis=-1, out=out[..., 1:])
    return out


def _by_class(labels: NDArray) -> Callable[[Array], Array]:
    """(..., N) → (..., classes that occur): sums over the rows of each class, at a cost that does not grow with the classes."""
    order, starts = _runs(labels)
    return lambda w: np.add.reduceat(np.take(w, order, axis=-1), starts, axis=-1)


def _runs(labels: NDArray) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Order of the rows by class, and the place in it where each class that occurs starts."""
    order = np.argsort(labels, kind="stable")
    return order, np.flatnonzero(np.append(True, np.diff(labels[order]) != 0))


def _descending(scores: Array) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Order of the rows from the highest score down, and the last place of each run of equal scores in it."""
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    return order, np.append(np.flatnonzero(ranked[1:] != ranked[:-1]), len(scores) - 1)  # not by difference: ∞ − ∞ is no number


def _midranks(values: Array) -> Callable[[Array], Array]:
    """(N,) → the function that turns row weights (..., N) into mid-ranks (..., N)."""
    order, ends = _descending(-values)
    starts = np.append(0, ends[:-1] + 1)
    place = np.empty(len(order), dtype=np.intp)  # the run of equal values that each row lies in
    place[order] = np.repeat(np.arange(len(ends)), ends - starts + 1)

    def ranks(weight: Array) -> Array:
        until = _cumulate(np.take(weight, order, axis=-1))
        middle = (until[..., starts] + until[..., ends + 1]) / 2  # per run
        return np.take(middle, place, axis=-1)

    return ranks
