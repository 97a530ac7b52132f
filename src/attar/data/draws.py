"""Draws from a counter: numbers that depend on a key and a number alone, never on the order or the size of a batch."""

from __future__ import annotations

from functools import cache

import numpy as np
from scipy.special import ndtri

from attar.identity import mix

__all__ = ["normals", "uniform", "uniforms"]

STEP = np.uint64(0xD1B54A32D192ED03)
GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def uniform(keys: np.ndarray, number: int) -> np.ndarray:
    """(B,) uint64 keys → the draw of that number of each, (B,) float64 in [0, 1)."""
    with np.errstate(over="ignore"):
        z = mix(keys + np.uint64(number) * STEP)
    return _share(z)


def uniforms(keys: np.ndarray, each: int) -> np.ndarray:
    """(B,) uint64 keys → (B, each) float64 in [0, 1); the first columns are the same however many there are."""
    with np.errstate(over="ignore"):
        z = mix(keys[:, None] + np.arange(each, dtype=np.uint64) * GOLDEN)
    return _share(z)


def normals(keys: np.ndarray, each: int) -> np.ndarray:
    """(B,) uint64 keys → (B, each) float32, standard normal, each one of 65,536 quantiles."""
    # One 64-bit draw serves four numbers, 16 bits each.
    with np.errstate(over="ignore"):
        bits = mix(keys[:, None] + np.arange(-(-each // 4), dtype=np.uint64) * GOLDEN)
    return _quantiles()[bits.astype("<u8").view("<u2")[:, :each]]


@cache
def _quantiles() -> np.ndarray:
    return ndtri((np.arange(65536) + 0.5) / 65536).astype(np.float32)


def _share(z: np.ndarray) -> np.ndarray:
    return (z >> np.uint64(11)).astype(np.float64) * 2.0**-53
