"""Many tests at once: how small a p has to be when it is the smallest of many."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["benjamini_hochberg"]


def benjamini_hochberg(p: ArrayLike) -> NDArray[np.float64]:
    """(m,) p values → (m,) adjusted ones: call those of at most q significant, and of them a share q at most is false on average.

    Step-up, min over j ≥ i of p₍ⱼ₎ m / j; holds for independent tests and for those that are positively dependent.
    Benjamini and Hochberg 1995. Raises ValueError for what is no p value.

    >>> benjamini_hochberg([0.01, 0.04, 0.03, 0.5]).round(4).tolist()
    [0.04, 0.0533, 0.0533, 0.5]
    """
    values = np.asarray(p, dtype=np.float64)
    if values.ndim != 1 or not ((values >= 0) & (values <= 1)).all():
        raise ValueError(f"p values of shape {values.shape} are not all between 0 and 1")
    order = np.argsort(values)[::-1]  # from the largest down
    scaled = values[order] * len(values) / np.arange(len(values), 0, -1)
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(np.minimum.accumulate(scaled), 1.0)
    return adjusted
