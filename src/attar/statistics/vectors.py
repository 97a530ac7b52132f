"""How vectors lie to one another: what is found near a query, and whether two models agree on what is near what."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

__all__ = ["cka", "cosines", "neighbour_overlap", "normalised", "retrieved"]

Array = NDArray[np.float64]

HELD = 4_000_000  # cosines held at once: 32 MB
TIE = 1e-9  # cosines this near are equal: kernels differ in the last bits, texts do not


def normalised(vectors: ArrayLike) -> Array:
    """(N, D) → (N, D) of length 1, in float64; a vector of zeros stays one."""
    x = np.asarray(vectors, dtype=np.float64)
    length = np.linalg.norm(x, axis=-1, keepdims=True)
    return np.divide(x, length, out=np.zeros_like(x), where=length > 0)


def cosines(a: ArrayLike, b: ArrayLike) -> Array:
    """(N, D), (N, D) → (N,) cosines, row by row; 0 where a vector is all zeros.

    >>> cosines([[3.0, 0.0], [1.0, 1.0]], [[2.0, 0.0], [1.0, -1.0]]).tolist()
    [1.0, 0.0]
    """
    return (normalised(a) * normalised(b)).sum(-1)


def retrieved(queries: ArrayLike, documents: ArrayLike, k: int, texts: NDArray[np.int64] | None = None) -> tuple[Array, Array]:
    """(N, D) queries, (N, D) documents, row i's relevant to row i's → (N,) whether it is among the k nearest, (N,) 1 / its rank.

    texts: (N, ≥2) numbers of the texts, query first, equal texts having equal numbers; None takes all texts as different. Candidates are
        all distinct documents but those that are the query itself, and those that other rows call relevant to the same query, which
        would only take one another's place: so each row asks for one document, and rows can be weighed.

    Nearness is the cosine. Where others are exactly as near, the figures are what chance would give: k − above of tied + 1 places, and
    the middle rank; a model that answers the same to everything finds k in M documents and no more.

    >>> hit, reciprocal = retrieved([[1.0, 0.0], [0.0, 1.0]], [[1.0, 0.1], [1.0, 0.2]], k=1)
    >>> hit.tolist(), reciprocal.tolist()
    ([1.0, 1.0], [1.0, 1.0])
    """
    q, d = normalised(queries), normalised(documents)
    rows = len(q)
    numbers = np.arange(2 * rows).reshape(2, rows).T if texts is None else np.asarray(texts)[:, :2]
    document, first, place = np.unique(numbers[:, 1], return_index=True, return_inverse=True)  # place: (N,) which distinct document
    _, asked = np.unique(numbers[:, 0], return_inverse=True)
    relevant = sparse.csr_matrix((np.ones(rows, dtype=bool), (asked, place)), shape=(asked.max(initial=-1) + 1, len(document)))
    d = d[first]
    hits, reciprocal = np.empty(rows), np.empty(rows)
    for at in _chunks(rows, len(document)):
        near = q[at] @ d.T
        own = near[np.arange(len(at)), place[at]][:, None]
        aside = relevant[asked[at]].toarray() | (document == numbers[at, 0][:, None])  # these do not compete; nor does it with itself
        above = ((near > own + TIE) & ~aside).sum(-1)
        tied = ((np.abs(near - own) <= TIE) & ~aside).sum(-1)
        hits[at] = np.clip((k - above) / (tied + 1), 0.0, 1.0)
        reciprocal[at] = 1 / (above + 1 + tied / 2)
    return hits, reciprocal


def neighbour_overlap(a: ArrayLike, b: ArrayLike, k: int = 10) -> Array:
    """(N, D), (N, E) vectors of the same N things by two models → (N,) share of the k nearest others that both name, by cosine.

    Of fewer than k others all are near. Chance gives k / (N − 1).
    """
    x, y = normalised(a), normalised(b)
    rows = len(x)
    k = min(k, rows - 1)
    if k < 1:
        return np.full(rows, np.nan)
    found = np.empty(rows)
    for at in _chunks(rows, rows):
        both = np.ones((len(at), rows), dtype=bool)
        for v in (x, y):
            near = v[at] @ v.T
            near[np.arange(len(at)), at] = -np.inf
            chosen = np.zeros_like(both)
            np.put_along_axis(chosen, np.argpartition(-near, k - 1, axis=1)[:, :k], True, axis=1)
            both &= chosen
        found[at] = both.sum(-1) / k
    return found


def cka(a: ArrayLike, b: ArrayLike) -> float:
    """Linear CKA of (N, D) and (N, E), without bias: 1 where one is the other turned and scaled, about 0 where they have nothing in common.

    Kornblith et al. 2019, arXiv:1905.00414, with the unbiased HSIC of Song et al. 2012 (as Nguyen et al. 2021, arXiv:2010.15327, eq. 3):
    the plain estimate of D coordinates from N rows is about D / N too large. NaN for fewer than four rows, or where nothing varies.
    """
    x, y = (np.asarray(v, dtype=np.float64) for v in (a, b))
    if len(x) < 4:
        return float("nan")
    grams = [centred @ centred.T for centred in (v - v.mean(0) for v in (x, y))]
    for gram in grams:
        np.fill_diagonal(gram, 0.0)
    xx, yy, xy = (_hsic(grams[i], grams[j]) for i, j in ((0, 0), (1, 1), (0, 1)))
    return float(xy / np.sqrt(xx * yy)) if xx > 0 and yy > 0 else float("nan")


def _hsic(k: Array, m: Array) -> float:
    """n (n − 3) times the unbiased HSIC of two Gram matrices with empty diagonals."""
    n = len(k)
    by_k, by_m = k.sum(0), m.sum(0)
    return float((k * m).sum() + by_k.sum() * by_m.sum() / ((n - 1) * (n - 2)) - 2 / (n - 2) * (by_k @ by_m))


def _chunks(rows: int, width: int) -> Iterator[NDArray[np.intp]]:
    step = max(1, HELD // max(width, 1))
    for start in range(0, rows, step):
        yield np.arange(start, min(start + step, rows))
