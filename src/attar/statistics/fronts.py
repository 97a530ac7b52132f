"""Fronts of several objectives, less of each being better: which points no other beats, and how much they dominate."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from attar.errors import EvidenceError

__all__ = ["front", "hypervolume"]


def front(points: ArrayLike) -> NDArray[np.bool_]:
    """(n, d) → (n,) whether no other point is at least as small in every objective and smaller in one. Equal points are all kept.

    >>> front([[1, 3], [2, 2], [3, 3], [3, 1]]).tolist()
    [True, True, False, True]
    """
    p = _points(points)
    beaten = np.zeros(len(p), dtype=bool)
    for i, point in enumerate(p):
        beaten[i] = bool(((p <= point).all(1) & (p < point).any(1)).any())
    return ~beaten


def hypervolume(points: ArrayLike, reference: ArrayLike) -> float:
    """(n, d) points, d of 1 to 3, and a (d,) reference → the volume that is at least as large as a point and smaller than the reference.

    What lies beyond the reference in any objective adds nothing. Two fronts are compared by one reference and in one scale: a latency
    wants its logarithm. Zitzler and Thiele 1999. In three objectives the points are swept along the last, O(n² log n) in all.
    Raises EvidenceError for more objectives, or numbers that are none.

    >>> hypervolume([[1, 3], [2, 2], [3, 1]], [4, 4])
    6.0
    """
    p, end = _points(points), np.asarray(reference, np.float64)
    if end.shape != p.shape[1:] or not np.isfinite(end).all():
        raise EvidenceError(f"a reference of shape {end.shape} for {p.shape[1]} objectives", hint="one finite number for each objective")
    if p.shape[1] > 3:
        raise EvidenceError(f"a hypervolume of {p.shape[1]} objectives", hint="it is computed for up to three")
    return _volume(p[(p < end).all(1)], end)


def _volume(p: NDArray[np.float64], end: NDArray[np.float64]) -> float:
    """The same of points that all lie before the reference."""
    if not len(p):
        return 0.0
    if p.shape[1] == 1:
        return float(end[0] - p.min())
    p = p[np.argsort(p[:, -1], kind="stable")]
    if p.shape[1] == 2:
        reached = np.minimum.accumulate(p[:, 0])
        return float(((end[0] - reached) * np.diff(p[:, 1], append=end[1])).sum())
    steps = np.diff(p[:, -1], append=end[-1])
    return float(sum(_volume(p[: i + 1, :-1], end[:-1]) * step for i, step in enumerate(steps) if step > 0))


def _points(points: ArrayLike) -> NDArray[np.float64]:
    p = np.asarray(points, np.float64)
    if p.ndim != 2 or not p.shape[1] or not np.isfinite(p).all():
        raise EvidenceError(f"points of shape {p.shape}", hint="(n, objectives), all finite: leave out trials without a figure")
    return p
