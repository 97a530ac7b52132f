"""Whether probabilities mean what they say: reliability, expected calibration error, and the temperature that mends most of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from attar.statistics.metrics import LOG_FLOOR

__all__ = ["Reliability", "calibration_error", "fit_temperature", "reliability"]

Array = NDArray[np.float64]
Bins = Literal["width", "mass"]

COLDEST, HOTTEST = 0.02, 50.0  # bounds of a fitted temperature: logits far too small ask for 0, useless ones for infinity
FARTHEST = 1e9  # below the greatest logit: beyond it a square would overflow, and e to its 50th part is nothing already


@dataclass(frozen=True)
class Reliability:
    """A reliability diagram: what was said and what came, bin by bin; bins without a row are left out.

    low, high: (b,) ends of the bins. count: (b,) weight of the rows in each. said: (b,) mean probability. came: (b,) observed share.
    """

    low: Array
    high: Array
    count: Array
    said: Array
    came: Array


def reliability(said: ArrayLike, came: ArrayLike, weight: ArrayLike | None = None, *, bins: int = 15, by: Bins = "width") -> Reliability:
    """Bins of probabilities said (N,) in 0..1 against what came (N,) bool: of equal width, or of equal mass."""
    said, came = np.asarray(said, dtype=np.float64), np.asarray(came, dtype=np.float64)
    w = np.ones(len(said)) if weight is None else np.asarray(weight, dtype=np.float64)
    edges, place = _place(said, bins, by)
    count = np.bincount(place, w, minlength=len(edges) - 1).astype(np.float64)
    there = count > 0
    mean_said = np.bincount(place, w * said, minlength=len(edges) - 1)[there] / count[there]
    mean_came = np.bincount(place, w * came, minlength=len(edges) - 1)[there] / count[there]
    return Reliability(edges[:-1][there], edges[1:][there], count[there], mean_said, mean_came)


def calibration_error(said: ArrayLike, came: ArrayLike, weight: ArrayLike | None = None, *, bins: int = 15, by: Bins = "width") -> Array:
    """Σ_b (n_b / n) |came_b − said_b|, 0..1: the expected calibration error, (N,), (N,) → () or (R,) as `weight` is. Guo et al. 2017.

    said: probability of the answer given; came: whether it was right. Biased upwards where rows are few.

    >>> float(calibration_error([0.9, 0.9, 0.9, 0.9], [True, True, True, False]).round(3))
    0.15
    """
    said, came = np.asarray(said, dtype=np.float64), np.asarray(came, dtype=np.float64)
    w = np.ones(len(said)) if weight is None else np.asarray(weight, dtype=np.float64)
    edges, place = _place(said, bins, by)
    off = np.zeros((len(said), len(edges) - 1))
    off[np.arange(len(said)), place] = came - said
    total = w.sum(-1)
    return np.divide(np.abs(w @ off).sum(-1), total, out=np.full_like(total, np.nan), where=total > 0)


def fit_temperature(logits: ArrayLike, labels: ArrayLike, weight: ArrayLike | None = None) -> float:
    """The t that minimises the mean of −log softmax(logits / t)[label], between 0.02 and 50. Guo et al. 2017, with Platt's targets.

    logits (..., C), labels (...) int, negative where unknown, weight (...). The loss is convex in 1/t: Newton's steps, kept inside a
    shrinking bracket, find it in a few rounds. Without a known label of some weight, 1.

    Unlike Guo, a label counts n + 1 of n + 2 and the other possible outcomes share the rest (Platt 1999); n is the number of labels, of
    weighted ones (Σw)² / Σw². Otherwise labels without an error have no best t but 0: 25 would make a model sure of what they cannot show.
    The difference vanishes as errors come, not as rows do: of ten normal logits that are right as they are, 3,000 rows with 200 errors
    find 1.03, with 40 errors, of logits nine times as large, 1.9.

    >>> round(fit_temperature([[2.0, 0.0], [2.0, 0.0], [2.0, 0.0], [0.0, 2.0]] * 1000, [0, 0, 1, 1] * 1000), 2)
    1.82
    >>> t = fit_temperature([[9.0, 0.0], [0.0, 9.0]] * 4, [0, 1] * 4)    # 8 of 8 are right, so that 9 of 10 is what it may say
    >>> float(round(1 / (1 + np.exp(-9 / t)), 3))
    0.9
    """
    y = np.asarray(labels)
    known = y >= 0
    if weight is not None:
        known &= np.asarray(weight, dtype=np.float64) > 0
    if not known.any():
        return 1.0
    y = y[known]
    z, possible = _below_the_greatest(np.asarray(logits, dtype=np.float64)[known], y)
    w = np.ones(len(y)) if weight is None else np.asarray(weight, dtype=np.float64)[known]
    target = _expected_under_platt(z, possible, y, w)

    def slopes(beta: float) -> tuple[float, float]:
        p = np.where(possible, np.exp(beta * z), 0.0)
        p /= p.sum(-1, keepdims=True)
        expected = (p * z).sum(-1)
        return float(w @ (expected - target)), float(w @ ((p * z * z).sum(-1) - expected**2))

    low, high = 1 / HOTTEST, 1 / COLDEST
    if slopes(low)[0] >= 0:
        return HOTTEST
    if slopes(high)[0] <= 0:
        return COLDEST
    beta = 1.0
    for _ in range(100):
        slope, curvature = slopes(beta)
        low, high = (beta, high) if slope < 0 else (low, beta)
        newton = beta - slope / curvature if curvature > 0 else low
        following = newton if low < newton < high else (low * high) ** 0.5
        if abs(following - beta) <= 1e-10 * beta:
            break
        beta = following
    return 1 / beta


def _below_the_greatest(logits: Array, y: NDArray[np.intp]) -> tuple[Array, NDArray[np.bool_]]:
    """(N, C) logits → how far each lies below the row's greatest, 0 of an impossible one (−∞), and which are possible.

    A label called impossible counts as one at the floor of the log-loss; a gap as wide as that is not impossible of itself.
    """
    z = np.maximum(logits - logits.max(-1, keepdims=True), -FARTHEST)
    possible = ~np.isneginf(logits)
    label = np.zeros_like(possible)
    np.put_along_axis(label, y[:, None], True, -1)
    return np.where(possible, z, np.where(label, LOG_FLOOR, 0.0)), possible | label


def _expected_under_platt(z: Array, possible: NDArray[np.bool_], y: NDArray[np.intp], w: Array) -> Array:
    """(N, C) logits, their greatest 0, → (N,) what they are on average where the label has 1 − ε and its possible neighbours share ε."""
    others = possible.copy()
    np.put_along_axis(others, y[:, None], False, -1)
    count, epsilon = others.sum(-1), 1 / (w.sum() ** 2 / (w @ w) + 2)
    label = np.take_along_axis(z, y[:, None], -1)[:, 0]
    around = np.where(others, z, 0.0).sum(-1) / np.maximum(count, 1)
    return np.where(count > 0, (1 - epsilon) * label + epsilon * around, label)


def _place(said: Array, bins: int, by: Bins) -> tuple[Array, NDArray[np.intp]]:
    """Edges of the bins, and the bin of each row. Bins are (low, high], the first one holds its lower end too."""
    if by == "width":
        edges = np.linspace(0.0, 1.0, bins + 1)
    else:
        edges = np.unique(np.quantile(said, np.linspace(0.0, 1.0, bins + 1)))
        if len(edges) == 1:
            edges = np.array([edges[0], edges[0]])
    return edges, np.clip(np.searchsorted(edges, said, side="left") - 1, 0, len(edges) - 2)
