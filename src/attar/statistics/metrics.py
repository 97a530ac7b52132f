"""How good answers are: metrics of classes, scores, probabilities and numbers, for one weighting of the rows or for many.

Everywhere `weight` is (N,), or (R, N) with one weighting per resample; the result has its leading shape: () or (R,). A bootstrap
is then one call: row counts of R resamples are weights. None weighs all rows alike. What cannot be computed (no positive row, no
spread) is NaN.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "LOG_FLOOR",
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
    "pearson",
    "r2",
    "recall_at_fpr",
    "rmse",
    "spearman",
    "threshold_at_fpr",
]

Array = NDArray[np.float64]

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
    labels = np.asarray(labels)
    w = _weights(weight, len(labels))
    sums = _by_class(labels)
    there = sums(w)  # (..., classes that occur)
    recall = np.divide(sums(w * (np.asarray(decided) == labels)), there, out=np.zeros_like(there), where=there > 0)
    return _ratio(recall.sum(-1), (there > 0).sum(-1).astype(np.float64))


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


def auroc(scores: ArrayLike, positive: ArrayLike, weight: ArrayLike | None = None) -> Array:
    """P(score of a positive row > score of a negative row) + ½ P(equal), rows weighted; scores (N,), positive (N,) bool.

    >>> float(auroc([0.1, 0.4, 0.35, 0.8], [False, False, True, True]))
    0.75
    """
    scores, positive = np.asarray(scores, dtype=np.float64), np.asarray(positive, dtype=bool)
    w = _weights(weight, len(scores))
    negatives = np.flatnonzero(~positive)
    negatives = negatives[np.argsort(scores[negatives], kind="stable")]
    positives = np.flatnonzero(positive)
    positives = positives[np.argsort(scores[positives], kind="stable")]  # sorted: the gathers below run along memory
    below = _cumulate(w[..., negatives])  # (..., negatives + 1)
    first = np.searchsorted(scores[negatives], scores[positives], side="left")
    last = np.searchsorted(scores[negatives], scores[positives], side="right")
    w_positive = w[..., positives]
    beaten = below[..., first]
    if (first != last).any():
        beaten = (beaten + below[..., last]) / 2
    return _ratio(np.einsum("...i,...i->...", w_positive, beaten), w_positive.sum(-1) * below[..., -1])


def average_precision(scores: ArrayLike, positive: ArrayLike, weight: ArrayLike | None = None) -> Array:
    """Σ (Rₖ − Rₖ₋₁) Pₖ over distinct scores from the highest down, without interpolation (scikit-learn's convention).

    >>> round(float(average_precision([0.1, 0.4, 0.35, 0.8], [False, False, True, True])), 4)
    0.8333
    """
    scores, positive = np.asarray(scores, dtype=np.float64), np.asarray(positive, dtype=bool)
    w = _weights(weight, len(scores))
    order = np.argsort(-scores, kind="stable")
    ranked, hit = scores[order], positive[order]
    places = np.flatnonzero(hit)
    end = np.searchsorted(-ranked, -ranked[places], side="right")  # rows scored at least as high as this positive row
    hits_until = np.searchsorted(places, end, side="left")  # positive rows among them
    w = w[..., order]
    w_positive = w[..., places]
    taken = _cumulate(w)[..., end]
    found = _cumulate(w_positive)[..., hits_until]
    precision = np.divide(found, taken, out=np.zeros_like(found), where=taken > 0)
    return _ratio(np.einsum("...i,...i->...", w_positive, precision), w_positive.sum(-1))


def recall_at_fpr(scores: ArrayLike, positive: ArrayLike, fpr: float, weight: ArrayLike | None = None) -> Array:
    """The highest recall of any threshold on these very rows whose false-positive rate is at most `fpr`, 0..1.

    Optimistic, for the threshold is chosen where it is judged; a rule for other rows comes from `threshold_at_fpr`.
    """
    scores, positive = np.asarray(scores, dtype=np.float64), np.asarray(positive, dtype=bool)
    w = _weights(weight, len(scores))
    order, ends = _descending(scores)
    w, hit = w[..., order], positive[order].astype(np.float64)
    found, alarms = np.cumsum(w * hit, axis=-1)[..., ends], np.cumsum(w * (1 - hit), axis=-1)[..., ends]
    all_found, all_alarms = found[..., -1], alarms[..., -1]
    allowed = alarms <= fpr * all_alarms[..., None] * (1 + 1e-12)
    recall = _ratio(np.where(allowed, found, 0.0).max(-1), all_found)
    return np.where(all_alarms > 0, recall, np.nan)


def threshold_at_fpr(scores: ArrayLike, positive: ArrayLike, fpr: float, weight: ArrayLike | None = None) -> float:
    """The lowest threshold t so that score ≥ t has a false-positive rate of at most `fpr` on these rows: midway between two scores.

    Midway, so that a score that went through another number format still falls on its side. Where even the highest score raises too
    many false alarms, t lies just above it.
    """
    scores, positive = np.asarray(scores, dtype=np.float64), np.asarray(positive, dtype=bool)
    w = _weights(weight, len(scores))
    order, ends = _descending(scores)
    ranked = scores[order]
    alarms = np.cumsum(w[order] * ~positive[order])[ends]
    allowed = np.flatnonzero(alarms <= fpr * alarms[-1] * (1 + 1e-12))
    if not len(allowed):
        return float(np.nextafter(ranked[0], np.inf))
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
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    w = _weights(weight, len(a))
    x, y = _midranks(a, w), _midranks(b, w)
    total = w.sum(-1, keepdims=True)
    x, y = x - _ratio((w * x).sum(-1, keepdims=True), total), y - _ratio((w * y).sum(-1, keepdims=True), total)
    return _ratio((w * x * y).sum(-1), np.sqrt((w * x * x).sum(-1) * (w * y * y).sum(-1)))


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
    order = np.argsort(labels, kind="stable")
    starts = np.flatnonzero(np.append(True, np.diff(labels[order]) != 0))
    return lambda w: np.add.reduceat(w[..., order], starts, axis=-1)


def _descending(scores: Array) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Order of the rows from the highest score down, and the last place of each run of equal scores in it."""
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    return order, np.append(np.flatnonzero(ranked[1:] != ranked[:-1]), len(scores) - 1)  # not by difference: ∞ − ∞ is no number


def _midranks(values: Array, w: Array) -> Array:
    order, ends = _descending(-values)
    until = _cumulate(w[..., order])
    starts = np.append(0, ends[:-1] + 1)
    middle = (until[..., starts] + until[..., ends + 1]) / 2  # per run of equal values
    ranks = np.empty(np.broadcast_shapes(w.shape, values.shape))
    ranks[..., order] = np.repeat(middle, ends - starts + 1, axis=-1)
    return ranks
