"""How much at home a row looks, by a model's answers and by what it sees inside, and how well that tells foreign rows apart.

Every score is high where a row looks at home: rows at home are the positive ones, as in the papers. Only the order of rows counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special
from scipy.spatial.distance import cdist

from attar.statistics.intervals import BLOCK, GROUPS, Draws, Statistic
from attar.statistics.metrics import auroc
from attar.statistics.vectors import normalised

__all__ = ["KNN", "TPR", "Gaussians", "confidence", "energy", "figures", "fpr_at_tpr", "knn", "resampled_apart", "roc"]

Array = NDArray[np.float64]
K = TypeVar("K")

KNN = 50  # the neighbour whose distance counts: what Sun et al. take for CIFAR-10
TPR = 0.95  # share of the rows at home that a threshold lets pass
HELD = 4_000_000  # distances held at once: 32 MB


def confidence(logits: ArrayLike) -> Array:
    """The maximum softmax probability p of (N, C) logits, as log p/(1 − p); of (N, L, 2) that of the likeliest label. (N,).

    Hendrycks and Gimpel 2017, arXiv:1610.02136. Their order is that of p; written so, an answer that is nearly sure keeps its place
    where p itself would be rounded to 1.

    >>> confidence([[0.0, 2.0], [1.0, 0.0]]).tolist()
    [2.0, 1.0]
    """
    z = np.asarray(logits, dtype=np.float64)
    if z.ndim == 3:  # chances of a yes
        return (z[..., 1] - z[..., 0]).max(-1)
    ordered = np.sort(z, axis=-1)
    return ordered[:, -1] - special.logsumexp(ordered[:, :-1], axis=-1)


def energy(logits: ArrayLike, temperature: float = 1.0) -> Array:
    """T · log Σ_c exp(z_c / T) of (N, C) logits, the energy with its sign turned; of (N, L, 2) its sum over labels. (N,).

    Liu et al. 2020, arXiv:2010.03759, eq. 4; over labels the joint energy of Wang et al. 2021, arXiv:2111.11429. Unlike confidence it
    sees by how much all logits are shifted; of answers that are log-probabilities it is 0 for every row, and says nothing.

    >>> energy([[0.0, 0.0]]).round(4).tolist()
    [0.6931]
    """
    z = np.asarray(logits, dtype=np.float64)
    free = temperature * np.asarray(special.logsumexp(z / temperature, axis=-1))
    return free.sum(-1) if free.ndim == 2 else free


def knn(features: ArrayLike, fitted: ArrayLike, k: int = KNN) -> Array:
    """Minus the distance of (N, D) features to the k-th nearest of (M, D) training rows, all scaled to length 1. (N,).

    Sun et al. 2022, arXiv:2204.06507. Of fewer than k training rows the farthest counts.
    """
    x, near = normalised(features), normalised(fitted)
    k = min(k, len(near))
    found = np.empty(len(x))
    step = max(1, HELD // len(near))
    for start in range(0, len(x), step):
        square = 2 - 2 * x[start : start + step] @ near.T  # a vector of zeros, which has no direction, is at a right angle to all
        found[start : start + step] = -np.sqrt(np.maximum(np.partition(square, k - 1, axis=1)[:, k - 1], 0.0))
    return found


@dataclass(frozen=True)
class Gaussians:
    """A Gaussian for each class with one covariance for all, and one Gaussian for all rows together.

    means: (C, D). precision: (D, D), the pseudo-inverse of the covariance: directions in which training rows never differ say nothing.
    mean, broad: (D,), (D, D) of all rows together.
    """

    means: Array
    precision: Array
    mean: Array
    broad: Array

    @classmethod
    def fit(cls, features: ArrayLike, classes: ArrayLike) -> Gaussians:
        """By maximum likelihood from (M, D) features of training rows and their (M,) classes; classes without rows are left out."""
        x, y = np.asarray(features, dtype=np.float64), np.asarray(classes)
        _, place = np.unique(y, return_inverse=True)
        means = np.stack([x[place == c].mean(0) for c in range(place.max() + 1)])
        within, around = x - means[place], x - x.mean(0)
        return cls(means, _inverse(within), x.mean(0), _inverse(around))

    def mahalanobis(self, features: ArrayLike) -> Array:
        """Minus the squared Mahalanobis distance of (N, D) to the nearest class. (N,). Lee et al. 2018, arXiv:1807.03888, eq. 2."""
        x = np.asarray(features, dtype=np.float64)
        size, axes = np.linalg.eigh(self.precision)
        root = axes * np.sqrt(np.maximum(size, 0.0))  # distances by the precision are plain ones after it: one product for all classes
        return -cdist(x @ root, self.means @ root, "sqeuclidean").min(1)

    def relative(self, features: ArrayLike) -> Array:
        """The same plus the squared distance by the Gaussian of all rows: what is odd of a class, not odd altogether. (N,).

        Ren et al. 2021, arXiv:2106.09022.
        """
        x = np.asarray(features, dtype=np.float64)
        return self.mahalanobis(x) + _squared(x - self.mean, self.broad)


def fpr_at_tpr(scores: ArrayLike, at_home: ArrayLike, weight: ArrayLike | None = None, tpr: float = TPR) -> Array:
    """Share of foreign rows that pass the highest threshold which `tpr` of the rows at home pass, score ≥ threshold. () or (R,).

    scores (N,), at_home (N,) bool, weight (N,) or (R, N), as in `metrics`. The threshold is that of the same rows, so that each
    resample finds its own. As `sklearn.metrics.roc_curve` has it at the first rate of at least `tpr`.

    >>> float(fpr_at_tpr([4.0, 3.0, 2.0, 1.0, 3.5, 0.0], [True] * 4 + [False] * 2, tpr=0.75))
    0.5
    """
    s, home = np.asarray(scores, dtype=np.float64), np.asarray(at_home, dtype=bool)
    w = np.ones(len(s)) if weight is None else np.asarray(weight, dtype=np.float64)
    mine, theirs = np.flatnonzero(home), np.flatnonzero(~home)
    mine, theirs = (at[np.argsort(-s[at], kind="stable")] for at in (mine, theirs))
    ranked = s[mine]
    ends = np.append(np.flatnonzero(ranked[1:] != ranked[:-1]), len(ranked) - 1)  # of each run of equal scores
    kept = np.cumsum(w[..., mine], axis=-1)[..., ends]
    at = (kept >= tpr * kept[..., -1:] * (1 - 1e-12)).argmax(-1)
    passing = np.searchsorted(-s[theirs], -ranked[ends], side="right")[at]
    alarms = np.cumsum(w[..., theirs], axis=-1)
    passed = np.take_along_axis(np.concatenate([np.zeros_like(alarms[..., :1]), alarms], -1), passing[..., None], -1)[..., 0]
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(kept[..., -1] > 0, passed / alarms[..., -1], np.nan)


def figures(scores: ArrayLike, at_home: ArrayLike) -> dict[str, Statistic]:
    """`auroc`, P(a row at home scores higher than a foreign one), and `fpr_at_95`, see `fpr_at_tpr`, of (N,) scores: weights → values."""
    s, home = np.asarray(scores, dtype=np.float64), np.asarray(at_home, dtype=bool)
    return {"auroc": partial(auroc, s, home), "fpr_at_95": partial(fpr_at_tpr, s, home)}


def roc(scores: ArrayLike, at_home: ArrayLike, points: int = 64) -> tuple[Array, Array]:
    """(P,), (P,): shares of foreign rows and of rows at home that pass, from the highest threshold down, about `points` of them."""
    s, home = np.asarray(scores, dtype=np.float64), np.asarray(at_home, dtype=bool)
    order = np.argsort(-s, kind="stable")
    ranked = s[order]
    ends = np.append(np.flatnonzero(ranked[1:] != ranked[:-1]), len(s) - 1)
    passed = np.stack([np.cumsum(~home[order])[ends] / max(1, (~home).sum()), np.cumsum(home[order])[ends] / max(1, home.sum())])
    along = passed.sum(0)  # steps of equal length along the curve, whichever way it goes
    chosen = np.unique(np.searchsorted(along, np.linspace(0, along[-1], points)).clip(max=len(ends) - 1))
    fpr, tpr = np.concatenate([np.zeros((2, 1)), passed[:, chosen]], axis=1)
    return fpr, tpr


def resampled_apart(statistics: Mapping[K, Statistic], first: int, second: int, *, resamples: int = 2000, seed: int = 0) -> dict[K, Draws]:
    """As `bootstrap`, of two samples drawn apart: the first `first` rows are resampled among themselves, as are the `second` behind them.

    All statistics see the same resamples, so that differences are paired. The groups that BCa leaves out are of one sample at a time, and
    those of both count, centred by sample (Efron and Tibshirani 1993, ch. 14, for several samples).
    """
    rng = np.random.default_rng(seed)
    drawn: dict[K, list[Array]] = {name: [] for name in statistics}
    for counts in _counts(rng, first, second, resamples):
        for name, statistic in statistics.items():
            drawn[name].append(statistic(counts))
    whole = {name: float(statistic(np.ones(first + second))) for name, statistic in statistics.items()}
    held_out: dict[K, list[Array]] = {name: [] for name in statistics}
    for start, rows in ((0, first), (first, second)):
        groups = min(GROUPS, rows)
        member = np.full(first + second, -1)
        member[start : start + rows] = rng.permutation(rows) % groups
        kept = (member != np.arange(groups)[:, None]).astype(np.float64)
        for name, statistic in statistics.items():
            left = np.concatenate([statistic(block) for block in np.array_split(kept, -(-kept.size // BLOCK))])
            held_out[name].append(left - np.nanmean(left) + whole[name] if np.isfinite(left).any() else left)
    return {name: Draws(whole[name], np.concatenate(drawn[name]), np.concatenate(held_out[name]), first + second) for name in statistics}


def _counts(rng: np.random.Generator, first: int, second: int, resamples: int) -> Iterator[Array]:
    step = max(1, BLOCK // (first + second))
    for start in range(0, resamples, step):
        r = min(step, resamples - start)
        counts = np.empty((r, first + second))
        for columns, rows in ((slice(0, first), first), (slice(first, None), second)):
            at = rng.integers(0, rows, size=(r, rows)) + np.arange(r)[:, None] * rows
            counts[:, columns] = np.bincount(at.ravel(), minlength=r * rows).reshape(r, rows)
        yield counts


def _inverse(centred: Array) -> Array:
    return np.asarray(np.linalg.pinv(centred.T @ centred / len(centred), hermitian=True), dtype=np.float64)


def _squared(x: Array, precision: Array) -> Array:
    return np.einsum("nd,nd->n", x @ precision, x)
