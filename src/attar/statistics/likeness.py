"""How alike two models answer the same rows, as figures of row weights; needs no label.

Every function gives figures by name, the primary one first, each (N,) row weights → () or (R, N) → (R,).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

import numpy as np
from numpy.typing import ArrayLike, NDArray

from attar.statistics import metrics, vectors

__all__ = ["PAIRS", "of_decisions", "of_numbers", "of_vectors", "pairs_of"]

Array = NDArray[np.float64]
Figure = Callable[[Array], Array]

PAIRS = 20_000  # of vectors; the pairs alone then leave an error of 0.007 (1 − ρ²) on a correlation ρ
NEIGHBOURS = 2_000  # vectors among which neighbours are looked for: all their cosines are 32 MB


def of_decisions(teacher: ArrayLike, student: ArrayLike, teacher_logits: ArrayLike, student_logits: ArrayLike) -> dict[str, Figure]:
    """(N, ...) decisions and (N, ..., C) logits → `agreement`, and `kl` of the student from the teacher, nats; means over positions.

    Agreement is first, for it does not depend on how sharp answers are, which a temperature changes afterwards.

    >>> figures = of_decisions([0, 1], [0, 0], [[1.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [0.0, 1.0]])
    >>> {name: float(figure(np.ones(2))) for name, figure in figures.items()}
    {'agreement': 0.5, 'kl': 0.0}
    """
    log_p = metrics.log_softmax(teacher_logits)
    log_q = np.maximum(metrics.log_softmax(student_logits), metrics.LOG_FLOOR)
    p = np.exp(log_p)
    each = {
        "agreement": (np.asarray(teacher) == np.asarray(student)).astype(np.float64),
        "kl": (p * (np.where(p > 0, log_p, 0.0) - log_q)).sum(-1),
    }
    return {name: partial(metrics.mean, values.reshape(len(values), -1).mean(-1)) for name, values in each.items()}


def of_numbers(teacher: ArrayLike, student: ArrayLike) -> dict[str, Figure]:
    """(N,), (N,) → `root_mean_square_distance`, `mean_distance`, `correlation`, `rank_correlation`."""
    t, s = np.asarray(teacher, dtype=np.float64), np.asarray(student, dtype=np.float64)
    return {
        "root_mean_square_distance": partial(metrics.rmse, s, t),
        "mean_distance": partial(metrics.mae, s, t),
        "correlation": partial(metrics.pearson, s, t),
        "rank_correlation": partial(metrics.spearman, s, t),
    }


def of_vectors(teacher: ArrayLike, student: ArrayLike, mask: NDArray[np.bool_] | None = None) -> dict[str, Figure]:
    """(N, K, D), (N, K, E) vectors of the K texts of each row → how alike the two models see which texts are alike.

    mask: (N, K) bool, which texts are there.

    - `similarity_correlation`: rank correlation, over pairs of texts, of the teacher's cosines with the student's.
    - `neighbour_overlap`: share of the 10 nearest texts that both name, among 2,000 distinct ones where there are more.
    - `mean_cosine`: of the student's vector with the teacher's, where both have as many coordinates.

    The first two compare models of different widths, and are blind to rotations, which no use of embeddings sees either.
    """
    t, s = np.asarray(teacher, dtype=np.float64), np.asarray(student, dtype=np.float64)
    there = np.ones(t.shape[:2], dtype=bool) if mask is None else mask
    rows, row = len(t), np.nonzero(there)[0]  # row: (M,) whose each vector is
    t, s = vectors.normalised(t[there]), vectors.normalised(s[there])
    at = pairs_of(len(row))
    near = [np.einsum("pd,pd->p", v[at[:, 0]], v[at[:, 1]]).round(6) for v in (t, s)]  # what differs by rounding alone is no order
    found: dict[str, Figure] = {
        "similarity_correlation": partial(_over_pairs, partial(metrics.spearman, *near), row[at]),
        "neighbour_overlap": _when_asked(partial(_overlap, t, s, row, rows)),  # dear, and a training asks for the first alone
    }
    if t.shape == s.shape:
        found["mean_cosine"] = _of_rows((t * s).sum(-1), row, rows)
    return found


def pairs_of(count: int, pairs: int = PAIRS) -> NDArray[np.intp]:
    """(P, 2) pairs of different ones of so many things: each pair once where there are few, else random ones, always the same.

    >>> pairs_of(3).tolist()
    [[0, 1], [0, 2], [1, 2]]
    """
    if count * (count - 1) // 2 <= pairs:
        return np.stack(np.triu_indices(count, 1), 1)
    rng = np.random.default_rng(0)
    first, gap = rng.integers(0, count, pairs), rng.integers(1, count, pairs)
    return np.stack((first, (first + gap) % count), 1)


def _when_asked(make: Callable[[], Figure]) -> Figure:
    """The figure, made at the first call."""
    made = cache(make)
    return lambda w: made()(w)


def _over_pairs(statistic: Figure, rows: NDArray[np.intp], w: Array) -> Array:
    """A statistic of pairs, given weights of rows: a pair counts as both its rows do; one within a row as that row."""
    return statistic(w[..., rows[:, 0]] * np.where(rows[:, 0] == rows[:, 1], 1.0, w[..., rows[:, 1]]))


def _overlap(teacher: Array, student: Array, row: NDArray[np.intp], rows: int) -> Figure:
    """Of distinct vectors of the teacher's: texts that come twice would name one another."""
    _, first = np.unique(teacher.round(6), axis=0, return_index=True)
    chosen = np.sort(np.random.default_rng(0).permutation(first)[:NEIGHBOURS])
    return _of_rows(vectors.neighbour_overlap(teacher[chosen], student[chosen]), row[chosen], rows)


def _of_rows(values: Array, row: NDArray[np.intp], rows: int) -> Figure:
    """The mean of values of which a row has none, one or several."""
    return partial(metrics.mean, np.bincount(row, np.nan_to_num(values), rows), parts=np.bincount(row, ~np.isnan(values), rows))
