"""Principal components: the directions along which vectors differ most."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attar.errors import EvidenceError

__all__ = ["Components", "principal_components"]


@dataclass(frozen=True, eq=False)
class Components:
    """mean (D,), directions (k, D) of length 1, and the share of all variance that each explains, (k,), largest first."""

    mean: NDArray
    directions: NDArray
    explained: NDArray


def principal_components(vectors: NDArray, count: int) -> Components:
    """The first `count` principal components of (N, D) vectors: eigenvectors of their covariance.

    The sign of each is fixed by its largest coordinate, which is positive: the same rows give the same components on every machine, up to
    rounding. Computed in double precision from the (D, D) covariance; of a few hundred dimensions that is exact enough, and needs one
    pass over the rows. Raises EvidenceError where there are fewer rows or coordinates than components.

    >>> found = principal_components(np.array([[0.0, 0.0], [2.0, 2.0], [4.0, 4.0]]), 1)
    >>> found.mean, found.directions.round(3), found.explained
    (array([2., 2.]), array([[0.707, 0.707]]), array([1.]))
    """
    rows, width = vectors.shape
    if not 1 <= count <= min(rows, width):
        raise EvidenceError(f"{count} components of {rows} vectors of {width} coordinates", hint=f"{min(rows, width)} at most")
    values = np.asarray(vectors, dtype=np.float64)
    mean = values.mean(0)
    centred = values - mean
    spread, directions = np.linalg.eigh(centred.T @ centred / max(rows - 1, 1))  # ascending
    directions = directions[:, ::-1][:, :count].T  # (k, D)
    peak = directions[np.arange(count), np.abs(directions).argmax(1)]
    spread = np.maximum(spread[::-1], 0)
    share = spread / spread.sum() if spread.sum() > 0 else spread
    return Components(mean, directions * np.where(peak < 0, -1.0, 1.0)[:, None], share[:count])
