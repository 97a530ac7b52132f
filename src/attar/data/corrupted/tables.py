"""Corruptions of tables: what forms, joins, units and new customers do to numbers and categories.

Which cells are hit grows with severity: a cell that is hit at one is hit at every higher one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from attar.data.draws import normals, uniforms
from attar.identity import mix
from attar.signal import Inputs, Schema

__all__ = ["KINDS", "changes"]

Change = Callable[[Mapping[str, Tensor], np.ndarray, int], Inputs]

MISSING = (0.05, 0.1, 0.2, 0.3, 0.5)  # share of cells
QUANTILE_NOISE = (0.02, 0.05, 0.1, 0.2, 0.3)  # standard deviation, as a share of the training rows in order of their values
UNITS = (0.02, 0.05, 0.1, 0.2, 0.4)  # share of cells
FACTORS = np.array([0.001, 0.1, 10.0, 1000.0])
SHUFFLE = (0.1, 0.2, 0.3, 0.5, 0.8)  # share of cells
UNSEEN = (0.1, 0.2, 0.4, 0.7, 1.0)  # share of cells

KINDS = {
    "missing": "values are not there",
    "quantile_noise": "numbers move by some ranks",
    "units": "numbers are in another unit: ÷1,000, ÷10, ×10 or ×1,000",
    "shuffle": "values are those of another training row",
    "unseen": "categories were never seen in training",
}


def changes(schema: Schema, reference: Mapping[str, Tensor]) -> dict[str, Change | str]:
    """What does each kind to rows of this schema; a text says why it cannot be done. reference: training rows."""
    real = np.array([column.kind == "number" for column in schema.numbers], dtype=bool)
    codes = [c for c in schema.categories if c.categories]
    rows = _Reference({name: block.numpy() for name, block in reference.items()}, real)
    found: dict[str, Change | str] = {
        "missing": missing,
        "quantile_noise": rows.quantile_noise if real.any() else "no column holds numbers",
        "units": rows.units if real.any() else "no column holds numbers",
        "shuffle": rows.shuffle,
        "unseen": unseen if codes else "no column holds categories",
    }
    return found


def missing(inputs: Mapping[str, Tensor], keys: np.ndarray, severity: int) -> Inputs:
    """Numbers become NaN; a category gets code 0, which means missing or never seen."""
    blank = {"numbers": np.nan, "categories": 0}
    return {
        name: torch.from_numpy(np.where(_hit(keys, name, block, MISSING[severity - 1]), blank[name], block.numpy()).astype(_dtype(block)))
        for name, block in inputs.items()
    }


def unseen(inputs: Mapping[str, Tensor], keys: np.ndarray, severity: int) -> Inputs:
    """A category gets code 0; numbers stay."""
    codes = inputs["categories"]
    return {**inputs, "categories": torch.where(torch.from_numpy(_hit(keys, "categories", codes, UNSEEN[severity - 1])), 0, codes)}


@dataclass(frozen=True)
class _Reference:
    """Training rows. real: (N,) bool, which of `numbers` are numbers; the others are booleans, which have no unit and no ranks."""

    blocks: Mapping[str, np.ndarray]
    real: np.ndarray

    def quantile_noise(self, inputs: Mapping[str, Tensor], keys: np.ndarray, severity: int) -> Inputs:
        """A number becomes the training value that stands N(0, σ²) further in order: it stays one that the column may have."""
        values = inputs["numbers"].numpy().copy()
        steps = QUANTILE_NOISE[severity - 1] * normals(mix(keys), values.shape[1])
        for j in np.flatnonzero(self.real).tolist():
            known = self.blocks["numbers"][:, j]
            known = np.sort(known[~np.isnan(known)])
            there = ~np.isnan(values[:, j])
            if not len(known):
                continue
            x = values[there, j]
            place = (np.searchsorted(known, x) + np.searchsorted(known, x, side="right")) / 2
            moved = np.clip(np.floor(place + steps[there, j] * len(known)), 0, len(known) - 1).astype(np.int64)
            still = np.abs(moved - place) < 1  # a value between two training values is not rounded to one
            values[there, j] = np.where(still, x, known[moved])
        return {**inputs, "numbers": torch.from_numpy(values)}

    def units(self, inputs: Mapping[str, Tensor], keys: np.ndarray, severity: int) -> Inputs:
        """A number is multiplied by one of FACTORS; one that would not fit into its type stays."""
        block = inputs["numbers"]
        values = block.numpy()
        with np.errstate(over="ignore"):
            factor = FACTORS[(uniforms(mix(keys + np.uint64(1)), values.shape[1]) * len(FACTORS)).astype(np.int64)]
            turned = (values * factor).astype(values.dtype)
        hit = _hit(keys, "units", block, UNITS[severity - 1]) & self.real & ~np.isinf(turned)
        return {**inputs, "numbers": torch.from_numpy(np.where(hit, turned, values))}

    def shuffle(self, inputs: Mapping[str, Tensor], keys: np.ndarray, severity: int) -> Inputs:
        """A cell is that of a training row, drawn for each cell: each column is distributed as before, and goes with the others no more."""
        out = {}
        for name, block in inputs.items():
            values, source = block.numpy(), self.blocks[name]
            with np.errstate(over="ignore"):
                drawn = uniforms(mix(keys + np.uint64(2)), values.shape[1])
            donors = np.take_along_axis(source, (drawn * len(source)).astype(np.int64), 0)
            out[name] = torch.from_numpy(np.where(_hit(keys, name, block, SHUFFLE[severity - 1]), donors, values))
        return out


def _hit(keys: np.ndarray, name: str, block: Tensor, share: float) -> np.ndarray:
    """(B, columns) bool: the cells that are hit."""
    salt = {"numbers": 3, "categories": 4, "units": 5}[name]
    with np.errstate(over="ignore"):
        return uniforms(mix(keys + np.uint64(salt)), block.shape[1]) < share


def _dtype(block: Tensor) -> np.dtype:
    return block.numpy().dtype
