"""A law of what students of one family cost: a sum of prices times features, judged on exports that were left out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from attar.cost import Budget

__all__ = ["Law", "Laws", "spread"]


@dataclass(frozen=True)
class Law:
    """y = Σ price · feature, no price negative; its error is that on exports left out, one after another.

    error: mean |predicted / measured − 1|. spread: of |log(measured / predicted)|, what 90 % of one more export's stay within (split
    conformal, Lei et al. 2018, arXiv:1604.04173, over exports left out). Where exports ended because these figures were good, both are
    a little better than those of exports to come. held_out: (predicted, measured).
    """

    prices: NDArray[np.float64]
    error: float
    spread: float
    held_out: tuple[tuple[float, float], ...]

    @classmethod
    def fit(cls, features: NDArray[np.float64], y: NDArray[np.float64]) -> Law:
        """features: (n, k), not negative. y: (n,) positive. By least squares of relative errors (Lawson and Hanson's NNLS)."""
        predicted = np.array([float(features[i] @ _prices(np.delete(features, i, 0), np.delete(y, i))) for i in range(len(y))])
        ratio = predicted / y
        off = np.sort(np.abs(np.log(np.maximum(ratio, 1e-9))))
        rank = min(len(off), math.ceil(0.9 * (len(off) + 1)))
        return cls(
            _prices(features, y),
            float(np.abs(ratio - 1).mean()),
            float(off[rank - 1]),
            tuple(zip(predicted.tolist(), y.tolist(), strict=True)),
        )

    def __call__(self, features: Sequence[float]) -> float:
        return float(np.dot(self.prices, features))


def _prices(features: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    scale = np.maximum(features.max(0), 1e-12)
    found, _ = nnls(features / scale / y[:, None], np.ones(len(y)))
    return found / scale


def spread(features: NDArray[np.float64], count: int) -> list[int]:
    """Positions of `count` rows that lie far from each other, the extremes among them: farthest first, after logarithms (Gonzalez 1985).

    Rows that equal one which is there come last: they say how far apart two of a kind are measured.
    """
    scores = np.log1p(features)
    scores = (scores - scores.mean(0)) / np.maximum(scores.std(0), 1e-9)
    chosen = [int(np.argmax(np.abs(scores).sum(1)))]
    distance = np.full(len(scores), np.inf)
    while len(chosen) < min(count, len(scores)):
        distance = np.minimum(distance, np.linalg.norm(scores - scores[chosen[-1]], axis=1))
        distance[chosen] = -1
        chosen.append(int(distance.argmax()))
    return chosen


@dataclass(frozen=True)
class Laws:
    """A family's laws. size: bytes of the file. parameters: where shapes do not say them (of trees, which grow as they like)."""

    p95: Law
    p50: Law
    row_s: Law
    size: Law
    parameters: Law | None = None
    memory: Law | None = None

    def needed(self, bounds: Budget) -> dict[str, Law]:
        """Those that must hold: of latency and bytes, and of what else is bounded."""
        laws = {
            "latency_ms": self.p95,
            "rows_per_second": self.row_s,
            "size_mb": self.size,
            "parameters": self.parameters,
            "memory_mb": self.memory,
        }
        asked = {name: law for name, law in laws.items() if law is not None and getattr(bounds, name) is not None}
        return {"latency_ms": self.p95, "size_mb": self.size} | asked

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Laws:
        """From JSON, as `attar.certificate.plain` wrote it."""
        laws: dict[str, Any] = {f.name: None for f in fields(cls)}
        for name, law in plain.items():
            if law is not None:
                held_out = tuple((float(p), float(m)) for p, m in law["held_out"])
                laws[name] = Law(np.array(law["prices"], float), float(law["error"]), float(law["spread"]), held_out)
        return cls(**laws)
