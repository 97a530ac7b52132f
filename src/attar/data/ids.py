"""What a row is called: a hash of its content, the same on every machine and beside whatever other rows."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from attar.identity import mix

__all__ = ["number_keys", "row_ids", "tensor_ids", "text_key", "text_keys", "texts_ids"]

_MISSING = np.uint64(0x6D697373696E6721)


def text_key(text: str | bytes) -> np.uint64:
    """The 64-bit key of a text or of bytes: the first 8 bytes of its BLAKE2b digest."""
    raw = text.encode() if isinstance(text, str) else text
    return np.uint64(int.from_bytes(hashlib.blake2b(raw, digest_size=8).digest(), "little"))


def number_keys(values: np.ndarray) -> np.ndarray:
    """(N,) numbers → (N,) uint64: equal numbers have equal keys, whatever their type; −0 is 0, and all NaN are one."""
    values = np.asarray(values, dtype=np.float64) + 0.0  # −0.0 + 0.0 is 0.0
    return np.where(np.isnan(values), _MISSING, values.view(np.uint64))


def text_keys(codes: np.ndarray, texts: Sequence[str]) -> np.ndarray:
    """(N,) codes into `texts`, −1 where missing → (N,) uint64."""
    keys = np.array([text_key(t) for t in texts] + [_MISSING], dtype=np.uint64)
    return keys[codes]  # −1 is the last


def row_ids(keys: dict[str, np.ndarray]) -> np.ndarray:
    """Keys (N,) uint64 by column → (N,) int64 row ids; the order of the columns changes nothing, their names do."""
    with np.errstate(over="ignore"):
        total = sum((mix(k ^ text_key(name)) for name, k in keys.items()), start=np.uint64(0))
    return mix(np.asarray(total, dtype=np.uint64)).view(np.int64)


def tensor_ids(rows: np.ndarray) -> np.ndarray:
    """(N, ...) → (N,) int64, from the bytes of each row; −0 counts as 0."""
    if rows.dtype.kind == "f":
        rows = np.where(np.isnan(rows), np.nan, rows + 0.0).astype(rows.dtype)
    flat = np.ascontiguousarray(rows).reshape(len(rows), -1)
    return np.array([text_key(row.tobytes()) for row in flat], dtype=np.uint64).view(np.int64)


def texts_ids(columns: Sequence[Sequence[str]]) -> np.ndarray:
    """K columns of N texts, "" where one is not there → (N,) int64.

    The texts and their order name a row, not what the columns are called, nor how many may be there: a sentence alone is the same
    row wherever it is read.
    """
    total = np.zeros(len(columns[0]), dtype=np.uint64)
    for place, texts in enumerate(columns):
        keys = np.array([text_key(t) for t in texts], dtype=np.uint64)
        with np.errstate(over="ignore"):
            total += np.where([bool(t) for t in texts], mix(keys ^ text_key(str(place))), np.uint64(0))
    return mix(total).view(np.int64)
