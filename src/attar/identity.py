"""What a thing is called by its content: digests that are the same on every machine."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

__all__ = ["digest", "digest_file", "mix", "uniform"]

Part = str | bytes | int | float | bool | None | np.ndarray | Path


def digest(*parts: Part | Iterable[Part], size: int = 16) -> str:
    """A hexadecimal BLAKE2b digest of `parts`; type and length enter, so that ("ab", "c") is not ("a", "bc").

    size: bytes of the digest (16 gives 32 characters). A Path counts as its text, not as the file: see `digest_file`.
    """
    h = hashlib.blake2b(digest_size=size)
    for part in parts:
        _feed(h, part)
    return h.hexdigest()


def digest_file(path: str | Path, size: int = 16) -> str:
    """The digest of a file's bytes, read in pieces of 1 MiB."""
    h = hashlib.blake2b(digest_size=size)
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            h.update(piece)
    return h.hexdigest()


def mix(z: np.ndarray) -> np.ndarray:
    """(...) uint64 → (...) uint64, each bit of the answer depending on each bit of the question: splitmix64's step and finaliser."""
    with np.errstate(over="ignore"):
        z = z + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def uniform(ids: np.ndarray, salt: str) -> np.ndarray:
    """(N,) int64 ids → (N,) float64 in [0, 1), fixed by id and salt alone: row order and other rows change nothing.

    `mix` over id ⊕ hash(salt): enough to deal rows into splits and folds, not for cryptography.
    """
    seed = np.uint64(int.from_bytes(hashlib.blake2b(salt.encode(), digest_size=8).digest(), "little"))
    z = mix(np.asarray(ids).astype(np.int64).view(np.uint64) ^ seed)
    return (z >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _feed(h: hashlib.blake2b, part: Part | Iterable[Part]) -> None:
    if isinstance(part, np.ndarray):
        array = np.ascontiguousarray(part)
        h.update(f"a{array.dtype.str}{array.shape};".encode())
        h.update(array.tobytes())
    elif isinstance(part, bytes):
        h.update(f"b{len(part)};".encode() + part)
    elif part is None or isinstance(part, str | int | float | bool | Path):
        text = f"{type(part).__name__}:{part!r}" if not isinstance(part, Path) else f"str:{str(part)!r}"
        raw = text.encode()
        h.update(f"s{len(raw)};".encode() + raw)
    else:
        items = list(part)
        h.update(f"l{len(items)};".encode())
        for item in items:
            _feed(h, item)
