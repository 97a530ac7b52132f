"""Many questions asked of the same rows: p-values adjusted for their number."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["benjamini_hochberg"]


def benjamini_hochberg(p: ArrayLike) -> NDArray[np.float64]:
    """Adjusted p-values (...,) → (...,): call those at most q discoveries, and on average a share q of these is false.

    pᵢ of rank i among m becomes min over j ≥ i of m pⱼ / j. Benjamini and Hochberg 1995; holds for independent tests and for those that
    are positively dependent, as groups compared on disjoint rows are. What was not tested is NaN: it stays NaN and does not count.

    >>> benjamini_hochberg([0.01, 0.04, 0.03, 0.5]).round(4).tolist()
    [0.04, 0.0533, 0.0533, 0.5]
    """
    p = np.asarray(p, dtype=np.float64)
    tested = ~np.isnan(p)
    q = p[tested]
    order = np.argsort(-q, kind="stable")
    rank = np.arange(len(q), 0, -1)  # of the largest first
    adjusted = np.empty_like(q)
    adjusted[order] = np.minimum.accumulate(np.minimum(q[order] * len(q) / rank, 1.0))
    out = np.full(p.shape, np.nan)
    out[tested] = adjusted
    return out
