"""MUNGE: synthetic unlabelled rows near the real ones, for the teacher to label."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from attar.data.columns import Raw
from attar.errors import DataError
from attar.notation import say

__all__ = ["Munge", "munge", "synthesise"]

REFERENCE = 50_000  # neighbours are looked for among as many rows, drawn by the seed, where there are more
BLOCK = 1024  # rows compared at a time: 1,024 × 50,000 distances are 200 MB


@dataclass(frozen=True)
class Munge:
    """How many synthetic rows, and how far from the real ones."""

    rows: float
    p: float
    s: float
    seed: int

    def __repr__(self) -> str:
        return say("munge", rows=self.rows, p=self.p, s=self.s, seed=self.seed)


def munge(rows: float = 2.0, p: float = 0.5, s: float = 1.0, seed: int = 0) -> Munge:
    """Synthetic rows for the training split, which the teacher labels. After Buciluă, Caruana, Niculescu-Mizil, KDD 2006, algorithm 1.

    rows: how many, as a multiple of the training rows.
    p: the chance, 0..1, that a value is replaced; a category by the nearest neighbour's, a number by a draw from
        N(neighbour's value, (distance to it / s)²).
    s: local variance: larger stays nearer to the neighbour.
    Expect a gain where the student is much weaker than the data allow, none where it is not. Whole-number columns stay whole,
    no value leaves the range of the training rows, and a synthetic row that equals a real one is dropped.

    >>> munge(rows=5)
    munge(rows=5.0, p=0.5, s=1.0, seed=0)
    """
    if not rows > 0:
        raise DataError(f"munge(rows={rows:g}) makes no rows", hint="rows is a multiple of the training rows, such as 2.0")
    if not 0 < p <= 1:
        raise DataError(f"munge(p={p:g}) is not a chance above 0, up to 1", hint="p=0.5")
    if not s > 0:
        raise DataError(f"munge(s={s:g}) is not positive", hint="s=1.0")
    return Munge(float(rows), float(p), float(s), int(seed))


def synthesise(spec: Munge, columns: list[Raw]) -> tuple[list[Raw], np.ndarray]:
    """Training rows as columns → synthetic rows as columns with the same texts, and (M,) the real row each one came from.

    Unlike AutoGluon's SPUNGE, which changes ⌊d/10⌋ columns and hence none of nine, each value has its chance whatever their number.
    """
    count = len(columns[0].values)
    if count < 2:
        raise DataError(f"munge needs two training rows, got {count}", hint="more rows")
    rng = np.random.default_rng(spec.seed)
    near = neighbours(columns, rng)
    total = round(spec.rows * count)
    passes = [np.arange(count)] * (total // count) + [np.sort(rng.permutation(count)[: total % count])]
    origin = np.concatenate(passes)
    made = []
    for column in columns:
        here, there = column.values[origin], column.values[near[origin]]
        swap = rng.random(total) < spec.p
        normal = rng.standard_normal(total)  # drawn for each column, so that a column's kind does not move the draws of the next
        if column.kind == "number":
            drawn = _between(column.values, there + np.abs(here - there) / spec.s * normal)
            there = np.where(np.isnan(here) | np.isnan(there), there, drawn)
        made.append(Raw(column.name, column.kind, np.where(swap, there, here), column.texts))
    return made, origin


def neighbours(columns: list[Raw], rng: np.random.Generator) -> np.ndarray:
    """(N,) for each row another one: the nearest that differs from it, by standardised numbers and unequal categories.

    A missing number stands at the mean; an unequal category counts as one standard deviation.
    """
    blocks = [block for column in columns for block in _coordinates(column)]
    points = torch.from_numpy(np.stack(blocks, axis=1).astype(np.float32))  # (N, D)
    count = len(points)
    among = np.sort(rng.choice(count, REFERENCE, replace=False)) if count > REFERENCE else np.arange(count)
    reference = points[torch.from_numpy(among)]
    square = (reference * reference).sum(1)
    best = np.empty(count, dtype=np.int64)
    for start in range(0, count, BLOCK):
        block = points[start : start + BLOCK]
        own = (block * block).sum(1, keepdim=True)
        distance = square + own - 2 * block @ reference.T  # (b, R)
        # The row itself and its equals are no neighbours: a mixture with them changes nothing. The bound is what cancellation leaves.
        distance[distance < 1e-4 + 4e-6 * own] = torch.inf
        nearest, at = distance.min(1)
        at = torch.where(nearest.isinf(), torch.arange(start, start + len(block)) % len(among), at)
        best[start : start + len(block)] = among[at.numpy()]
    return best


def _coordinates(column: Raw) -> list[np.ndarray]:
    if column.kind == "category":
        return [(column.values == code) / np.sqrt(2) for code in np.unique(column.values)]
    values = column.values
    known = ~np.isnan(values)
    if not known.any():
        return [np.zeros(len(values))]
    spread = values[known].std()
    return [np.where(known, values - values[known].mean(), 0) / (spread if spread > 0 else 1.0)]


def _between(real: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """`drawn` as `real` is: within its range, whole where it is whole, in single precision where that holds it."""
    known = real[~np.isnan(real)]
    if not len(known):
        return drawn
    if (known == np.round(known)).all():
        drawn = np.round(drawn)
    with np.errstate(over="ignore"):
        if (known == known.astype(np.float32)).all():
            drawn = drawn.astype(np.float32).astype(np.float64)
    return np.clip(drawn, known.min(), known.max())
